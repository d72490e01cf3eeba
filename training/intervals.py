"""95 % intervals of proportions and of means, as JSON-ready records.

In: counts, or values with the group (source case) each came from. Out: dicts whose unknown figures are None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution
FEW_GROUPS = 5  # below it a bootstrap over groups has too few distinct resamples to mean anything
_CHUNK_COUNTS = 4_000_000  # counts drawn at once, 32 MB

FloatArray = npt.NDArray[np.float64]


def wilson(count: int, n: int) -> tuple[float, float] | None:
    """Wilson's 95 % score interval of a proportion (Wilson 1927); None when n is 0."""
    if n == 0:
        return None
    share, z2 = count / n, Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and n the formula's end is exactly 0 or 1, but for rounding.
    return (0.0 if count == 0 else middle - half), (1.0 if count == n else middle + half)


def proportion(count: int, n: int) -> dict[str, Any]:
    """`{"count", "n", "value", "low", "high"}`: count out of n with Wilson's interval; None when n is 0."""
    low, high = wilson(count, n) or (None, None)
    return {"count": count, "n": n, "value": count / n if n else None, "low": low, "high": high}


def cluster_mean(
    values: Sequence[float], groups: Sequence[str], *, seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """`{"mean", "low", "high", "n", "groups"}` and, where a reader must know it, `"note"`.

    The interval is the 2.5th to 97.5th percentile of the mean when whole groups are drawn with replacement (cluster
    bootstrap, Davison and Hinkley 1997, 3.8): values of one group are not independent of each other. Few groups have
    too few distinct resamples, and the interval is None.
    """
    if not values:
        return {"mean": None, "low": None, "high": None, "n": 0, "groups": 0, "note": "no sample to measure"}
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(member, weights=np.asarray(values, np.float64)).astype(np.float64)
    sizes = np.bincount(member).astype(np.float64)
    record = {
        "mean": float(sums.sum() / sizes.sum()),
        "low": None,
        "high": None,
        "n": len(values),
        "groups": len(names),
    }
    if len(names) >= FEW_GROUPS:
        low, high = np.percentile(_resampled_means(sums, sizes, seed, resamples), (2.5, 97.5))
        record |= {"low": float(low), "high": float(high)}
    notes = "; ".join(_notes(values, len(names)))
    return record | ({"note": notes} if notes else {})


def _notes(values: Sequence[float], groups: int) -> Iterator[str]:
    """What keeps an interval from being read at face value."""
    if groups == 1:
        yield "one source case: no interval"
        return
    if groups < FEW_GROUPS:
        yield f"fewer than {FEW_GROUPS} source cases: no interval"
        return
    if min(values) == max(values):
        yield "all values are equal: the interval cannot show the uncertainty"


def _resampled_means(sums: FloatArray, sizes: FloatArray, seed: int, resamples: int) -> FloatArray:
    rng = np.random.default_rng(np.random.SeedSequence((seed,)))
    count = len(sums)
    chunk = max(1, _CHUNK_COUNTS // count)
    means = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)
        means.append((drawn @ sums) / (drawn @ sizes))
    return np.concatenate(means)
