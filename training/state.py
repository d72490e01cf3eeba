"""What a training is of, and how far it has come: records that its rooms share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.train_config import TrainConfig
from training.data import TrainingData
from training.distributed import Ranks
from training.interrupts import Interrupts
from training.journal import Journal
from training.network import Shape3


@dataclass(frozen=True)
class Setting:
    """What a training is of, where it writes, and which process this is."""

    data: TrainingData
    out: Path
    config: TrainConfig
    journal: Journal
    device: torch.device
    ranks: Ranks
    interrupts: Interrupts

    @property
    def shape(self) -> Shape3:
        """Voxels (X, Y, Z) that the network sees: the crop, or the whole patch."""
        return self.config.crop_shape or self.data.patch_shape


@dataclass
class RunState:
    """A training between two steps, apart from its weights."""

    step: int = 0
    saved_step: int = 0  # of last.pt
    stream: dict[str, Any] = field(default_factory=dict)
    best_score: float | None = None
    validated_step: int = 0
    last_loss: float | None = None
    last_scores: dict[str, Any] | None = None
