"""Figures of an arm over its cases and seeds, with an interval for both. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from training.intervals import FEW_GROUPS

RESAMPLES = 2000
FloatArray = npt.NDArray[np.float64]
Record = dict[str, Any]


def crossed(amounts: FloatArray, sizes: FloatArray, seed: int = 0) -> Record:
    """`{"mean", "low", "high", "cases", "seeds", "by_seed"}` of sum(amounts) / sum(sizes), both (cases, seeds).

    A mean has sizes of 1, and 0 where a case has no such figure; a share has counts in both. The interval is the 2.5th
    to 97.5th percentile when cases and seeds are drawn with replacement, each by itself (pigeonhole bootstrap, Owen
    2007): another patient and another training would both give another figure. With one seed it speaks of cases
    alone; below FEW_GROUPS cases there is none, and `by_seed` is all that shows a spread.
    """
    known = sizes.sum(axis=1) > 0
    amounts, sizes = amounts[known], sizes[known]
    cases, seeds = amounts.shape
    record: Record = {"mean": None, "low": None, "high": None, "cases": cases, "seeds": seeds, "by_seed": []}
    if not cases:
        return record
    record["by_seed"] = [float(a / s) for a, s in zip(amounts.sum(axis=0), sizes.sum(axis=0), strict=True)]
    record["mean"] = float(amounts.sum() / sizes.sum())
    if cases >= FEW_GROUPS:
        drawn = _resampled(amounts, sizes, seed)
        record["low"], record["high"] = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    return record


def _resampled(amounts: FloatArray, sizes: FloatArray, seed: int) -> FloatArray:
    rng = np.random.default_rng(np.random.SeedSequence((seed, *amounts.shape)))
    by_case, by_seed = (
        rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64) for count in amounts.shape
    )
    top, bottom = (((by_case @ table) * by_seed).sum(axis=1) for table in (amounts, sizes))
    drawn: FloatArray = top[bottom > 0] / bottom[bottom > 0]
    return drawn
