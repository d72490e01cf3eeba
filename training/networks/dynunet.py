"""MONAI's DynUNet with the coarse outputs of deep supervision at their own resolution.

MONAI's own forward pass enlarges them all to the finest and stacks them, which costs a full-size output a level, and
keeps them on the module between steps, where they can neither be copied (moving average) nor exported.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class DynUNet(nn.Module):
    """The blocks of `monai.networks.nets.DynUNet`, made from its arguments, in the order in which it applies them."""

    def __init__(self, **arguments: Any) -> None:
        from monai.networks.nets import DynUNet as Blocks

        super().__init__()
        blocks = Blocks(**arguments)
        self.input_block = blocks.input_block
        self.downsamples = blocks.downsamples
        self.bottleneck = blocks.bottleneck
        self.upsamples = blocks.upsamples
        self.output_block = blocks.output_block
        self.heads = blocks.deep_supervision_heads if blocks.deep_supervision else nn.ModuleList()

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, C, X, Y, Z) of (B, 1, X, Y, Z); in training with heads a list of them, finest first."""
        skips = [self.input_block(image)]
        for down in self.downsamples:
            skips.append(down(skips[-1]))
        features = [self.bottleneck(skips[-1])]
        for up, skip in zip(self.upsamples, reversed(skips), strict=True):
            features.append(up(features[-1], skip))
        finest: Tensor = self.output_block(features[-1])
        if not (self.training and len(self.heads)):
            return finest
        coarser = reversed(features[1:-1])
        return [finest, *(head(feature) for head, feature in zip(self.heads, coarser, strict=False))]
