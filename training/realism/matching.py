"""Which synthetic lesions stand against which real ones: those of like size. Pure index arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WITHIN = 1.5  # a synthetic lesion is of like size up to this factor in diameter
AT_LEAST = 5  # lesions each real one is compared with, the nearest where fewer are of like size


def nearest_in_size(diameter_mm: float, others_mm: Sequence[float]) -> list[int]:
    """Indices of the lesions of like size, nearest first: all within `WITHIN`, and `AT_LEAST` at any rate."""
    apart = np.abs(np.log(np.asarray(others_mm, np.float64) / diameter_mm))
    order = np.argsort(apart, kind="stable")
    within = int(np.count_nonzero(apart <= np.log(WITHIN)))
    return [int(k) for k in order[: max(within, AT_LEAST)]]


def matched_counts(
    real: Sequence[tuple[float, int]], synthetic: Sequence[tuple[float, int]]
) -> tuple[list[int], list[int]]:
    """How many boxes to take of each real and each synthetic lesion, given diameter (mm) and boxes of each.

    The sums are equal. Real lesions take turns, one box each; it goes to the synthetic lesion of like size that has
    given the fewest so far. What finds no partner is not taken.
    """
    taken_real, taken_synthetic = [0] * len(real), [0] * len(synthetic)
    candidates = [nearest_in_size(diameter_mm, [d for d, _ in synthetic]) for diameter_mm, _ in real]
    for turn in range(max((boxes for _, boxes in real), default=0)):
        for k in [k for k, (_, boxes) in enumerate(real) if boxes > turn]:
            usable = [i for i in candidates[k] if taken_synthetic[i] < synthetic[i][1]]
            if usable:
                taken_synthetic[min(usable, key=taken_synthetic.__getitem__)] += 1
                taken_real[k] += 1
    return taken_real, taken_synthetic


def capped(counts: Sequence[int], most: int) -> list[int]:
    """Counts lowered until their sum is `most` at most, taken one by turns."""
    taken, room = [0] * len(counts), min(most, sum(counts))
    while room:
        for k in [k for k, count in enumerate(counts) if taken[k] < count][:room]:
            taken[k] += 1
            room -= 1
    return taken
