"""The report folder: complete, self-contained, escaped, and in plain words for every kind of result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, PhantumorError
from training.report import Example, choose_examples, write_report
from training.report.cells import mean_cell, number, percent, share_cell, stratum
from training.report.charts import MAX_POINTS, ShareBar, count_bars, share_bars, volume_scatter
from training.report.examples import picture, shown_box, shown_slice
from training.report.markup import Markup, tag
from training.report.page import headline, page
from training.scoring import CaseResult, score_case
from training.summary import aggregate

CLASSES = {"background": 0, "liver": 1, "liver_tumor": 2}
CONTEXT = {"Run": "runs/liver", "Dataset": "liver-1k", "Config digest": "a3f9"}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)> & 'quoted'"


def labels(*corners: int, size: int = 2) -> np.ndarray:
    """A liver of 14 x 10 x 6 voxels with a tumor at each (corner, 3, 2)."""
    out = np.zeros((16, 12, 8), np.uint8)
    out[1:15, 1:11, 1:7] = 1
    for x in corners:
        out[x : x + size, 3 : 3 + size, 2 : 2 + size] = 2
    return out


def scored(
    case_id: str, truth: np.ndarray, prediction: np.ndarray, group: str | None = None, **more: Any
) -> CaseResult:
    return score_case(case_id, truth, prediction, 2.0, more.get("classes", CLASSES), group=group)


FOUND = scored("found", labels(2, 8), labels(2), "ct1")
MISSED = scored("missed", labels(3), labels(), "ct2")
CLEAN = scored("clean", labels(), labels(), "ct3")
ALARM = scored("alarm", labels(), labels(5), "ct4")


def summary(results: Iterable[CaseResult]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    scores = [score for result in results for score in result.scores]
    lesions = [lesion for result in results for lesion in result.lesions]
    return aggregate(scores, lesions, resamples=50), scores, lesions


def html_of(*results: CaseResult) -> str:
    metrics, scores, lesions = summary(results)
    return page(metrics, scores, lesions, [], CONTEXT)


def example(case_id: str = "found", caption: str = "Best outline") -> Example:
    ct = np.full((16, 12, 8), 40, np.int16)
    return Example(case_id, ct, labels(2, 8), labels(2), 2.0, caption)


class Reader(HTMLParser):
    """Visible text, tags with attributes, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# The folder


def test_the_folder_is_complete(tmp_path: Path) -> None:
    metrics, scores, lesions = summary([FOUND, MISSED, CLEAN, ALARM])
    out = tmp_path / "new" / "report"
    assert write_report(out, metrics, scores, lesions, [example()], CONTEXT) == out / "report.html"
    names = ["cases.parquet", "lesions.parquet", "metrics.json", "report.html"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert json.loads((out / "metrics.json").read_text()) == metrics | {"context": CONTEXT}
    cases, found = pq.read_table(out / "cases.parquet"), pq.read_table(out / "lesions.parquet")
    assert cases.num_rows == len(scores) == 8
    assert cases.to_pylist()[1] == {name: getattr(scores[1], name) for name in cases.column_names}
    assert found.num_rows == len(lesions) == 5
    assert found.to_pylist()[0] == {name: getattr(lesions[0], name) for name in found.column_names}


def test_tables_keep_their_columns_without_rows(tmp_path: Path) -> None:
    metrics, scores, lesions = summary([CLEAN])
    write_report(tmp_path / "one", metrics, scores, lesions, [], {})
    write_report(tmp_path / "none", aggregate([], []), [], [], [], {})
    for name in ("cases.parquet", "lesions.parquet"):
        one, none = (pq.read_table(tmp_path / folder / name) for folder in ("one", "none"))
        assert none.num_rows == 0
        assert none.schema.equals(one.schema)


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    for result in (FOUND, CLEAN):
        report = write_report(tmp_path, *summary([result]), [], CONTEXT)
    assert "No tumors to find" in report.read_text()
    assert pq.read_table(tmp_path / "cases.parquet").column("case_id").to_pylist() == ["clean", "clean"]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PhantumorError, match="cannot write to"):
        write_report(tmp_path / "file", *summary([FOUND]), [], CONTEXT)


# Self-contained and safe


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    report = write_report(tmp_path, *summary([FOUND, MISSED, CLEAN, ALARM]), [example()], CONTEXT)
    text = report.read_text()
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    assert not re.search(r"url\(|@import", text)
    page = Reader(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "base", "use"} & {name for name, _ in page.elements}
    for _, attributes in page.elements:
        assert not {"href", "xlink:href", "srcset", "action"} & set(attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    assert sum(name == "img" for name, _ in page.elements) == 1


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    missed = scored(HOSTILE, labels(3), labels())
    report = write_report(tmp_path, *summary([missed]), [example(HOSTILE, HOSTILE)], {HOSTILE: HOSTILE}).read_text()
    page = Reader(report)
    assert page.open == []
    assert "script" not in {name for name, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count("alert(1)") == 5  # caption twice, missed tumor, context twice


def test_markup_escapes_all_but_markup() -> None:
    assert tag("b", "<i>", Markup("<i>"), 3, title='"&') == '<b title="&quot;&amp;">&lt;i&gt;<i>3</b>'
    assert tag("img", alt="x", width=None) == '<img alt="x">'
    assert tag("line", stroke_width=1.5, class_="a") == '<line stroke-width="1.5" class="a"></line>'


# What it says

ORGANS_ONLY = scored("a", labels(2), labels(2), classes={"background": 0, "liver": 1})


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([FOUND, MISSED, CLEAN, ALARM], "Found 1 of 3 tumors."),
        ([MISSED], "Found 0 of 1 tumor."),
        ([CLEAN, ALARM], "No tumors to find; 1 of 2 healthy samples free of false tumors."),
        ([ORGANS_ONLY], "1 sample evaluated, for organs only."),
        ([], "Nothing was evaluated: there are no samples."),
    ],
)
def test_headline(results: list[CaseResult], said: str) -> None:
    assert headline(summary(results)[0]) == said
    page = Reader(html_of(*results))
    assert page.open == []
    assert said in page.text
    assert "Research software, not for clinical use" in page.text


@pytest.mark.parametrize(
    ("results", "warned"),
    [
        ([FOUND, CLEAN], set()),
        ([FOUND, MISSED], {"No healthy sample was evaluated"}),
        ([CLEAN, ALARM], {"The truth holds no tumor"}),
        ([FOUND, scored("b", labels(), labels(), "ct1")], {"All samples come from one source case"}),
        ([FOUND, CLEAN, scored("b", labels(), labels(), "ct1")], {"Several samples share a source case"}),
        ([ORGANS_ONLY], set()),
    ],
)
def test_warnings(results: list[CaseResult], warned: set[str]) -> None:
    html = html_of(*results)
    assert html.count('class="warning"') == len(warned)
    assert all(warning in html for warning in warned)


def test_the_reader_sees_the_figures() -> None:
    text = Reader(html_of(FOUND, MISSED, CLEAN, ALARM)).text
    for said in (
        "1 of 2 predicted tumors touched no true tumor",
        "1 of 2 healthy samples stayed free of false tumors.",
        "4 samples from 4 source cases: 2 with tumor, 2 healthy.",
        "Largest missed tumors (2 of 2)",
        "Largest false tumors (1 of 1)",
        "runs/liver",
    ):
        assert said in text


def test_sections_without_content_are_left_out() -> None:
    everything, no_healthy, organs = html_of(FOUND, CLEAN), html_of(FOUND), html_of(ORGANS_ONLY)
    assert "False alarms on healthy samples" in everything
    assert "False alarms on healthy samples" not in no_healthy
    assert "Detection" not in organs
    assert "Outlines" in organs


def test_definitions_are_in_the_report() -> None:
    text = Reader(html_of(FOUND)).text
    for definition in aggregate([], [])["definitions"].values():
        assert definition in text


# Numbers and charts


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
    assert share_cell(share) == "41 of 47<br><small>87 % (75 to 94 %)</small>"
    assert share_cell({"count": 0, "n": 0, "value": None, "low": None, "high": None}) == "–"
    mean = {"mean": 0.7, "low": None, "high": None, "n": 3, "groups": 1, "note": "one source case: no interval"}
    assert mean_cell(mean, 2) == "0.70*"
    assert [stratum(0, 5), stratum(5, 10), stratum(20, None)] == ["below 5", "5 to 10", "20 and more"]


def test_share_bars_are_as_high_as_the_share() -> None:
    bars = [ShareBar("a", 1, 4, 0.1, 0.6), ShareBar("b", 4, 4, 0.5, 1.0), ShareBar("c", 0, 0, None, None)]
    drawn = Reader(share_bars(bars, "diameter (mm)", "found"))
    heights = [float(attributes["height"] or 0) for name, attributes in drawn.elements if name == "rect"]
    assert heights[0] == pytest.approx(heights[1] / 4, abs=0.01)
    assert "1 of 4" in drawn.text
    assert "no tumors" in drawn.text


def test_count_bars_of_nothing() -> None:
    drawn = Reader(count_bars({"0": 0, "1": 0}, "x", "y", "#000"))
    assert [attributes["height"] for name, attributes in drawn.elements if name == "rect"] == ["0", "0"]


def test_scatter_puts_equal_volumes_on_the_diagonal_and_has_a_place_for_zero() -> None:
    drawn = Reader(volume_scatter({"Liver tumor": [(0.5, 0.5), (30.0, 30.0), (2.0, 0.0), (0.0, 2.0)]}))
    at = [(float(a["cx"] or 0), float(a["cy"] or 0)) for name, a in drawn.elements if name == "circle"]
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


# Examples


def test_examples_are_the_worst_the_median_the_best_and_the_worst_alarm() -> None:
    results = [
        scored("best", labels(2), labels(2)),
        scored("middle", labels(2, 8), labels(2)),
        scored("worst", labels(3), labels()),
        scored("small alarm", labels(), labels(5, size=1)),
        ALARM,
        CLEAN,
    ]
    assert choose_examples(summary(results)[1]) == {
        "worst": "Worst outline (tumor Dice 0.00)",
        "middle": "Median outline (tumor Dice 0.67)",
        "best": "Best outline (tumor Dice 1.00)",
        "alarm": "Healthy sample with most false tumor (0.06 ml)",
    }


def test_examples_of_few_samples() -> None:
    assert choose_examples(summary([FOUND])[1]) == {"found": "Worst and median and best outline (tumor Dice 0.67)"}
    assert choose_examples(summary([CLEAN])[1]) == {"clean": "Worst and median and best outline (organ Dice 1.00)"}
    assert choose_examples([]) == {}


def test_shown_slice() -> None:
    truth, prediction = labels(), labels()
    truth[:, :, 6] = 1  # the organ is largest here
    assert shown_slice(truth, prediction) == 6
    prediction[4:6, 4:6, 3] = 2
    assert shown_slice(truth, prediction) == 3
    truth[4, 4, 1:3] = 2
    truth[4, 5, 2] = 2
    assert shown_slice(truth, prediction) == 2
    assert shown_slice(np.zeros((4, 4, 6), np.uint8), np.zeros((4, 4, 6), np.uint8)) == 3


@pytest.mark.parametrize(
    ("corner", "spacing_mm", "expected"),
    [
        (2, 2.0, (slice(0, 16), slice(0, 12), 2)),  # smaller than the window: all of it
        (2, (20.0, 40.0, 1.0), (slice(0, 8), slice(2, 6), 2)),  # at the edge: moved inside
        (7, (20.0, 40.0, 1.0), (slice(4, 12), slice(2, 6), 2)),
        (7, (500.0, 500.0, 1.0), (slice(7, 9), slice(3, 5), 2)),  # never less than the tumor
    ],
)
def test_large_slices_are_cut_around_the_tumor(
    corner: int, spacing_mm: float | tuple[float, float, float], expected: tuple[slice, slice, int]
) -> None:
    assert shown_box(labels(corner), labels(), spacing_mm) == expected


def test_a_sample_without_labels_is_shown_whole() -> None:
    nothing = np.zeros((16, 12, 8), np.uint8)
    assert shown_box(nothing, nothing, 20.0) == (slice(0, 16), slice(0, 12), 4)


def test_pictures_are_png_and_show_the_prediction() -> None:
    shown = example()
    png = picture(shown)
    assert png.startswith(b"\x89PNG\r\n")
    assert picture(replace(shown, prediction=labels())) != png


def test_an_example_of_two_grids_is_refused() -> None:
    with pytest.raises(InputError, match="found"):
        replace(example(), prediction=labels()[:-1])
