"""Which way a thin organ runs around a point. No draws.

Moments are sums of whole numbers and the axis comes from multiplications alone: a linear algebra library would give
another last bit, or another sign, on another machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.case import Case
from pipeline.grid import crop, index3
from pipeline.organs import organ_id
from pipeline.spec.distributions import unit
from pipeline.spec.records import Vector
from pipeline.synthesis.engines.ellipsoid import Along

_NEAR_MM = 15.0  # around the point
_LEAST_VOXELS = 10
_SQUARINGS = 10  # the matrix is then its largest eigenvector's alone
_THICK = 0.6  # of the largest depth nearby: half the thickness where a tumor would rather lie along than across


def direction_of(case: Case, organ: str, center_vox: Vector) -> Along | None:
    """The direction of an organ around a point, and half its thickness; None where too little of it is near."""
    around = max(2, round(_NEAR_MM / case.spacing_mm))
    corner = index3(np.rint(center_vox).astype(int) - around)
    size = (2 * around + 1,) * 3
    inside = crop(case.organs, corner, size, 0) == organ_id(organ)
    points = np.argwhere(inside)
    if len(points) < _LEAST_VOXELS:
        return None
    depth = crop(case.surface_distance_mm, corner, size, 0)[inside]
    return Along(_frame(_principal(points)), max(_THICK * float(depth.max()), case.spacing_mm))


def _principal(points: npt.NDArray[np.int64]) -> list[float]:
    """The direction in which points (n, 3) lie, a unit vector whose largest component is positive."""
    away = points * len(points) - points.sum(axis=0)  # whole numbers: n times the distance from the mean
    moments = np.array([[float((away[:, i] * away[:, j]).sum()) for j in range(3)] for i in range(3)])
    for _ in range(_SQUARINGS):
        moments = (moments[:, :, None] * moments[None]).sum(axis=1)
        moments /= np.abs(moments).max()
    longest = max(range(3), key=lambda k: float(moments[k, k]))
    return unit(moments[longest].tolist())


def _frame(axis: list[float]) -> tuple[Vector, Vector, Vector]:
    """A rotation whose first row is `axis`."""
    x, y, z = axis
    least = min(range(3), key=lambda k: abs(axis[k]))
    other = [float(k == least) for k in range(3)]
    a, b, c = unit([y * other[2] - z * other[1], z * other[0] - x * other[2], x * other[1] - y * other[0]])
    return (x, y, z), (a, b, c), (y * c - z * b, z * a - x * c, x * b - y * a)
