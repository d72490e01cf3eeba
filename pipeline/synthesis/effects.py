"""What a tumor does at its border."""

from __future__ import annotations

import torch


def rim(depth: torch.Tensor, rim_hu: float, rim_mm: float) -> torch.Tensor:
    """A brighter shell in HU just inside the surface: a parabolic bump from depth 0 to `rim_mm`."""
    t = (depth / rim_mm).clamp_(0, 1)
    return t.mul(1 - t).mul_(4 * rim_hu)
