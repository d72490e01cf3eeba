"""What a batch is trained towards: at each voxel the channels that are possible, and facts about whole samples.

One notion covers masks, partial labels, ignored voxels, rings and weak tumors: a voxel's label is the set of channels
that it may be of. A known voxel has one channel, a voxel of which nothing is known has all.
"""

from __future__ import annotations

import itertools
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from torch import Tensor

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A box that one tumor fills from face to face; voxels of the patch, axes (X, Y, Z), half open."""

    channel: int
    low: Voxel
    high: Voxel

    def __post_init__(self) -> None:
        if not all(0 <= low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box holds a voxel or more, got {self.low} to {self.high}")


@dataclass(frozen=True)
class ReportedTumor:
    """One tumor of a report: its channel and its 0 to 3 diameters in mm, the largest first; none: size not told."""

    channel: int
    diameters_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a >= b for a, b in itertools.pairwise(self.diameters_mm))
        if len(self.diameters_mm) > 3 or not falling or any(mm <= 0 for mm in self.diameters_mm):
            raise ValueError(f"a tumor has up to 3 diameters above 0 mm, the largest first, got {self.diameters_mm}")


@dataclass(frozen=True)
class Targets:
    """The targets of a batch of B samples and C channels; geometry as the network sees it, after flips.

    A tumor may be at the voxels whose set has its channel and not channel 0: those of its organ, organ or tumor. An
    organ that a tag or a report calls free of tumor has the organ's channel for sure in `codes`.
    """

    codes: Tensor
    """(B, 1, X, Y, Z) int64: k < C: channel k for sure; C + s: any channel of `sets[s]`."""
    sets: Tensor
    """(S, C) bool, each with a channel or more; S may be 0. On the CPU."""
    boxes: tuple[tuple[Box, ...], ...] = ()
    """Of each sample; () where no sample has any."""
    tags: Tensor | None = None
    """(B, C) int8: 1 tumor present, 0 absent, -1 nothing said; only channels of tumors say something."""
    reports: tuple[tuple[ReportedTumor, ...] | None, ...] = ()
    """Of each sample, one entry a tumor; None: no report, (): a report without tumors. () where no sample has any."""
    _: KW_ONLY
    spacing_mm: float

    def __post_init__(self) -> None:
        batch = len(self.codes)
        if self.codes.ndim != 5 or self.codes.shape[1] != 1 or self.sets.ndim != 2:
            raise ValueError(f"codes (B, 1, X, Y, Z), sets (S, C), got {self.codes.shape} and {self.sets.shape}")
        if not bool(self.sets.any(dim=1).all()):
            raise ValueError("a set of no channel: its voxels could be nothing")
        if self.tags is not None and self.tags.shape != (batch, self.sets.shape[1]):
            raise ValueError(f"tags {tuple(self.tags.shape)}, expected {(batch, self.sets.shape[1])}")
        if any(facts and len(facts) != batch for facts in (self.boxes, self.reports)):
            raise ValueError(f"boxes of {len(self.boxes)}, reports of {len(self.reports)} samples, codes of {batch}")

    @property
    def channels(self) -> int:
        """C, of the network's output."""
        return self.sets.shape[1]

    @cached_property
    def only_known(self) -> bool:
        """Whether every voxel has one channel for sure."""
        return not self.has_sets or bool((self.codes < self.channels).all())

    @property
    def has_sets(self) -> bool:
        """Whether voxels may have a code of a set."""
        return len(self.sets) > 0

    @property
    def has_weak_facts(self) -> bool:
        """Whether a box, a tag or a report says something beside the codes."""
        return any(self.boxes) or self.tags is not None or any(self.reports)
