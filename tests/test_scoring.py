"""From label arrays to records, and from records to the figures of metrics.json."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from training.intervals import cluster_mean, proportion, wilson
from training.scoring import CaseResult, CaseScore, LesionRecord, score_case
from training.summary import DIAMETER_STRATA_MM, aggregate

CLASSES = {"background": 0, "liver": 1, "liver_tumor": 2}
SHAPE = (12, 12, 8)


def labels(*tumors: tuple[int, int], tumor: int = 2) -> np.ndarray:
    """A liver of 10 x 10 x 6 voxels with cubic tumors, each given as (x, size) with a corner at (x, 2, 2)."""
    out = np.zeros(SHAPE, np.uint8)
    out[1:11, 1:11, 1:7] = 1
    for x, size in tumors:
        out[x : x + size, 2 : 2 + size, 2 : 2 + size] = tumor
    return out


def scored(truth: np.ndarray, prediction: np.ndarray, case_id: str = "a", **more: Any) -> CaseResult:
    return score_case(case_id, truth, prediction, more.pop("spacing_mm", 1.0), more.pop("classes", CLASSES), **more)


def by_class(result: CaseResult) -> dict[str, CaseScore]:
    return {score.class_name: score for score in result.scores}


def figures(*results: CaseResult, **more: Any) -> dict[str, Any]:
    scores = [score for result in results for score in result.scores]
    return aggregate(scores, [lesion for result in results for lesion in result.lesions], **more)


HEALTHY = labels()
FOUND = scored(labels((2, 2), (6, 3)), labels((2, 2)), "found", group="ct1")  # one of two tumors
MISSED = scored(labels((2, 2)), HEALTHY, "missed", group="ct2")
CLEAN = scored(HEALTHY, HEALTHY, "clean", group="ct3")
ALARM = scored(HEALTHY, labels((2, 1), (6, 2)), "alarm", group="ct3")  # two false tumors, 9 voxels


# One sample


def test_an_organ_holds_its_tumors() -> None:
    organ = by_class(scored(labels((2, 3)), HEALTHY))["liver"]
    assert organ.dice == organ.nsd_2mm == 1.0
    assert organ.hd95_mm == 0
    assert organ.truth_voxels == organ.predicted_voxels == 600
    assert organ.truth_lesions is organ.false_positive_ml is None


def test_a_tumor_found_with_a_second_missed() -> None:
    score = by_class(FOUND)["liver_tumor"]
    assert score.dice == pytest.approx(2 * 8 / (8 + 27 + 8))
    assert (score.truth_lesions, score.found_lesions, score.predicted_lesions) == (2, 1, 1)
    assert (score.false_positive_lesions, score.false_positive_ml) == (0, 0)
    assert not score.healthy
    assert (score.group, score.organ, score.tumor) == ("ct1", "liver", True)


def test_false_tumors_of_a_healthy_sample() -> None:
    score = by_class(scored(HEALTHY, labels((2, 1), (6, 2)), spacing_mm=(1.0, 2.0, 5.0)))["liver_tumor"]
    assert score.healthy
    assert score.dice == score.nsd_2mm == 0
    assert score.hd95_mm is None
    assert (score.false_positive_lesions, score.predicted_lesions) == (2, 2)
    assert score.false_positive_ml == pytest.approx(0.09)
    assert score.predicted_ml == pytest.approx(0.09)


def test_nothing_there_and_nothing_predicted_is_undefined() -> None:
    score = by_class(CLEAN)["liver_tumor"]
    assert score.dice is score.nsd_2mm is score.hd95_mm is None
    assert score.healthy
    assert (score.truth_lesions, score.predicted_lesions) == (0, 0)


def test_a_missed_tumor_scores_zero() -> None:
    score = by_class(MISSED)["liver_tumor"]
    assert score.dice == score.nsd_2mm == 0
    assert score.hd95_mm is None


def test_lesion_records() -> None:
    true = [lesion for lesion in FOUND.lesions if lesion.source == "truth"]
    predicted = [lesion for lesion in FOUND.lesions if lesion.source == "prediction"]
    assert {lesion.volume_mm3: lesion.matched for lesion in true} == {8.0: True, 27.0: False}
    assert {lesion.volume_mm3: lesion.iou for lesion in true} == {8.0: 1.0, 27.0: 0.0}
    assert [(lesion.matched, lesion.iou) for lesion in predicted] == [(True, None)]
    assert (predicted[0].centroid_x_vox, predicted[0].centroid_y_vox, predicted[0].centroid_z_vox) == (2.5, 2.5, 2.5)


def test_a_tumor_predicted_in_the_wrong_organ_is_missed_and_false() -> None:
    classes = CLASSES | {"kidney": 5, "kidney_tumor": 6}
    result = by_class(scored(labels((2, 2)), labels((2, 2), tumor=6), classes=classes))
    assert (result["liver_tumor"].found_lesions, result["kidney_tumor"].false_positive_lesions) == (0, 1)


def test_classes_left_out_are_not_scored_but_decide_what_is_healthy() -> None:
    only_kidney = {"background": 0, "kidney": 5, "kidney_tumor": 6}
    result = by_class(scored(labels((2, 2)), labels((2, 2)), classes=only_kidney))
    assert set(result) == {"kidney", "kidney_tumor"}
    assert not result["kidney_tumor"].healthy


def test_the_sample_is_its_own_group_unless_one_is_given() -> None:
    assert {score.group for score in scored(HEALTHY, HEALTHY, "x", split="val").scores} == {"x"}
    assert {score.split for score in scored(HEALTHY, HEALTHY, "x", split="val").scores} == {"val"}


@pytest.mark.parametrize(
    ("truth", "prediction", "classes", "said"),
    [
        (HEALTHY, HEALTHY[:-1], CLASSES, "shape"),
        (HEALTHY[0], HEALTHY[0], CLASSES, "shape"),
        (HEALTHY.astype(np.float32), HEALTHY, CLASSES, "truth must hold integer"),
        (HEALTHY, np.full(SHAPE, 255, np.uint8), CLASSES, r"prediction holds the ids \[255\]"),
        (HEALTHY.astype(np.int16) - 1, HEALTHY, CLASSES, r"truth holds the ids \[-1\]"),
        (HEALTHY, HEALTHY, {"liver": 3}, "liver"),
        (HEALTHY, HEALTHY, {"lung": 1}, "lung"),
    ],
)
def test_bad_input_names_the_sample(
    truth: np.ndarray, prediction: np.ndarray, classes: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError, match=said) as raised:
        scored(truth, prediction, "case_7", classes=classes)
    assert str(raised.value).startswith("case_7: ")


# All samples


def test_counts_and_classes() -> None:
    metrics = figures(FOUND, MISSED, CLEAN, ALARM)
    assert metrics["counts"] == {
        "samples": 4,
        "source_cases": 3,
        "healthy_samples": 2,
        "tumor_samples": 2,
        "tumors": 3,
        "found_tumors": 1,
        "predicted_tumors": 3,
        "false_tumors": 2,
    }
    assert list(metrics["classes"]) == ["liver", "liver_tumor"]
    assert metrics["format_version"] == 1
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_tumor_figures_worked_by_hand() -> None:
    tumor = figures(FOUND, MISSED, CLEAN, ALARM)["classes"]["liver_tumor"]
    assert tumor["kind"] == "tumor"
    assert tumor["presence"] == {"both": 1, "missed": 1, "only_predicted": 1, "correctly_empty": 1}
    # The mean is over the two samples with tumor only, a missed one counts 0.
    assert tumor["dice"]["n"] == tumor["nsd_2mm"]["n"] == 2
    assert tumor["dice"]["mean"] == pytest.approx((16 / 43 + 0) / 2)
    assert tumor["hd95_mm"]["n"] == 1
    assert tumor["volume_error_ml"]["mean"] == pytest.approx((-27 - 8) / 2 / 1000)
    assert share(tumor["lesions"]["sensitivity"]) == (1, 3)
    assert share(tumor["lesions"]["precision"]) == (1, 3)
    assert share(tumor["samples"]["sensitivity"]) == (1, 2)
    assert share(tumor["samples"]["specificity"]) == (1, 2)
    assert tumor["healthy"]["n"] == 2
    assert share(tumor["healthy"]["without_false_tumor"]) == (1, 2)
    assert tumor["healthy"]["false_lesions_per_sample"]["mean"] == 1
    assert tumor["healthy"]["false_ml_per_sample"]["mean"] == pytest.approx(0.0045)


def share(record: dict[str, Any]) -> tuple[int, int]:
    return record["count"], record["n"]


def test_organ_figures_have_no_lesions() -> None:
    organ = figures(FOUND, CLEAN)["classes"]["liver"]
    assert organ["kind"] == "organ"
    assert organ["dice"] == {
        "mean": 1.0,
        "low": None,
        "high": None,
        "n": 2,
        "groups": 2,
        "note": organ["dice"]["note"],
    }
    assert "lesions" not in organ


def lesion(diameter_mm: float, matched: bool, iou: float = 0.5, source: str = "truth") -> LesionRecord:
    return LesionRecord(
        case_id="a", group="a", class_name="liver_tumor", organ="liver", source=source, lesion_id=1, volume_mm3=1.0,
        diameter_mm=diameter_mm, centroid_x_vox=0, centroid_y_vox=0, centroid_z_vox=0, overlap_voxels=int(matched),
        matched=matched, iou=iou if matched else 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("diameter_mm", "stratum"), [(0.1, 0), (4.99, 0), (5.0, 1), (9.9, 1), (10.0, 2), (19.9, 2), (20.0, 3), (300.0, 3)]
)
def test_size_strata(diameter_mm: float, stratum: int) -> None:
    metrics = aggregate(FOUND.scores, [lesion(diameter_mm, True), lesion(diameter_mm, False)])
    strata = metrics["all_tumors"]["lesions"]["by_diameter"]
    assert [share(row) for row in strata] == [(1, 2) if k == stratum else (0, 0) for k in range(4)]
    assert [(row["from_mm"], row["below_mm"]) for row in strata] == list(DIAMETER_STRATA_MM)
    empty = strata[(stratum + 1) % 4]
    assert empty["value"] is empty["low"] is empty["high"] is None


def test_sensitivity_at_iou_counts_only_fair_overlap() -> None:
    found = [lesion(8, True, 0.1), lesion(8, True, 0.09), lesion(8, False), lesion(8, True, source="prediction")]
    lesions = aggregate(FOUND.scores, found)["classes"]["liver_tumor"]["lesions"]
    assert share(lesions["sensitivity"]) == (2, 3)
    assert share(lesions["sensitivity_iou_0.1"]) == (1, 3)
    assert share(lesions["precision"]) == (1, 1)


def test_tumors_of_all_classes_are_added_up_by_sample() -> None:
    classes = CLASSES | {"kidney": 5, "kidney_tumor": 6}
    prediction = labels((2, 1))
    prediction[8:10, 8:10, 4:6] = 6
    metrics = figures(scored(HEALTHY, prediction, "alarm", classes=classes), CLEAN)
    pooled = metrics["all_tumors"]["healthy"]
    assert pooled["n"] == 2
    assert pooled["false_lesions_per_sample"]["mean"] == 1  # one of each class in one of two samples
    assert share(pooled["without_false_tumor"]) == (1, 2)
    assert share(metrics["all_tumors"]["samples"]["specificity"]) == (1, 2)


def test_no_tumors_no_healthy_samples_nothing_at_all() -> None:
    no_tumor = figures(CLEAN, ALARM)["all_tumors"]
    assert no_tumor["dice"]["mean"] is no_tumor["lesions"]["sensitivity"]["value"] is None
    assert no_tumor["dice"]["n"] == 0
    no_healthy = figures(FOUND, MISSED)["all_tumors"]["healthy"]
    assert no_healthy["n"] == 0
    assert no_healthy["false_ml_per_sample"]["mean"] is None
    nothing = aggregate([], [])
    assert nothing["counts"]["samples"] == 0
    assert nothing["classes"] == {}


def test_the_order_of_records_does_not_matter() -> None:
    results = [FOUND, MISSED, CLEAN, ALARM]
    expected = figures(*results)
    for turn in range(3):
        random.Random(turn).shuffle(results)
        assert figures(*results) == expected


def test_a_sample_scored_twice_is_refused() -> None:
    with pytest.raises(InputError, match="found: class liver was scored twice"):
        figures(FOUND, FOUND)


def test_classes_are_listed_by_id() -> None:
    scores = [replace(CLEAN.scores[0], class_name=name, case_id=name) for name in ("kidney", "colon", "liver_tumor")]
    assert list(aggregate(scores, [])["classes"]) == ["liver_tumor", "kidney", "colon"]
    assert CLASS_IDS["liver_tumor"] < CLASS_IDS["kidney"] < CLASS_IDS["colon"]


# Intervals


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(counts: tuple[int, int]) -> None:
    count, n = counts
    expected = binomtest(count, n).proportion_ci(method="wilson")
    assert wilson(count, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= wilson(count, n)[0] <= count / n <= wilson(count, n)[1] <= 1


def test_no_proportion_of_nothing() -> None:
    assert wilson(0, 0) is None
    assert proportion(0, 0) == {"count": 0, "n": 0, "value": None, "low": None, "high": None}


def test_mean_is_over_samples_not_over_groups() -> None:
    record = cluster_mean([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert record["mean"] == 0.75
    assert (record["n"], record["groups"]) == (4, 2)


def test_samples_of_one_group_do_not_narrow_the_interval() -> None:
    """Ten times the samples from the same 8 source cases carry no more information; from 80 cases they do."""
    values = np.random.default_rng(np.random.SeedSequence((1,))).uniform(size=8)
    few = cluster_mean(values.tolist(), [f"g{k}" for k in range(8)])
    clustered = cluster_mean(np.repeat(values, 10).tolist(), [f"g{k // 10}" for k in range(80)])
    independent = cluster_mean(np.repeat(values, 10).tolist(), [f"g{k}" for k in range(80)])
    assert width(clustered) == pytest.approx(width(few))
    assert width(independent) < width(few) / 2
    assert few["low"] < few["mean"] < few["high"]


def width(record: dict[str, Any]) -> float:
    return record["high"] - record["low"]


def test_bootstrap_agrees_with_theory() -> None:
    """For independent values the interval is close to mean ± 1.96 standard errors."""
    values = np.random.default_rng(np.random.SeedSequence((2,))).normal(size=400)
    record = cluster_mean(values.tolist(), [str(k) for k in range(400)], resamples=4000)
    half = 1.96 * values.std() / 20
    assert (record["low"], record["high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_bootstrap_is_repeatable_and_seeded() -> None:
    values, groups = [0.1, 0.5, 0.4, 0.9, 0.2, 0.7], list("abcdef")
    assert cluster_mean(values, groups) == cluster_mean(values, groups)
    assert cluster_mean(values, groups, seed=1) != cluster_mean(values, groups)


@pytest.mark.parametrize(
    ("values", "groups", "note"),
    [
        ([0.1, 0.9], ["a", "a"], "one source case: no interval"),
        ([0.1, 0.9], ["a", "b"], "fewer than 5 source cases"),
        ([0.0] * 6, list("abcdef"), "all values are equal"),
        ([], [], "no sample"),
    ],
)
def test_an_interval_that_must_not_be_trusted_says_so(values: list[float], groups: list[str], note: str) -> None:
    record = cluster_mean(values, groups)
    assert note in record["note"]
    assert (record["low"] is None) == (len(set(groups)) < 5)
    assert "note" not in cluster_mean([0.1, 0.2, 0.3, 0.4, 0.5], list("abcde"))
