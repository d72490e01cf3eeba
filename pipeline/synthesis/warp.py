"""Mass effect: the tissue around a tumor is pushed outward, image and organ labels alike.

The local scaling warp of Hu et al. (CVPR 2023; formula as re-implementations give it): what is at distance d from the
centre comes from d * (1 - strength * (1 - d / reach)^2). Distances grow strictly, so nothing folds, and at `reach`
image and slope are those of the case. Ours reaches farther than the published 1.3 radii, within which hardly anything
outside the tumor moves.

Linear interpolation would smooth the donor's noise and show where the warp is. So the CT without its noise is
interpolated linearly, and the noise taken from the nearest voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pipeline.grid import Index3
from pipeline.synthesis.fields import root
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import MassEffectSpec, TumorSpec

_FINE_BITS = 4
_FINE = 1 << _FINE_BITS  # source points are rounded to this share of a voxel, so that weights are exact
_SLAB_VOXELS = 1 << 15  # that a CPU works on at a time: they stay in its cache


class Warped(NamedTuple):
    """What the warp shows in a window, (B, X, Y, Z): HU (whole numbers in float32), class ids, and where it moved."""

    hu: torch.Tensor
    organs: torch.Tensor
    moved: torch.Tensor  # bool; elsewhere the other two say nothing


def mass_effect(tumors: Sequence[TumorSpec], effects: Sequence[MassEffectSpec], window: Window) -> Warped:
    """The moved tissue around a window's tumors."""
    source = _source_window(tumors, window)
    smooth, noise, organs = source.smooth(), source.volume("noise", 0), source.volume("organs", 0)
    donor = _Donor(smooth.flatten(), noise.flatten(), organs.flatten(), source.size)
    warp = _Warp(tumors, effects, window, source)
    _, y, z = window.size
    slab = max(1, _SLAB_VOXELS // (y * z)) if window.device.type == "cpu" else window.size[0]
    parts = []
    for start in range(0, window.size[0], slab):
        nearest, first, upper, moved = warp.source_of(slice(start, start + slab))
        hu = _linear(donor, first, upper).round_().add_(_take(donor.noise, nearest))
        parts.append(Warped(hu, _take(donor.organs, nearest), moved))
    return parts[0] if len(parts) == 1 else Warped(*(torch.cat(of_all, dim=1) for of_all in zip(*parts, strict=True)))


class _Donor(NamedTuple):
    """The case around the tumors, flat: CT without its noise, noise, class ids; and the shape of the boxes."""

    smooth: torch.Tensor
    noise: torch.Tensor
    organs: torch.Tensor
    shape: Index3


class _Warp:
    """Where the tissue of a window's voxels comes from."""

    def __init__(
        self, tumors: Sequence[TumorSpec], effects: Sequence[MassEffectSpec], window: Window, source: Window
    ) -> None:
        self._shape = source.size
        self._reach = window.parameter([e.reach_mm for e in effects])
        self._strength = window.parameter([_FINE * e.strength / window.spacing_mm for e in effects])
        self._boxes = torch.arange(len(tumors), dtype=torch.int32, device=window.device).view(-1, 1, 1, 1)
        self._mm: list[torch.Tensor] = []
        self._fine: list[torch.Tensor] = []  # fractions of a voxel, in the source
        corners = window.corners - source.corners
        for axis, mm in enumerate(window.offsets_mm([t.center_vox for t in tumors])):
            spread = [len(tumors), 1, 1, 1]
            spread[axis + 1] = mm.shape[1]
            fine = (corners[:, axis, None] + np.arange(mm.shape[1])) * _FINE
            self._mm.append(mm.view(spread))
            self._fine.append(torch.from_numpy(fine.astype(np.int32)).to(window.device).view(spread))

    def source_of(self, x: slice) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """For a slab: flat indices of the nearest and the lower source voxel, how far above that the source lies along
        each axis (0 to 1), and which voxels move.
        """
        mm = [self._mm[0][:, x], self._mm[1], self._mm[2]]
        fine = [self._fine[0][:, x], self._fine[1], self._fine[2]]
        distance = root((mm[0] * mm[0] + mm[1] * mm[1]).add(mm[2] * mm[2]))
        moved = distance < self._reach
        inward = distance.div_(self._reach).neg_().add_(1).clamp_(min=0)
        scale = inward.mul_(inward).mul_(self._strength).neg_()  # the displacement is scale * (p - centre)
        nearest = first = self._boxes
        upper = []
        for axis in range(3):
            point = (scale * mm[axis]).round_().to(torch.int32).add_(fine[axis])
            below = point >> _FINE_BITS
            first = first * self._shape[axis] + below
            nearest = nearest * self._shape[axis] + ((point + _FINE // 2) >> _FINE_BITS)
            upper.append((point & (_FINE - 1)).to(torch.float32).mul_(1 / _FINE))
        return nearest, first, upper, moved


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.index_select(0, index.flatten()).view(index.shape)


def _source_window(tumors: Sequence[TumorSpec], window: Window) -> Window:
    """The window, grown so that every way from one of its voxels to the tumor's centre lies inside."""
    centers = np.array([t.center_vox for t in tumors])
    low = np.minimum(window.corners, np.floor(centers).astype(np.int64)) - 1
    high = np.maximum(window.corners + window.size, np.ceil(centers).astype(np.int64) + 1) + 1
    x, y, z = (high - low).max(axis=0).tolist()
    return Window(window.cases, low, (x, y, z), window.device)


def _linear(donor: _Donor, first: torch.Tensor, upper: list[torch.Tensor]) -> torch.Tensor:
    """CT without noise, trilinear above the voxels of flat index `first`."""
    _, y, z = donor.shape
    lower = [1 - u for u in upper]
    total = torch.zeros_like(upper[0])
    for dx, wx in ((0, lower[0]), (1, upper[0])):
        for dy, wy in ((0, lower[1]), (1, upper[1])):
            side = wx * wy
            for dz, wz in ((0, lower[2]), (1, upper[2])):
                above = donor.smooth[(dx * y + dy) * z + dz :]  # the same indices, one voxel on
                total.add_(_take(above, first).to(torch.float32).mul_(side).mul_(wz))
    return total
