"""The global order of samples: which sample comes when, and which rank reads it. Pure index arithmetic.

Positions 0, 1, 2, ... run through the epochs without a gap: of n samples, position p is place p % n of epoch p // n,
and every epoch is its own permutation. A global batch is the next `batch_size * world_size` positions; each rank takes
a consecutive share of it. So the sequence of samples depends on (n, seed) alone, and a position is all that a resume
needs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def epoch_permutation(n: int, seed: int, epoch: int) -> IntArray:
    """The order of n samples in an epoch, int64 (n,); the same on every machine."""
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch)))
    return np.random.Generator(bits).permutation(n).astype(np.int64, copy=False)


# A batch straddles two epochs at most times, and training and validation streams take turns.
_kept_permutation = lru_cache(maxsize=4)(epoch_permutation)


def places(positions: range, n: int, seed: int, shuffle: bool = True) -> IntArray:
    """Which of the n samples come at these global positions, int64; without `shuffle` each epoch is 0, 1, ... n - 1."""
    if n < 1:
        raise ValueError("an order needs at least one sample")
    epochs, place = np.divmod(np.arange(positions.start, positions.stop, dtype=np.int64), n)
    if not shuffle:
        return place
    for epoch in np.unique(epochs):
        here = epochs == epoch
        place[here] = _kept_permutation(n, seed, int(epoch))[place[here]]
    return place


def batch_end(start: int, batch_size: int, world_size: int, end: int | None) -> int:
    """Where the global batch that starts at `start` ends and the next one starts; `end` cuts the last one short."""
    stop = start + batch_size * world_size
    return stop if end is None else min(stop, end)


def rank_positions(start: int, batch_size: int, rank: int, world_size: int, end: int | None = None) -> range:
    """The positions that a rank reads of the global batch that starts at `start`.

    The shares of ranks 0, 1, ... follow one another. All hold `batch_size` positions, but for the last batch of a
    finite stream: there they differ by one at most, and some are empty when fewer positions than ranks are left.
    """
    held = max(0, batch_end(start, batch_size, world_size, end) - start)
    return range(start + held * rank // world_size, start + held * (rank + 1) // world_size)
