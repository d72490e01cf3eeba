"""From the label arrays of one sample to its score per class and its lesions.

In: truth and prediction as class ids `(X, Y, Z)`. Out: flat records, one row each in `cases.parquet` and
`lesions.parquet`. `training.summary` turns the records of all samples into figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS, CLASS_NAMES, is_tumor
from training.metrics import (
    BoolArray,
    Lesions,
    Spacing,
    SurfaceDistances,
    TruthLesion,
    dice,
    lesion_table,
    spacing_xyz,
    surface_distances,
    volume_ml,
)

NSD_TOLERANCE_MM = 2.0  # the tolerance of Hu et al. 2023 (arXiv 2303.14869) for liver tumors
_TUMOR_SUFFIX = "_tumor"

LabelArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class CaseScore:
    """One class in one sample. Lesion figures are None for organs."""

    case_id: str
    group: str  # the source case the sample came from; the sample itself where none is known
    split: str | None
    class_name: str
    organ: str
    tumor: bool
    healthy: bool  # the truth of the sample has no tumor of any class
    truth_voxels: int
    predicted_voxels: int
    truth_ml: float
    predicted_ml: float
    dice: float | None  # None when truth and prediction are empty, 0 when one of them is
    nsd_2mm: float | None  # likewise
    hd95_mm: float | None  # None when truth or prediction is empty
    truth_lesions: int | None = None
    found_lesions: int | None = None
    predicted_lesions: int | None = None
    false_positive_lesions: int | None = None
    false_positive_ml: float | None = None


@dataclass(frozen=True)
class LesionRecord:
    """One true or one predicted tumor of a sample."""

    case_id: str
    group: str
    class_name: str
    organ: str
    source: str  # "truth" or "prediction"
    lesion_id: int
    volume_mm3: float
    diameter_mm: float  # of the ball of equal volume
    centroid_x_vox: float
    centroid_y_vox: float
    centroid_z_vox: float
    overlap_voxels: int
    matched: bool  # a true tumor that was found; a predicted one that touches a true one
    iou: float | None  # None for predicted tumors


@dataclass(frozen=True)
class CaseResult:
    """What `score_case` found in one sample."""

    scores: tuple[CaseScore, ...]
    lesions: tuple[LesionRecord, ...]


def score_case(
    case_id: str,
    truth: LabelArray,
    prediction: LabelArray,
    spacing_mm: Spacing,
    classes: Mapping[str, int],
    group: str | None = None,
    split: str | None = None,
) -> CaseResult:
    """Score every organ and tumor class in `classes` (name -> id, of `pipeline.organs`) on one sample.

    An organ's mask holds its tumors too, since a tumor lies in its organ. Classes left out of `classes` are not
    scored, whatever the arrays hold. InputError for arrays that do not fit each other, or ids nobody knows.
    """
    _check(case_id, truth, prediction, classes)
    spacing = spacing_xyz(spacing_mm)
    sample = _Sample(case_id, group or case_id, split, not any(is_tumor(int(i)) for i in np.unique(truth)))
    results = [
        (_score_tumor if is_tumor(class_id) else _score_organ)(sample, class_id, truth, prediction, spacing)
        for class_id in sorted(classes.values())
        if class_id != CLASS_IDS["background"]
    ]
    return CaseResult(
        scores=tuple(score for score, _ in results),
        lesions=tuple(record for _, records in results for record in records),
    )


@dataclass(frozen=True)
class _Sample:
    case_id: str
    group: str
    split: str | None
    healthy: bool


_Scored = tuple[CaseScore, list[LesionRecord]]
_Point = tuple[float, float, float]


def _score_organ(sample: _Sample, class_id: int, truth: LabelArray, prediction: LabelArray, spacing: _Point) -> _Scored:
    inside, predicted = (np.isin(labels, (class_id, class_id + 1)) for labels in (truth, prediction))
    return CaseScore(**_mask_facts(sample, class_id, inside, predicted, spacing)), []


def _score_tumor(sample: _Sample, class_id: int, truth: LabelArray, prediction: LabelArray, spacing: _Point) -> _Scored:
    inside, predicted = truth == class_id, prediction == class_id
    lesions = lesion_table(inside, predicted, spacing)
    false = [lesion for lesion in lesions.predicted if lesion.false_positive]
    score = CaseScore(
        **_mask_facts(sample, class_id, inside, predicted, spacing),
        truth_lesions=len(lesions.truth),
        found_lesions=sum(lesion.detected for lesion in lesions.truth),
        predicted_lesions=len(lesions.predicted),
        false_positive_lesions=len(false),
        false_positive_ml=sum(lesion.volume_mm3 for lesion in false) / 1000,
    )
    return score, _lesion_records(sample, class_id, lesions)


def _mask_facts(
    sample: _Sample, class_id: int, inside: BoolArray, predicted: BoolArray, spacing: _Point
) -> dict[str, Any]:
    """The fields of CaseScore that organs and tumors share."""
    surfaces = surface_distances(inside, predicted, spacing)
    overlap = dice(inside, predicted)
    return {
        "case_id": sample.case_id,
        "group": sample.group,
        "split": sample.split,
        "class_name": CLASS_NAMES[class_id],
        "organ": _organ_of(class_id),
        "tumor": is_tumor(class_id),
        "healthy": sample.healthy,
        "truth_voxels": int(np.count_nonzero(inside)),
        "predicted_voxels": int(np.count_nonzero(predicted)),
        "truth_ml": volume_ml(inside, spacing),
        "predicted_ml": volume_ml(predicted, spacing),
        "dice": overlap,
        "nsd_2mm": _surface_dice(surfaces, overlap),
        "hd95_mm": surfaces.hausdorff_mm(0.95) if surfaces else None,
    }


def _surface_dice(surfaces: SurfaceDistances | None, overlap: float | None) -> float | None:
    """Without surfaces Dice and surface Dice are the same: None for two empty masks, 0 for one."""
    return overlap if surfaces is None else surfaces.dice(NSD_TOLERANCE_MM)


def _lesion_records(sample: _Sample, class_id: int, lesions: Lesions) -> list[LesionRecord]:
    return [
        LesionRecord(
            case_id=sample.case_id,
            group=sample.group,
            class_name=CLASS_NAMES[class_id],
            organ=_organ_of(class_id),
            source=source,
            lesion_id=lesion.id,
            volume_mm3=lesion.volume_mm3,
            diameter_mm=lesion.diameter_mm,
            centroid_x_vox=lesion.centroid_vox[0],
            centroid_y_vox=lesion.centroid_vox[1],
            centroid_z_vox=lesion.centroid_vox[2],
            overlap_voxels=lesion.overlap_voxels,
            matched=lesion.overlap_voxels > 0,
            iou=lesion.iou if isinstance(lesion, TruthLesion) else None,
        )
        for source, found in (("truth", lesions.truth), ("prediction", lesions.predicted))
        for lesion in found
    ]


def _organ_of(class_id: int) -> str:
    return CLASS_NAMES[class_id].removesuffix(_TUMOR_SUFFIX)


def _check(case_id: str, truth: LabelArray, prediction: LabelArray, classes: Mapping[str, int]) -> None:
    wrong = {name: number for name, number in classes.items() if CLASS_IDS.get(name) != number}
    if wrong:
        raise InputError(f"{case_id}: classes {wrong} are not those of pipeline.organs; use its names and ids")
    if truth.ndim != 3 or truth.shape != prediction.shape:
        raise InputError(
            f"{case_id}: truth and prediction must be two label images of one shape (X, Y, Z), found "
            f"{truth.shape} and {prediction.shape}; resample the prediction to the truth's grid"
        )
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"{case_id}: {name} must hold integer class ids, found {labels.dtype}")
        unknown = [int(i) for i in np.unique(labels) if int(i) not in CLASS_NAMES]
        if unknown:
            raise InputError(
                f"{case_id}: {name} holds the ids {unknown[:12]}, which are no class; known ids are 0 to "
                f"{max(CLASS_NAMES)}. Convert it with a label map (--labels) first"
            )
