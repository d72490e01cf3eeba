"""From the label arrays of one sample to its score per class, its lesions and its candidates.

In: truth and prediction as class ids `(X, Y, Z)`. Out: the flat records of `training.records`. `training.summary` turns
the records of all samples into figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS, CLASS_NAMES, is_tumor
from training.froc import component_peaks, froc_candidates
from training.lesions import Lesion, Lesions, components, lesion_table
from training.metrics import (
    ML_PER_MM3,
    BoolArray,
    Point,
    Spacing,
    SurfaceDistances,
    dice,
    spacing_xyz,
    surface_distances,
    volume_ml,
)
from training.records import (
    DEFAULTS,
    Candidate,
    CaseResult,
    CaseScore,
    LesionRecord,
    ScanCandidates,
    ScoreSettings,
    TumorFact,
)

# The records are written where they are scored, and read from here.
__all__ = [
    "Candidate",
    "CaseResult",
    "CaseScore",
    "LesionRecord",
    "ScanCandidates",
    "ScoreSettings",
    "TumorFact",
    "score_case",
]

_TUMOR_SUFFIX = "_tumor"

LabelArray = npt.NDArray[np.integer[Any]]
Probability = npt.NDArray[np.floating[Any]]


def score_case(
    case_id: str,
    truth: LabelArray,
    prediction: LabelArray,
    spacing_mm: Spacing,
    classes: Mapping[str, int],
    group: str | None = None,
    split: str | None = None,
    *,
    settings: ScoreSettings = DEFAULTS,
    facts: Sequence[TumorFact] = (),
    probabilities: Mapping[int, Probability] | None = None,
) -> CaseResult:
    """Score every organ and tumor class in `classes` (name -> id, of `pipeline.organs`) on one sample.

    An organ's mask holds its tumors too, since a tumor lies in its organ. Classes left out of `classes` are not
    scored, whatever the arrays hold. A true tumor takes the facts of its class whose centre is nearest to its bounding
    box, in mm; of several inside the box, nearest to its centroid. `probabilities` of tumor classes by id, floating
    point (X, Y, Z), give candidates, and predicted tumors their score. InputError for arrays that do not fit each
    other, or ids nobody knows.
    """
    _check(case_id, truth, prediction, classes, probabilities or {})
    spacing = spacing_xyz(spacing_mm)
    healthy = not any(is_tumor(int(i)) for i in np.unique(truth))
    sample = _Sample(case_id, group or case_id, split, healthy, spacing, settings)
    scores, lesions, candidates = [], [], []
    for class_id in sorted(set(classes.values()) - {CLASS_IDS["background"]}):
        if not is_tumor(class_id):
            scores.append(sample.score_organ(class_id, truth, prediction))
            continue
        probability = (probabilities or {}).get(class_id)
        known = [fact for fact in facts if fact.class_id == class_id]
        tumor = _Tumor(sample, class_id, truth == class_id, prediction == class_id, probability)
        table = tumor.table()
        scores.append(tumor.score(table))
        lesions += [*tumor.true_records(table, known), *tumor.predicted_records(table)]
        candidates += tumor.candidates(table)
    return CaseResult(tuple(scores), tuple(lesions), tuple(candidates))


@dataclass(frozen=True)
class _Sample:
    case_id: str
    group: str
    split: str | None
    healthy: bool
    spacing_mm: Point
    settings: ScoreSettings

    def score_organ(self, class_id: int, truth: LabelArray, prediction: LabelArray) -> CaseScore:
        inside, predicted = (np.isin(labels, (class_id, class_id + 1)) for labels in (truth, prediction))
        return CaseScore(**self.mask_facts(class_id, inside, predicted))

    def mask_facts(self, class_id: int, inside: BoolArray, predicted: BoolArray) -> dict[str, Any]:
        """The fields of CaseScore that organs and tumors share."""
        surfaces = surface_distances(inside, predicted, self.spacing_mm)
        overlap = dice(inside, predicted)
        return {
            "case_id": self.case_id,
            "group": self.group,
            "split": self.split,
            "class_name": CLASS_NAMES[class_id],
            "organ": _organ_of(class_id),
            "tumor": is_tumor(class_id),
            "healthy": self.healthy,
            "truth_voxels": int(np.count_nonzero(inside)),
            "predicted_voxels": int(np.count_nonzero(predicted)),
            "truth_ml": volume_ml(inside, self.spacing_mm),
            "predicted_ml": volume_ml(predicted, self.spacing_mm),
            "dice": overlap,
            "nsd_2mm": _surface_dice(surfaces, overlap, self.settings.nsd_tolerance_mm),
            "hd95_mm": surfaces.hausdorff_mm(0.95) if surfaces else None,
        }


def _surface_dice(surfaces: SurfaceDistances | None, overlap: float | None, tolerance_mm: float) -> float | None:
    """Without surfaces Dice and surface Dice are the same: None for two empty masks, 0 for one."""
    return overlap if surfaces is None else surfaces.dice(tolerance_mm)


@dataclass(frozen=True)
class _Tumor:
    """One tumor class of a sample."""

    sample: _Sample
    class_id: int
    inside: BoolArray
    predicted: BoolArray
    probability: Probability | None

    def table(self) -> Lesions:
        settings = self.sample.settings
        return lesion_table(
            self.inside, self.predicted, self.sample.spacing_mm, settings.connectivity, settings.min_lesion_mm3
        )

    def score(self, table: Lesions) -> CaseScore:
        missed = [lesion for lesion in table.truth if not lesion.matched]
        false = [lesion for lesion in table.predicted if not lesion.matched]
        return CaseScore(
            **self.sample.mask_facts(self.class_id, self.inside, self.predicted),
            truth_lesions=len(table.truth),
            found_lesions=len(table.truth) - len(missed),
            predicted_lesions=len(table.predicted),
            false_positive_lesions=len(false),
            false_positive_ml=_total_ml(false),
            false_negative_ml=_total_ml(missed),
        )

    def true_records(self, table: Lesions, facts: Sequence[TumorFact]) -> list[LesionRecord]:
        return [
            self._record("truth", lesion, _known(_fact_of(lesion, facts, self.sample.spacing_mm)))
            for lesion in table.truth
        ]

    def predicted_records(self, table: Lesions) -> list[LesionRecord]:
        if self.probability is None:
            return [self._record("prediction", lesion, {}) for lesion in table.predicted]
        peaks = component_peaks(components(self.predicted, self.sample.settings.connectivity), self.probability)
        return [self._record("prediction", lesion, {"score": float(peaks[lesion.id])}) for lesion in table.predicted]

    def _record(self, source: str, lesion: Lesion, more: Mapping[str, Any]) -> LesionRecord:
        x, y, z = lesion.centroid_vox
        return LesionRecord(
            case_id=self.sample.case_id,
            group=self.sample.group,
            class_name=CLASS_NAMES[self.class_id],
            organ=_organ_of(self.class_id),
            source=source,
            lesion_id=lesion.id,
            volume_mm3=lesion.volume_mm3,
            diameter_mm=lesion.diameter_mm,
            centroid_x_vox=x,
            centroid_y_vox=y,
            centroid_z_vox=z,
            overlap_voxels=lesion.overlap_voxels,
            matched=lesion.matched,
            iou=lesion.iou,
            dice=lesion.dice,
            **more,
        )

    def candidates(self, table: Lesions) -> list[ScanCandidates]:
        """One item where the class has probabilities, so that a scan without any candidate counts as well."""
        if self.probability is None:
            return []
        settings, spacing = self.sample.settings, self.sample.spacing_mm
        found = froc_candidates(
            self.probability, self.inside, spacing, settings.connectivity, min_mm3=settings.min_lesion_mm3
        )
        name = CLASS_NAMES[self.class_id]
        return [ScanCandidates(self.sample.case_id, name, len(table.truth), tuple(found))]


def _total_ml(lesions: Sequence[Lesion]) -> float:
    return sum(lesion.volume_mm3 for lesion in lesions) * ML_PER_MM3


def _known(fact: TumorFact | None) -> dict[str, Any]:
    """The fields of LesionRecord that a fact fills."""
    if fact is None:
        return {}
    return {
        "instance": fact.instance,
        "kind": fact.kind,
        "contrast_hu": fact.contrast_hu,
        "texture": fact.texture,
    }


def _fact_of(lesion: Lesion, facts: Sequence[TumorFact], spacing_mm: Point) -> TumorFact | None:
    """The fact whose centre is nearest to the lesion's box, then to its centroid; None where nothing is known."""

    def distances(fact: TumorFact) -> tuple[float, float, int]:
        outside = [
            max(side.start - at, at - (side.stop - 1), 0.0)
            for side, at in zip(lesion.box, fact.center_vox, strict=True)
        ]
        away = np.subtract(fact.center_vox, lesion.centroid_vox).tolist()
        return _length(outside, spacing_mm), _length(away, spacing_mm), fact.instance

    return min(facts, key=distances, default=None)


def _length(steps: Sequence[float], spacing_mm: Point) -> float:
    return math.hypot(*(step * size for step, size in zip(steps, spacing_mm, strict=True)))


def _organ_of(class_id: int) -> str:
    return CLASS_NAMES[class_id].removesuffix(_TUMOR_SUFFIX)


def _check(
    case_id: str,
    truth: LabelArray,
    prediction: LabelArray,
    classes: Mapping[str, int],
    probabilities: Mapping[int, Probability],
) -> None:
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
    for class_id, probability in probabilities.items():
        if probability.shape != truth.shape or not np.issubdtype(probability.dtype, np.floating):
            raise InputError(
                f"{case_id}: probabilities of class {class_id} must be floating point {truth.shape} as the truth, "
                f"found {probability.dtype} {probability.shape}; give them on the truth's grid"
            )
        if not np.isfinite(probability).all() or probability.min() < 0 or probability.max() > 1.001:
            raise InputError(
                f"{case_id}: probabilities of class {class_id} must lie in 0 to 1; give those after the softmax"
            )
