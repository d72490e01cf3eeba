"""Which tumors of a truth a prediction finds: connected components, matched by overlap.

In: two masks `(X, Y, Z)` and the spacing in mm. Out: a table of both sides' lesions. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

from pipeline.components import connected_components
from training.metrics import (
    BoolArray,
    FloatArray,
    Mask,
    Point,
    Spacing,
    as_masks,
    bounding_box,
    equivalent_diameter_mm,
    spacing_xyz,
)

IntArray = npt.NDArray[np.int64]
Box = tuple[slice, slice, slice]
# A match is an overlap of at least this IoU; of "overlap", a single voxel will do.
RULES: dict[str, float] = {"overlap": 0.0, "iou_0.1": 0.1, "iou_0.5": 0.5}


@dataclass(frozen=True)
class Lesion:
    """One connected component, true or predicted. Ids count from 1; components left out keep theirs."""

    id: int
    voxels: int
    volume_mm3: float
    diameter_mm: float  # of the ball of equal volume
    centroid_vox: Point  # (X, Y, Z) index
    box: Box
    overlap_voxels: int  # of its voxels that are inside the other mask
    iou: float  # with the union of all lesions of the other side that touch it

    @property
    def matched(self) -> bool:
        """At least one of its voxels is inside the other mask: a true lesion is found, a predicted one is not false."""
        return self.overlap_voxels > 0

    @property
    def dice(self) -> float | None:
        """Dice with the union of all lesions of the other side that touch it; None where none does."""
        return 2 * self.iou / (1 + self.iou) if self.matched else None


@dataclass(frozen=True)
class Lesions:
    """The lesions of a truth and of its prediction; empty for empty masks."""

    truth: tuple[Lesion, ...]
    predicted: tuple[Lesion, ...]


def matches(rule: str, iou: float) -> bool:
    """Whether a lesion with that IoU is matched by one of `RULES`."""
    return iou > 0 and iou >= RULES[rule]


def lesion_table(
    truth: Mask, prediction: Mask, spacing_mm: Spacing, connectivity: int = 26, min_mm3: float = 0.0
) -> Lesions:
    """Match the connected components (26: faces, edges and corners connect; or 18, 6) of two masks by any overlap.

    A predicted lesion that covers two true ones detects both. A true lesion covered by two predicted ones counts once,
    and neither of the two is a false positive. Components below `min_mm3` are left out, and so are predicted ones that
    touch nothing but true ones left out: they are right about something that is not asked for.
    """
    inside, predicted = as_masks(truth, prediction)
    voxel_mm3 = math.prod(spacing_xyz(spacing_mm))
    box = bounding_box(inside | predicted)
    truth_parts, predicted_parts = (components(mask[box], connectivity) for mask in (inside, predicted))
    pairs = _overlapping_pairs(truth_parts, predicted_parts)
    large_truth, large_predicted = (parts.voxels * voxel_mm3 >= min_mm3 for parts in (truth_parts, predicted_parts))
    counted = pairs.chosen(large_truth[pairs.truth] & large_predicted[pairs.predicted])
    asked_for = np.isin(np.arange(len(large_predicted)), counted.predicted)
    beside = np.isin(np.arange(len(large_predicted)), pairs.predicted[~large_truth[pairs.truth]])
    origin = np.array([side.start for side in box])
    return Lesions(
        _lesions(truth_parts, predicted_parts, counted, large_truth, voxel_mm3, origin),
        _lesions(
            predicted_parts, truth_parts, counted.turned(), large_predicted & (asked_for | ~beside), voxel_mm3, origin
        ),
    )


@dataclass(frozen=True)
class Components:
    """Connected components of a mask."""

    labels: npt.NDArray[np.integer[Any]]  # (X, Y, Z), 0 outside
    voxels: IntArray  # by label; that of 0 is the outside
    centroids: FloatArray  # by label, (count + 1, 3)
    boxes: list[Box]  # by label


def components(mask: BoolArray, connectivity: int) -> Components:
    """Components of a mask `(X, Y, Z)`, connected by faces (6), also edges (18), also corners (26)."""
    labels = connected_components(mask, connectivity)
    found = cc3d.statistics(labels)
    return Components(labels, found["voxel_counts"].astype(np.int64), found["centroids"], found["bounding_boxes"])


@dataclass(frozen=True)
class _Pairs:
    """Overlapping pairs of a true and a predicted component."""

    truth: IntArray
    predicted: IntArray
    voxels: IntArray

    def chosen(self, which: BoolArray) -> _Pairs:
        return _Pairs(self.truth[which], self.predicted[which], self.voxels[which])

    def turned(self) -> _Pairs:
        return _Pairs(self.predicted, self.truth, self.voxels)


def _overlapping_pairs(truth: Components, predicted: Components) -> _Pairs:
    shared = (truth.labels > 0) & (predicted.labels > 0)
    stride = len(predicted.voxels)
    keys = truth.labels[shared].astype(np.int64) * stride + predicted.labels[shared]
    found, voxels = np.unique(keys, return_counts=True)
    return _Pairs(found // stride, found % stride, voxels.astype(np.int64))


def _lesions(
    own: Components, other: Components, pairs: _Pairs, kept: BoolArray, voxel_mm3: float, origin: IntArray
) -> tuple[Lesion, ...]:
    """Lesions of the first side of `pairs`."""
    overlap = _sum_by(pairs.truth, pairs.voxels, len(own.voxels))
    union = own.voxels + _sum_by(pairs.truth, other.voxels[pairs.predicted], len(own.voxels)) - overlap
    return tuple(
        Lesion(
            id=i,
            voxels=int(own.voxels[i]),
            volume_mm3=int(own.voxels[i]) * voxel_mm3,
            diameter_mm=equivalent_diameter_mm(int(own.voxels[i]) * voxel_mm3),
            centroid_vox=_point(own.centroids[i] + origin),
            box=_moved(own.boxes[i], origin),
            overlap_voxels=int(overlap[i]),
            iou=float(overlap[i] / union[i]),
        )
        for i in (np.flatnonzero(kept[1:]) + 1).tolist()
    )


def _sum_by(index: IntArray, values: IntArray, size: int) -> IntArray:
    return np.bincount(index, weights=values, minlength=size).astype(np.int64)


def _point(values: FloatArray) -> Point:
    x, y, z = values.tolist()
    return x, y, z


def _moved(box: Box, origin: IntArray) -> Box:
    x, y, z = (slice(side.start + by, side.stop + by) for side, by in zip(box, origin.tolist(), strict=True))
    return x, y, z
