"""The log barrier: a loss for "z must not be above 0" that is finite everywhere (Kervadec et al. 2019 and 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.train_config import SupervisionConfig


def log_barrier(z: Tensor, t: float) -> Tensor:
    """psi_t(z): -log(-z) / t up to z = -1/t^2, from there on its tangent t z - log(1/t^2) / t + 1/t.

    The larger t, the steeper it is where the bound is broken and the less it pushes where it is kept.
    """
    edge = -1 / t**2
    kept = z <= edge
    within = torch.where(kept, z, torch.full_like(z, edge))  # log only of what it is asked of: no NaN in the gradient
    return torch.where(kept, -torch.log(-within) / t, t * z - math.log(-edge) / t + 1 / t)


def barrier_t(config: SupervisionConfig, done: float) -> float:
    """t when a share `done` of the training is done: geometric from `barrier_start` to `barrier_growth` times it."""
    t: float = config.barrier_start * config.barrier_growth**done
    return t
