"""What a tumor that blocks a duct does to the gland behind it: a dilated duct, and a thinner gland."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.case import Case
from pipeline.grid import crop, index3
from pipeline.organs import organ_id
from pipeline.synthesis.engines.registry import reach_mm
from pipeline.synthesis.fields import root
from pipeline.synthesis.shape import FAT_RANGE_HU, grown, largest_component, step
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import TumorSpec, UpstreamSpec

FAT_HU = -95.0  # what shrunken gland leaves behind where no fat is near
GLAND_MM = 25.0  # the gland belongs to the duct that runs within this distance
_ONSET_MM = 10.0  # atrophy comes on over this length of duct
_EDGE_MM = 1.5


class Replaced(NamedTuple):
    """HU (float32, not rounded) of a window (X, Y, Z) behind a blocked duct, and where its gland is gone (bool)."""

    hu: torch.Tensor
    gone: torch.Tensor


def behind_blocked_duct(
    tumor: TumorSpec, effect: UpstreamSpec, image: torch.Tensor, window: Window, tumors: Sequence[TumorSpec] = ()
) -> Replaced:
    """Thin the gland, then paint the duct; `image` (X, Y, Z) int16 is what the window shows.

    `tumors` of the sample keep the gland that they lie in.
    """
    organs = window.volume("organs", 0)[0]
    at = torch.nonzero(organs == organ_id(tumor.organ), as_tuple=True)
    distance, walked = _from_duct(effect, window, at)
    noise = window.volume("noise", 0)[0][at].to(torch.float32)
    surface = window.volume("surface_distance_mm", 0)[0][at].to(torch.float32)
    onset = (walked * (1 / _ONSET_MM)).clamp_(0, 1).mul_(effect.atrophy_mm)
    lost = step(onset.sub(surface).mul_(1 / _EDGE_MM).add_(0.5).clamp_(0, 1))
    # Towards another organ the gland keeps its surface: they lie against each other, and nothing would fill the gap.
    others = (organs > 0) & (organs != organ_id(tumor.organ))
    against = grown(others, _looked_at(effect, window.spacing_mm))[at] > 0
    behind = (distance < GLAND_MM) & (onset > 0) & ~against
    for other in tumors:
        behind &= _away(other.center_vox, window, at) > reach_mm(other)
    _without_crumbs(lost.mul_(behind), behind, organs, at)
    fat = _fat_around(organs, tumor, window)
    shown = image[at].to(torch.float32)
    shown = shown + lost * (noise + fat - shown)
    within = step(distance.neg_().add_(effect.duct_mm / 2).mul_(1 / _EDGE_MM).add_(0.5).clamp_(0, 1)).mul_(lost < 0.5)
    hu = image.to(torch.float32)
    hu[at] = shown + within * (noise + effect.duct_hu - shown)
    gone = torch.zeros_like(organs, dtype=torch.bool)
    gone[at] = lost >= 0.5
    return Replaced(_without_old_surface(hu, gone, organs, window, fat), gone)


def _fat_around(organs: torch.Tensor, tumor: TumorSpec, window: Window) -> float:
    """Mean HU of the fat 2 to 4 voxels from the gland, streaked or not; FAT_HU where there is none."""
    smooth = window.smooth()[0]
    gland = organs == organ_id(tumor.organ)
    near = (organs == 0) & (grown(gland, 4) > 0) & (grown(gland, 1) == 0)
    near &= (smooth >= FAT_RANGE_HU[0]) & (smooth <= FAT_RANGE_HU[1])
    voxels = int(near.sum())
    return int((smooth * near).sum(dtype=torch.int64)) / voxels if voxels else FAT_HU


def gland_box(case: Case, organ: str, effect: UpstreamSpec) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Half-open box of case voxels, (3,) and (3,), with the gland around the duct and what the effect looks at."""
    points = np.array(effect.duct)
    around = GLAND_MM / case.spacing_mm
    low, high = np.floor(points.min(0) - around).astype(np.int64), np.ceil(points.max(0) + around).astype(np.int64) + 1
    inside = crop(case.organs, index3(low), index3(high - low), 0) == organ_id(organ)
    looked_at = _looked_at(effect, case.spacing_mm) + 1
    for axis in range(3):
        used = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if used.size:
            low[axis], high[axis] = low[axis] + used[0] - looked_at, low[axis] + used[-1] + 1 + looked_at
    return low, high


def _looked_at(effect: UpstreamSpec, spacing_mm: float) -> int:
    """How many voxels away another organ keeps the gland's surface where it is."""
    return math.ceil((effect.atrophy_mm + _EDGE_MM) / spacing_mm)


def _without_old_surface(
    hu: torch.Tensor, gone: torch.Tensor, organs: torch.Tensor, window: Window, fat_hu: float
) -> torch.Tensor:
    """Fat, too, where the lost gland's blurred border reached out of its voxels."""
    border = (organs == 0) & (grown(gone, 1) > 0) & (hu > fat_hu)
    return torch.where(border, window.volume("noise", 0)[0].to(torch.float32).add_(fat_hu), hu)


def _without_crumbs(
    lost: torch.Tensor, behind: torch.Tensor, organs: torch.Tensor, at: tuple[torch.Tensor, ...]
) -> None:
    """Lose the pieces of gland behind the tumor, too, that atrophy cut off from the rest; not those that lay apart."""
    gland = torch.zeros(organs.shape, dtype=torch.bool, device=organs.device)
    gland[at] = True
    whole, _ = largest_component(gland.cpu().numpy())
    gland[at] = lost < 0.5
    largest, crumbs = largest_component(gland.cpu().numpy())
    if crumbs:
        cut_off = torch.from_numpy(whole & ~largest).to(organs.device)[at]
        lost[behind & (lost < 0.5) & cut_off] = 1.0


def _away(center_vox: Sequence[float], window: Window, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Distance of the voxels `at` from a point of the case, mm."""
    total = torch.zeros(at[0].shape, device=window.device)
    for axis, voxel in zip(window.offsets_mm([center_vox]), at, strict=True):
        along = axis[0][voxel]
        total.add_(along * along)
    return root(total)


def _from_duct(effect: UpstreamSpec, window: Window, at: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance of the voxels `at` to the duct, and how far along the duct its nearest point lies, mm."""
    nearest = torch.full(at[0].shape, 1e9, device=window.device)
    walked = torch.zeros_like(nearest)
    way = 0.0
    for start, end in pairwise(effect.duct):
        p = [axis[0][voxel] for axis, voxel in zip(window.offsets_mm([start]), at, strict=True)]
        along = [(b - a) * window.spacing_mm for a, b in zip(start, end, strict=True)]
        length2 = max(sum(v * v for v in along), 1e-6)
        t = (p[0] * along[0]).add_(p[1] * along[1]).add_(p[2] * along[2]).mul_(1 / length2).clamp_(0, 1)
        rest = [axis.sub_(t * v) for axis, v in zip(p, along, strict=True)]
        squared = (rest[0] * rest[0]).add_(rest[1] * rest[1]).add_(rest[2] * rest[2])
        closer = squared < nearest
        nearest = torch.where(closer, squared, nearest)
        walked = torch.where(closer, t * length2**0.5 + way, walked)
        way += length2**0.5
    return root(nearest), walked
