"""What a tumor is made of: plain tissue of its organ, coarse structure, the donor's own fine noise, a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.case import parenchyma_cell
from pipeline.synthesis.fields import FieldGrid, Interpolation
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import TumorSpec

_DARKEST_HU = -115.0  # fat; no tumor is darker, whatever its structure adds up to
_OCTAVES = (0.8, 0.6)  # of the structure: its grain, and half of it; squares add up to 1
_TEXTURE_KEY = 16  # keys 0 to 2 are the deformation's


def structure(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Coarse structure of SD about 1 in two octaves, (B, X, Y, Z) float32."""
    axes = window.axes_mm([t.center_vox for t in tumors])
    total = torch.zeros((len(tumors), *window.size), device=window.device)
    for octave, share in enumerate(_OCTAVES):
        grid = FieldGrid(axes, [t.texture_grain_mm / 2**octave for t in tumors], window.device)
        total.add_(grid.field([t.key + _TEXTURE_KEY + octave for t in tumors]).mul_(share))
    return total


def tissue(tumors: Sequence[TumorSpec], added: torch.Tensor, healthy: torch.Tensor, window: Window) -> torch.Tensor:
    """HU of the boxes as if all were tumor, (B, X, Y, Z) float32: what each tumor starts from, and what it adds to it.

    `base: parenchyma` follows the organ's local HU without vessels, `base: mean` is the organ's mean everywhere; both
    get the donor's noise. `base: donor` is what the image shows, `healthy`.
    """
    local = parenchyma(tumors, window)
    for b, tumor in enumerate(tumors):
        if tumor.base == "mean":
            local[b] = window.cases[b].stats[tumor.organ].mean_hu
    noise = window.volume("noise", 0).to(torch.float32)
    if not all(t.noise for t in tumors):
        noise.mul_(window.parameter([t.noise for t in tumors]))
    local.add_(added).clamp_(min=_DARKEST_HU).add_(noise)
    for b, tumor in enumerate(tumors):
        if tumor.base == "donor":
            local[b] = healthy[b] + added[b]
    return local


def parenchyma(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Local HU of each tumor's organ, linear between the points of the case's coarse grid, (B, X, Y, Z) float32."""
    cell = parenchyma_cell(window.spacing_mm)
    grids = [case.parenchyma[t.organ] for case, t in zip(window.cases, tumors, strict=True)]
    positions = []
    for axis, n in enumerate(window.size):
        last = np.array([[g.shape[axis] - 1 - 1e-6] for g in grids])
        voxel = window.corners[:, axis, None] + np.arange(n, dtype=np.float64)
        positions.append(np.clip(voxel / cell, 0, last))  # outside the volume the border's value goes on
    between = Interpolation((positions[0], positions[1], positions[2]), "linear", window.device)
    x, y, z = between.shape
    boxes = np.zeros((len(grids), x, y, z), np.float32)
    for b, grid in enumerate(grids):
        i, j, k = between.starts[b]
        part = grid[i : i + x, j : j + y, k : k + z]
        boxes[b, : part.shape[0], : part.shape[1], : part.shape[2]] = part
    return between(torch.from_numpy(boxes).to(window.device))


def level(tumors: Sequence[TumorSpec], profile: torch.Tensor, alpha: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """HU to add to each tumor so that, blended by `alpha`, its mean over `mask` is its contrast; (B, 1, 1, 1) float32.

    `profile` is what structure and parts add. The sums are of whole numbers, which add up to the same in any order, on
    any device.
    """
    share = alpha.mul(4096).to(torch.int32).mul_(mask)
    added = (profile.mul(64).to(torch.int32) * share).flatten(1).sum(1, dtype=torch.int64).double().div_(4096 * 64)
    weight = share.flatten(1).sum(1, dtype=torch.int64).double().div_(4096)
    voxels = mask.flatten(1).sum(1, dtype=torch.int64).double()
    contrast = torch.tensor([t.contrast_hu for t in tumors], dtype=torch.float64, device=alpha.device)
    return ((contrast * voxels - added) / weight.clamp_(min=1e-3)).to(torch.float32).view(-1, 1, 1, 1)
