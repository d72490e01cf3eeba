"""The loss of a training on labels of any kind.

In: logits of each level of deep supervision and `Targets`. Out: one float32 scalar. Where every voxel is known it is
`training.loss.SegmentationLoss`, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.train_config import LossConfig, SupervisionConfig
from training.loss import SegmentationLoss, coarser, over_levels
from training.network import ClassTable
from training.supervision.heads import HeadName, Sigmoid, Softmax
from training.supervision.overlap import CodeSums, exclusion_loss, region_loss
from training.supervision.sets import CodeTable, sigmoid_voxel_loss, softmax_voxel_loss
from training.supervision.targets import Targets
from training.supervision.weak import weak_loss


class SupervisedLoss(nn.Module):
    """Region and voxel loss by `LossConfig` of what is known at each voxel, and the terms of `SupervisionConfig`.

    Set `done` before each step: the share of the training that lies behind, which sharpens the barrier of boxes.
    """

    def __init__(
        self, config: LossConfig, supervision: SupervisionConfig, classes: ClassTable, heads: HeadName = "softmax"
    ) -> None:
        super().__init__()
        self.config, self.supervision, self.heads = config, supervision, heads
        self.known = SegmentationLoss(config, classes)  # also refuses settings that teach nothing
        self.done = 0.0

    def forward(self, outputs: Sequence[Tensor], targets: Targets) -> Tensor:
        """The loss of logits (B, C, X, Y, Z) of each level, finest first; levels weigh as in `SegmentationLoss`."""
        if self.heads == "softmax" and targets.only_known and not targets.has_weak_facts:
            known: Tensor = self.known(outputs, targets.codes)
            return known
        table = CodeTable.of(targets)
        with torch.autocast(targets.codes.device.type, enabled=False):
            heads = [(Softmax if self.heads == "softmax" else Sigmoid)(output.float()) for output in outputs]
            losses = [self._level(head, coarser(targets.codes, head.p.shape[2:]), table) for head in heads]
            return over_levels(losses) + weak_loss(heads[0], targets, table, self.supervision, self.done)

    def _level(self, heads: Softmax | Sigmoid, codes: Tensor, table: CodeTable) -> Tensor:
        config, weights = self.config, self.known.weights
        loss = heads.p.new_zeros(())
        region = config.region_weight if config.region != "none" else 0.0
        exclusion = self.supervision.exclusion_weight
        if region > 0 or exclusion > 0:
            sums = CodeSums.of(heads.p, codes, table)
            if region > 0:
                # The probabilities of several sigmoid heads do not add up to one of their union.
                unions = isinstance(heads, Softmax)
                loss = loss + region * region_loss(sums, table, config, weights, unions)
            if exclusion > 0:
                loss = loss + exclusion * exclusion_loss(sums, table)
        if config.voxel != "none" and config.voxel_weight > 0:
            voxels = (
                softmax_voxel_loss(heads.all_log_p, codes, table, config, weights)
                if isinstance(heads, Softmax)
                else sigmoid_voxel_loss(heads.logits, codes, table, config, weights)
            )
            loss = loss + config.voxel_weight * voxels
        return loss
