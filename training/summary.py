"""From the records of all samples to the figures of `metrics.json`.

In: `CaseScore` and `LesionRecord` of `training.scoring`. Out: one JSON-ready dict; a figure that does not exist is
None (`null`), with its n of 0 beside it. The result does not depend on the order of the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from training.intervals import cluster_mean, proportion
from training.scoring import CaseScore, LesionRecord

FORMAT_VERSION = 1
Record = dict[str, Any]

# Hu et al. 2023 (arXiv 2303.14869) report sensitivity by tumor radius; small tumors are what synthesis is for.
DIAMETER_STRATA_MM: tuple[tuple[float, float | None], ...] = ((0, 5), (5, 10), (10, 20), (20, None))
LENIENT_IOU = 0.1

DEFINITIONS: dict[str, str] = {
    "sample": "One evaluated image: a whole CT or a patch of one.",
    "source case": "The CT that a sample was cut from. Samples of one source case resemble each other.",
    "tumor": "A connected piece of tumor label (voxels that share a face, edge or corner belong together).",
    "found": "A true tumor is found when at least one of its voxels is predicted as tumor of the same organ.",
    "sensitivity": "Found tumors divided by all true tumors.",
    "sensitivity at IoU 0.1": "The same, but a tumor counts only when it and the predicted tumors that touch it share "
    "at least a tenth of their common volume (intersection over union). It discounts predictions that are far too "
    "large.",
    "false tumor": "A predicted tumor that touches no true tumor of the same organ.",
    "precision": "Predicted tumors that touch a true tumor, divided by all predicted tumors.",
    "diameter": "Diameter of the ball with the tumor's volume, in mm. A tumor cut by the image's edge is measured by "
    "the part inside. A tumor of exactly 5, 10 or 20 mm belongs to the larger group.",
    "healthy sample": "A sample whose truth has no tumor of any class.",
    "sample sensitivity": "Of the samples that have a tumor of this class, the share in which any is predicted.",
    "sample specificity": "Of the samples that have no tumor of this class, the share in which none is predicted.",
    "Dice": "Twice the shared volume divided by the sum of both volumes: 1 is a perfect outline, 0 shares nothing. "
    "Mean over the samples that have the class; a missed class counts as 0. An organ's volume includes its tumors. "
    "Where tumor classes are taken together, each class of a sample is one outline.",
    "surface Dice 2 mm": "Normalized surface Dice: the share of both surfaces that lies within 2 mm of the other, by "
    "area (Nikolov et al. 2021, marching-cubes surface elements). Same samples as Dice.",
    "HD95": "Distance within which 95 % of each surface lies of the other, larger direction, in mm (same surface "
    "elements, weighted by area). Only for samples where class and prediction both exist.",
    "volume error": "Predicted minus true volume in ml; mean over the samples that have the class.",
    "empty samples": "Where neither truth nor prediction has the class, Dice does not exist: the sample is counted as "
    "correctly empty and is in no mean.",
    "interval of a mean": "95 % bootstrap interval that draws whole source cases with replacement.",
    "interval of a share": "95 % Wilson interval. It takes tumors as independent; where several come from one source "
    "case, the true uncertainty is larger.",
}


@dataclass(frozen=True)
class Bootstrap:
    """How intervals of means are drawn; the same seed gives the same intervals."""

    seed: int = 0
    resamples: int = 2000

    def mean(self, scores: Sequence[CaseScore], value: Callable[[CaseScore], float | None]) -> Record:
        """Mean and interval of a value over the scores that have it."""
        known = [(score.group, found) for score in scores if (found := value(score)) is not None]
        groups, values = [group for group, _ in known], [float(found) for _, found in known]
        return cluster_mean(values, groups, seed=self.seed, resamples=self.resamples)


def aggregate(
    scores: Iterable[CaseScore], lesions: Iterable[LesionRecord], *, seed: int = 0, resamples: int = 2000
) -> Record:
    """All figures of an evaluation: `format_version`, `definitions`, `counts`, `classes`, `all_tumors`."""
    ordered = sorted(scores, key=lambda score: (score.case_id, score.class_name))
    _check_unique(ordered)
    found = list(lesions)
    bootstrap = Bootstrap(seed, resamples)
    tumors = [score for score in ordered if score.tumor]
    return {
        "format_version": FORMAT_VERSION,
        "definitions": dict(DEFINITIONS),
        "counts": _counts(ordered, found),
        "classes": {
            name: _class_figures(
                [score for score in ordered if score.class_name == name],
                [lesion for lesion in found if lesion.class_name == name],
                bootstrap,
            )
            for name in _names_in_order(ordered)
        },
        "all_tumors": _overlap_figures(tumors, bootstrap) | _tumor_figures(_by_sample(tumors), found, bootstrap),
    }


def _check_unique(scores: Sequence[CaseScore]) -> None:
    repeated = [key for key, n in Counter((s.case_id, s.class_name) for s in scores).items() if n > 1]
    if repeated:
        raise InputError(f"{repeated[0][0]}: class {repeated[0][1]} was scored twice; every sample needs its own id")


def _names_in_order(scores: Sequence[CaseScore]) -> list[str]:
    """Class names by class id: each organ before its tumor."""
    return sorted({score.class_name for score in scores}, key=CLASS_IDS.__getitem__)


def _counts(scores: Sequence[CaseScore], lesions: Sequence[LesionRecord]) -> Record:
    healthy = {score.case_id: score.healthy for score in scores}
    true = [lesion for lesion in lesions if lesion.source == "truth"]
    predicted = [lesion for lesion in lesions if lesion.source == "prediction"]
    return {
        "samples": len(healthy),
        "source_cases": len({score.group for score in scores}),
        "healthy_samples": sum(healthy.values()),
        "tumor_samples": len(healthy) - sum(healthy.values()),
        "tumors": len(true),
        "found_tumors": sum(lesion.matched for lesion in true),
        "predicted_tumors": len(predicted),
        "false_tumors": sum(not lesion.matched for lesion in predicted),
    }


def _class_figures(scores: Sequence[CaseScore], lesions: Sequence[LesionRecord], bootstrap: Bootstrap) -> Record:
    first = scores[0]
    figures = {"kind": "tumor" if first.tumor else "organ", "organ": first.organ, "presence": _presence(scores)}
    figures |= _overlap_figures(scores, bootstrap)
    return figures | (_tumor_figures(scores, lesions, bootstrap) if first.tumor else {})


def _presence(scores: Sequence[CaseScore]) -> Record:
    """In how many samples truth and prediction have the class."""
    seen = Counter((score.truth_voxels > 0, score.predicted_voxels > 0) for score in scores)
    return {
        "both": seen[True, True],
        "missed": seen[True, False],
        "only_predicted": seen[False, True],
        "correctly_empty": seen[False, False],
    }


def _overlap_figures(scores: Sequence[CaseScore], bootstrap: Bootstrap) -> Record:
    present = [score for score in scores if score.truth_voxels > 0]
    return {
        "dice": bootstrap.mean(present, lambda score: score.dice),
        "nsd_2mm": bootstrap.mean(present, lambda score: score.nsd_2mm),
        "hd95_mm": bootstrap.mean(present, lambda score: score.hd95_mm),
        "volume_error_ml": bootstrap.mean(present, lambda score: score.predicted_ml - score.truth_ml),
    }


def _tumor_figures(scores: Sequence[CaseScore], lesions: Sequence[LesionRecord], bootstrap: Bootstrap) -> Record:
    return {
        "lesions": _lesion_figures(lesions),
        "healthy": _healthy_figures([score for score in scores if score.healthy], bootstrap),
        "samples": _sample_figures(scores),
    }


def _lesion_figures(lesions: Sequence[LesionRecord]) -> Record:
    true = [lesion for lesion in lesions if lesion.source == "truth"]
    predicted = [lesion for lesion in lesions if lesion.source == "prediction"]
    return {
        "sensitivity": _matched(true),
        "sensitivity_iou_0.1": proportion(sum((lesion.iou or 0) >= LENIENT_IOU for lesion in true), len(true)),
        "precision": _matched(predicted),
        "by_diameter": [
            {"from_mm": low, "below_mm": high} | _matched([t for t in true if _within(t.diameter_mm, low, high)])
            for low, high in DIAMETER_STRATA_MM
        ],
    }


def _matched(lesions: Sequence[LesionRecord]) -> Record:
    return proportion(sum(lesion.matched for lesion in lesions), len(lesions))


def _within(diameter_mm: float, low: float, high: float | None) -> bool:
    return low <= diameter_mm and (high is None or diameter_mm < high)


def _healthy_figures(scores: Sequence[CaseScore], bootstrap: Bootstrap) -> Record:
    clean = sum(score.predicted_voxels == 0 for score in scores)
    return {
        "n": len(scores),
        "without_false_tumor": proportion(clean, len(scores)),
        "false_lesions_per_sample": bootstrap.mean(scores, lambda score: score.false_positive_lesions),
        "false_ml_per_sample": bootstrap.mean(scores, lambda score: score.false_positive_ml),
    }


def _sample_figures(scores: Sequence[CaseScore]) -> Record:
    seen = _presence(scores)
    return {
        "sensitivity": proportion(seen["both"], seen["both"] + seen["missed"]),
        "specificity": proportion(seen["correctly_empty"], seen["correctly_empty"] + seen["only_predicted"]),
    }


def _by_sample(tumor_scores: Sequence[CaseScore]) -> list[CaseScore]:
    """One score a sample with the tumors of all classes added up. Overlap figures do not add up, and are left out."""
    pooled = []
    for _, rows in groupby(tumor_scores, key=lambda score: score.case_id):
        parts = list(rows)
        pooled.append(
            replace(
                parts[0],
                class_name="all_tumors",
                dice=None,
                nsd_2mm=None,
                hd95_mm=None,
                truth_voxels=sum(part.truth_voxels for part in parts),
                predicted_voxels=sum(part.predicted_voxels for part in parts),
                false_positive_lesions=sum(part.false_positive_lesions or 0 for part in parts),
                false_positive_ml=sum(part.false_positive_ml or 0 for part in parts),
            )
        )
    return pooled
