"""Pictures of samples: CT, truth and prediction side by side, in the slice and the part of it that tell most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.organs import is_tumor
from training.metrics import Spacing, spacing_xyz
from training.report.content import Picture

SHOWN_MM = 160.0  # side of the part shown: a tumor of 5 mm stays visible, a liver still shows where it is
_DPI = 110  # of up to twelve pictures in one page

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


def shown_slice(truth: LabelArray, prediction: LabelArray) -> int:
    """Z index of the slice where most voxels are wrong, of tumors if any are; with no error, that with most of them."""
    area = np.count_nonzero(_subject(truth, prediction), axis=(0, 1))
    return int(np.argmax(area)) if area.any() else int(truth.shape[2]) // 2


def shown_box(truth: LabelArray, prediction: LabelArray, spacing_mm: Spacing) -> tuple[slice, slice, int]:
    """The part of that slice to show: `SHOWN_MM`, or more where needed, around its tumors, else errors or organs."""
    z = shown_slice(truth, prediction)
    cut = truth[:, :, z : z + 1], prediction[:, :, z : z + 1]
    tumors = _tumor_mask(cut[0]) | _tumor_mask(cut[1])
    subject = (tumors if tumors.any() else _subject(*cut))[:, :, 0]
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
    """What a picture is about: wrong tumor voxels, else tumors, else wrong organ voxels, else organs."""
    tumors = _tumor_mask(truth) | _tumor_mask(prediction)
    wrong = truth != prediction
    for subject in (tumors & wrong, tumors, wrong):
        if subject.any():
            return subject
    return truth > 0


def _tumor_mask(labels: LabelArray) -> npt.NDArray[np.bool_]:
    return np.isin(labels, [int(i) for i in np.unique(labels) if is_tumor(int(i))])


def picture(example: Example) -> Picture:
    """CT, truth and prediction of an example side by side in its most telling axial slice."""
    from pipeline.figures import Panel, panels, png_bytes

    box = shown_box(example.truth, example.prediction, example.spacing_mm)
    ct, truth, prediction = (array[box] for array in (example.ct, example.truth, example.prediction))
    columns = [Panel("CT", ct), Panel("truth", ct, truth), Panel("prediction", ct, prediction)]
    png = png_bytes(panels(columns, spacing_mm=spacing_xyz(example.spacing_mm)), dpi=_DPI)
    place = f", slice Z {box[2]}" if example.truth.shape[2] > 1 else ""
    return Picture(f"{example.caption}. Sample {example.case_id}{place}.", png)
