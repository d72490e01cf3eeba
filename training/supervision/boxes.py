"""What a box tells beside that nothing is outside: tumor reaches all its faces, and fills a share of it.

Kervadec et al. 2020 (MIDL, "Bounding boxes for weakly supervised segmentation"), in 3D. That nothing is outside is in
the codes of `Targets` already.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.train_config import SupervisionConfig
from training.supervision.barrier import log_barrier


def box_loss(p: Tensor, t: float, config: SupervisionConfig) -> Tensor:
    """Tightness plus size of one box with tumor probabilities (X, Y, Z), 0 at voxels that cannot be tumor.

    Tightness: each slab of `box_slab_vox` planes across each axis holds as many voxels of tumor as it has planes, for
    every plane cuts the tumor. Size: the share of the box that is tumor is within `box_size`. Bounds are shares of the
    slab's planes and of the box's voxels, where the paper counts voxels, so that boxes of every size weigh alike; mean
    over slabs and over the two ends.
    """
    shares = torch.cat([_slab_shares(p, axis, config.box_slab_vox) for axis in range(3)])
    filled = p.mean()
    low, high = config.box_size
    size = torch.stack((low - filled, filled - high))
    return log_barrier(1 - shares, t).mean() + log_barrier(size, t).mean()


def _slab_shares(p: Tensor, axis: int, width: int) -> Tensor:
    """Tumor voxels per plane of each slab across an axis; the last slab is as wide as is left."""
    planes = p.sum(dim=[other for other in range(3) if other != axis])
    slabs = F.pad(planes, (0, -len(planes) % width)).view(-1, width)
    widths = torch.full((len(slabs),), float(width), dtype=p.dtype, device=p.device)
    widths[-1] = len(planes) - width * (len(slabs) - 1)
    return slabs.sum(dim=1) / widths
