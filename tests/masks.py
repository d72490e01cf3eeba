"""Tiny masks for the tests of figures."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SHAPE = (12, 10, 8)


def mask(*boxes: tuple[slice, slice, slice], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A uint8 mask that is 1 in the boxes."""
    out = np.zeros(shape, np.uint8)
    for box in boxes:
        out[box] = 1
    return out


def cube(x: int, y: int, z: int, size: int) -> tuple[slice, slice, slice]:
    """A box with equal sides from a corner voxel."""
    return slice(x, x + size), slice(y, y + size), slice(z, z + size)


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random smooth mask and a disturbed copy, both reaching the border of the array."""
    rng = np.random.default_rng(np.random.SeedSequence((seed,)))
    field = gaussian_filter(rng.normal(size=(17, 15, 13)), 1.6)
    other = field + rng.uniform(0.1, 0.8) * gaussian_filter(rng.normal(size=field.shape), 1.4)
    return field > np.quantile(field, 0.8), other > np.quantile(other, 0.85)
