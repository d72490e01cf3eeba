"""What a network's logits say: one class a voxel (softmax), or each class for itself (sigmoid).

A sigmoid network has no say about the background: its channel 0 counts as logit 0, so that the largest logit is the
class there too.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

HeadName = Literal["softmax", "sigmoid"]


class Heads(Protocol):
    """Logits (B, C, X, Y, Z), read as probabilities."""

    @property
    def p(self) -> Tensor:
        """Probabilities (B, C, X, Y, Z)."""

    def log_p(self, sample: int, channel: int) -> Tensor:
        """Logarithm of one class's probability in one sample, (X, Y, Z)."""

    def log_rest(self, sample: int, channel: int, voxels: Tensor) -> Tensor:
        """Logarithm of the probability that `voxels` (X, Y, Z) bool are not of that class, (N,)."""


class Softmax:
    """Probabilities that sum to 1 over the channels."""

    def __init__(self, logits: Tensor) -> None:
        self.all_log_p = torch.log_softmax(logits, dim=1)

    @cached_property
    def p(self) -> Tensor:
        return self.all_log_p.exp()

    def log_p(self, sample: int, channel: int) -> Tensor:
        return self.all_log_p[sample, channel]

    def log_rest(self, sample: int, channel: int, voxels: Tensor) -> Tensor:
        others = [other for other in range(self.all_log_p.shape[1]) if other != channel]
        return torch.logsumexp(self.all_log_p[sample, :, voxels][others], dim=0)


class Sigmoid:
    """A probability of each class for itself."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @cached_property
    def p(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def log_p(self, sample: int, channel: int) -> Tensor:
        return F.logsigmoid(self.logits[sample, channel])

    def log_rest(self, sample: int, channel: int, voxels: Tensor) -> Tensor:
        return F.logsigmoid(-self.logits[sample, channel][voxels])
