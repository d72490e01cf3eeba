"""Crops, augmentation and the HU window, batched on the device that the batch is on.

In: `image` int16 or float HU and `label` uint8 class ids, both (B, 1, X, Y, Z), with the positions of the samples in
the global order. Every draw depends on (seed, position) alone, so a sample comes out the same in any batch and on any
rank: to the bit on a CPU. Pure: inputs are never written to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.train_config import AugmentConfig
from training.augmentation.draws import Purpose, draw, generator
from training.augmentation.intensity import change
from training.augmentation.separable import to_device
from training.augmentation.spatial import move

Shape3 = tuple[int, int, int]
Positions = Sequence[int] | npt.NDArray[np.int64]


def to_window(image: Tensor, window: tuple[float, float]) -> Tensor:
    """HU of any dtype and shape to float32 in [-1, 1], the window's ends to -1 and 1; values outside are clamped."""
    low, high = window
    return image.to(torch.float32).sub(low).mul_(2 / (high - low)).sub_(1).clamp_(-1, 1)


def augment(
    image: Tensor,
    label: Tensor,
    config: AugmentConfig,
    seed: int,
    positions: Positions,
    window: tuple[float, float],
    *,
    shown: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The batch moved and its HU changed as `config` says: float32 HU, before the window, and the label; both new.

    Of a label of other values than class ids, `shown` (256,) uint8 gives the class that each value shows. ValueError
    unless there is one position for each sample.
    """
    changes = [draw(config, seed, int(position)) for position in _one_each(positions, image)]
    with torch.autocast(image.device.type, enabled=False):  # HU in bf16 are off by up to 4
        image, label = move(image, label, [movement for movement, _ in changes])
        ids = label if shown is None else _looked_up(label, shown)
        change(image, ids, [appearance for _, appearance in changes], window)
    return image, label


def random_crop(
    image: Tensor,
    label: Tensor,
    shape: Shape3,
    tumor_share: float,
    tumor_ids: Collection[int],
    seed: int,
    positions: Positions,
) -> tuple[Tensor, Tensor]:
    """One crop of `shape` per sample, with probability `tumor_share` around a random tumor voxel, else anywhere.

    The tumor voxel lies within a quarter of the crop's edge from its centre, further out only where the crop would
    leave the patch. Samples without tumor are cropped anywhere. ValueError when `shape` does not fit into the patch,
    and unless there is one position for each sample.
    """
    if any(s > n for s, n in zip(shape, label.shape[2:], strict=True)):
        raise ValueError(f"a crop of {shape} does not fit into a patch of {tuple(label.shape[2:])}")
    u = np.stack([generator(seed, int(p), Purpose.CROP).random(8) for p in _one_each(positions, image)])
    room = np.array(label.shape[2:]) - np.array(shape)
    origin = to_device((u[:, :3] * (room + 1)).astype(np.int64), label.device)
    if tumor_share > 0:
        voxel, has_tumor = _random_voxel(_is_one_of(label, tumor_ids), to_device(u[:, 3:4], label.device))
        chosen = has_tumor & to_device(u[:, 4] < tumor_share, label.device)
        origin = torch.where(chosen[:, None], _around(voxel, u[:, 5:], shape, room), origin)
    return _crop(image, origin, shape), _crop(label, origin, shape)


def _one_each(positions: Positions, image: Tensor) -> Positions:
    if len(positions) != len(image):
        raise ValueError(f"{len(image)} samples need as many positions, got {len(positions)}")
    return positions


def _is_one_of(label: Tensor, class_ids: Collection[int]) -> Tensor:
    table = torch.zeros(256, dtype=torch.bool)
    table[sorted(class_ids)] = True
    return _looked_up(label, table)


def _looked_up(label: Tensor, table: Tensor) -> Tensor:
    """What a table of 256 entries holds for each voxel of a uint8 label."""
    return table.to(label.device, non_blocking=True).index_select(0, label.flatten().int()).view(label.shape)


def _random_voxel(mask: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The voxel (B, 3) of each sample's mask that `u` (B, 1) in [0, 1) picks, and whether it has one (B,).

    Without a round trip to the host. `u` is float64, so that `floor(u * n)` stays below n.
    """
    order = mask.flatten(1).cumsum(1, dtype=torch.int32)
    count = order[:, -1:]
    flat = torch.searchsorted(order, (u * count).int() + 1).clamp_max(order.shape[1] - 1)[:, 0]
    _, y, z = mask.shape[2:]
    return torch.stack((flat // (y * z), flat // z % y, flat % z), 1), count[:, 0] > 0


def _around(voxel: Tensor, u: npt.NDArray[np.float64], shape: Shape3, room: npt.NDArray[np.int64]) -> Tensor:
    """The origins (B, 3) of crops about voxels (B, 3), off the centre as `u` (B, 3) in [0, 1) says, in the patch."""
    size = np.array(shape)
    reach = size // 4
    before = (u * (2 * reach + 1)).astype(np.int64) - reach - size // 2
    wished = (voxel + to_device(before, voxel.device)).clamp_min(0)
    return torch.minimum(wished, to_device(room, voxel.device))


def _crop(volume: Tensor, origin: Tensor, shape: Shape3) -> Tensor:
    """The box of `shape` at each sample's `origin` (B, 3)."""
    sample = torch.arange(volume.shape[0], device=volume.device)[:, None, None, None]
    x, y, z = (origin[:, axis, None] + torch.arange(shape[axis], device=volume.device) for axis in range(3))
    return volume[sample, 0, x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]][:, None]
