"""What an experiment will take, told before anything is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.progress import duration, size

# Of a voxel, image and label together: 1.13 in 2400 stored patches of 64 voxels an edge from two real CTs at 1.5 mm.
_BYTES_PER_VOXEL = 1.2


@dataclass(frozen=True)
class Cost:
    """Datasets with their samples, trainings, and seconds of each training."""

    datasets: int
    samples: int
    patch_shape: tuple[int, int, int]
    trainings: int
    seconds_each: float
    cases: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Of all datasets, roughly."""
        return round(self.samples * math.prod(self.patch_shape) * _BYTES_PER_VOXEL)

    @property
    def seconds(self) -> float:
        """Of all trainings."""
        return self.trainings * self.seconds_each

    def lines(self) -> list[str]:
        """For people."""
        cases = ", ".join(f"{count} {name}" for name, count in self.cases.items())
        return [
            f"cases: {cases}",
            f"{self.datasets} datasets with {self.samples} samples, about {size(self.bytes)}, and banks of the cases",
            f"{self.trainings} trainings, about {duration(self.seconds)} ({duration(self.seconds_each)} each) on this "
            "machine as it is now, without generation and evaluation",
        ]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "cases": dict(self.cases),
            "datasets": self.datasets,
            "samples": self.samples,
            "bytes": self.bytes,
            "trainings": self.trainings,
            "training_hours": round(self.seconds / 3600, 3),
        }
