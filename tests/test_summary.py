"""From the records of all samples to the figures of metrics.json."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from tests.scored import ALARM, CLASSES, CLEAN, FOUND, HEALTHY, MISSED, SHAPE, figures, labels, scored
from training.scoring import LesionRecord, ScoreSettings
from training.summary import aggregate


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
    assert metrics["format_version"] == 2
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


def lesion(diameter_mm: float, matched: bool, iou: float = 0.5, source: str = "truth", **more: Any) -> LesionRecord:
    return LesionRecord(
        case_id="a", group="a", class_name="liver_tumor", organ="liver", source=source, lesion_id=1, volume_mm3=1.0,
        diameter_mm=diameter_mm, centroid_x_vox=0, centroid_y_vox=0, centroid_z_vox=0, overlap_voxels=int(matched),
        matched=matched, iou=iou if matched else 0.0, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("diameter_mm", "stratum"), [(0.1, 0), (4.99, 0), (5.0, 1), (9.9, 1), (10.0, 2), (19.9, 2), (20.0, 3), (300.0, 3)]
)
def test_size_strata(diameter_mm: float, stratum: int) -> None:
    metrics = aggregate(FOUND.scores, [lesion(diameter_mm, True), lesion(diameter_mm, False)])
    strata = metrics["all_tumors"]["lesions"]["by_diameter"]
    assert [share(row) for row in strata] == [(1, 2) if k == stratum else (0, 0) for k in range(4)]
    assert [(row["from_mm"], row["below_mm"]) for row in strata] == [(0, 5), (5, 10), (10, 20), (20, None)]
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


def test_settings_are_stored_and_used() -> None:
    settings = ScoreSettings(nsd_tolerance_mm=1, diameter_cuts_mm=(3, 8), min_lesion_mm3=2, connectivity=6)
    metrics = figures(FOUND, settings=settings)
    assert metrics["settings"]["diameter_cuts_mm"] == [3, 8]
    assert {"nsd_tolerance_mm", "connectivity", "min_lesion_mm3", "seed", "resamples"} < set(metrics["settings"])
    rows = metrics["all_tumors"]["lesions"]["by_diameter"]
    assert [(row["from_mm"], row["below_mm"], row["n"]) for row in rows] == [(0, 3, 1), (3, 8, 1), (8, None, 0)]
    said = " ".join([*metrics["definitions"], *metrics["definitions"].values()])
    assert all(part in said for part in ("surface Dice 1 mm", "below 2 mm³", "share a face belong", "(3, 8 mm)"))


def test_rules_worked_by_hand() -> None:
    found = [lesion(8, True, 0.5), lesion(8, True, 0.1), lesion(12, True, 0.05), lesion(12, False)]
    found += [lesion(8, True, iou, source="prediction") for iou in (0.6, 0.2)] + [lesion(8, False, source="prediction")]
    lesions = aggregate(FOUND.scores, found)["all_tumors"]["lesions"]
    by_rule = lesions["by_rule"]
    assert {rule: (share(row["sensitivity"]), share(row["precision"])) for rule, row in by_rule.items()} == {
        "overlap": ((3, 4), (2, 3)),
        "iou_0.1": ((2, 4), (2, 3)),
        "iou_0.5": ((1, 4), (1, 3)),
    }
    assert by_rule["overlap"]["f1"] == pytest.approx(2 * (3 / 4) * (2 / 3) / (3 / 4 + 2 / 3))
    assert by_rule["iou_0.5"]["f1"] == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert [(share(row), share(row["iou_0.1"])) for row in lesions["by_diameter"]] == [
        ((0, 0), (0, 0)),
        ((2, 2), (2, 2)),
        ((1, 2), (0, 2)),
        ((0, 0), (0, 0)),
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], None),
        ([lesion(8, False)], 0),
        ([lesion(8, False, source="prediction")], 0),
        ([lesion(8, False), lesion(8, False, source="prediction")], 0),
        ([lesion(8, True), lesion(8, True, source="prediction")], 1),
    ],
)
def test_f1_of_little(found: list[LesionRecord], expected: float | None) -> None:
    assert aggregate(FOUND.scores, found)["all_tumors"]["lesions"]["by_rule"]["overlap"]["f1"] == expected


def test_strata_of_what_is_known() -> None:
    found = [
        lesion(8, True, kind="cyst", contrast_hu=-40.0),
        lesion(8, False, kind="cyst", contrast_hu=-20.1),
        lesion(8, True, kind="hcc", contrast_hu=-20.0),
        lesion(8, True, contrast_hu=100.0),
        lesion(8, True, source="prediction"),
    ]
    strata = aggregate(FOUND.scores, found)["all_tumors"]["strata"]
    assert {name: [(row["name"], share(row)) for row in rows] for name, rows in strata.items()} == {
        "organ": [("liver", (3, 4))],
        "kind": [("cyst", (1, 2)), ("hcc", (1, 1))],
        "contrast_hu": [("-40 to -20 HU", (1, 2)), ("-20 to 0 HU", (1, 1)), ("100 to 120 HU", (1, 1))],
    }


def test_whole_tumors_missed_and_false_in_ml() -> None:
    """FOUND misses 27 mm³ and MISSED 8; ALARM has 9 mm³ of false tumors. Over 4 samples, 2 of them with tumor."""
    volumes = figures(FOUND, MISSED, CLEAN, ALARM)["all_tumors"]["volumes"]
    assert volumes["false_positive_ml"]["mean"] == pytest.approx(0.009 / 4)
    assert volumes["false_negative_ml"]["mean"] == pytest.approx(0.035 / 2)
    assert (volumes["false_positive_ml"]["n"], volumes["false_negative_ml"]["n"]) == (4, 2)


def test_a_patient_counts_once() -> None:
    """ct1: found in one of three samples. ct2: missed. ct3: two clean samples and an alarm. ct4: clean twice."""
    ct1 = [FOUND, *(scored(labels((2, 2)), HEALTHY, f"ct1 {k}", group="ct1") for k in range(2))]
    ct4 = [scored(HEALTHY, HEALTHY, f"ct4 {k}", group="ct4") for k in range(2)]
    tumor = figures(*ct1, MISSED, CLEAN, ALARM, *ct4)["classes"]["liver_tumor"]
    assert share(tumor["patients"]["sensitivity"]) == (1, 2)
    assert share(tumor["patients"]["specificity"]) == (1, 2)
    assert share(tumor["samples"]["sensitivity"]) == (1, 4)
    assert share(tumor["samples"]["specificity"]) == (3, 4)


def test_froc_is_over_the_scans_with_probabilities() -> None:
    seen = np.zeros(SHAPE, np.float32)
    seen[2, 2, 2] = 0.5
    hit = scored(labels((2, 2)), HEALTHY, "hit", probabilities={2: seen})
    false = scored(HEALTHY, HEALTHY, "false", probabilities={2: seen})
    curve = figures(hit, false, MISSED)["classes"]["liver_tumor"]["froc"]
    assert (curve["scans"], curve["tumors"]) == (2, 1)
    assert curve["points"] == [{"threshold": 0.5, "false_per_scan": 0.5, "sensitivity": 1.0}]
    assert list(curve["at"]) == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]
    assert figures(MISSED)["all_tumors"]["froc"] is None


def test_no_figure_is_nan_for_nothing_and_for_empty_masks() -> None:
    for metrics in (aggregate([], []), figures(CLEAN), figures(FOUND)):
        json.dumps(metrics, allow_nan=False)
