"""Which samples a report shows, and their pictures.

In: the scores of all samples, then CT, truth and prediction `(X, Y, Z)` of the chosen ones. Out: captions and PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.organs import is_tumor
from training.metrics import Spacing, spacing_xyz
from training.scoring import CaseScore

SHOWN_MM = 160.0  # side of the part shown: a tumor of 5 mm stays visible, a liver still shows where it is

LabelArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Example:
    """One sample to show. Arrays are `(X, Y, Z)` on one grid: CT in HU, class ids."""

    case_id: str
    ct: npt.NDArray[np.int16]
    truth: LabelArray
    prediction: LabelArray
    spacing_mm: Spacing
    caption: str

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.ct, self.truth, self.prediction)}
        if len(shapes) != 1 or self.ct.ndim != 3:
            raise InputError(f"{self.case_id}: CT, truth and prediction must share one (X, Y, Z) shape, found {shapes}")


def choose_examples(scores: Sequence[CaseScore]) -> dict[str, str]:
    """Sample ids to show and why: worst, median and best outline, and the healthy sample with most false tumor.

    The outline is the mean Dice of the tumors that a sample has; where no sample has tumor, of its organs.
    """
    dice = _dice_by_sample([score for score in scores if score.tumor])
    kind = "tumor"
    if not dice:
        dice, kind = _dice_by_sample(scores), "organ"
    ranked = sorted(dice, key=lambda case_id: (dice[case_id], case_id))
    chosen: dict[str, list[str]] = {}
    if ranked:
        for rank, place in (("worst", 0), ("median", len(ranked) // 2), ("best", len(ranked) - 1)):
            chosen.setdefault(ranked[place], []).append(rank)
    captions = {
        case_id: f"{' and '.join(ranks).capitalize()} outline ({kind} Dice {dice[case_id]:.2f})"
        for case_id, ranks in chosen.items()
    }
    return captions | _most_false_tumor(scores)


def _dice_by_sample(scores: Sequence[CaseScore]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.truth_voxels and score.dice is not None:
            found.setdefault(score.case_id, []).append(score.dice)
    return {case_id: sum(values) / len(values) for case_id, values in found.items()}


def _most_false_tumor(scores: Sequence[CaseScore]) -> dict[str, str]:
    false: dict[str, float] = {}
    for score in scores:
        if score.healthy and score.false_positive_ml:
            false[score.case_id] = false.get(score.case_id, 0.0) + score.false_positive_ml
    if not false:
        return {}
    worst = min(false, key=lambda case_id: (-false[case_id], case_id))
    return {worst: f"Healthy sample with most false tumor ({false[worst]:.2f} ml)"}


def shown_slice(truth: LabelArray, prediction: LabelArray) -> int:
    """Z index of the largest true tumor cross-section; else of the predicted tumor, the true organs, the middle."""
    area = np.count_nonzero(_subject(truth, prediction), axis=(0, 1))
    return int(np.argmax(area)) if area.any() else int(truth.shape[2]) // 2


def shown_box(truth: LabelArray, prediction: LabelArray, spacing_mm: Spacing) -> tuple[slice, slice, int]:
    """The part of that slice to show: `SHOWN_MM`, or more where needed, around what the slice was chosen for."""
    z = shown_slice(truth, prediction)
    subject = _subject(truth, prediction)[:, :, z]
    if not subject.any():
        return slice(0, subject.shape[0]), slice(0, subject.shape[1]), z
    spacing = spacing_xyz(spacing_mm)
    x, y = (
        _range_around(np.flatnonzero(subject.any(axis=1 - axis)), subject.shape[axis], spacing[axis]) for axis in (0, 1)
    )
    return x, y, z


def _range_around(occupied: npt.NDArray[np.integer[Any]], size: int, step_mm: float) -> slice:
    """A range with the occupied indices in its middle, moved into `0..size`; all of it when there is no more."""
    first, end = int(occupied[0]), int(occupied[-1]) + 1
    width = min(size, max(round(SHOWN_MM / step_mm), round(1.2 * (end - first))))
    start = max(0, min((first + end - width) // 2, size - width))
    return slice(start, start + width)


def _subject(truth: LabelArray, prediction: LabelArray) -> npt.NDArray[np.bool_]:
    true_tumor, predicted_tumor = _tumor_mask(truth), _tumor_mask(prediction)
    if true_tumor.any():
        return true_tumor
    return predicted_tumor if predicted_tumor.any() else truth > 0


def _tumor_mask(labels: LabelArray) -> npt.NDArray[np.bool_]:
    return np.isin(labels, [int(i) for i in np.unique(labels) if is_tumor(int(i))])


def picture(example: Example) -> bytes:
    """PNG of an example: CT, truth and prediction side by side in its most telling axial slice."""
    from pipeline.figures import Panel, panels, png_bytes

    box = shown_box(example.truth, example.prediction, example.spacing_mm)
    ct, truth, prediction = (array[box] for array in (example.ct, example.truth, example.prediction))
    columns = [Panel("CT", ct), Panel("truth", ct, truth), Panel("prediction", ct, prediction)]
    return png_bytes(panels(columns, spacing_mm=spacing_xyz(example.spacing_mm)))
