"""What an evaluation writes down: settings, one score a class and sample, one row a tumor, candidates of the FROC.

`CaseScore` and `LesionRecord` are the rows of `cases.parquet` and `lesions.parquet`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import InputError

CONNECTIVITIES = (6, 18, 26)  # voxels belong together by faces; also edges; also corners
Point = tuple[float, float, float]


@dataclass(frozen=True)
class ScoreSettings:
    """What figures depend on; stored with them. InputError for values that mean nothing."""

    nsd_tolerance_mm: float = 2.0  # of Hu et al. 2023 (arXiv 2303.14869) for liver tumors
    diameter_cuts_mm: tuple[float, ...] = (5, 10, 20)  # groups of tumors; a tumor on a cut is in the larger group
    connectivity: int = 26
    min_lesion_mm3: float = 0.0  # smaller pieces, true or predicted, are no tumors
    froc_false_per_scan: tuple[float, ...] = (0.125, 0.25, 0.5, 1, 2, 4, 8)  # of LUNA16 (Setio et al. 2017)
    seed: int = 0
    resamples: int = 2000

    def __post_init__(self) -> None:
        _require(_positive(self.nsd_tolerance_mm), "nsd_tolerance_mm", self.nsd_tolerance_mm, "a positive length in mm")
        for name in ("diameter_cuts_mm", "froc_false_per_scan"):
            values = getattr(self, name)
            rising = all(map(_positive, values)) and list(values) == sorted(set(values))
            _require(rising and len(values) > 0, name, values, "positive numbers that rise")
        _require(self.connectivity in CONNECTIVITIES, "connectivity", self.connectivity, "6, 18 or 26")
        least = self.min_lesion_mm3
        _require(math.isfinite(least) and least >= 0, "min_lesion_mm3", least, "a volume in mm³, 0 for all pieces")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.resamples >= 100, "resamples", self.resamples, "at least 100")


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(fulfilled: bool, name: str, value: object, expected: str) -> None:
    if not fulfilled:
        raise InputError(f"{name} must be {expected}, got {value}")


DEFAULTS = ScoreSettings()


@dataclass(frozen=True)
class TumorFact:
    """What is known of a true tumor beside its outline."""

    instance: int
    class_id: int
    center_vox: Point  # (X, Y, Z) of the scored grid
    kind: str | None
    contrast_hu: float | None  # to the organ around it
    texture: str | None


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
    nsd_2mm: float | None  # likewise; at the tolerance of the settings, 2 mm unless said otherwise
    hd95_mm: float | None  # None when truth or prediction is empty
    truth_lesions: int | None = None
    found_lesions: int | None = None
    predicted_lesions: int | None = None
    false_positive_lesions: int | None = None
    false_positive_ml: float | None = None  # of predicted tumors that touch no true one
    false_negative_ml: float | None = None  # of true tumors that nothing predicted touches


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
    iou: float  # with the union of all tumors of the other side that touch it
    dice: float | None = None  # likewise; None where none touches it
    score: float | None = None  # largest tumor probability inside a predicted tumor, where it is known
    instance: int | None = None  # of the `TumorFact` that a true tumor has, as are the next three
    kind: str | None = None
    contrast_hu: float | None = None
    texture: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A connected piece of raised tumor probability."""

    score: float  # its largest probability
    lesions: tuple[int, ...]  # ids of the true tumors that it touches; none of a false candidate
    volume_mm3: float


@dataclass(frozen=True)
class ScanCandidates:
    """All candidates of one tumor class in one sample whose probabilities are known."""

    case_id: str
    class_name: str
    truth_lesions: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class CaseResult:
    """What `training.scoring.score_case` found in one sample."""

    scores: tuple[CaseScore, ...]
    lesions: tuple[LesionRecord, ...]
    candidates: tuple[ScanCandidates, ...] = ()  # one for each tumor class with probabilities
