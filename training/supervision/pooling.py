"""Rank-weighted pooling: one probability of a whole organ from those of its voxels, for tags.

Global weighted rank pooling (Kolesnikov and Lampert 2016): the k-th most probable voxel weighs d^k. With
d = (1 - share)^(1 / voxels) the first `voxels` hold `share` of the weight of infinitely many.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LEAST = 1e-6  # weight of a voxel, relative to the first, from which on the rest is left out


def rank_log_weights(count: int, voxels: int, share: float, like: Tensor) -> Tensor:
    """Logarithms of the weights of `count` voxels by rank, which sum to 1: (count,), dtype and device of `like`."""
    rate = math.log1p(-share) / voxels
    raw = rate * torch.arange(count, dtype=like.dtype, device=like.device)
    return raw - torch.logsumexp(raw, dim=0)


def pooled_log_p(log_p: Tensor, voxels: int, share: float) -> Tensor:
    """Logarithm of the pooled probability of voxels with log-probabilities (N,), N at least 1."""
    count = min(len(log_p), math.ceil(voxels * math.log(_LEAST) / math.log1p(-share)))
    ranked = log_p.topk(count).values
    return torch.logsumexp(rank_log_weights(count, voxels, share, log_p) + ranked, dim=0)


def present_loss(log_p: Tensor, voxels: int, share: float) -> Tensor:
    """Cross-entropy of the tag "present", from log p of a tumor at its organ's voxels, (N,)."""
    return -pooled_log_p(log_p, voxels, share)


def absent_loss(log_rest: Tensor) -> Tensor:
    """Cross-entropy of the tag "absent", from log(1 - p) at the organ's voxels, (N,): none of them is tumor."""
    return -log_rest.mean()
