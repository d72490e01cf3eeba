"""The form of a tumor: an ellipsoid under an elastic deformation, as a depth field and a soft mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.synthesis.fields import Axes, smooth_field

if TYPE_CHECKING:  # spec.py draws with location.py of this room
    from pipeline.spec import TumorSpec


def depth_mm(tumor: TumorSpec, axes_mm: Axes, device: torch.device) -> torch.Tensor:
    """Depth below the tumor's surface in mm, negative outside, (X, Y, Z) float32.

    `axes_mm`: coordinates of the box's voxels relative to the tumor's centre. To first order in the distance from the
    surface: with s = |A p| for the ellipsoid |A p| = 1, the distance is (1 - s) / |grad s| = (1 - s) s / |A^T A p|.
    """
    along = [_coordinate(tumor, axes_mm, i, device) for i in range(3)]
    s2 = torch.zeros_like(along[0])
    g2 = torch.zeros_like(along[0])
    for j, half_axis in enumerate(tumor.half_axes_mm):
        q = along[0] * tumor.rotation[j][0] + along[1] * tumor.rotation[j][1] + along[2] * tumor.rotation[j][2]
        q.div_(half_axis)
        s2.add_(q * q)
        q.div_(half_axis)
        g2.add_(q.mul_(q))
    s = s2.sqrt_()
    return (1 - s).mul_(s).div_(g2.sqrt_().add_(1e-6))


def _coordinate(tumor: TumorSpec, axes_mm: Axes, axis: int, device: torch.device) -> torch.Tensor:
    """Where each voxel's tissue comes from along one axis: its coordinate plus the elastic displacement."""
    spread = [1, 1, 1]
    spread[axis] = len(axes_mm[axis])
    straight = torch.from_numpy(axes_mm[axis]).to(device, torch.float32).view(spread)
    if tumor.deformation_mm == 0:
        return straight.expand([len(a) for a in axes_mm])
    moved = smooth_field(tumor.key + axis, axes_mm, tumor.deformation_grid_mm, device)
    return moved.mul_(tumor.deformation_mm).add_(straight)


def soft_mask(depth: torch.Tensor, edge_mm: float) -> torch.Tensor:
    """Share of tumor in each voxel, 0 to 1: a cubic step (smoothstep) of width `edge_mm`, 0.5 on the surface."""
    t = (depth / edge_mm).add_(0.5).clamp_(0, 1)
    return t * t * (3 - 2 * t)
