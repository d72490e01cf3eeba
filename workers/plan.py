"""Which samples a shard holds and what remains to be done. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """A dataset of `samples`, `shard_samples` of them in each shard, fewer in the last."""

    samples: int
    shard_samples: int

    @property
    def shards(self) -> int:
        return math.ceil(self.samples / self.shard_samples)

    def indices(self, shard: int) -> range:
        """Sample indices of a shard, in row order."""
        start = shard * self.shard_samples
        return range(start, min(start + self.shard_samples, self.samples))

    def remaining(self, committed: Collection[int]) -> list[int]:
        """Shards still to be made, ascending: planned minus committed."""
        done = set(committed)
        return [shard for shard in range(self.shards) if shard not in done]

    def samples_in(self, shards: Iterable[int]) -> int:
        """How many samples these shards hold together."""
        return sum(len(self.indices(shard)) for shard in shards)
