"""Flips, rotation, zoom and elastic displacement of a batch, image and label alike, at most one resampling a sample.

Rotation, zoom and displacement turn about the patch's centre and are one map from voxels to source points. Images are
interpolated linearly; labels take the nearest voxel, so no class arises that was not there. What comes in from beyond
an edge is the patch's mirror image, as in MONAI's RandAffine: it keeps tissue, noise and label as a CT has them, where
air would draw edges that no CT has and a repeated edge would draw streaks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from training.augmentation.draws import Movement
from training.augmentation.separable import along_axes, spline, to_device

# Control points of a displacement of SD s lie 8 s apart: the slope of the field then has an SD of sqrt(210/151) / 8 =
# 0.15, so tissue folds (a slope of -1) at 6.8 SD only, whatever s is.
_CONTROL_SPACING = 8.0
_LEAST_CONTROL_SPACING_VOX = 4.0


def move(image: Tensor, label: Tensor, movements: Sequence[Movement]) -> tuple[Tensor, Tensor]:
    """The moved image (B, 1, X, Y, Z) in float32 and label of the same dtype, both new."""
    images = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    labels = torch.empty(label.shape, dtype=label.dtype, device=label.device)
    for k, movement in enumerate(movements):
        axes = [axis + 1 for axis in movement.flipped]
        images[k], labels[k] = image[k].flip(axes), label[k].flip(axes)
    moving = [k for k, movement in enumerate(movements) if movement.resamples]
    if moving:
        _resample(images, labels, moving, [movements[k] for k in moving])
    return images, labels


def _resample(images: Tensor, labels: Tensor, moving: Sequence[int], movements: Sequence[Movement]) -> None:
    """Put the moved samples in place of those of the numbers `moving`."""
    points = _source_points(movements, images.shape[2:], images.device)
    for k, source in zip(moving, points, strict=True):
        labels[k, 0] = _nearest(labels[k, 0], source)
    for axis, n in enumerate(images.shape[2:]):  # to grid_sample's terms: the outer faces at -1 and 1
        points[:, 2 - axis].add_(0.5).mul_(2 / n).sub_(1)
    sources = torch.stack([images[k] for k in moving])
    moved = F.grid_sample(sources, points.movedim(1, -1), "bilinear", "border", align_corners=False)
    for k, sample in zip(moving, moved, strict=True):
        images[k] = sample


def _source_points(movements: Sequence[Movement], shape: torch.Size, device: torch.device) -> Tensor:
    """Where each voxel's value comes from, inside the patch, in voxels: (k, 3, X, Y, Z) with components Z, Y, X.

    The last axis comes first, as grid_sample has it.
    """
    matrices = np.stack([_source_matrix(movement) for movement in movements])[:, ::-1]
    center = (np.array(shape, np.float64) - 1) / 2
    x, y, z = (matrices[:, :, axis, None] * (np.arange(n) - center[axis]) for axis, n in enumerate(shape))
    x += center[::-1, None]
    x_line, y_line, z_line = (to_device(line.astype(np.float32), device) for line in (x, y, z))
    points = (x_line[..., None] + y_line[..., None, :])[..., None] + z_line[:, :, None, None, :]
    for source, movement in zip(points, movements, strict=True):
        if movement.displacement_vox:
            source += displacement(movement, shape, device)
    for axis, n in enumerate(shape):
        _mirror(points[:, 2 - axis], n)
    return points


def _source_matrix(movement: Movement) -> npt.NDArray[np.float64]:
    """The offset from the centre at which a voxel's value is found, as a matrix (3, 3) times the voxel's own offset."""
    rotation = np.eye(3)
    for axis, angle_deg in enumerate(movement.angles_deg):
        angle, i, j = np.deg2rad(angle_deg), (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation.T / movement.magnification


def displacement(movement: Movement, shape: Sequence[int], device: torch.device) -> Tensor:
    """A smooth random field (3, X, Y, Z) in voxels, of the movement's SD in each component on average."""
    spacing_vox = max(_CONTROL_SPACING * movement.displacement_vox, _LEAST_CONTROL_SPACING_VOX)
    matrices = [spline(n, spacing_vox) for n in shape]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(movement.displacement_seed)))
    control = movement.displacement_vox * rng.standard_normal((3, *(matrix.shape[1] for matrix in matrices)))
    return along_axes(to_device(control.astype(np.float32), device), matrices)


def _mirror(points: Tensor, n: int) -> None:
    """Fold coordinates, in place, back between the centres of n voxels: a mirror at the outer face of the edge voxels.

    By floor and arithmetic that any float32 unit rounds alike, unlike remainder.
    """
    points.add_(0.5)
    points.sub_((points * (0.5 / n)).floor_().mul_(2 * n))
    points.sub_(n).abs_().neg_().add_(n - 0.5).clamp_(0, n - 1)


def _nearest(label: Tensor, source: Tensor) -> Tensor:
    """The label (X, Y, Z) at source points (3, X, Y, Z) with components Z, Y, X."""
    z, y, x = source.round().to(torch.int32)
    _, rows, columns = label.shape
    return label.flatten().index_select(0, ((x * rows + y) * columns + z).flatten()).view(label.shape)
