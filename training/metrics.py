"""How well a predicted mask agrees with the true one: overlap, surfaces, lesions.

In: two masks `(X, Y, Z)`, bool or integer (nonzero is inside), and the voxel spacing in mm. Out: numbers and lesion
tables. Pure. A figure that does not exist is None, never NaN; each function says when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cc3d
import edt
import numpy as np
import numpy.typing as npt

from training.surface_area import CORNERS, surface_area_table

Mask = npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]
Spacing = float | tuple[float, float, float]  # mm; one number stands for X, Y and Z
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Point = tuple[float, float, float]

ML_PER_MM3 = 1e-3
_TOLERANCE_SLACK_MM = 1e-5  # edt returns float32, and a distance equal to the tolerance is within it
_ALL_INSIDE = 255


def spacing_xyz(spacing_mm: Spacing) -> Point:
    """Spacing in mm along X, Y, Z. ValueError unless it is positive and finite."""
    x, y, z = np.broadcast_to(np.asarray(spacing_mm, np.float64), 3).tolist()
    if not all(math.isfinite(step) and step > 0 for step in (x, y, z)):
        raise ValueError(f"spacing must be positive millimetres, got {spacing_mm}")
    return x, y, z


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Volume of the voxels inside, in ml."""
    return int(np.count_nonzero(mask)) * math.prod(spacing_xyz(spacing_mm)) * ML_PER_MM3


def equivalent_diameter_mm(volume_mm3: float) -> float:
    """Diameter in mm of the ball of that volume in mm³."""
    return math.cbrt(6 * volume_mm3 / math.pi)


def dice(truth: Mask, prediction: Mask) -> float | None:
    """Dice similarity coefficient 2|T∩P| / (|T|+|P|) (Dice 1945). None when both are empty, 0 when one is."""
    inside, predicted = _as_bool(truth, prediction)
    total = int(np.count_nonzero(inside)) + int(np.count_nonzero(predicted))
    return None if total == 0 else 2 * int(np.count_nonzero(inside & predicted)) / total


def surface_dice(truth: Mask, prediction: Mask, spacing_mm: Spacing, tolerance_mm: float = 2.0) -> float | None:
    """Normalized surface Dice (NSD) at a tolerance in mm. None when both masks are empty, 0 when one is."""
    surfaces = surface_distances(truth, prediction, spacing_mm)
    if surfaces is not None:
        return surfaces.dice(tolerance_mm)
    return 0.0 if np.any(truth) or np.any(prediction) else None


def hausdorff95(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> float | None:
    """Distance in mm within which 95 % of each surface lies of the other. None when either mask is empty."""
    surfaces = surface_distances(truth, prediction, spacing_mm)
    return None if surfaces is None else surfaces.hausdorff_mm(0.95)


@dataclass(frozen=True)
class SurfaceDistances:
    """Each surface element's distance to the other mask's surface in mm, and its area in mm²."""

    truth_mm: npt.NDArray[np.float32]
    truth_area_mm2: FloatArray
    prediction_mm: npt.NDArray[np.float32]
    prediction_area_mm2: FloatArray

    def dice(self, tolerance_mm: float) -> float:
        """Share of both surfaces' area that lies within the tolerance of the other surface."""
        limit = tolerance_mm + _TOLERANCE_SLACK_MM
        near = self.truth_area_mm2[self.truth_mm <= limit].sum()
        near += self.prediction_area_mm2[self.prediction_mm <= limit].sum()
        return float(near / (self.truth_area_mm2.sum() + self.prediction_area_mm2.sum()))

    def hausdorff_mm(self, share: float) -> float:
        """Distance in mm within which `share` (0 to 1) of a surface's area lies; the larger of both directions."""
        return max(
            _area_quantile(self.truth_mm, self.truth_area_mm2, share),
            _area_quantile(self.prediction_mm, self.prediction_area_mm2, share),
        )


def surface_distances(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> SurfaceDistances | None:
    """Distances between the surfaces of two masks; None when either is empty and so has no surface.

    As in Nikolov et al. 2021 (arXiv 1809.04430): the surface elements are the 2x2x2 neighbourhoods that are neither
    all inside nor all outside, placed at the corner which the eight voxels share, each with the area of the surface
    that crosses it. Outside the array is outside the mask: a mask cut by the array's edge is closed there.
    """
    inside, predicted = _as_bool(truth, prediction)
    if not inside.any() or not predicted.any():
        return None
    spacing = spacing_xyz(spacing_mm)
    box = _bounding_box(inside | predicted)
    areas = surface_area_table(spacing)
    truth_codes, predicted_codes = _neighbour_codes(inside[box]), _neighbour_codes(predicted[box])
    truth_edge, predicted_edge = _on_surface(truth_codes), _on_surface(predicted_codes)
    return SurfaceDistances(
        truth_mm=_distance_to(predicted_edge, spacing)[truth_edge],
        truth_area_mm2=areas[truth_codes[truth_edge]],
        prediction_mm=_distance_to(truth_edge, spacing)[predicted_edge],
        prediction_area_mm2=areas[predicted_codes[predicted_edge]],
    )


def _neighbour_codes(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Code of the eight voxels around each voxel corner; one longer than the mask along each axis."""
    padded = np.pad(mask, 1).view(np.uint8)
    x, y, z = (size + 1 for size in mask.shape)
    codes = np.zeros((x, y, z), np.uint8)
    for bit, (i, j, k) in enumerate(CORNERS):
        codes |= padded[i : i + x, j : j + y, k : k + z] << np.uint8(bit)
    return codes


def _on_surface(codes: npt.NDArray[np.uint8]) -> BoolArray:
    mixed: BoolArray = (codes != 0) & (codes != _ALL_INSIDE)
    return mixed


def _distance_to(points: BoolArray, spacing: Point) -> npt.NDArray[np.float32]:
    """Distance in mm of every grid point to the nearest of `points`."""
    return np.asarray(edt.edt(~points, anisotropy=spacing, black_border=False, parallel=1), np.float32)


def _area_quantile(distances: npt.NDArray[np.float32], areas: FloatArray, share: float) -> float:
    order = np.argsort(distances)
    covered = np.cumsum(areas[order])
    at = int(np.searchsorted(covered, share * covered[-1]))
    return float(distances[order[min(at, len(order) - 1)]])


@dataclass(frozen=True)
class TruthLesion:
    """One connected component of the truth. Ids count from 1."""

    id: int
    voxels: int
    volume_mm3: float
    diameter_mm: float  # of the ball of equal volume
    centroid_vox: Point  # (X, Y, Z) index
    overlap_voxels: int  # of its voxels that are predicted
    iou: float  # of the lesion with the union of all predicted lesions that touch it

    @property
    def detected(self) -> bool:
        """At least one of its voxels is predicted."""
        return self.overlap_voxels > 0


@dataclass(frozen=True)
class PredictedLesion:
    """One connected component of the prediction. Ids count from 1."""

    id: int
    voxels: int
    volume_mm3: float
    diameter_mm: float
    centroid_vox: Point
    overlap_voxels: int  # of its voxels that are true

    @property
    def false_positive(self) -> bool:
        """None of its voxels is true."""
        return self.overlap_voxels == 0


@dataclass(frozen=True)
class Lesions:
    """The lesions of a truth and of its prediction; empty for empty masks."""

    truth: tuple[TruthLesion, ...]
    predicted: tuple[PredictedLesion, ...]


def lesion_table(truth: Mask, prediction: Mask, spacing_mm: Spacing, connectivity: int = 26) -> Lesions:
    """Match the connected components (26: faces, edges and corners connect; or 18, 6) of two masks by any overlap.

    A predicted lesion that covers two true ones detects both. A true lesion covered by two predicted ones counts once,
    and neither of the two is a false positive.
    """
    inside, predicted = _as_bool(truth, prediction)
    voxel_mm3 = math.prod(spacing_xyz(spacing_mm))
    box = _bounding_box(inside | predicted)
    truth_parts = _components(inside[box], connectivity)
    predicted_parts = _components(predicted[box], connectivity)
    pairs = _overlapping_pairs(truth_parts, predicted_parts)
    origin = np.array([edge.start for edge in box], np.float64)
    return Lesions(
        tuple(_truth_lesions(truth_parts, predicted_parts, pairs, voxel_mm3, origin)),
        tuple(_predicted_lesions(predicted_parts, pairs, voxel_mm3, origin)),
    )


@dataclass(frozen=True)
class _Components:
    labels: npt.NDArray[np.integer[Any]]  # (X, Y, Z), 0 outside
    voxels: IntArray  # by label; none at 0
    centroids: FloatArray  # by label, (count + 1, 3)


@dataclass(frozen=True)
class _Pairs:
    """Overlapping pairs of a true and a predicted component."""

    truth: IntArray
    predicted: IntArray
    voxels: IntArray


def _components(mask: BoolArray, connectivity: int) -> _Components:
    labels = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=connectivity)
    where = np.nonzero(labels)
    ids = labels[where].astype(np.int64)
    voxels = np.bincount(ids, minlength=1)
    sums = [np.bincount(ids, weights=at, minlength=1) for at in where]
    return _Components(labels, voxels, np.stack(sums, axis=1) / np.maximum(voxels, 1)[:, None])


def _overlapping_pairs(truth: _Components, predicted: _Components) -> _Pairs:
    shared = (truth.labels > 0) & (predicted.labels > 0)
    stride = len(predicted.voxels)
    keys = truth.labels[shared].astype(np.int64) * stride + predicted.labels[shared]
    found, voxels = np.unique(keys, return_counts=True)
    return _Pairs(found // stride, found % stride, voxels.astype(np.int64))


def _truth_lesions(
    truth: _Components, predicted: _Components, pairs: _Pairs, voxel_mm3: float, origin: FloatArray
) -> list[TruthLesion]:
    overlap = _sum_by(pairs.truth, pairs.voxels, len(truth.voxels))
    touching = _sum_by(pairs.truth, predicted.voxels[pairs.predicted], len(truth.voxels))
    union = truth.voxels + touching - overlap
    return [
        TruthLesion(
            id=i,
            voxels=int(truth.voxels[i]),
            volume_mm3=int(truth.voxels[i]) * voxel_mm3,
            diameter_mm=equivalent_diameter_mm(int(truth.voxels[i]) * voxel_mm3),
            centroid_vox=_point(truth.centroids[i] + origin),
            overlap_voxels=int(overlap[i]),
            iou=float(overlap[i] / union[i]),
        )
        for i in range(1, len(truth.voxels))
    ]


def _predicted_lesions(
    predicted: _Components, pairs: _Pairs, voxel_mm3: float, origin: FloatArray
) -> list[PredictedLesion]:
    overlap = _sum_by(pairs.predicted, pairs.voxels, len(predicted.voxels))
    return [
        PredictedLesion(
            id=i,
            voxels=int(predicted.voxels[i]),
            volume_mm3=int(predicted.voxels[i]) * voxel_mm3,
            diameter_mm=equivalent_diameter_mm(int(predicted.voxels[i]) * voxel_mm3),
            centroid_vox=_point(predicted.centroids[i] + origin),
            overlap_voxels=int(overlap[i]),
        )
        for i in range(1, len(predicted.voxels))
    ]


def _sum_by(index: IntArray, values: IntArray, size: int) -> IntArray:
    return np.bincount(index, weights=values, minlength=size).astype(np.int64)


def _point(values: FloatArray) -> Point:
    x, y, z = values.tolist()
    return x, y, z


def _as_bool(truth: Mask, prediction: Mask) -> tuple[BoolArray, BoolArray]:
    if truth.ndim != 3 or truth.shape != prediction.shape:
        raise ValueError(
            f"masks must share one (X, Y, Z) shape, got truth {truth.shape}, prediction {prediction.shape}"
        )
    return truth.astype(np.bool_, copy=False), prediction.astype(np.bool_, copy=False)


def _bounding_box(mask: BoolArray) -> tuple[slice, slice, slice]:
    """Smallest box around the mask; one voxel for an empty mask."""
    planes = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 1) for at in planes)
    return x, y, z
