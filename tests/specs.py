"""What tests of drawn specs share: a bank with every organ and phase, settings, and what distributions should give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import Case
from pipeline.config import GenerateConfig
from pipeline.presets import Distribution, LogNormal, LogUniform, Mixture, Normal, Uniform
from pipeline.spec import SampleSpec, TumorSpec, draw_sample
from tests.cases import make_abdomen

PHASES = ("native", "arterial", "portal_venous")
PATCH = (32, 32, 24)
Floats = npt.NDArray[np.float64]


def make_abdomens(folder: Path) -> Bank:
    """A bank of the abdomen of `tests.cases` in three phases, each case named after its phase, all of them `train`."""
    with create_or_open_bank(folder, 3.0) as writer:
        for phase in PHASES:
            writer.add_case(make_abdomen(phase, phase=phase))
    return open_bank(folder)


def config(organ: str = "liver", **changes: Any) -> GenerateConfig:
    """Settings for samples at one organ, all with tumors, unless changed."""
    settings = {"organs": [organ], "patch_shape": PATCH, "body_share": 0, "healthy_share": 0}
    return GenerateConfig.model_validate(settings | changes)


def drawn(bank: Bank, settings: GenerateConfig, samples: int) -> Iterator[tuple[Case, SampleSpec]]:
    """The first samples of a dataset, with their cases."""
    for index in range(samples):
        spec = draw_sample(bank, settings, index)
        yield bank.load(spec.case_id), spec


def drawn_tumors(bank: Bank, settings: GenerateConfig, samples: int) -> list[tuple[Case, TumorSpec]]:
    """Their tumors, with their cases."""
    return [(case, tumor) for case, spec in drawn(bank, settings, samples) for tumor in spec.tumors]


def cdf(distribution: Distribution, x: npt.ArrayLike) -> Floats:
    """Share of a preset's distribution at or below `x`."""
    at = np.asarray(x, np.float64)
    match distribution:
        case Uniform(low, high):
            return np.clip((at - low) / (high - low), 0, 1) if high > low else (at >= low).astype(np.float64)
        case LogUniform(low, high):
            return np.clip(np.log(np.clip(at, low, high) / low) / math.log(high / low), 0, 1)
        case Normal(mean, sd, low, high):
            return _between(stats.norm(mean, sd).cdf, at, low, high)
        case LogNormal(mu, sigma, low, high):
            return _between(stats.lognorm(sigma, scale=math.exp(mu)).cdf, at, low, high)
        case Mixture(parts):
            total = sum(weight for weight, _ in parts)
            return np.asarray(sum(weight / total * cdf(part, at) for weight, part in parts))


def _between(whole: Any, at: Floats, low: float, high: float) -> Floats:
    """A distribution function cut to [low, high]."""
    return np.asarray((whole(np.clip(at, low, high)) - whole(low)) / (whole(high) - whole(low)))


def follows(values: npt.ArrayLike, distribution: Distribution, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether values can be draws from a distribution cut to [low, high].

    Kolmogorov-Smirnov, p above 1 in 100000, as many such tests are made.
    """

    def whole(x: npt.ArrayLike) -> Floats:
        return cdf(distribution, x)

    return bool(stats.kstest(values, lambda x: _between(whole, x, low, high)).pvalue > 1e-5)


def is_share(count: int, total: int, share: float) -> bool:
    """Whether `count` of `total` can be a `share`: binomial test, p above 1 in 10000, as many are made."""
    return bool(stats.binomtest(count, total, min(max(share, 0.0), 1.0)).pvalue > 1e-4)
