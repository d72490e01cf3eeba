from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from training.network import ClassTable
from training.predict import Prediction
from training.validation import sample_scores, scores_line, validation_scores

CLASSES = ClassTable({"background": 0, "liver": 1, "liver_tumor": 2, "kidney": 5, "kidney_tumor": 6})


def pair(truth: str, prediction: str) -> Prediction:
    """A sample of one voxel per digit."""
    ids = [np.array([int(c) for c in text], np.uint8).reshape(-1, 1, 1) for text in (truth, prediction)]
    return Prediction(0, *ids)


def scores_of(pairs: list[Prediction], annotated: Collection[int] = tuple(range(7))) -> dict[str, Any]:
    return validation_scores(sample_scores(pairs, CLASSES, lambda _: annotated), CLASSES)


def test_dice_is_the_mean_over_samples_that_have_the_class() -> None:
    scores = scores_of([pair("1122", "1120"), pair("1100", "1100"), pair("0222", "0000")])
    assert scores["dice"] == {
        "liver": 1.0,
        "liver_tumor": pytest.approx((2 / 3 + 0) / 2),
        "kidney": None,
        "kidney_tumor": None,
    }
    assert scores["samples_with"] == {"liver": 2, "liver_tumor": 2, "kidney": 0, "kidney_tumor": 0}
    assert scores["samples"] == 3


def test_false_positives_are_tumor_voxels_of_any_class_in_healthy_samples() -> None:
    scores = scores_of([pair("1155", "1265"), pair("0000", "2000"), pair("2000", "2222")])
    assert scores["false_positive_voxels"] == 1.5
    assert scores["healthy_samples"] == 2
    assert scores_of([pair("2", "2")])["false_positive_voxels"] is None


def test_what_a_sample_does_not_annotate_is_not_scored() -> None:
    scores = scores_of([pair("1155", "1665"), pair("1050", "1650")], annotated=(0, 1, 2, 5))
    assert scores["dice"] == {
        "liver": pytest.approx((2 / 3 + 1) / 2),
        "liver_tumor": None,
        "kidney": pytest.approx((2 / 3 + 1) / 2),
        "kidney_tumor": None,
    }
    assert scores["false_positive_voxels"] == 0  # of the annotated liver tumors; kidney tumors nobody looked for
    assert scores_of([pair("15", "66")], annotated=(0, 1, 5))["healthy_samples"] == 0


@pytest.mark.parametrize(
    ("pairs", "score"),
    [
        ([pair("12", "12"), pair("6", "0")], 0.5),  # tumors alone count, organs do not
        ([pair("1150", "1100")], 0.5),  # no tumor to find: all classes
        ([pair("00", "00")], 0.0),
    ],
)
def test_the_score_is_the_tumors_dice(pairs: list[Prediction], score: float) -> None:
    assert scores_of(pairs)["score"] == pytest.approx(score)


def test_the_line_names_what_there_is() -> None:
    line = scores_line(scores_of([pair("12", "12"), pair("1", "2")]))
    assert line == (
        "2 samples: liver Dice 0.500 (n=2), liver_tumor Dice 1.000 (n=1), "
        "1.0 false tumor voxels per healthy sample (n=1)"
    )
    assert "no class" in scores_line(scores_of([pair("0", "0")]) | {"false_positive_voxels": None})
