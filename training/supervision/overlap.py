"""Overlap of regions of which only a part is known, and the overlap of classes that exclude one another.

All of it follows from two small tables of a sample: the probability of each channel summed over the voxels of each
code, and how many voxels have that code. So the volume is read once, however many regions there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.train_config import LossConfig
from training.supervision.sets import CodeTable

_SMOOTH = 1e-5  # above and below the line, as MONAI's, so that no class is in no voxel at no cost


@dataclass(frozen=True)
class CodeSums:
    """What a batch holds of each code."""

    probability: Tensor  # (B, K, C): probability of each channel, summed over the voxels of each code
    voxels: Tensor  # (B, K): how many there are

    @classmethod
    def of(cls, p: Tensor, codes: Tensor, table: CodeTable) -> CodeSums:
        """From probabilities (B, C, X, Y, Z) and codes (B, 1, X, Y, Z)."""
        numbers = torch.arange(len(table.allowed), device=codes.device).view(1, -1, 1)
        one_hot = (codes.flatten(2) == numbers).to(p.dtype)
        return cls(torch.bmm(one_hot, p.flatten(2).transpose(1, 2)), one_hot.sum(dim=2))


def region_loss(sums: CodeSums, table: CodeTable, config: LossConfig, weights: Tensor, unions: bool) -> Tensor:
    """1 - Dice or 1 - Tversky index of each class but the background, over the voxels where membership is known.

    Mean over the sample's regions, then over samples; a class of which a sample knows nothing is left out of it. With
    `unions`, an organ-or-tumor set that a sample has voxels of is a region as well, with the probability of all its
    classes together. `weights` (C,) multiply the overlap of their class, a union's is that of its first class.
    """
    regions = torch.eye(table.channels, dtype=torch.bool)[1:]
    counted = _known_anywhere(sums, table, regions)
    first = torch.arange(1, table.channels)
    if unions:
        rows = table.without_background.any(dim=1).nonzero().flatten()
        regions = torch.cat((regions, table.sets[rows]))
        counted = torch.cat((counted, sums.voxels[:, table.channels + rows] > 0), dim=1)
        first = torch.cat((first, table.first[table.channels + rows]))
    each = _overlap(sums, table, regions, config, counted) * weights[first.to(weights.device)].to(sums.voxels)
    if config.batch:
        counted = counted.any(dim=0, keepdim=True)
    return (each.where(counted, 0.0).sum(dim=1) / counted.sum(dim=1).clamp_min(1)).mean()


def exclusion_loss(sums: CodeSums, table: CodeTable) -> Tensor:
    """Overlap of the classes that a sample does not annotate with the regions that it does.

    2 sum_v p_u y_g / (sum_v p_u + sum_v y_g), mean over all pairs of an unannotated class u and a region g that has
    voxels, then over samples: classes exclude one another (Shi et al. 2021). Unannotated is a class that may be
    background, in a set that says something.
    """
    partial = table.sets[:, :1] & table.sets & ~table.sets.all(dim=1, keepdim=True)
    partial[:, 0] = False
    in_use = sums.voxels[:, table.channels :] > 0
    unannotated = (in_use.to(sums.voxels) @ partial.to(sums.voxels)) > 0  # (B, C)
    regions = torch.cat((torch.eye(table.channels, dtype=torch.bool)[1:], table.without_background))
    present = _present(table, regions).to(sums.voxels)  # (K, G)
    common = torch.einsum("bku,kg->bug", sums.probability, present)
    truth = (sums.voxels @ present)[:, None]
    total = sums.probability.sum(dim=1)[:, :, None] + truth
    pairs = unannotated[:, :, None] & (truth > 0) & ~regions.T.to(truth.device)
    overlaps = torch.where(pairs, 2 * common / total.clamp_min(_SMOOTH), 0.0)
    return (overlaps.sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp_min(1)).mean()


def _overlap(sums: CodeSums, table: CodeTable, regions: Tensor, config: LossConfig, counted: Tensor) -> Tensor:
    """1 - overlap (B, G) of regions (G, C) bool over their known voxels; with `batch` (1, G)."""
    present = _present(table, regions).to(sums.voxels)
    known = present + _absent(table, regions).to(sums.voxels)
    members = regions.to(sums.voxels)
    common = torch.einsum("bkc,kg,gc->bg", sums.probability, present, members)
    predicted = torch.einsum("bkc,kg,gc->bg", sums.probability, known, members)
    truth = sums.voxels @ present
    if config.batch:
        parts = (common, predicted, truth)
        common, predicted, truth = (part.where(counted, 0.0).sum(dim=0, keepdim=True) for part in parts)
    if config.region == "tversky":
        below = common + config.tversky_alpha * (predicted - common) + config.tversky_beta * (truth - common)
        return 1 - (common + _SMOOTH) / (below + _SMOOTH)
    return 1 - (2 * common + _SMOOTH) / (predicted + truth + _SMOOTH)


def _present(table: CodeTable, regions: Tensor) -> Tensor:
    """(K, G) bool: whether a voxel of each code surely is in each region."""
    return ~(table.allowed[:, None] & ~regions[None]).any(dim=2)


def _absent(table: CodeTable, regions: Tensor) -> Tensor:
    """(K, G) bool: whether a voxel of each code surely is outside each region."""
    return ~(table.allowed[:, None] & regions[None]).any(dim=2)


def _known_anywhere(sums: CodeSums, table: CodeTable, regions: Tensor) -> Tensor:
    """(B, G) bool: whether a sample knows a voxel's membership of each region."""
    known = (_present(table, regions) | _absent(table, regions)).to(sums.voxels)
    return (sums.voxels @ known) > 0
