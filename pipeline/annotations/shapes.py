"""Box, point and axes of a tumor, from its mask. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.annotations.instances import TumorMask
from pipeline.annotations.records import Box6, TumorAnnotation, Voxel
from pipeline.grid import Index3
from pipeline.measure import recist_axes
from pipeline.organs import tumor_id


def annotate_tumor(
    tumor: TumorMask, patch_shape: Index3, spacing_mm: float, jitter_mm: float, rng: np.random.Generator
) -> TumorAnnotation:
    """Everything that is drawn of one tumor; six numbers are taken from `rng`, whether boxes are jittered or not."""
    axes = recist_axes(tumor.mask)
    shifts = rng.random(6)
    return TumorAnnotation(
        instance=tumor.facts["instance"],
        organ=tumor.facts["organ"],
        class_id=tumor_id(tumor.facts["organ"]),
        box_vox=_box(tumor, patch_shape, math.floor(jitter_mm / spacing_mm + 1e-9), shifts),
        point_vox=_moved(_deepest(tumor.mask), tumor.low),
        long_axis_vox=_axis(axes.long_ends, axes.z, tumor.low),
        short_axis_vox=_axis(axes.short_ends, axes.z, tumor.low),
        long_mm=(axes.long + 1) * spacing_mm,
        short_mm=(axes.short + 1) * spacing_mm,
        height_mm=tumor.mask.shape[2] * spacing_mm,
        volume_mm3=int(np.count_nonzero(tumor.mask)) * spacing_mm**3,
    )


def _box(tumor: TumorMask, patch_shape: Index3, jitter: int, shifts: npt.NDArray[np.float64]) -> Box6:
    """The tight box, each face moved by up to `jitter` voxels; it stays in the patch and holds the tumor's middle."""
    low = np.array([s.start for s in tumor.box])
    high = np.array([s.stop for s in tumor.box])
    moves = np.floor(shifts * (2 * jitter + 1)).astype(int) - jitter
    inwards = (high - low - 1) // 2
    low = np.maximum(low + np.minimum(moves[:3], inwards), 0)
    high = np.minimum(high + np.maximum(moves[3:], -inwards), patch_shape)
    x0, y0, z0, x1, y1, z1 = (int(edge) for edge in (*low, *high))
    return x0, y0, z0, x1, y1, z1


def _deepest(mask: npt.NDArray[np.bool_]) -> Voxel:
    """A voxel that is farthest from everything outside the mask, the end of the patch included."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))
    x, y, z = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1, int(y) - 1, int(z) - 1


def _axis(ends: tuple[tuple[int, int], tuple[int, int]], z: int, corner: Index3) -> Box6:
    (x0, y0), (x1, y1) = ends
    return (*_moved((x0, y0, z), corner), *_moved((x1, y1, z), corner))


def _moved(voxel: Voxel, by: Index3) -> Voxel:
    return voxel[0] + by[0], voxel[1] + by[1], voxel[2] + by[2]
