"""Offsets of organs, contrast, offset, gamma, blur, low resolution and noise of a batch in HU, in this order.

What tissue looks like comes first, then the scanner: resolution before noise, so the noise has the SD that was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from training.augmentation.draws import Appearance
from training.augmentation.separable import Matrix, along_axes, coarser, gaussian, to_device

Window = tuple[float, float]
_ORGAN_EDGE_VOX = 1.0  # SD of the border of an organ that is shifted, so that the border itself tells nothing


def change(image: Tensor, label: Tensor, appearances: Sequence[Appearance], window: Window) -> None:
    """Change HU (B, 1, X, Y, Z) float32 in place; `label` holds the class ids of the same voxels."""
    for sample, ids, appearance in zip(image, label, appearances, strict=True):
        _shift_organs(sample, ids, appearance.organ_shifts_hu)
    _scale_and_shift(image, appearances, sum(window) / 2)
    for sample, appearance in zip(image, appearances, strict=True):
        if appearance.gamma != 1:
            _bend(sample, appearance.gamma, window)
        if appearance.blur_vox > 0 or appearance.resolution < 1:
            sample[0] = along_axes(sample[0].clone(), [_filter(n, appearance) for n in sample.shape[1:]])
        if appearance.noise_sd_hu > 0:
            _add_noise(sample, appearance)


def _shift_organs(sample: Tensor, ids: Tensor, shifts_hu: Mapping[int, float]) -> None:
    """Add each organ's offset to the organ and its tumors, whose id is the organ's plus 1."""
    if not shifts_hu:
        return
    offsets = torch.zeros_like(sample)
    for organ, shift_hu in shifts_hu.items():
        offsets.add_(((ids == organ) | (ids == organ + 1)).float(), alpha=shift_hu)
    sample[0].add_(along_axes(offsets[0], [gaussian(n, _ORGAN_EDGE_VOX) for n in sample.shape[1:]]))


def _scale_and_shift(image: Tensor, appearances: Sequence[Appearance], center_hu: float) -> None:
    """Scale the contrast about `center_hu` and shift: a factor and an offset for each sample."""
    factors = np.array([a.scale for a in appearances])
    offsets = center_hu * (1 - factors) + [a.shift_hu for a in appearances]
    if (factors != 1).any() or offsets.any():
        both = to_device(np.stack((factors, offsets)).astype(np.float32), image.device)
        factor, offset = both.view(2, -1, 1, 1, 1, 1)
        image.mul_(factor).add_(offset)


def _bend(sample: Tensor, gamma: float, window: Window) -> None:
    """Raise the grey values inside the window, 0 to 1, to a power; what is outside stays, so the order of values does.

    By logarithm and exponential: torch's own power is slower, and rounds the last few values of each thread's share
    unlike the others, so that the result would depend on the number of threads.
    """
    low, high = window
    grey = sample.sub(low).div_(high - low).clamp_(0, 1)
    bent = grey.log().mul_(gamma).exp_()
    sample.add_(bent.sub_(grey).mul_(high - low))


def _filter(n: int, appearance: Appearance) -> Matrix:
    """Blur and coarser scan along an axis of n voxels, as one matrix."""
    blurred = gaussian(n, appearance.blur_vox)
    return coarser(n, appearance.resolution) @ blurred if appearance.resolution < 1 else blurred


def _add_noise(sample: Tensor, appearance: Appearance) -> None:
    """White noise from a generator of the sample's own on its device: CPUs and GPUs draw other noise."""
    rng = torch.Generator(sample.device).manual_seed(appearance.noise_seed)
    sample.add_(torch.randn(sample.shape, generator=rng, device=sample.device).mul_(appearance.noise_sd_hu))
