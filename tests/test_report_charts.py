"""Numbers, charts and markup of the reports: what is drawn is as long, as high and where the figures say."""

from __future__ import annotations

import pytest

from tests.reports import Reader
from training.report.cells import mean_cell, number, percent, share_cell, stratum, table
from training.report.charts import ShareBar, count_bars, grouped_bars, share_bars
from training.report.curves import froc_chart
from training.report.dots import Dot, difference_dots, share_dots
from training.report.markup import Markup, tag
from training.report.plot import BLUE, x_at, y_at
from training.report.scatter import MAX_POINTS, volume_scatter

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def test_markup_escapes_all_but_markup() -> None:
    assert tag("b", "<i>", Markup("<i>"), 3, title='"&') == '<b title="&quot;&amp;">&lt;i&gt;<i>3</b>'
    assert tag("img", alt="x", width=None) == '<img alt="x">'
    assert tag("line", stroke_width=1.5, class_="a") == '<line stroke-width="1.5" class="a"></line>'


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 2, "–"), (0.126, 2, "0.13"), (-1.5, 1, "\u22121.5"), (-0.001, 2, "0.00"), (0, 0, "0"), (12, 1, "12.0")],
)
def test_number(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0, "0 %"), (1, "100 %"), (0.004, "< 1 %"), (0.996, "> 99 %"), (0.874, "87 %")]
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_cells() -> None:
    share = {"count": 41, "n": 47, "value": 41 / 47, "low": 0.748, "high": 0.94}
    assert share_cell(share).line() == "41 of 47, 87 % (75 to 94 %)"
    assert "<td>41 of 47<br><small>87 % (75 to 94 %)</small></td>" in table(("Share",), [(share_cell(share),)])
    assert share_cell({"count": 0, "n": 0, "value": None, "low": None, "high": None}).line() == "–"
    mean = {"mean": 0.7, "low": None, "high": None, "n": 3, "groups": 1, "note": "one source case: no interval"}
    assert mean_cell(mean, 2).line() == "0.70*"
    assert [stratum(0, 5), stratum(5, 10), stratum(20, None)] == ["below 5", "5 to 10", "20 and more"]


def test_share_bars_are_as_high_as_the_share() -> None:
    bars = [ShareBar("a", 1, 4, 0.1, 0.6), ShareBar("b", 4, 4, 0.5, 1.0), ShareBar("c", 0, 0, None, None)]
    drawn = Reader(share_bars(bars, "diameter (mm)", "found"))
    heights = drawn.numbers("rect", "height")
    assert heights[0] == pytest.approx(heights[1] / 4, abs=0.01)
    assert "1 of 4" in drawn.text
    assert "no tumors" in drawn.text


def test_grouped_bars_stand_side_by_side() -> None:
    first = [ShareBar("a", 2, 4, 0.2, 0.8), ShareBar("b", 0, 0, None, None)]
    second = [ShareBar("a", 1, 4, 0.1, 0.6), ShareBar("b", 0, 0, None, None)]
    drawn = Reader(grouped_bars({"touched": first, "IoU": second}, "diameter (mm)", "found"))
    bars = [found for name, found in drawn.elements if name == "rect" and "fill-opacity" in found]
    (left, right), heights = bars, [float(bar["height"] or 0) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.01)
    assert float(left["x"] or 0) + float(left["width"] or 0) <= float(right["x"] or 0)
    assert left["fill"] != right["fill"]
    for words in ("touched", "IoU", "50", "25", "n = 4", "no tumors"):
        assert words in drawn.words


def test_count_bars_of_nothing() -> None:
    assert Reader(count_bars({"0": 0, "1": 0}, "x", "y", BLUE)).numbers("rect", "height") == [0, 0]


def test_scatter_puts_equal_volumes_on_the_diagonal_and_has_a_place_for_zero() -> None:
    drawn = Reader(volume_scatter({"Liver tumor": [(0.5, 0.5), (30.0, 30.0), (2.0, 0.0), (0.0, 2.0)]}))
    at = list(zip(drawn.numbers("circle", "cx"), drawn.numbers("circle", "cy"), strict=True))
    diagonal = next(a for name, a in drawn.elements if name == "line" and "stroke-dasharray" in a)
    start, end = ((float(diagonal[f"x{k}"] or 0), float(diagonal[f"y{k}"] or 0)) for k in (1, 2))
    for x, y in at[:2]:
        assert (x - start[0]) * (end[1] - start[1]) == pytest.approx((y - start[1]) * (end[0] - start[0]), abs=5)
    assert at[2][1] > start[1]  # SVG's y points down: below the first decade
    assert at[3][0] < start[0]


def test_a_crowded_scatter_is_thinned_and_says_so() -> None:
    points = [(1.0 + k, 2.0) for k in range(2 * MAX_POINTS)]
    drawn = Reader(volume_scatter({"Liver tumor": points}))
    assert sum(name == "circle" for name, _ in drawn.elements) == MAX_POINTS
    assert "one sample in 2 shown" in drawn.text
    assert volume_scatter({}) != ""


def corners(*points: tuple[float, float]) -> list[tuple[float, float]]:
    """The line that is drawn for these operating points, as shares of both axes."""
    drawn = Reader(froc_chart({"Liver tumor": points}, RATES))
    path = next(found["points"] or "" for name, found in drawn.elements if name == "polyline")
    at = [tuple(map(float, corner.split(","))) for corner in path.split()]
    return [
        (round((x - x_at(0)) / (x_at(1) - x_at(0)), 2), round((y - y_at(0)) / (y_at(1) - y_at(0)), 2)) for x, y in at
    ]


def test_froc_rises_at_its_operating_points_and_is_flat_between() -> None:
    # The axis halves from 8 to 1/16: 7 steps, so that 0.5 lies 3 and 4 lies 6 steps from the left.
    assert corners((0.5, 0.4), (4.0, 0.6)) == [(0, 0), (0.43, 0), (0.43, 0.4), (0.86, 0.4), (0.86, 0.6), (1, 0.6)]
    assert corners((0.0, 0.3)) == [(0, 0), (0, 0), (0, 0.3), (1, 0.3)]
    assert corners((0.5, 0.4), (30.0, 0.9))[-1] == (1, 0.4)  # what lies beyond the axis does not lift the line
    assert corners() == [(0, 0), (1, 0)]


def test_dots_lie_on_their_axis() -> None:
    dots = [Dot("all", 0.5, 0.2, 1.0, "2 of 4"), Dot("none", None, None, None, "0 of 0")]
    drawn = Reader(share_dots(dots, "tumors found"))
    ticks = {word: at for word, at in zip(drawn.words, drawn.numbers("text", "x"), strict=True) if word.endswith("%")}
    (dot,) = drawn.numbers("circle", "cx")
    assert dot == pytest.approx((ticks["40 %"] + ticks["60 %"]) / 2, abs=0.02)
    whisker = next(found for name, found in drawn.elements if name == "line" and found["stroke"] == BLUE)
    assert (float(whisker["x1"] or 0), float(whisker["x2"] or 0)) == pytest.approx((ticks["20 %"], ticks["100 %"]))
    assert "0 of 0" in drawn.words


@pytest.mark.parametrize("reach", [0.0004, 0.07, 1.0, 37.0])
def test_differences_are_drawn_around_zero(reach: float) -> None:
    drawn = Reader(difference_dots([Dot("a", -reach / 2, -reach, 0.0), Dot("b", 0.0, 0.0, 0.0)], "b minus a"))
    at, ticks = drawn.numbers("circle", "cx"), dict(zip(drawn.words, drawn.numbers("text", "x"), strict=True))
    assert at[1] == ticks["0"]
    numbers = [word for word in ticks if word.lstrip("\N{MINUS SIGN}").replace(".", "").isdigit()]
    assert ticks[numbers[0]] <= at[0] < ticks["0"]
    assert 3 <= len(numbers) <= 5
