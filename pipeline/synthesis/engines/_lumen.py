"""The course of a hollow organ around one of its voxels: where the lumen's middle is, where it leads, how it bends.

In: a case and a voxel. Out: a `Lumen`, or None where there is no telling. The moments are sums of whole numbers, so
the same voxel gives the same lumen on any machine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import edt
import numpy as np
import numpy.typing as npt

from pipeline.case import Case, Float16Array
from pipeline.components import connected_components
from pipeline.grid import Index3, crop, index3
from pipeline.organs import organ_id

Vector = tuple[float, float, float]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NEAR_MM = 35.0  # what is farther along tells nothing about the lumen here
FINE_MM = 1.5  # of a finer grid, every second voxel says where the lumen is
COLLAPSED_MM = 3.5  # radius of two walls that touch
CORE = 0.45  # what is deeper, as a share of the radius, is the middle of a lumen; loops that touch are joined shallower
_WIDE = 2.2  # radii from the middle; what is farther is not this loop
_FLAT = 2.0  # area of a cross-section over that of the ball that fits in; above, it is cut lengthwise
_STRAIGHT = 0.8  # least cosine between two estimates of one axis
_TIGHTEST = 0.5  # radius over the radius of the bend


class Lumen(NamedTuple):
    """The lumen's middle at arc length s from `middle_vox` is, in mm from there, s * axis + s^2 / 2 * bend."""

    middle_vox: Vector
    axis: Vector  # unit
    bend: Vector  # 1/mm, perpendicular to the axis
    outward: Vector  # unit, perpendicular to the axis, towards the voxel that was asked for
    radius_mm: float  # of the largest ball around the middle that the organ holds


def stride(spacing_mm: float) -> int:
    """Every how many voxels are looked at."""
    return 2 if spacing_mm <= FINE_MM else 1


def own_loop(surface_mm: Float16Array, own: BoolArray, start: Index3, radius_mm: float, step_mm: float) -> BoolArray:
    """What lies around the lumen that is connected to `start` within the box, the outside included.

    Organ voxels elsewhere belong to loops beside it, also where they touch it.
    """
    least = CORE * radius_mm
    labels = connected_components(own & (surface_mm > np.float16(least)), 6)
    if not labels[start]:
        return np.zeros_like(own)
    away2 = edt.edtsq((labels != labels[start]).astype(np.uint8))
    loop = away2 <= np.float32((least / step_mm + 1.5) ** 2)
    others = (labels != labels[start]) & (labels > 0)
    if others.any():
        loop &= away2 < edt.edtsq((~others).astype(np.uint8))
    return np.asarray(loop, np.bool_)


def find_lumen(case: Case, organ: str, anchor_vox: Index3) -> Lumen | None:
    """The lumen that the wall voxel `anchor_vox` belongs to; None where it is collapsed or lies along the wall."""
    step = stride(case.spacing_mm)
    half = math.ceil((NEAR_MM + 5) / (step * case.spacing_mm))
    corner = index3(a - half * step for a in anchor_vox)
    size = (2 * half * step + 1,) * 3
    surface = crop(case.surface_distance_mm, corner, size, 0)[::step, ::step, ::step]
    own = crop(case.organs, corner, size, 0)[::step, ::step, ::step] == organ_id(organ)
    core = _core(surface, own, half, step * case.spacing_mm)
    if core is None:
        return None
    points, middle, radius = core
    unit = step * case.spacing_mm
    found = _follow(np.asarray(points * unit, np.float64), np.asarray(middle * unit, np.float64), radius)
    if found is None:
        return None
    offset, axis, bend = found
    away = _across(-offset, axis)  # the anchor is the origin
    if not 0.4 * radius <= _length(away) <= _WIDE * radius:
        return None
    at = [round(float(a + o / case.spacing_mm), 3) for a, o in zip(anchor_vox, offset, strict=True)]
    if not _inside(case, at, organ, 0.6 * radius):
        return None
    return Lumen((at[0], at[1], at[2]), _rounded(axis), _rounded(bend), _rounded(_unit(away)), round(radius, 3))


def _core(surface: Float16Array, own: BoolArray, half: int, step_mm: float) -> tuple[IntArray, IntArray, float] | None:
    """Steps (n, 3) from the anchor of the points deep in its lumen, those of the deepest one, and its depth."""
    n = np.arange(-half, half + 1)
    away = np.sqrt(np.float32(n[:, None, None] ** 2 + n[:, None] ** 2 + n**2)) * np.float32(step_mm)
    labels = connected_components(own & (away <= NEAR_MM), 6)
    if not labels[half, half, half]:
        return None
    depth = np.where(labels == labels[half, half, half], surface, 0).astype(np.float32)
    reaching = np.where(away <= 1.15 * depth + 3, depth - 0.8 * np.maximum(away - depth, 0), 0)
    middle = np.unravel_index(int(np.argmax(reaching)), depth.shape)
    radius = float(depth[middle])
    if radius < COLLAPSED_MM or reaching[middle] <= 0:
        return None
    deep = connected_components(depth > CORE * radius, 6)
    points = np.argwhere(deep == deep[middle])
    return points - half, np.array(middle, np.int64) - half, radius


def _follow(points: FloatArray, middle: FloatArray, radius: float) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Middle, axis and bend at the anchor, the origin, from points deep in the lumen, all in mm."""
    axis = _principal(points - middle)
    bend = np.zeros(3)
    step = min(max(radius, 8.0), 20.0)
    for _ in range(3):
        here = _section(points, middle, axis, -_dot(middle, axis), radius)
        if here is None:
            return None
        middle = here
        ends = [_section(points, middle, axis, side * step, radius) for side in (-1.0, 1.0)]
        if ends[0] is None or ends[1] is None:
            return None
        turned = _unit(ends[1] - ends[0])
        if _dot(turned, axis) < _STRAIGHT:
            return None
        bend = _across(ends[0] + ends[1] - 2 * middle, turned) / step**2
        axis = turned
    return (middle, axis, bend) if _length(bend) * radius <= _TIGHTEST else None


def _section(points: FloatArray, middle: FloatArray, axis: FloatArray, at: float, radius: float) -> FloatArray | None:
    """Centroid of the slice through the lumen `at` mm along the axis; None where it is empty or cut lengthwise."""
    x, y, z = (points - middle).T
    along = x * axis[0] + y * axis[1] + z * axis[2]
    aside2 = x * x + y * y + z * z - along * along
    chosen = (np.abs(along - at) <= 3.0) & (aside2 <= (_WIDE * radius) ** 2)
    if np.count_nonzero(chosen) < 5:
        return None
    spread = float(np.rint(aside2[chosen] * 64).astype(np.int64).sum()) / 64 / np.count_nonzero(chosen)
    if spread > _FLAT * radius**2 / 2:  # of a disk, half the squared radius
        return None
    return _mean(points[chosen])


def _mean(points: FloatArray) -> FloatArray:
    total = np.rint(points * 64).astype(np.int64).sum(axis=0)
    return np.asarray(total / (64 * len(points)), np.float64)


def _principal(points: FloatArray) -> FloatArray:
    """The direction in which points around the origin lie, the near ones counting more."""
    away2 = (points[:, 0] ** 2 + points[:, 1] ** 2 + points[:, 2] ** 2) / NEAR_MM**2
    weight = np.rint(64 * np.clip(1 - away2, 0, 1)).astype(np.int64)
    whole = np.rint(points * 4).astype(np.int64)
    moments = np.array([[float((weight * whole[:, i] * whole[:, j]).sum()) for j in range(3)] for i in range(3)])
    for _ in range(10):  # squared ten times, the matrix is its largest eigenvector's alone
        moments = (moments[:, :, None] * moments[None]).sum(axis=1)
        moments /= moments.max()
    longest = max(range(3), key=lambda k: float(moments[k, k]))
    return _unit(moments[longest])


def _inside(case: Case, at: list[float], organ: str, least_mm: float) -> bool:
    voxel = index3(round(v) for v in at)
    if any(not 0 <= v < n for v, n in zip(voxel, case.organs.shape, strict=True)):
        return False
    return bool(case.organs[voxel] == organ_id(organ) and case.surface_distance_mm[voxel] >= least_mm)


def _dot(a: FloatArray, b: FloatArray) -> float:
    return float(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _length(a: FloatArray) -> float:
    return math.sqrt(_dot(a, a))


def _unit(a: FloatArray) -> FloatArray:
    return a / max(_length(a), 1e-9)


def _across(a: FloatArray, axis: FloatArray) -> FloatArray:
    return a - _dot(a, axis) * axis


def _rounded(a: FloatArray) -> Vector:
    x, y, z = (round(float(v), 6) for v in a)
    return x, y, z
