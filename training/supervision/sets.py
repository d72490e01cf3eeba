"""What the codes of `Targets` mean, as small tables, and the loss of voxels of which only a set is known.

The loss of a voxel is -log of the probability of its set: with a set of one channel that is cross-entropy, with
background and the classes that a dataset does not annotate in one set it is the marginal loss of Shi et al. 2021
(Medical Image Analysis 70), with all channels in the set it is 0.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.train_config import LossConfig
from training.loss import focal
from training.supervision.targets import Targets

_NOT_ONE_CHANNEL = -100  # what nll_loss leaves out


@dataclass(frozen=True)
class CodeTable:
    """Which of C channels each of K = C + S codes allows; small tensors on the CPU."""

    sets: Tensor  # (S, C) bool

    @classmethod
    def of(cls, targets: Targets) -> CodeTable:
        return cls(targets.sets.cpu())

    @property
    def channels(self) -> int:
        return self.sets.shape[1]

    @cached_property
    def allowed(self) -> Tensor:
        """(K, C) bool: the channels that a voxel of each code may be of."""
        return torch.cat((torch.eye(self.channels, dtype=torch.bool), self.sets))

    @cached_property
    def says_something(self) -> Tensor:
        """(K,) bool: whether a code rules a channel out."""
        return ~self.allowed.all(dim=1)

    @cached_property
    def first(self) -> Tensor:
        """(K,) int64: the first channel that a code allows, the class that most of its voxels are of."""
        return self.allowed.to(torch.uint8).argmax(dim=1)

    @cached_property
    def without_background(self) -> Tensor:
        """(S, C) bool: the sets that stand for one region of several classes, e.g. an organ or its tumor."""
        return self.sets & (~self.sets[:, :1] & (self.sets.sum(dim=1, keepdim=True) > 1))

    def members(self, index: int) -> list[int]:
        """The channels of one set."""
        return [int(channel) for channel in self.sets[index].nonzero().flatten()]

    def may_be(self, channel: int, codes: Tensor) -> Tensor:
        """Whether each voxel of codes (any shape) may be of a class and is not background; same shape, bool."""
        table = self.allowed[:, channel] & ~self.allowed[:, 0]
        return table.to(codes.device)[codes]


def marginal_losses(log_p: Tensor, codes: Tensor, table: CodeTable) -> Tensor:
    """-log of the probability of each voxel's set: (B, X, Y, Z), from log-probabilities (B, C, X, Y, Z) and codes.

    `codes` (B, X, Y, Z). A sum of logarithms of sums of exponentials: exact where a probability underflows.
    """
    one = torch.where(codes < table.channels, codes, _NOT_ONE_CHANNEL)
    losses = F.nll_loss(log_p, one, ignore_index=_NOT_ONE_CHANNEL, reduction="none")
    channels = log_p.unbind(dim=1)  # whose gradient is one volume, where that of each slice would be a whole one
    for index in range(len(table.sets)):
        code = table.channels + index
        voxels = codes == code
        if table.says_something[code] and bool(voxels.any()):
            parts = [channels[channel] for channel in table.members(index)]
            # Pairwise: logsumexp would first copy the channels.
            losses = torch.where(voxels, -functools.reduce(torch.logaddexp, parts), losses)
    return losses


def union_losses(logits: Tensor) -> Tensor:
    """-log(1 - prod_c(1 - p_c)) of sigmoid logits (C, ...): that a voxel is of one class or more; (...).

    Where every p_c is next to 0 that is -log of their sum, and exp(logit) the probability.
    """
    none = F.softplus(logits).sum(dim=0)  # -log of the probability that it is of no class
    rare = logits.amax(dim=0) < -15
    usual = -torch.log(-torch.expm1(-torch.where(rare, torch.ones_like(none), none)))
    return torch.where(rare, -torch.logsumexp(logits, dim=0), usual)


def mean_over_voxels(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted voxels (B, ...) bool of each sample, 0 where there are none: (B,)."""
    # Masked after the fact: a loss that is not counted must not reach the gradient, even if it is not finite.
    total = torch.where(counted, losses, torch.zeros((), dtype=losses.dtype, device=losses.device))
    return total.flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp_min(1)


def softmax_voxel_loss(log_p: Tensor, codes: Tensor, table: CodeTable, config: LossConfig, weights: Tensor) -> Tensor:
    """The loss of voxels of a softmax network: its mean over the voxels that tell something, then over samples.

    `log_p` (B, C, X, Y, Z), `codes` (B, 1, X, Y, Z), `weights` (C,) of the classes; a voxel of a set counts as one of
    its first class.
    """
    codes = codes[:, 0]
    losses = focal(marginal_losses(log_p, codes, table), config)
    if config.class_weights:
        losses = losses * weights.to(losses)[table.first.to(codes.device)][codes]
    return mean_over_voxels(losses, table.says_something.to(codes.device)[codes]).mean()


def sigmoid_voxel_loss(logits: Tensor, codes: Tensor, table: CodeTable, config: LossConfig, weights: Tensor) -> Tensor:
    """The loss of voxels of a network of binary heads: binary cross-entropy of each class but the background.

    Over the voxels where membership of the class is known (Liu et al. 2023, ICCV: classes that a dataset does not
    annotate get no gradient), mean over them, then over the sample's known classes, then over samples. A region of
    several classes is learnt as their union. A class weight multiplies its class's loss. Shapes as above.
    """
    codes = codes[:, 0]
    terms, counts = [], []
    channels = logits.unbind(dim=1)
    for channel in range(1, table.channels):
        present = codes == channel
        known = present | ~table.allowed[:, channel].to(codes.device)[codes]
        losses = focal(F.softplus(torch.where(present, -channels[channel], channels[channel])), config)
        terms.append(mean_over_voxels(losses, known) * weights[channel].to(losses))
        counts.append(known.flatten(1).any(dim=1))
    for index in table.without_background.any(dim=1).nonzero().flatten().tolist():
        members = table.members(index)
        voxels = codes == table.channels + index
        each = union_losses(torch.stack([channels[member] for member in members]))
        terms.append(mean_over_voxels(focal(each, config), voxels) * weights[members[0]].to(each))
        counts.append(voxels.flatten(1).any(dim=1))
    counted = torch.stack(counts, dim=1)
    return (torch.stack(terms, dim=1).sum(dim=1) / counted.sum(dim=1).clamp_min(1)).mean()
