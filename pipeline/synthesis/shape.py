"""From a depth field to what is tumor: the soft edge, the room it may take, the one piece that is labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pipeline.anatomy import WALL_HU
from pipeline.components import connected_components
from pipeline.organs import organ_id
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import TumorSpec

MIN_VOXELS = 5  # a tumor that borders cut to less is left out, image and label
# Where a tumor may grow out of its organ: into fat, never into gas, bone or soft tissue that is no organ of ours
# (muscle, bowel loops without a mask); HU of the CT without its fine noise.
FAT_RANGE_HU = (-190, -20)
SURFACE_HU = (-190, 250)  # beside the organ's surface: partial volume of organ and fat
_TIDY = 4  # voxels around a box that the tidying of a tumor's room looks at


def soft_mask(depth: torch.Tensor, edge_mm: torch.Tensor) -> torch.Tensor:
    """Share of tumor in each voxel, 0 to 1: a cubic step (smoothstep) of width `edge_mm`, 0.5 on the surface."""
    t = depth.div(edge_mm.clamp(min=1e-3)).add_(0.5).clamp_(0, 1)
    return step(t)


def step(t: torch.Tensor) -> torch.Tensor:
    """The smoothstep of values that lie in 0 to 1."""
    return (t * t).mul_(t.mul(-2).add_(3))


def room(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Where each tumor may be, 0 to 1, (B, X, Y, Z): in its organ, fading over the last voxel below the surface."""
    ids = torch.tensor([organ_id(t.organ) for t in tumors], dtype=torch.uint8, device=window.device).view(-1, 1, 1, 1)
    organs = window.volume("organs", 0)
    inside = organs == ids
    # Whole sixteenths of a voxel: float16 mm would put the outermost voxels a hair off the label's threshold.
    surface = window.volume("surface_distance_mm", 0).to(torch.float32)
    faded = surface.mul_(16 / window.spacing_mm).round_().mul_(1 / 32).clamp_(0, 1).mul_(inside)
    for b, tumor in enumerate(tumors):
        if tumor.room == "outside":
            faded[b] = _outside(tumor, _one(window, b))
        elif tumor.room == "lumen":
            faded[b] = inside[b] & ~_soft_tissue(_one(window, b).smooth())[0]
    return faded


def _one(window: Window, b: int) -> Window:
    return Window((window.cases[b],), window.corners[b : b + 1], window.size, window.device)


def _soft_tissue(smooth: torch.Tensor) -> torch.Tensor:
    return (smooth >= WALL_HU[0]) & (smooth <= WALL_HU[1])


def _outside(tumor: TumorSpec, window: Window) -> torch.Tensor:
    """The organ, and around it fat and the blurred border of the organ where no other organ is; (X, Y, Z) bool.

    Without tongues thinner than 3 voxels between loops and muscles, and without holes where a voxel of vessel or duct
    crosses the fat.
    """
    organs, smooth = window.volume("organs", 0, _TIDY)[0], window.smooth(_TIDY)[0]
    inside = organs == organ_id(tumor.organ)
    fat = (smooth >= FAT_RANGE_HU[0]) & (smooth <= FAT_RANGE_HU[1])
    possible = inside | ((organs == 0) & (smooth >= SURFACE_HU[0]) & (smooth <= SURFACE_HU[1]))
    free = inside | (possible & (fat | (grown(inside, 1) > 0)))
    opened = grown(_shrunk(free, 1) > 0, 1) > 0
    closed = _shrunk(grown(opened, 1) > 0, 1) > 0
    tidy = inside | (closed & possible)
    return tidy[tuple(slice(_TIDY, n - _TIDY) for n in tidy.shape)]


def _shrunk(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """A boolean mask (X, Y, Z) eroded by a cube of `voxels`, as 0 and 1 in float32."""
    return 1 - grown(~mask, voxels)


def grown(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """A boolean mask (X, Y, Z) dilated by a cube of `voxels`, as 0 and 1 in float32."""
    out = mask.to(torch.float32)[None, None]
    for axis in range(3):
        size = [1, 1, 1]
        size[axis] = 2 * voxels + 1
        out = F.max_pool3d(out, size, 1, padding=[n // 2 for n in size])
    return out[0, 0]


def largest_component(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], bool]:
    """The largest 26-connected piece of a mask, and whether there were others."""
    pieces = connected_components(mask, 26)
    if pieces.max(initial=0) <= 1:
        return mask, False
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    return pieces == largest, True
