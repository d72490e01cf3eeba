"""The ball loss of R-Super (Bassi et al., MICCAI 2025): where the tumors of a report most probably are.

For each tumor, the largest first, the ball of its diameter that holds most predicted probability is looked up, and in
it the most probable voxels, as many as the report's volume, become tumor. Constants are of the published code, which
is for 1 mm voxels; here millimetres are converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.supervision.pooling import rank_log_weights
from training.supervision.reports import ellipsoid_mm3

_SD_RADII = 1.5  # of the Gaussian weight inside the ball, in its radii
_MARGIN = 0.2  # of the ball in which voxels are chosen, and of how many are surely tumor or may be
_CORE_MM3 = 100.0  # a tumor up to this is tumor for sure altogether
_RING_MM = 7.0  # diameter of the ball that dilates what may be tumor
_FOREGROUND_SHARE = 0.5  # of rank-weighted pooling over the foreground


@dataclass(frozen=True)
class BallTargets:
    """Voxels of an organ, (X, Y, Z) bool; those of neither are ignored."""

    foreground: Tensor
    background: Tensor


def ball_loss(log_p: Tensor, log_rest: Tensor) -> Tensor:
    """Binary cross-entropy of log p of the foreground (F,) and log(1 - p) of the background (B,), F not 0; a scalar.

    Foreground: more weight for voxels that are more probable, so that the network goes on with what it has begun.
    Plus the mean over the background. Each has its own mean, where the published code divides both by all voxels and
    adds a Dice loss against their imbalance.
    """
    weights = rank_log_weights(len(log_p), len(log_p), _FOREGROUND_SHARE, log_p).exp()
    loss = -(weights * log_p.sort(descending=True).values).sum()
    return loss - log_rest.mean() if len(log_rest) else loss


@torch.no_grad()
def find_tumors(log_p: Tensor, organ: Tensor, tumors: Sequence[tuple[float, ...]], spacing_mm: float) -> BallTargets:
    """Place tumors of these diameters in mm at the most probable voxels of an organ.

    `log_p` (X, Y, Z) of the tumor, `organ` the voxels where it may be, one or more. A tumor's ball has its largest
    diameter; it gets fewer voxels where ball and organ have no more.
    """
    corner, shape = _bounds(organ)
    crop = tuple(slice(low, low + edge) for low, edge in zip(corner, shape, strict=True))
    log_p, within = log_p[crop], organ[crop]
    free, core, outer = within.clone(), torch.zeros_like(within), torch.zeros_like(within)
    for diameters in sorted(tumors, key=ellipsoid_mm3, reverse=True):
        if not bool(free.any()):
            break
        near = free & _best_ball(log_p, free, diameters[0] / 2 / spacing_mm)
        wanted = max(1, round(ellipsoid_mm3(diameters) / spacing_mm**3))
        ranked = _ranked(log_p, near)
        sure = max(1, int(wanted * (1 - _MARGIN)), min(wanted, round(_CORE_MM3 / spacing_mm**3)))
        core.view(-1)[ranked[:sure]] = True
        outer.view(-1)[ranked[: int(wanted * (1 + _MARGIN))]] = True
        free.view(-1)[ranked[:wanted]] = False
    ring = _convolved(outer.to(log_p.dtype), _RING_MM / 2 / spacing_mm, gaussian=False) > 0.5
    foreground, background = torch.zeros_like(organ), torch.zeros_like(organ)
    foreground[crop] = core
    background[crop] = within & ~ring & ~core
    return BallTargets(foreground, background)


def _bounds(mask: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lowest corner and shape of the box around the true voxels of (X, Y, Z)."""
    corner, shape = [], []
    for axis in range(3):
        planes = mask.any(dim=(axis + 1) % 3, keepdim=True).any(dim=(axis + 2) % 3, keepdim=True)
        there = planes.flatten().nonzero()
        corner.append(int(there[0]))
        shape.append(int(there[-1]) - corner[-1] + 1)
    return tuple(corner), tuple(shape)


def _best_ball(log_p: Tensor, free: Tensor, radius_vox: float) -> Tensor:
    """The voxels (X, Y, Z) bool of the ball, 1.2 times as large, around the centre with most probability about it."""
    # Relative to the most probable voxel: a network that is sure of no tumor still has a most probable place.
    p = (log_p - log_p[free].max()).exp().where(free, 0.0)
    score = _convolved(p, radius_vox, gaussian=True).where(free, -1.0)
    centre = torch.unravel_index(score.argmax(), score.shape)
    axes = [torch.arange(edge, device=p.device) - at for edge, at in zip(p.shape, centre, strict=True)]
    return _squared(axes) <= ((1 + _MARGIN) * radius_vox) ** 2


def _ranked(log_p: Tensor, voxels: Tensor) -> Tensor:
    """Flat indices of the voxels, the most probable first, ties in their order."""
    flat = voxels.flatten().nonzero().flatten()
    return flat[log_p.flatten()[flat].argsort(descending=True, stable=True)]


def _convolved(volume: Tensor, radius_vox: float, gaussian: bool) -> Tensor:
    """(X, Y, Z) convolved with a ball, by FFT: its time does not depend on the radius."""
    # The padding is as wide as the ball, so that what wraps around is 0; multiples of 8 are fast.
    padded = [-(-(edge + int(radius_vox) + 1) // 8) * 8 for edge in volume.shape]
    axes = [torch.arange(edge, device=volume.device) for edge in padded]
    squared = _squared([torch.minimum(axis, len(axis) - axis) for axis in axes]).to(volume.dtype)
    ball = (squared <= radius_vox**2).to(volume.dtype)
    if gaussian:
        ball = ball * torch.exp(-squared / (2 * max(_SD_RADII * radius_vox, 0.5) ** 2))
    product = torch.fft.rfftn(volume, s=padded) * torch.fft.rfftn(ball)
    whole: Tensor = torch.fft.irfftn(product, s=padded)
    x, y, z = volume.shape
    return whole[:x, :y, :z]


def _squared(axes: Sequence[Tensor]) -> Tensor:
    """Squared distance in voxels at each point of a grid of three axes."""
    x, y, z = (axis.square() for axis in axes)
    grid: Tensor = x[:, None, None] + y[None, :, None] + z[None, None, :]
    return grid
