"""Crops, augmentation and the HU window, batched on the device that the batch is on.

In: `image` int16 or float HU and `label` uint8 class ids, both (B, 1, X, Y, Z). Every draw is per sample and comes from
the generator that is passed; geometric draws serve image and label alike. Pure: inputs are never written to.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from pipeline.train_config import AugmentConfig

Shape3 = tuple[int, int, int]
DEFAULT_CENTER_HU = 37.5  # centre of the default window (-175, 250)


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one training step: the same for (seed, step) whether the run was resumed or not."""
    state = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


def to_window(image: Tensor, window: tuple[float, float]) -> Tensor:
    """HU of any dtype and shape to float32 in [-1, 1], the window's ends to -1 and 1; values outside are clamped."""
    low, high = window
    return image.to(torch.float32).sub(low).mul_(2 / (high - low)).sub_(1).clamp_(-1, 1)


def augment(
    image: Tensor,
    label: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    center_hu: float = DEFAULT_CENTER_HU,
) -> tuple[Tensor, Tensor]:
    """Flip each axis, scale the contrast about `center_hu`, shift and add white noise; float32 HU and the label."""
    image, label = _flip(image.to(torch.float32), label, config.flip, generator)
    draws = _uniform((3, image.shape[0]), generator).to(torch.float32).view(3, -1, 1, 1, 1, 1)
    scale = 1 + config.scale * (2 * draws[0] - 1)
    shift_hu = config.shift_hu * (2 * draws[1] - 1)
    noise_sd_hu = config.noise_hu * draws[2]
    image = (image - center_hu) * scale + (center_hu + shift_hu)
    if config.noise_hu > 0:
        image += noise_sd_hu * torch.randn(image.shape, generator=generator, device=image.device)
    return image, label


def random_crop(
    image: Tensor,
    label: Tensor,
    shape: Shape3,
    tumor_share: float,
    tumor_ids: Collection[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One crop of `shape` per sample, with probability `tumor_share` around a random tumor voxel, else anywhere.

    The tumor voxel lies within a quarter of the crop's edge from its centre, further out only where the crop would
    leave the patch. Samples without tumor are cropped anywhere. ValueError when `shape` does not fit into the patch.
    """
    if any(s > n for s, n in zip(shape, label.shape[2:], strict=True)):
        raise ValueError(f"a crop of {shape} does not fit into a patch of {tuple(label.shape[2:])}")
    size = torch.tensor(shape, device=label.device)
    room = torch.tensor(label.shape[2:], device=label.device) - size
    batch = label.shape[0]
    anywhere = (_uniform((batch, 3), generator) * (room + 1)).long()
    voxel, has_tumor = _random_voxel(_is_one_of(label, tumor_ids), generator)
    reach = size // 4
    jitter = (_uniform((batch, 3), generator) * (2 * reach + 1)).long() - reach
    around = torch.minimum((voxel - size // 2 + jitter).clamp_min(0), room)
    chosen = has_tumor & (_uniform((batch,), generator) < tumor_share)
    origin = torch.where(chosen[:, None], around, anywhere)
    return _crop(image, origin, shape), _crop(label, origin, shape)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """U[0, 1) in float64, so that `floor(u * n)` stays below n."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)


def _flip(image: Tensor, label: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    chosen = _uniform((3, image.shape[0]), generator) < share
    for axis in range(3):
        flipped = chosen[axis].view(-1, 1, 1, 1, 1)
        image = torch.where(flipped, image.flip(axis + 2), image)
        label = torch.where(flipped, label.flip(axis + 2), label)
    return image, label


def _is_one_of(label: Tensor, class_ids: Collection[int]) -> Tensor:
    table = torch.zeros(256, dtype=torch.bool)
    table[sorted(class_ids)] = True
    return table.to(label.device).index_select(0, label.flatten().int()).view(label.shape)


def _random_voxel(mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A uniformly drawn voxel (B, 3) of each sample's mask, and whether it has one (B,); without a host round trip."""
    order = mask.flatten(1).cumsum(1)
    count = order[:, -1:]
    rank = (_uniform((mask.shape[0], 1), generator) * count).long() + 1
    flat = torch.searchsorted(order, rank).clamp_max(order.shape[1] - 1)[:, 0]
    _, y, z = mask.shape[2:]
    return torch.stack((flat // (y * z), flat // z % y, flat % z), 1), count[:, 0] > 0


def _crop(volume: Tensor, origin: Tensor, shape: Shape3) -> Tensor:
    """The box of `shape` at each sample's `origin` (B, 3)."""
    sample = torch.arange(volume.shape[0], device=volume.device)[:, None, None, None]
    x, y, z = (origin[:, axis, None] + torch.arange(shape[axis], device=volume.device) for axis in range(3))
    return volume[sample, 0, x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]][:, None]
