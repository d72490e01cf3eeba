"""The loss of a training: overlap of the classes plus a loss of the voxels, over the levels of deep supervision.

In: logits of each level and target channels. Out: one float32 scalar. Every term is a mean over samples or over
voxels with weights that the batch has no part in, so the mean over two halves of a batch is the loss of the whole:
processes that average their gradients train as one with a larger batch (apart from `LossConfig.batch`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import InputError
from pipeline.train_config import LossConfig
from training.network import ClassTable

_TINY = 1e-12  # keeps the gradient of (1 - p)^gamma finite at p = 1 for gamma below 1


class SegmentationLoss(nn.Module):
    """region_weight * overlap + voxel_weight * voxels, by `LossConfig`; InputError when that names no such class.

    Overlap: 1 - Dice (Milletari et al. 2016) or 1 - Tversky index (Salehi et al. 2017) of the class probabilities,
    background left out, mean over samples and classes. Voxels: cross-entropy or focal loss (Lin et al. 2017), mean
    over all voxels. A class weight multiplies the terms of its class (its overlap, the voxels that truly are of it).
    """

    weights: Tensor  # of each channel

    def __init__(self, config: LossConfig, classes: ClassTable) -> None:
        super().__init__()
        self.config = config
        weights = _class_weights(config.class_weights, classes)
        _check_that_there_is_a_loss(config, weights)
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.overlap = _overlap(config)

    def forward(self, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss of logits (B, C, X, Y, Z) of each level, finest first, and channels (B, 1, X, Y, Z) int64.

        Coarser levels count 1/2, 1/4, ... of the finest (nnU-Net, Isensee et al. 2021), all of them together 1. Their
        target is every second, fourth, ... voxel: those that strided convolutions are centred on.
        """
        with torch.autocast(target.device.type, enabled=False):
            return over_levels([self._level(output.float(), coarser(target, output.shape[2:])) for output in outputs])

    def _level(self, logits: Tensor, target: Tensor) -> Tensor:
        config = self.config
        loss = logits.new_zeros(())
        if config.region != "none" and config.region_weight > 0:
            loss = loss + config.region_weight * self._region(logits, target)
        if config.voxel != "none" and config.voxel_weight > 0:
            loss = loss + config.voxel_weight * self._voxels(logits, target)
        return loss

    def _region(self, logits: Tensor, target: Tensor) -> Tensor:
        channels = torch.arange(logits.shape[1], device=target.device).view(1, -1, 1, 1, 1)
        # One byte a class and voxel, where MONAI's own one-hot takes four.
        one_hot = (target == channels).to(torch.uint8)
        each = self.overlap(logits, one_hot).reshape(-1, logits.shape[1] - 1)
        mean: Tensor = (each * self.weights[1:].to(each)).mean()
        return mean

    def _voxels(self, logits: Tensor, target: Tensor) -> Tensor:
        truth = target[:, 0]
        # Unreduced: CUDA sums a reduced cross-entropy in no fixed order, and refuses to in deterministic mode.
        loss = focal(F.cross_entropy(logits, truth, reduction="none"), self.config)
        if self.config.class_weights:
            loss = loss * self.weights.to(loss)[truth]
        return loss.mean()


def _overlap(config: LossConfig) -> nn.Module:
    """1 - overlap of each sample and class but the background, or with `batch` of each class."""
    common = {"include_background": False, "softmax": True, "reduction": "none", "batch": config.batch}
    loss: nn.Module = (
        TverskyLoss(alpha=config.tversky_alpha, beta=config.tversky_beta, **common)
        if config.region == "tversky"
        else DiceLoss(**common)
    )
    return loss


def focal(losses: Tensor, config: LossConfig) -> Tensor:
    """Losses -log p as they are, or times (1 - p)^gamma for the focal loss (Lin et al. 2017)."""
    if config.voxel != "focal":
        return losses
    missing = -torch.expm1(-losses)
    return missing.clamp_min(_TINY).pow(config.focal_gamma) * losses


def over_levels(losses: Sequence[Tensor]) -> Tensor:
    """The losses of the levels of deep supervision as one, finest first: they weigh 1, 1/2, 1/4, ..., together 1."""
    shares = [0.5**level for level in range(len(losses))]
    return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum() / sum(shares)


def coarser(target: Tensor, shape: Sequence[int]) -> Tensor:
    """Every n-th voxel of (B, 1, X, Y, Z), a view of `shape` voxels."""
    x, y, z = (fine // coarse for fine, coarse in zip(target.shape[2:], shape, strict=True))
    return target[:, :, ::x, ::y, ::z]


def _class_weights(given: Mapping[str, float], classes: ClassTable) -> list[float]:
    unknown = [name for name in given if name not in classes.classes]
    if unknown:
        raise InputError(
            f"loss.class_weights names {', '.join(unknown)}, but the classes are {', '.join(classes.names)}. "
            "Name one of these"
        )
    return [float(given.get(name, 1.0)) for name in classes.names]


def _check_that_there_is_a_loss(config: LossConfig, weights: Sequence[float]) -> None:
    region = config.region != "none" and config.region_weight > 0 and any(weights[1:])
    if config.region == "tversky" and config.tversky_alpha == config.tversky_beta == 0:
        raise InputError(
            "loss.tversky_alpha and loss.tversky_beta are both 0: no voxel would cost anything. Give one of them"
        )
    voxel = config.voxel != "none" and config.voxel_weight > 0 and any(weights)
    if not (region or voxel):
        raise InputError(
            f"loss.class_weights {config.class_weights} leave no class a weight: nothing would be learnt. Raise one"
        )
