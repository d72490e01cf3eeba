"""What a tumor is made of: parenchyma without its vessels, plus coarse structure, plus the donor's own fine noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from pipeline.synthesis.fields import Axes, smooth_field

if TYPE_CHECKING:  # spec.py draws with location.py of this room
    from pipeline.spec import TumorSpec

SHADING_HU = 20.0  # parenchyma may differ by this from its mean across an organ
NOISE_SDS = 2.5  # donor residuals beyond this many SD are vessels and edges, not noise
_TEXTURE_KEY = 16  # keys 0 to 2 are the deformation's


def structure(tumor: TumorSpec, axes_mm: Axes, device: torch.device) -> torch.Tensor:
    """Coarse structure of the tumor in HU, (X, Y, Z) float32."""
    return smooth_field(tumor.key + _TEXTURE_KEY, axes_mm, tumor.texture_grain_mm, device).mul_(tumor.texture_sd_hu)


def level(contrast_hu: float, profile: torch.Tensor, alpha: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """HU to add to the tumor so that, blended by `alpha`, its mean over `mask` is `contrast_hu` above parenchyma.

    `profile` is what structure and rim add. The sums are in fixed point: integers add up to the same in any order, on
    any device.
    """
    share = (alpha * 4096).to(torch.int64) * mask
    added = (share * (profile * 64).to(torch.int64)).sum() / (4096 * 64)
    return ((contrast_hu * mask.sum() - added) / (share.sum() / 4096)).to(torch.float32)


def parenchyma(ct: torch.Tensor, tissue: torch.Tensor, mean_hu: float, cell: int) -> torch.Tensor:
    """Local HU of the organ's tissue without vessels, smooth over about `2 * cell` voxels, (X, Y, Z) float32.

    `tissue` is 1 where a voxel is parenchyma. Cells without any take the organ's mean.
    """
    pooled = [F.avg_pool3d(v[None, None], cell, cell, ceil_mode=True) for v in (ct * tissue, tissue)]
    total, weight = (F.avg_pool3d(v, 3, 1, padding=1) for v in pooled)
    local = (total + 0.01 * mean_hu) / (weight + 0.01)
    local = local.clamp_(mean_hu - SHADING_HU, mean_hu + SHADING_HU)
    size = [n * cell for n in local.shape[2:]]
    smooth = F.interpolate(local, size=size, mode="trilinear", align_corners=False)[0, 0]
    return smooth[tuple(slice(n) for n in ct.shape)]


def fine_noise(ct: torch.Tensor, halo: int, passes: int, sd_hu: float) -> torch.Tensor:
    """The donor's own noise: CT minus its local mean, cut at NOISE_SDS; the halo of the box is taken off."""
    mean = ct
    for axis in range(3):
        for _ in range(passes):
            mean = _box3(mean, axis)
    inner = tuple(slice(halo, n - halo) for n in ct.shape)
    kept = halo - passes
    trim = tuple(slice(kept, n - kept) for n in mean.shape)
    return (ct[inner] - mean[trim]).clamp_(-NOISE_SDS * sd_hu, NOISE_SDS * sd_hu)


def _box3(values: torch.Tensor, axis: int) -> torch.Tensor:
    n = values.shape[axis] - 2
    return (values.narrow(axis, 0, n) + values.narrow(axis, 1, n) + values.narrow(axis, 2, n)).div_(3)
