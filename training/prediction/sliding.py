"""A network over volumes larger than its window, in memory that does not grow along the longest axis.

In: HU images and a function from windows to class probabilities. Out: mean probabilities, finished slab by slab.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline import grid
from pipeline.case import AIR_HU
from pipeline.grid import Index3
from training.network import Shape3

SIGMA = 1 / 8  # of a window's edge, nnU-Net (Isensee et al. 2021)
LEAST_WEIGHT = 1e-3  # where only corners of windows reach, sums are divided by this, not by rounding errors

Predict = Callable[[Tensor], Tensor]  # HU windows (N, 1, *window) to probabilities (N, C, *window), on one device


@dataclass(frozen=True)
class Slab:
    """Mean probabilities (B, C, X, Y, Z) of the planes `start` to `stop` along `axis` (0, 1 or 2) of a volume."""

    axis: int
    start: int
    stop: int
    probabilities: Tensor


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxel of every window along an axis: neighbours share `overlap` of a window, the last ends with the axis.

    An axis shorter than the window lies in the middle of the only one, so that starts before 0.
    """
    if size <= window:
        return [-((window - size) // 2)]
    step = max(1, int(window * (1 - overlap)))
    return [min(k * step, size - window) for k in range(math.ceil((size - window) / step) + 1)]


def count_windows(shape: Shape3, window: Shape3, overlap: float) -> int:
    """How many windows cover a volume."""
    return math.prod(len(window_starts(n, w, overlap)) for n, w in zip(shape, window, strict=True))


def gaussian_weights(window: Shape3) -> Tensor:
    """What each voxel of a window counts (X, Y, Z): most in its middle, where the network sees the most around it."""
    weights = torch.ones(1)
    for edge in window:
        offset = torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2
        weights = weights[..., None] * torch.exp(-(offset**2) / (2 * (SIGMA * edge) ** 2))
    return weights[0].clamp(min=LEAST_WEIGHT)


def probability_slabs(
    image: Tensor,
    window: Shape3,
    predict: Predict,
    *,
    overlap: float,
    at_once: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda windows: None,
) -> Iterator[Slab]:
    """Weighted means of overlapping windows of HU images (B, 1, X, Y, Z), in order along the longest axis.

    Windows come one layer after the other; planes that no later layer reaches are finished and leave the memory.
    Beyond the image is air. `at_once` window positions are predicted together, on `device`; `advance` hears of them.
    """
    size = grid.index3(image.shape[2:])
    axis = max(range(3), key=lambda a: size[a])
    starts = [window_starts(n, w, overlap) for n, w in zip(size, window, strict=True)]
    sums = _Sums(size, window, axis, device)
    for start, following in itertools.pairwise([*starts[axis], size[axis]]):
        layer = ([start] if a == axis else along for a, along in enumerate(starts))
        origins = [grid.index3(origin) for origin in itertools.product(*layer)]
        for k in range(0, len(origins), at_once):
            some = origins[k : k + at_once]
            windows = torch.cat([_cut(image, origin, window) for origin in some]).to(device)
            for origin, values in zip(some, torch.split(predict(windows), image.shape[0]), strict=True):
                sums.add(origin, values)
            advance(len(some))
        low = max(start, 0)
        yield Slab(axis, low, following, sums.finish(following - low))


def _cut(image: Tensor, origin: Index3, window: Shape3) -> Tensor:
    """The window at `origin`, filled up with air where it reaches beyond the image."""
    of_image, of_window = grid.overlap(origin, window, image.shape[2:])
    part = image[(..., *of_image)]
    if part.shape[2:] == window:
        return part
    out = image.new_full((*image.shape[:2], *window), AIR_HU)
    out[(..., *of_window)] = part
    return out


class _Sums:
    """Weighted sums over the layer of windows that is being added, as deep as a window."""

    def __init__(self, size: Index3, window: Shape3, axis: int, device: torch.device) -> None:
        self._window, self._axis, self._low = window, axis, 0  # _low: which plane of the volume comes first here
        self._shape = grid.index3(min(n, window[a]) if a == axis else n for a, n in enumerate(size))
        self._kernel = gaussian_weights(window).to(device)
        self._weights = torch.zeros(1, 1, *self._shape, device=device)
        self._values: Tensor | None = None

    def add(self, origin: Index3, values: Tensor) -> None:
        """Add the probabilities (B, C, *window) of the window at `origin` of the volume."""
        if self._values is None:
            self._values = values.new_zeros((*values.shape[:2], *self._shape), dtype=torch.float32)
        here = grid.index3(n - self._low * (a == self._axis) for a, n in enumerate(origin))
        of_sums, of_window = grid.overlap(here, self._window, self._shape)
        kernel = self._kernel[of_window]
        self._values[(..., *of_sums)] += values[(..., *of_window)] * kernel
        self._weights[(..., *of_sums)] += kernel

    def finish(self, planes: int) -> Tensor:
        """Means of the first planes, which no further window reaches; those after them move to the front."""
        if self._values is None:
            raise ValueError("no window was added")
        dim, kept = self._axis + 2, self._shape[self._axis] - planes
        done = self._values.narrow(dim, 0, planes) / self._weights.narrow(dim, 0, planes)
        for sums in (self._values, self._weights):
            for k in range(0, kept, planes):  # in steps that do not reach into what they read
                n = min(planes, kept - k)
                sums.narrow(dim, k, n).copy_(sums.narrow(dim, k + planes, n))
            sums.narrow(dim, kept, planes).zero_()
        self._low += planes
        return done
