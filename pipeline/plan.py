"""Which samples a shard holds. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise


@dataclass(frozen=True)
class Plan:
    """A dataset of `samples`, `shard_samples` of them in each shard, fewer in the last.

    `grown` tells how many samples the dataset held before each time it grew. What was made stays as it is: a growth
    begins a new shard, so the last shard before it may hold fewer samples.
    """

    samples: int
    shard_samples: int
    grown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        totals = (0, *self.grown, self.samples)
        if any(a >= b for a, b in pairwise(totals)):
            raise ValueError(f"a dataset only grows: {totals[1:]}")

    @cached_property
    def _starts(self) -> list[tuple[int, int]]:
        """(first shard, first sample) of each growth, then those behind the last."""
        starts, shard = [], 0
        totals = (0, *self.grown, self.samples)
        for first, end in pairwise(totals):
            starts.append((shard, first))
            shard += math.ceil((end - first) / self.shard_samples)
        return [*starts, (shard, self.samples)]

    @property
    def shards(self) -> int:
        return self._starts[-1][0]

    def indices(self, shard: int) -> range:
        """Sample indices of a shard, in row order."""
        growth = bisect_right(self._starts, shard, key=lambda start: start[0]) - 1
        first_shard, first = self._starts[growth]
        start = first + (shard - first_shard) * self.shard_samples
        return range(start, min(start + self.shard_samples, self._starts[growth + 1][1]))

    def shard_of(self, index: int) -> int:
        """The shard that holds a sample."""
        first_shard, first = self._starts[bisect_right(self._starts, index, key=lambda start: start[1]) - 1]
        return first_shard + (index - first) // self.shard_samples

    def samples_in(self, shards: Iterable[int]) -> int:
        """How many samples these shards hold together."""
        return sum(len(self.indices(shard)) for shard in shards)
