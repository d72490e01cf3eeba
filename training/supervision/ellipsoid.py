"""Ellipsoids that measurements of a tumor span: of the two RECIST axes, of a circle over several slices, of a point.

In: a `TumorAnnotation`. Out: an ellipsoid in voxels of the patch, and which voxels lie in it or in a larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.annotations.records import TumorAnnotation
from pipeline.grid import Index3, Slices3, slices3

_HALF_DIAGONAL = math.sqrt(3) / 2 + 1e-9  # of a voxel: no point is farther from the nearest voxel
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ellipsoid:
    """One axis along Z, the others in the axial plane; lengths in voxels."""

    center: Vector  # (3,)
    along: Vector  # (2,) unit vector of the first semi-axis, in X and Y
    semi_axes: tuple[float, float, float]  # along it, across it, along Z

    def within(self, scale: float, shape: Index3) -> tuple[Slices3, npt.NDArray[np.bool_]]:
        """A box of the patch, and which of its voxels lie in the ellipsoid with its semi-axes times `scale`.

        It holds the voxel nearest its center at least.
        """
        axes = np.maximum(np.multiply(self.semi_axes, scale), _HALF_DIAGONAL)
        reach = np.array([max(axes[:2]), max(axes[:2]), axes[2]])
        low = np.clip(np.ceil(self.center - reach), 0, shape).astype(int)
        high = np.clip(np.floor(self.center + reach) + 1, low, shape).astype(int)
        x, y, z = np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij", sparse=True)
        dx, dy, dz = x - self.center[0], y - self.center[1], z - self.center[2]
        parts = (dx * self.along[0] + dy * self.along[1], dy * self.along[0] - dx * self.along[1], dz)
        squared = sum((part / axis) ** 2 for part, axis in zip(parts, axes.tolist(), strict=True))
        return slices3(low.tolist(), high.tolist()), squared <= 1


def of_recist(tumor: TumorAnnotation, spacing_mm: float) -> Ellipsoid:
    """Of the two axes in their slice; across slices it reaches the mean of both, as nobody measured there."""
    return _of_axes(tumor, tumor.long_axis_vox[2], (tumor.long_mm + tumor.short_mm) / 2, spacing_mm)


def of_circle(tumor: TumorAnnotation, spacing_mm: float) -> Ellipsoid:
    """Of the two axes and the slices that the tumor's box spans."""
    return _of_axes(tumor, (tumor.box_vox[2] + tumor.box_vox[5] - 1) / 2, tumor.height_mm, spacing_mm)


def ball(tumor: TumorAnnotation, radius_mm: float, spacing_mm: float) -> Ellipsoid:
    """About the point."""
    radius = radius_mm / spacing_mm
    return Ellipsoid(np.array(tumor.point_vox, float), np.array([1.0, 0.0]), (radius, radius, radius))


def _of_axes(tumor: TumorAnnotation, z: float, height_mm: float, spacing_mm: float) -> Ellipsoid:
    ends = np.array([*tumor.long_axis_vox, *tumor.short_axis_vox], float).reshape(4, 3)[:, :2]
    middle, along = ends[:2].mean(axis=0), ends[1] - ends[0]
    length = math.hypot(*along)
    along = along / length if length > 0 else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    middle = middle + across * float(((ends[2:] - middle) @ across).mean())  # the short axis may lie to one side
    a, b, c = (mm / spacing_mm / 2 for mm in (tumor.long_mm, tumor.short_mm, height_mm))
    return Ellipsoid(np.array([*middle, z]), along, (a, b, c))
