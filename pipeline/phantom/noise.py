"""Random textures: smooth fields that bend and mottle the anatomy, and the noise of the scanner.

In: a generator and a grid. Out: float32 arrays on it, a function of position (`smooth_field`) or of voxels (`grain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.case import FloatArray
from pipeline.phantom.geometry import Field

_LATTICE = 32  # knots per axis; fields repeat after 32 knots, which no organ is large enough to show


def smooth_field(rng: np.random.Generator, axes: Sequence[FloatArray], scale_mm: float) -> Field:
    """Noise of mean 0 and variance 1 with features of about `scale_mm`, at the grid points of three axes (mm).

    Cubic B-spline interpolation of white noise on knots `scale_mm` apart: a function of position, whatever the grid.
    """
    field: Field = rng.standard_normal((_LATTICE,) * 3, np.float32)
    for axis in (2, 1, 0):
        knot, t = np.divmod(axes[axis] / scale_mm, 1.0)
        weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        shape = [1, 1, 1]
        shape[axis] = -1
        field = _weighted(field, axis, knot.astype(np.int64), weights.astype(np.float32).reshape(4, *shape))
    field *= np.float32((315 / 151) ** 1.5)  # the mean of sum(weights^2) over t is 151/315, per axis
    return field


def grain(rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float) -> Field:
    """CT noise of variance 1: neighbours correlate by 0.36 within a slice, by 0.21 across, falling off exponentially.

    Measured in liver parenchyma of 3D-IRCADb-01 no. 17 (0.74 x 0.74 x 1.6 mm): 0.36 and 0.16 at one and two pixels,
    0.21 at one slice. Coarser grids keep the value per voxel, since resampling widens the kernel along with the voxel
    (0.43 on that scan at 2 mm); finer grids keep it per mm. A recursion x[i] = r x[i-1] + sqrt(1 - r^2) w[i].
    """
    noise: Field = rng.standard_normal(shape, np.float32)
    for axis, per_pixel in ((0, 0.36), (1, 0.36), (2, 0.21)):
        r = per_pixel ** min(1.0, spacing_mm / 0.74)
        planes = np.moveaxis(noise, axis, 0)
        planes[1:] *= np.float32((1 - r * r) ** 0.5)
        for before, here in pairwise(planes):
            here += np.float32(r) * before
    return noise


def noise_sd(halfway_hu: float, rim: Field) -> Field:
    """HU, from the value halfway between skin and centre; the middle is noisier. `rim` is `cavity.rim_share`."""
    depth = np.clip(1 - rim**2, -0.5, 1)
    return np.float32(halfway_hu) * (np.float32(0.85) + np.float32(0.3) * depth)


def _weighted(knots: Field, axis: int, first: npt.NDArray[np.int64], weights: Field) -> Field:
    """The sum over k of `weights[k]` times the knots `first + k` along an axis."""
    total: Field = knots.take(first % _LATTICE, axis) * weights[0]
    for k in (1, 2, 3):
        near = knots.take((first + k) % _LATTICE, axis)
        near *= weights[k]
        total += near
    return total
