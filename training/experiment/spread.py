"""Figures of an arm over its cases and seeds, with an interval for both, or for seeds where cases are few. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from training.intervals import FEW_GROUPS

RESAMPLES = 2000
OVER_BOTH, OVER_CASES = "over cases and seeds", "over cases"
OVER_SEEDS = "over seeds, on these cases only"
SHARE, AMOUNT = (0.0, 1.0), (0.0, math.inf)  # what figures can be; of a difference anything
FloatArray = npt.NDArray[np.float64]
Record = dict[str, Any]


def crossed(
    amounts: FloatArray, sizes: FloatArray, limits: tuple[float, float] = (-math.inf, math.inf), seed: int = 0
) -> Record:
    """`{"mean", "low", "high", "interval", "cases", "seeds", "by_seed"}` of sum(amounts) / sum(sizes).

    Both are (cases, seeds). A mean has sizes of 1, and 0 where a case has no such figure; a share has counts in both.
    The interval is the 2.5th to 97.5th percentile when cases and seeds are drawn with replacement, each by itself
    (pigeonhole bootstrap, Owen 2007): another patient and another training would both give another figure. Below
    FEW_GROUPS cases it is that of `over_seeds`, cut at `limits`; with one seed there is none then. `interval` says
    what it is over, None where there is none.
    """
    known = sizes.sum(axis=1) > 0
    amounts, sizes = amounts[known], sizes[known]
    cases, seeds = amounts.shape
    record: Record = {"mean": None, "low": None, "high": None, "interval": None}
    record |= {"cases": cases, "seeds": seeds, "by_seed": []}
    if not cases:
        return record
    record["by_seed"] = [float(a / s) for a, s in zip(amounts.sum(axis=0), sizes.sum(axis=0), strict=True)]
    record["mean"] = float(amounts.sum() / sizes.sum())
    if cases >= FEW_GROUPS:
        drawn = _resampled(amounts, sizes, seed)
        record["low"], record["high"] = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
        record["interval"] = OVER_BOTH if seeds > 1 else OVER_CASES
    elif seeds > 1:
        record["low"], record["high"] = (float(end) for end in np.clip(over_seeds(record["by_seed"]), *limits))
        record["interval"] = OVER_SEEDS
    return record


def over_seeds(by_seed: list[float]) -> tuple[float, float]:
    """Student's two-sided 95 % interval of a mean: mean -+ t(0.975, n - 1) s / sqrt(n), of two values at least.

    It takes other trainings on the same cases into account and no other patients. Of two seeds it is wide: t is 12.7.
    """
    from scipy.stats import t

    values, n = np.asarray(by_seed), len(by_seed)
    half = float(t.ppf(0.975, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) - half, float(values.mean()) + half


def _resampled(amounts: FloatArray, sizes: FloatArray, seed: int) -> FloatArray:
    rng = np.random.default_rng(np.random.SeedSequence((seed, *amounts.shape)))
    by_case, by_seed = (
        rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64) for count in amounts.shape
    )
    top, bottom = (((by_case @ table) * by_seed).sum(axis=1) for table in (amounts, sizes))
    drawn: FloatArray = top[bottom > 0] / bottom[bottom > 0]
    return drawn
