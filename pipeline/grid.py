"""Index arithmetic on voxel grids: crops that may reach over the edge, boxes, affines. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Index3 = tuple[int, int, int]
Slices3 = tuple[slice, slice, slice]
T = TypeVar("T", bound=np.generic)


def index3(values: Iterable[Any]) -> Index3:
    """Three whole numbers, e.g. of a numpy row, as an index."""
    x, y, z = values
    return int(x), int(y), int(z)


def slices3(low: Iterable[int], high: Iterable[int]) -> Slices3:
    """The half-open box from `low` to `high`."""
    x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
    return x, y, z


def overlap(origin: Index3, shape: Index3, limits: tuple[int, ...]) -> tuple[Slices3, Slices3]:
    """Where a box at `origin` of `shape` meets an array of shape `limits`: slices of the array, slices of the box."""
    low = [max(0, o) for o in origin]
    high = [max(a, min(n, o + s)) for a, n, o, s in zip(low, limits, origin, shape, strict=True)]
    return slices3(low, high), slices3(np.subtract(low, origin).tolist(), np.subtract(high, origin).tolist())


def crop(array: npt.NDArray[T], origin: Index3, shape: Index3, fill: int) -> npt.NDArray[T]:
    """A copy of the box at `origin` of `shape`; voxels outside the array are `fill`."""
    of_array, of_box = overlap(origin, shape, array.shape)
    if all(s.stop - s.start == n for s, n in zip(of_box, shape, strict=True)):
        return np.array(array[of_array], order="C")
    out = np.full(shape, fill, array.dtype)
    out[of_box] = array[of_array]
    return out


def shifted_affine(affine: npt.NDArray[np.float64], origin: Index3) -> npt.NDArray[np.float64]:
    """The affine of a crop that starts at voxel `origin`."""
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array(origin, float) + affine[:3, 3]
    return moved


def bounding_box(mask: npt.NDArray[Any]) -> tuple[Index3, Index3]:
    """Smallest half-open box (low, high) that holds all non-zero voxels; raises ValueError when there are none."""
    low, high = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if used.size == 0:
            raise ValueError("an empty mask has no bounding box")
        low.append(int(used[0]))
        high.append(int(used[-1]) + 1)
    return index3(low), index3(high)
