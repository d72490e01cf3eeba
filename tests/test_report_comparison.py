"""The page of two compared evaluations: it says what was shown, and never more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reports import HOSTILE, Reader, assert_loads_nothing, labels, scored, summary
from training.comparison import compare
from training.records import CaseResult, ScoreSettings
from training.report import write_comparison
from training.report.cells import p_value, signed
from training.report.verdict import comparison_opening, headline

CONTEXT = {"a": "evaluations/first", "b": "evaluations/second"}


def side(*predictions: np.ndarray, truth: np.ndarray | None = None, groups: int | None = None) -> list[CaseResult]:
    """One sample a prediction; `groups` source cases, by turns, or one for each sample."""
    count = groups or len(predictions)
    true = labels(2, 8) if truth is None else truth
    return [scored(f"s{k:02}", true, prediction, f"ct{k % count}") for k, prediction in enumerate(predictions)]


def record_of(a: list[CaseResult], b: list[CaseResult]) -> dict[str, Any]:
    (_, scores_a, lesions_a), (_, scores_b, lesions_b) = summary(a), summary(b)
    return compare(scores_a, scores_b, lesions_a, lesions_b, ScoreSettings(resamples=200))


GOOD, HALF, POOR = labels(2, 8), labels(2), labels()
BETTER = record_of(side(*[HALF] * 14), side(*[GOOD] * 14))
WORSE = record_of(side(*[GOOD] * 14), side(*[HALF] * 14))
ALIKE = record_of(side(*[HALF, GOOD] * 7), side(*[GOOD, HALF] * 7))


def test_what_is_shown_is_in_the_headline() -> None:
    said = headline(BETTER)
    assert said.startswith("Of 12 figures, b is better in ")
    assert "(Liver tumor: Dice, " in said
    assert "a is better" not in said
    assert headline(WORSE) == said.replace("b is better", "a is better")


def test_a_lower_figure_may_be_the_better_one() -> None:
    # Only a has false tumors; both find the true ones.
    false = record_of(side(*[labels(2, 12)] * 14, truth=HALF), side(*[HALF] * 14, truth=HALF))
    said = headline(false)
    assert "b is better in" in said
    assert "a is better" not in said
    tiles = {tile.name: tile.value for tile in comparison_opening(false).tiles}
    assert tiles["Liver tumor: false tumors a sample"] == "\N{MINUS SIGN}1.00"


def test_no_difference_is_not_called_equal() -> None:
    opening = comparison_opening(ALIKE)
    assert opening.headline == "No difference shown between a and b in 14 source cases."
    (warning,) = opening.warnings  # 28 tumors of 14 cases
    assert "share a source case" in warning
    (lead,) = opening.leads
    assert "does not mean equal" in lead
    difference = next(row for row in ALIKE["measures"] if (row["class"], row["measure"]) == ("liver_tumor", "dice"))
    assert f"{difference['difference']['high']:.3f}" in lead


def test_few_source_cases_cannot_show_anything() -> None:
    opening = comparison_opening(record_of(side(*[POOR] * 3), side(*[GOOD] * 3)))
    assert opening.headline == "No difference shown between a and b in 3 source cases."
    assert len(opening.warnings) == 2
    assert "3 source cases cannot show a difference" in opening.warnings[0]
    assert "too few for an interval" in opening.leads[0]


def test_tumors_of_a_patient_each_are_counted_as_the_patients_they_are() -> None:
    one = labels(2)
    record = record_of(side(*[labels()] * 14, truth=one), side(*[one] * 14, truth=one))
    assert headline(record).startswith("Of 14 figures, ")  # 11 without shares
    assert comparison_opening(record).warnings == []


def test_tumors_of_one_patient_are_not_taken_as_many_patients() -> None:
    """McNemar's p of 28 tumors is small, but they come from 2 CTs."""
    record = record_of(side(*[POOR] * 14, groups=2), side(*[GOOD] * 14, groups=2))
    assert min(row["mcnemar_p_holm"] for row in record["shares"] if row["n"]) < 0.001
    opening = comparison_opening(record)
    assert opening.headline == "No difference shown between a and b in 2 source cases."
    assert any("share a source case" in warning for warning in opening.warnings)


def test_nothing_to_compare() -> None:
    assert headline(record_of([], [])).startswith("Nothing was compared")


def test_organs_alone_are_compared() -> None:
    organs = {"background": 0, "liver": 1}
    a, b = ([scored(f"s{k}", GOOD, seen, classes=organs) for k in range(14)] for seen in (labels()[::-1], labels()))
    opening = comparison_opening(record_of(a, b))
    assert [tile.name for tile in opening.tiles] == ["Liver: Dice", "Liver: surface Dice 2 mm"]


def test_the_folder_holds_the_record_and_both_pages(tmp_path: Path) -> None:
    out = tmp_path / "new" / "comparison"
    assert write_comparison(out, BETTER, CONTEXT) == out / "report.html"
    assert sorted(path.name for path in out.iterdir()) == ["comparison.json", "report.html", "report.md"]
    assert json.loads((out / "comparison.json").read_text()) == BETTER | {"context": CONTEXT}
    text, markdown = assert_loads_nothing((out / "report.html").read_text()).text, (out / "report.md").read_text()
    for said in (headline(BETTER), "evaluations/second", "p after Holm, Wilcoxon (before)", "14 of 28"):
        assert said in text
        assert said in markdown
    for definition in BETTER["definitions"].values():
        assert definition in text
    row = next(line for line in reversed(markdown.splitlines()) if line.startswith("| Liver tumor: Dice |"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:4] == ["14 (14)", "0.667", "1.000"]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    report = write_comparison(tmp_path, ALIKE, {HOSTILE: HOSTILE})
    assert assert_loads_nothing(report.read_text()).text.count("alert(1)") == 2


def test_intervals_of_a_unit_share_their_axis(tmp_path: Path) -> None:
    page = Reader(write_comparison(tmp_path, BETTER, CONTEXT).read_text())
    assert "On the right of 0 b is better." in page.text
    assert "On the left of 0 b is better." in page.text
    assert sum(name == "svg" for name, _ in page.elements) == 4  # shares, mm, ml, tumors a sample


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.00004, "< 0.001"), (0.0123, "0.012"), (0.4567, "0.46")])
def test_p_value(p: float | None, text: str) -> None:
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.012, "+0.01"), (-0.012, "\N{MINUS SIGN}0.01"), (0.001, "0.00"), (-0.001, "0.00")],
)
def test_signed(value: float | None, text: str) -> None:
    assert signed(value, 2) == text
