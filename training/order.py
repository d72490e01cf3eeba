"""The global order of samples: which sample comes when, and which rank reads it. Pure index arithmetic.

Positions 0, 1, 2, ... run through the epochs without a gap: of n samples, position p is place p % n of epoch p // n,
and every epoch has an order of its own. A global batch is the next `batch_size * world_size` positions; each rank takes
a consecutive share of it. So the sequence of samples depends on what is streamed and the seed alone, and a position is
all that a resume needs. Of several sources mixed, blocks of positions are dealt out to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]
Shuffle = Literal["full", "shard", "index"]
Tail = Literal["short", "drop", "pad", "wrap"]
WINDOW_SHARDS = 8  # of 64 samples of 96^3, 600 MB of encoded bytes
MIX_BLOCK = 4096
_FULL_SCALE = 30  # bits of the largest weight: 2^33 samples can be added up in 63 bits
# What else is drawn from (seed, epoch) beside the permutation: these never change, as the order does not.
_WEIGHTS, _SHARDS, _MIX, _PART = 1, 2, 3, 4


def _generator(seed: int, epoch: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch), spawn_key=purpose)))


# -- one source -------------------------------------------------------------------------------------------------------


def epoch_permutation(n: int, seed: int, epoch: int) -> IntArray:
    """The order of n samples in an epoch, int64 (n,); the same on every machine."""
    return _generator(seed, epoch).permutation(n).astype(np.int64, copy=False)


def whole_weights(weights: npt.NDArray[np.float64]) -> IntArray:
    """Weights (n,), none below 0, one above, as whole numbers in the same proportions, int64 (n,).

    Weights that are small whole numbers or their halves, quarters, ... keep their proportions exactly, others to 1e-9
    of the largest one; those above 0 stay above it.
    """
    exponent = _FULL_SCALE - int(np.frexp(weights.max())[1])
    whole = np.rint(np.ldexp(weights, exponent)).astype(np.int64)
    whole[weights > 0] = np.maximum(whole[weights > 0], 1)
    return whole


def weighted_draws(weights: IntArray, seed: int, epoch: int) -> IntArray:
    """Which samples an epoch of n draws holds, int64 (n,) ascending.

    Systematic sampling (Madow 1949): n points at equal distances on the line of cumulated weights, shifted by one
    random number, so sample i is met floor or ceil of n * w_i / sum(w) times. In whole numbers, hence exactly.
    """
    n, ends = len(weights), np.cumsum(weights)
    total = int(ends[-1])
    shift = int(_generator(seed, epoch, _WEIGHTS).integers(total))
    step, rest = divmod(total, n)
    k = np.arange(n, dtype=np.int64)
    points = k * step + (k * rest + shift) // n  # floor((k * total + shift) / n), without its overflow
    return np.searchsorted(ends, points, side="right").astype(np.int64, copy=False)


def in_windows(order: IntArray, shards: Integers, seed: int, epoch: int) -> IntArray:
    """The samples of `order`, those of the same WINDOW_SHARDS shards together; shards meet others in every epoch.

    `shards` (n,): the shard of each sample. Within a window samples keep the order among them.
    """
    numbers, shard = np.unique(shards, return_inverse=True)
    window = _generator(seed, epoch, _SHARDS).permutation(len(numbers)) // WINDOW_SHARDS
    return order[np.argsort(window[shard[order]], kind="stable")]


@dataclass(frozen=True, eq=False)
class EpochRules:
    """What decides the order of n samples in each epoch: a draw of each sample, or as `weights` (whole) say."""

    n: int
    seed: int
    shuffle: Shuffle = "full"
    weights: IntArray | None = None  # (n,)
    shards: Integers | None = None  # (n,), that `shuffle="shard"` needs

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError("an order needs at least one sample")

    def order(self, epoch: int) -> Integers:
        """The samples of an epoch one after another, (n,)."""
        drawn = np.arange(self.n) if self.weights is None else weighted_draws(self.weights, self.seed, epoch)
        if self.shuffle != "index":
            drawn = drawn[epoch_permutation(self.n, self.seed, epoch)]
        if self.shuffle == "shard" and self.shards is not None:
            drawn = in_windows(drawn, self.shards, self.seed, epoch)
        return drawn.astype(np.int32) if self.n < 1 << 31 else drawn  # it is kept: 4 MB for a million


class EpochOrder:
    """Looks samples up by position; keeps the orders of two epochs, since batches straddle them."""

    def __init__(self, rules: EpochRules) -> None:
        self.n = rules.n
        self._order = lru_cache(maxsize=2)(rules.order)

    def places(self, positions: IntArray) -> IntArray:
        """Which of the n samples come at these global positions, int64."""
        epochs = positions // self.n
        place: IntArray = positions - epochs * self.n
        for epoch in np.unique(epochs):
            here = epochs == epoch
            place[here] = self._order(int(epoch))[place[here]]
        return place


# -- several sources mixed --------------------------------------------------------------------------------------------


def mix_counts(shares: Sequence[float]) -> IntArray:
    """How many of MIX_BLOCK positions each source gets, int64, by largest remainder; their sum is MIX_BLOCK."""
    exact = np.asarray(shares, np.float64) / np.sum(shares) * MIX_BLOCK
    counts: IntArray = np.floor(exact).astype(np.int64)
    lacking = MIX_BLOCK - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:lacking]] += 1
    return counts


def mixed(positions: IntArray, counts: IntArray, seed: int) -> tuple[IntArray, IntArray]:
    """The source of each global position, and the position in that source's own order.

    A block of MIX_BLOCK positions holds exactly `counts` of each source, in an order of its own.
    """
    blocks, slot = np.divmod(positions, MIX_BLOCK)
    source, own = np.empty_like(slot), np.empty_like(slot)
    for block in np.unique(blocks):
        here = blocks == block
        dealt, before = _dealt(tuple(counts.tolist()), seed, int(block))
        source[here] = dealt[slot[here]]
        own[here] = block * counts[source[here]] + before[slot[here]]
    return source, own


@lru_cache(maxsize=8)
def _dealt(counts: tuple[int, ...], seed: int, block: int) -> tuple[IntArray, IntArray]:
    """The sources of a block's positions, and how many positions of the block the same source has before each."""
    dealt = _generator(seed, block, _MIX).permutation(np.repeat(np.arange(len(counts)), counts))
    before = np.empty_like(dealt)
    for source, count in enumerate(counts):
        before[dealt == source] = np.arange(count)
    return dealt, before


def part_seed(seed: int, number: int) -> int:
    """The seed of a source within a mixture, so that sources of the same size have different orders."""
    return int(_generator(seed, 0, _PART, number).integers(1 << 63))


# -- batches and ranks ------------------------------------------------------------------------------------------------


def batch_end(start: int, batch_size: int, world_size: int, end: int | None) -> int:
    """Where the global batch that starts at `start` ends and the next one starts; `end` cuts the last one short."""
    stop = start + batch_size * world_size
    return stop if end is None else min(stop, end)


def rank_positions(
    start: int, batch_size: int, rank: int, world_size: int, end: int | None = None, tail: Tail = "short"
) -> range:
    """The positions that a rank reads of the global batch that starts at `start`.

    The shares of ranks 0, 1, ... follow one another. All hold `batch_size` positions, but for the last batch of a
    finite stream, where fewer are left: `short` deals them out, the shares differ by one at most and may be empty;
    `drop` leaves them out; `pad` and `wrap` go on beyond `end`.
    """
    whole = batch_size * world_size
    held = max(0, batch_end(start, batch_size, world_size, end) - start)
    if tail == "short":
        return range(start + held * rank // world_size, start + held * (rank + 1) // world_size)
    if not held or (tail == "drop" and held < whole):
        return range(start, start)
    return range(start + batch_size * rank, start + batch_size * (rank + 1))
