"""From the label arrays of one sample to its records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from tests.scored import CLASSES, CLEAN, FOUND, HEALTHY, MISSED, SHAPE, by_class, labels, scored
from training.scoring import ScoreSettings, TumorFact


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
    assert score.false_negative_ml == pytest.approx(0.027)
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
    assert [(lesion.matched, lesion.iou, lesion.dice) for lesion in predicted] == [(True, 1.0, 1.0)]
    assert {lesion.dice for lesion in true} == {1.0, None}
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


# Settings


def test_the_tolerance_is_that_of_the_settings() -> None:
    truth, shifted = labels((2, 3)), labels((4, 3))  # by 2 voxels
    for tolerance, within in ((2.0, True), (1.9, False)):
        found = by_class(scored(truth, shifted, settings=ScoreSettings(nsd_tolerance_mm=tolerance)))["liver_tumor"]
        assert (found.nsd_2mm == 1.0) == within


def test_small_pieces_are_no_tumors() -> None:
    result = scored(labels((2, 2), (6, 3)), labels((5, 1)), settings=ScoreSettings(min_lesion_mm3=9))
    score = by_class(result)["liver_tumor"]
    assert (score.truth_lesions, score.predicted_lesions, score.found_lesions) == (1, 0, 0)
    assert (score.truth_voxels, score.predicted_voxels) == (35, 1)  # outlines are those of all voxels


def test_connectivity_is_that_of_the_settings() -> None:
    truth = labels((2, 2))
    truth[4, 4, 4] = 2  # touches by a corner
    for connectivity, expected in ((26, 1), (18, 2)):
        result = scored(truth, truth, settings=ScoreSettings(connectivity=connectivity))
        assert by_class(result)["liver_tumor"].truth_lesions == expected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nsd_tolerance_mm": 0.0}, "nsd_tolerance_mm"),
        ({"nsd_tolerance_mm": float("nan")}, "nsd_tolerance_mm"),
        ({"diameter_cuts_mm": (10, 5)}, "diameter_cuts_mm must be positive numbers that rise"),
        ({"diameter_cuts_mm": (5, 5)}, "diameter_cuts_mm"),
        ({"diameter_cuts_mm": ()}, "diameter_cuts_mm"),
        ({"froc_false_per_scan": (0, 1)}, "froc_false_per_scan"),
        ({"connectivity": 8}, "6, 18 or 26, got 8"),
        ({"min_lesion_mm3": -1}, "min_lesion_mm3"),
        ({"min_lesion_mm3": float("inf")}, "min_lesion_mm3"),
        ({"seed": -1}, "seed"),
        ({"resamples": 0}, "resamples"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ScoreSettings(**wrong)


# Facts


def fact(instance: int, *center: float, class_id: int = 2) -> TumorFact:
    return TumorFact(instance, class_id, (center[0], center[1], center[2]), f"kind {instance}", -30.0, "fine")


# The boxes of the two tumors are 2 to 3 along X, and 6 to 8; 2 to 3 and 2 to 4 along Y and Z.
@pytest.mark.parametrize(
    ("facts", "spacing", "expected"),
    [
        ([fact(1, 2.5, 2.5, 2.5), fact(2, 7, 3, 3)], 1.0, [1, 2]),
        ([fact(1, 7, 3, 3), fact(2, 2.5, 2.5, 2.5)], 1.0, [2, 1]),
        ([fact(1, 6, 2, 2), fact(2, 8, 3, 3)], 1.0, [1, 2]),  # both inside the second box: nearer to its centroid
        ([fact(1, 3, 6, 3), fact(2, 8, 3, 6)], (1.0, 5.0, 1.0), [2, 2]),  # 15 mm off along Y, 5 + 3 mm otherwise
        ([fact(1, 2.5, 2.5, 2.5, class_id=6)], 1.0, [None, None]),
        ([], 1.0, [None, None]),
    ],
)
def test_a_true_tumor_takes_the_nearest_facts(
    facts: list[TumorFact], spacing: float | tuple[float, float, float], expected: list[int | None]
) -> None:
    result = scored(labels((2, 2), (6, 3)), labels((2, 2)), facts=facts, spacing_mm=spacing)
    true = [lesion for lesion in result.lesions if lesion.source == "truth"]
    assert [lesion.instance for lesion in true] == expected
    assert [lesion.kind for lesion in true] == [None if k is None else f"kind {k}" for k in expected]
    (predicted,) = (lesion for lesion in result.lesions if lesion.source == "prediction")
    assert predicted.instance is predicted.kind is predicted.contrast_hu is predicted.texture is None


# Probabilities


def test_probabilities_give_scores_and_candidates() -> None:
    seen = np.zeros(SHAPE, np.float16)
    seen[2:4, 2:4, 2:4] = 0.75
    seen[6, 2, 2] = 0.25  # hits the second tumor, but is not predicted
    seen[10, 9, 2] = 0.5
    prediction = labels((2, 2))
    prediction[10, 9, 2] = 2
    result = scored(labels((2, 2), (6, 3)), prediction, probabilities={2: seen})
    assert [(lesion.source, lesion.score) for lesion in result.lesions] == [
        ("truth", None),
        ("truth", None),
        ("prediction", 0.75),
        ("prediction", 0.5),
    ]
    (scan,) = result.candidates
    assert (scan.case_id, scan.class_name, scan.truth_lesions) == ("a", "liver_tumor", 2)
    assert {(candidate.score, candidate.lesions) for candidate in scan.candidates} == {
        (0.75, (1,)),
        (0.25, (2,)),
        (0.5, ()),
    }


def test_a_scan_without_any_candidate_is_kept() -> None:
    result = scored(HEALTHY, HEALTHY, probabilities={2: np.zeros(SHAPE, np.float32)})
    assert [scan.candidates for scan in result.candidates] == [()]
    assert CLEAN.candidates == ()


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (np.zeros(SHAPE[1:], np.float32), "must be floating point"),
        (np.zeros(SHAPE, np.uint8), "must be floating point"),
        (np.full(SHAPE, 1.1, np.float32), "0 to 1"),
        (np.full(SHAPE, -0.1, np.float32), "0 to 1"),
        (np.full(SHAPE, np.nan, np.float16), "0 to 1"),
    ],
)
def test_what_is_no_probability_is_refused(probability: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=f"case_7: probabilities of class 2.*{said}"):
        scored(HEALTHY, HEALTHY, "case_7", probabilities={2: probability})
