"""Small scored samples for the tests of figures: a liver with cubic tumors."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.scoring import CaseResult, CaseScore, score_case
from training.summary import aggregate

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
    """`score_case` of a liver at 1 mm, unless told otherwise."""
    return score_case(case_id, truth, prediction, more.pop("spacing_mm", 1.0), more.pop("classes", CLASSES), **more)


def by_class(result: CaseResult) -> dict[str, CaseScore]:
    return {score.class_name: score for score in result.scores}


def figures(*results: CaseResult, **more: Any) -> dict[str, Any]:
    """`aggregate` of all that the results hold."""
    scores, lesions, candidates = (
        [record for result in results for record in getattr(result, name)]
        for name in ("scores", "lesions", "candidates")
    )
    return aggregate(scores, lesions, candidates, **more)


HEALTHY = labels()
FOUND = scored(labels((2, 2), (6, 3)), labels((2, 2)), "found", group="ct1")  # one of two tumors
MISSED = scored(labels((2, 2)), HEALTHY, "missed", group="ct2")
CLEAN = scored(HEALTHY, HEALTHY, "clean", group="ct3")
ALARM = scored(HEALTHY, labels((2, 1), (6, 2)), "alarm", group="ct3")  # two false tumors, 9 voxels
