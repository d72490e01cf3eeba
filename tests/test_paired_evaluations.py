"""Two evaluations of the same samples, compared pair by pair."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from tests.scored import CLASSES, HEALTHY, labels, scored
from training.comparison import compare
from training.scoring import CaseResult, ScoreSettings
from training.summary import aggregate

FULL, PART, NONE = labels((2, 3)), labels((2, 2)), HEALTHY
# A source case each: truth, prediction of a, prediction of b.
CASES = [(FULL, PART, FULL)] * 3 + [(FULL, NONE, FULL), (FULL, FULL, PART), (HEALTHY, FULL, HEALTHY)]


def side(which: int, cases: list[Any] = CASES, **more: Any) -> list[CaseResult]:
    return [scored(case[0], case[which], f"s{k}", group=f"g{k}", **more) for k, case in enumerate(cases)]


def compared(a: list[CaseResult], b: list[CaseResult], **more: Any) -> dict[str, Any]:
    def records(results: list[CaseResult], name: str) -> list[Any]:
        return [record for result in results for record in getattr(result, name)]

    return compare(records(a, "scores"), records(b, "scores"), records(a, "lesions"), records(b, "lesions"), **more)


def row(record: dict[str, Any], table: str, class_name: str, measure: str) -> dict[str, Any]:
    (found,) = (row for row in record[table] if (row["class"], row["measure"]) == (class_name, measure))
    return found


RECORD = compared(side(1), side(2))
PART_DICE = 2 * 8 / (27 + 8)


def test_dice_worked_by_hand() -> None:
    """Over the five samples with tumor: b is better in four, worse in one."""
    dice = row(RECORD, "measures", "liver_tumor", "dice")
    assert (dice["n"], dice["groups"], dice["better"]) == (5, 5, "higher")
    assert dice["mean_a"] == pytest.approx((3 * PART_DICE + 0 + 1) / 5)
    assert dice["mean_b"] == pytest.approx((4 + PART_DICE) / 5)
    assert dice["difference"]["mean"] == pytest.approx(dice["mean_b"] - dice["mean_a"])
    assert dice["difference"]["low"] < dice["difference"]["mean"] < dice["difference"]["high"]
    # Differences d, d, d, 1, -d: of the 32 ways to flip, the totals as far from 0 as 2d + 1 are those that flip
    # none or one of the four equal ones against the rest, 1 + 4, and their mirrors.
    assert dice["permutation_p"] == pytest.approx(10 / 32)


def test_measures_of_an_organ_and_of_a_tumor() -> None:
    names = {name: [r["measure"] for r in RECORD["measures"] if r["class"] == name] for name in CLASSES}
    assert names["liver"] == ["dice", "nsd_2mm", "hd95_mm", "absolute_volume_error_ml"]
    assert names["liver_tumor"] == [
        *names["liver"],
        "false_positive_lesions",
        "false_positive_ml",
        "false_negative_ml",
    ]
    false = row(RECORD, "measures", "liver_tumor", "false_positive_ml")
    assert (false["n"], false["mean_a"], false["mean_b"]) == (6, pytest.approx(0.027 / 6), 0)
    hd95 = row(RECORD, "measures", "liver_tumor", "hd95_mm")
    assert hd95["n"] == 4  # a predicted nothing in one


def test_shares_worked_by_hand() -> None:
    found = row(RECORD, "shares", "liver_tumor", "tumors found (overlap)")
    assert (found["a"]["count"], found["b"]["count"], found["n"]) == (4, 5, 5)
    assert (found["both"], found["only_a"], found["only_b"], found["neither"]) == (4, 0, 1, 0)
    assert found["mcnemar_p"] == 1.0
    half = row(RECORD, "shares", "liver_tumor", "tumors found (iou_0.5)")
    assert (half["both"], half["only_a"], half["only_b"], half["neither"]) == (0, 1, 4, 0)  # 8 of 27 is below half
    assert half["mcnemar_p"] == pytest.approx(2 * (1 + 5) / 32)
    flagged = row(RECORD, "shares", "liver_tumor", "samples with tumor flagged")
    clean = row(RECORD, "shares", "liver_tumor", "samples without tumor left clean")
    assert (flagged["a"]["count"], flagged["b"]["count"], flagged["n"]) == (4, 5, 5)
    assert (clean["a"]["count"], clean["b"]["count"], clean["n"]) == (0, 1, 1)


def test_p_is_corrected_over_the_table() -> None:
    for table, p in (("measures", "wilcoxon_p"), ("measures", "permutation_p"), ("shares", "mcnemar_p")):
        raw = [found[p] for found in RECORD[table]]
        smallest = min(range(len(raw)), key=lambda k: raw[k])
        assert RECORD[table][smallest][f"{p}_holm"] == pytest.approx(min(1, raw[smallest] * len(raw)))
        assert all(found[f"{p}_holm"] >= found[p] for found in RECORD[table])


def test_the_other_way_round_the_sign_changes_and_p_does_not() -> None:
    turned = compared(side(2), side(1))
    for one, other in zip(RECORD["measures"], turned["measures"], strict=True):
        assert one["difference"]["mean"] == pytest.approx(-other["difference"]["mean"])
        assert one["permutation_p"] == pytest.approx(other["permutation_p"])
        assert one["wilcoxon_p"] == pytest.approx(other["wilcoxon_p"])
    for one, other in zip(RECORD["shares"], turned["shares"], strict=True):
        assert (one["only_a"], one["mcnemar_p"]) == (other["only_b"], other["mcnemar_p"])


def test_equal_evaluations_do_not_differ() -> None:
    record = compared(side(1), side(1))
    assert {found["difference"]["mean"] for found in record["measures"]} == {0.0}
    assert {found[p] for found in record["measures"] for p in ("wilcoxon_p", "permutation_p")} == {1.0}
    assert {found["mcnemar_p"] for found in record["shares"]} == {1.0}


def test_samples_of_one_source_case_are_one_witness() -> None:
    """b is better in 30 samples of two source cases: no test may call that certain."""
    a, b = (
        [replace_group(result, f"g{k % 2}") for k, result in enumerate(side(which, [(FULL, PART, FULL)] * 30))]
        for which in (1, 2)
    )
    dice = row(compared(a, b), "measures", "liver_tumor", "dice")
    assert (dice["n"], dice["groups"], dice["difference"]["low"]) == (30, 2, None)
    assert dice["permutation_p"] == dice["wilcoxon_p"] == 0.5


def replace_group(result: CaseResult, group: str) -> CaseResult:
    scores = tuple(replace(score, group=group) for score in result.scores)
    return CaseResult(scores, tuple(replace(lesion, group=group) for lesion in result.lesions))


def test_all_tumors_stand_beside_several_classes() -> None:
    classes = CLASSES | {"kidney": 5, "kidney_tumor": 6}
    truth = labels((2, 3))
    truth[10, 10, 6] = 6
    both = truth.copy()
    sides = [side(which, [(truth, HEALTHY, both)] * 5, classes=classes) for which in (1, 2)]
    record = compared(*sides)
    assert "all_tumors" not in {found["class"] for found in RECORD["measures"]}
    dice = row(record, "measures", "all_tumors", "dice")
    assert (dice["n"], dice["groups"], dice["mean_a"], dice["mean_b"]) == (10, 5, 0, 1)
    missed = row(record, "measures", "all_tumors", "false_negative_ml")
    assert (missed["n"], missed["mean_a"], missed["mean_b"]) == (5, pytest.approx(0.028), 0)
    found = row(record, "shares", "all_tumors", "tumors found (overlap)")
    assert (found["n"], found["only_b"]) == (10, 10)


def test_means_are_those_of_the_summary() -> None:
    b = side(2)
    summary = aggregate([s for r in b for s in r.scores], [t for r in b for t in r.lesions])["classes"]["liver_tumor"]
    for measure in ("dice", "nsd_2mm", "hd95_mm"):
        if row(RECORD, "measures", "liver_tumor", measure)["n"] == summary[measure]["n"]:
            assert row(RECORD, "measures", "liver_tumor", measure)["mean_b"] == pytest.approx(summary[measure]["mean"])
    found = row(RECORD, "shares", "liver_tumor", "tumors found (overlap)")["b"]
    assert found == summary["lesions"]["sensitivity"]


def test_the_order_of_records_does_not_matter() -> None:
    a, b = side(1), side(2)
    random.Random(0).shuffle(a)
    assert compared(a, b) == RECORD
    assert json.loads(json.dumps(RECORD, allow_nan=False)) == RECORD
    assert RECORD["pairs"] == {"samples": 6, "source_cases": 6}


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (side(1), side(2)[:-2], r"a but not b was scored on s4 \(liver\), s4 \(liver_tumor\), s5"),
        (side(1)[1:], side(2), r"b but not a was scored on s0 \(liver\)"),
        (side(1), side(2, [(PART, FULL, FULL), *CASES[1:]]), "s0: the truth of liver_tumor has 27 voxels in a and 8"),
        (side(1), side(2, settings=ScoreSettings(min_lesion_mm3=28)), "same true tumors in s0, s1"),
    ],
)
def test_what_cannot_be_paired_is_refused(a: list[CaseResult], b: list[CaseResult], said: str) -> None:
    with pytest.raises(InputError, match=said):
        compared(a, b)


def test_nothing_compared_with_nothing() -> None:
    record = compare([], [], [], [])
    assert (record["measures"], record["shares"], record["pairs"]["samples"]) == ([], [], 0)


def test_figures_that_do_not_exist_have_no_p() -> None:
    record = compared(side(1, [(HEALTHY, FULL, HEALTHY)] * 5), side(2, [(HEALTHY, FULL, HEALTHY)] * 5))
    dice = row(record, "measures", "liver_tumor", "dice")
    assert (dice["n"], dice["mean_a"], dice["wilcoxon_p"], dice["permutation_p_holm"]) == (0, None, None, None)
    found = row(record, "shares", "liver_tumor", "tumors found (overlap)")
    assert (found["n"], found["a"]["value"], found["mcnemar_p"]) == (0, None, None)
    clean = row(record, "shares", "liver_tumor", "samples without tumor left clean")
    assert clean["mcnemar_p"] == pytest.approx(2 / 32)
    assert np.isfinite(clean["mcnemar_p_holm"])
