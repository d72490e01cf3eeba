"""Smooth fields on box grids, exact to the bit on any device: hashed lattice values, interpolation by matrix products.

No generator and no stored noise: a random field's value at a point depends on a key and the point only, so any part of
a field can be computed alone. Interpolation from a coarse grid is one small matrix product an axis. Grid values are
whole numbers below 2^12 and weights whole multiples of 2^-11, so every product and partial sum is a whole number below
2^24: float32 holds it exactly, and no order of summation, fused multiply-add or batching can change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float64]
Axes = tuple[FloatArray, FloatArray, FloatArray]  # coordinates of a box's voxels along each axis, (B, n)

VALUE_LIMIT = 4095  # grid values are whole numbers from -4095 to 4095
_WEIGHT_UNIT = 2048
_LATTICE_SD = math.sqrt(3) / 4096  # what turns uniform whole numbers of that range into SD 1
# The integral of the squared cubic B-spline is 151/315 per axis: what smoothing leaves of the lattice's variance.
_SPLINE_GAIN = (315 / 151) ** 1.5
FIELD_LIMIT = 3.3  # SD; what is beyond, one value in a thousand, is cut, so that the reach of a field is known


def root(values: torch.Tensor) -> torch.Tensor:
    """Square roots of float32, rounded correctly.

    On CPUs torch's own float32 root comes from a vector library that misses the last bit of one value in a hundred, and
    not the same ones on every machine.
    """
    return values.to(torch.float64).sqrt_().to(torch.float32)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shifted(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of 64-bit words held in int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: torch.Tensor) -> torch.Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every output bit depends on every input bit."""
    value = (value ^ _shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shifted(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shifted(value, 31)


def lattice(keys: torch.Tensor, starts: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Odd whole numbers, uniform in -4095 to 4095, a hash of (key, i, j, k): (B, *shape) float32.

    `keys` (B,) and `starts` (B, 3), the first lattice index of each axis, are int64.
    """
    value = keys.view(-1, 1, 1, 1)
    for axis, n in enumerate(shape):
        steps = torch.arange(n, device=keys.device) + starts[:, axis, None]
        spread = [len(keys), 1, 1, 1]
        spread[axis + 1] = n
        value = _mix(value ^ (steps * _signed(0x9E3779B97F4A7C15) + axis + 1).view(spread))
    return (_shifted(value, 52) * 2 - VALUE_LIMIT).to(torch.float32)


Kernel = Literal["linear", "keys", "spline"]


def _weights(kernel: Kernel, t: FloatArray) -> FloatArray:
    """Weights (n, taps) of the grid points around a position, `t` (n,) its distance to the point below it."""
    if kernel == "linear":
        return np.stack([1 - t, t], axis=-1)
    if kernel == "keys":  # Keys 1981, a = -1/2: passes through the grid values, exact for quadratics
        return np.stack(
            [
                ((-0.5 * t + 1) * t - 0.5) * t,
                (1.5 * t - 2.5) * t * t + 1,
                ((-1.5 * t + 2) * t + 0.5) * t,
                (0.5 * t - 0.5) * t * t,
            ],
            axis=-1,
        )
    return np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1) / 6


class Interpolation:
    """From coarse grids to the voxels of boxes: for each box (B) and axis, which grid points a voxel lies between.

    `starts` (B, 3) is the grid index of each box's first grid point, `shape` the number of grid points an axis.
    """

    def __init__(self, positions: Axes, kernel: Kernel, device: torch.device) -> None:
        """`positions`: coordinates of the voxels in units of the grid, (B, n) an axis, ascending."""
        lengths = [p.shape[1] for p in positions]
        joined = np.concatenate(positions, axis=1)
        floor = np.floor(joined)
        weights = np.rint(_weights(kernel, joined - floor) * _WEIGHT_UNIT)
        nearest = weights.argmax(axis=-1)[..., None]
        missing = _WEIGHT_UNIT - weights.sum(axis=-1, keepdims=True)
        np.put_along_axis(weights, nearest, np.take_along_axis(weights, nearest, -1) + missing, -1)
        first = floor.astype(np.int64) - (0 if kernel == "linear" else 1)
        ends = np.cumsum(lengths)
        spans = [slice(end - n, end) for end, n in zip(ends, lengths, strict=True)]
        self.starts = np.stack([first[:, s.start] for s in spans], axis=1)
        taps = weights.shape[-1]
        self.shape = tuple(int((first[:, s.stop - 1] - first[:, s.start]).max()) + taps for s in spans)
        self._matrices = [
            self._matrix(first[:, s] - self.starts[:, k, None], weights[:, s], self.shape[k]).to(device)
            for k, s in enumerate(spans)
        ]

    @staticmethod
    def _matrix(first: npt.NDArray[np.int64], weights: FloatArray, points: int) -> torch.Tensor:
        boxes, n, taps = weights.shape
        matrix = np.zeros((boxes, n, points), np.float32)
        columns = first[..., None] + np.arange(taps)
        np.put_along_axis(matrix, columns, weights.astype(np.float32), axis=-1)
        return torch.from_numpy(matrix)

    def __call__(self, grid: torch.Tensor) -> torch.Tensor:
        """Interpolate whole numbers of -4095 to 4095, (B, *shape) float32, at the voxels: (B, X, Y, Z) float32.

        With (B * K, *shape), K grids of each box one after the other, (B * K, X, Y, Z).
        """
        boxes, points = len(grid), grid.shape[1]
        each = boxes // len(self.starts)
        x, y, z = (m if each == 1 else m.repeat_interleave(each, 0) for m in self._matrices)
        passed = torch.matmul(grid, z.transpose(1, 2)[:, None]).mul_(1 / _WEIGHT_UNIT).round_()
        passed = torch.matmul(y[:, None], passed).mul_(1 / _WEIGHT_UNIT).round_()
        out = torch.bmm(x, passed.reshape(boxes, points, -1)).mul_(1 / _WEIGHT_UNIT)
        return out.view(boxes, x.shape[1], y.shape[1], z.shape[1])


class FieldGrid:
    """Where the lattice of random fields lies under the voxels (or coarse points) of boxes.

    `axes_mm`: coordinates relative to the tumor's centre; `grain_mm` (B,): the lattice constant. Neighbouring lumps of
    a field are about twice as far apart. Fields of different keys share one grid.
    """

    def __init__(self, axes_mm: Axes, grain_mm: npt.ArrayLike, device: torch.device) -> None:
        grain = np.asarray(grain_mm, np.float64)[:, None]
        x, y, z = axes_mm
        self._spline = Interpolation((x / grain, y / grain, z / grain), "spline", device)
        self._starts = torch.from_numpy(self._spline.starts).to(device)

    def field(self, keys: Sequence[int]) -> torch.Tensor:
        """A field of mean 0 and SD about 1 for each box's key, (B, X, Y, Z) float32."""
        return self.fields([(key,) for key in keys])[:, 0]

    def fields(self, keys: Sequence[Sequence[int]]) -> torch.Tensor:
        """K fields of mean 0 and SD about 1 for each box, one a key, (B, K, X, Y, Z) float32."""
        boxes, each = len(keys), len(keys[0])
        words = [_signed(key % (1 << 64)) for of_box in keys for key in of_box]
        starts = self._starts.repeat_interleave(each, 0)
        values = lattice(torch.tensor(words, device=starts.device), starts, self._spline.shape)
        out = self._spline(values).mul_(_LATTICE_SD * _SPLINE_GAIN).clamp_(-FIELD_LIMIT, FIELD_LIMIT)
        return out.view(boxes, each, *out.shape[1:])
