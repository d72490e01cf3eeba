"""Smooth random fields as a pure function of position: hashed lattice values under a cubic B-spline.

No generator and no stored noise: the value at a point depends on a key and the point only, so any part of a field can
be computed alone, on any device. Only additions and multiplications are used: IEEE arithmetic fixes every bit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

Axes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]

# The integral of the squared cubic B-spline is 151/315 per axis: what smoothing leaves of the lattice's variance.
_GAIN = (315 / 151) ** 1.5
_U64 = np.uint64


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every output bit depends on every input bit."""
    value = (value ^ (value >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> _U64(27))) * _U64(0x94D049BB133111EB)
    return value ^ (value >> _U64(31))


def lattice(key: int, starts: tuple[int, int, int], shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Uniform values of mean 0 and SD 1 at integer lattice points, a hash of (key, i, j, k)."""
    value = np.full((1, 1, 1), key, _U64)
    golden = 0x9E3779B97F4A7C15
    for axis, (start, n) in enumerate(zip(starts, shape, strict=True)):
        steps = np.arange(start, start + n, dtype=np.int64).astype(_U64) * _U64(golden)
        spread: list[int] = [1, 1, 1]
        spread[axis] = n
        value = _mix(value ^ (steps.reshape(spread) + _U64(axis + 1)))
    unit = (value >> _U64(11)).astype(np.float64) * 2.0**-53
    return ((unit - 0.5) * math.sqrt(12)).astype(np.float32)


def _taps(positions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """First lattice index and the four cubic B-spline weights, (4, n), at each position in lattice units."""
    first = np.floor(positions).astype(np.int64)
    t = positions - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return first - 1, weights.astype(np.float32)


def smooth_field(key: int, axes_mm: Axes, grain_mm: float, device: torch.device) -> torch.Tensor:
    """A field of mean 0 and SD about 1 on the grid of three coordinate axes, (X, Y, Z) float32.

    `grain_mm` is the lattice constant; neighbouring lumps are about twice as far apart.
    """
    taps = [_taps(axis / grain_mm) for axis in axes_mm]
    starts = tuple(int(first[0]) for first, _ in taps)
    shape = tuple(int(first[-1] - first[0]) + 4 for first, _ in taps)
    field = torch.from_numpy(lattice(key, starts, shape)).to(device)  # type: ignore[arg-type]
    for axis in (2, 1, 0):  # the largest pass, over all voxels, comes last
        first, weights = taps[axis]
        field = _upsample(field, axis, first - first[0], torch.from_numpy(weights).to(device))
    return field.mul_(_GAIN)


def _upsample(field: torch.Tensor, axis: int, first: npt.NDArray[np.int64], weights: torch.Tensor) -> torch.Tensor:
    index = torch.from_numpy(first).to(field.device)
    spread = [1, 1, 1]
    spread[axis] = len(first)
    total = field.index_select(axis, index).mul_(weights[0].view(spread))
    for k in (1, 2, 3):
        total.add_(field.index_select(axis, index + k).mul_(weights[k].view(spread)))
    return total
