"""How well a predicted mask agrees with the true one: overlap and surfaces.

In: two masks `(X, Y, Z)`, bool or integer (nonzero is inside), and the voxel spacing in mm. Out: numbers.
Pure. A figure that does not exist is None, never NaN; each function says when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
import numpy.typing as npt

from training.surface_area import CORNERS, surface_area_table

Mask = npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]
Spacing = float | tuple[float, float, float]  # mm; one number stands for X, Y and Z
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
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
    inside, predicted = as_masks(truth, prediction)
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
    inside, predicted = as_masks(truth, prediction)
    if not inside.any() or not predicted.any():
        return None
    spacing = spacing_xyz(spacing_mm)
    box = bounding_box(inside | predicted)
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


def as_masks(truth: Mask, prediction: Mask) -> tuple[BoolArray, BoolArray]:
    """Both masks as bool. ValueError unless they share one (X, Y, Z) shape."""
    if truth.ndim != 3 or truth.shape != prediction.shape:
        raise ValueError(
            f"masks must share one (X, Y, Z) shape, got truth {truth.shape}, prediction {prediction.shape}"
        )
    return truth.astype(np.bool_, copy=False), prediction.astype(np.bool_, copy=False)


def bounding_box(mask: BoolArray) -> tuple[slice, slice, slice]:
    """Smallest box around the mask; one voxel for an empty mask."""
    planes = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 1) for at in planes)
    return x, y, z
