"""Distributions as JSON-ready records, and the distances between them. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

QUANTILES = 512  # a lesion's voxels are kept as so many quantiles, so that each lesion weighs the same

FloatArray = npt.NDArray[np.float64]


def quantiles(values: npt.NDArray[np.floating]) -> FloatArray:
    """`QUANTILES` values that are distributed like `values` (Hazen's plotting positions)."""
    return np.asarray(np.quantile(values, (np.arange(QUANTILES) + 0.5) / QUANTILES, method="hazen"), np.float64)


def wasserstein(a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray) -> float | None:
    """Wasserstein-1 distance in the values' unit; None when either is empty."""
    return float(stats.wasserstein_distance(a, b)) if len(a) and len(b) else None


def kolmogorov_smirnov(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Largest distance of the two cumulative distributions, 0 to 1; None when either is empty."""
    if not len(a) or not len(b):
        return None
    return float(stats.ks_2samp(a, b, method="asymp").statistic)


def summary(values: Sequence[float | None]) -> dict[str, Any]:
    """`{"n", "mean", "median", "p25", "p75", "min", "max"}` of the values that there are."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    if not there:
        return {"n": 0} | dict.fromkeys(("mean", "median", "p25", "p75", "min", "max"))
    low, middle, high = np.percentile(there, (25, 50, 75)).tolist()
    ends = {"min": min(there), "max": max(there)}
    return {"n": len(there), "mean": float(np.mean(there)), "median": middle, "p25": low, "p75": high, **ends}


def compared(real: Sequence[float | None], synthetic: Sequence[float | None]) -> dict[str, Any]:
    """Both summaries, and their distances `w1` (the values' unit) and `ks`."""
    a, b = ([value for value in values if value is not None] for values in (real, synthetic))
    return {
        "real": summary(real),
        "synthetic": summary(synthetic),
        "w1": wasserstein(a, b),
        "ks": kolmogorov_smirnov(a, b),
    }
