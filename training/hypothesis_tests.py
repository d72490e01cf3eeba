"""Tests of paired differences whose samples come in groups (source cases), and Holm's correction of their p.

In: differences with the group of each, or counts. Out: two-sided p, None where there is nothing to test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PERMUTATIONS = 1 << 14  # all ways to flip 14 groups; drawn at random for more
_ROWS = 1024  # permutations held at once
_ROUNDING = 1e-12  # a mean of floating-point differences that is this small is 0

FloatArray = npt.NDArray[np.float64]


def wilcoxon_p(differences: Sequence[float], groups: Sequence[str]) -> float | None:
    """Wilcoxon's signed-rank test on the mean difference of each group; differences of 0 are left out.

    1 when no group differs; None without any difference.
    """
    from scipy.stats import wilcoxon

    if not differences:
        return None
    sums, sizes = _by_group(differences, groups)
    means = sums / sizes
    means = means[np.abs(means) > _ROUNDING]
    return float(wilcoxon(means).pvalue) if len(means) else 1.0


def sign_flip_p(differences: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> float | None:
    """How often the mean is as far from 0 when the signs of whole groups are flipped at random.

    Exact for up to 14 groups, `PERMUTATIONS` random flips for more. None without any difference.
    """
    from scipy.stats import permutation_test

    if not differences:
        return None
    sums, _ = _by_group(differences, groups)
    if len(sums) == 1:
        return 1.0  # both ways to flip one group lie equally far from 0

    def total(values: FloatArray, axis: int) -> FloatArray:
        return np.asarray(values.sum(axis=axis))

    tested: Any = permutation_test(
        (sums,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=_ROWS,
        random_state=np.random.default_rng(np.random.SeedSequence((seed,))),
    )
    return float(tested.pvalue)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """McNemar's exact test: whether those that only one gets right are a fair coin's; 1 when there are none."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p corrected for their number, by Holm's step-down method (1979); None stays None and does not count."""
    known = sorted((p, k) for k, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[k] = largest
    return corrected


def _by_group(differences: Sequence[float], groups: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Sum and number of each group's differences."""
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(member, weights=np.asarray(differences, np.float64))
    return sums.astype(np.float64), np.bincount(member).astype(np.float64)
