"""Intervals of proportions and of means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from training.intervals import cluster_mean, proportion, wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(counts: tuple[int, int]) -> None:
    count, n = counts
    expected = binomtest(count, n).proportion_ci(method="wilson")
    assert wilson(count, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= wilson(count, n)[0] <= count / n <= wilson(count, n)[1] <= 1


def test_no_proportion_of_nothing() -> None:
    assert wilson(0, 0) is None
    assert proportion(0, 0) == {"count": 0, "n": 0, "value": None, "low": None, "high": None}


def test_mean_is_over_samples_not_over_groups() -> None:
    record = cluster_mean([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert record["mean"] == 0.75
    assert (record["n"], record["groups"]) == (4, 2)


def test_samples_of_one_group_do_not_narrow_the_interval() -> None:
    """Ten times the samples from the same 8 source cases carry no more information; from 80 cases they do."""
    values = np.random.default_rng(np.random.SeedSequence((1,))).uniform(size=8)
    few = cluster_mean(values.tolist(), [f"g{k}" for k in range(8)])
    clustered = cluster_mean(np.repeat(values, 10).tolist(), [f"g{k // 10}" for k in range(80)])
    independent = cluster_mean(np.repeat(values, 10).tolist(), [f"g{k}" for k in range(80)])
    assert width(clustered) == pytest.approx(width(few))
    assert width(independent) < width(few) / 2
    assert few["low"] < few["mean"] < few["high"]


def width(record: dict[str, Any]) -> float:
    return record["high"] - record["low"]


def test_bootstrap_agrees_with_theory() -> None:
    """For independent values the interval is close to mean ± 1.96 standard errors."""
    values = np.random.default_rng(np.random.SeedSequence((2,))).normal(size=400)
    record = cluster_mean(values.tolist(), [str(k) for k in range(400)], resamples=4000)
    half = 1.96 * values.std() / 20
    assert (record["low"], record["high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_bootstrap_is_repeatable_and_seeded() -> None:
    values, groups = [0.1, 0.5, 0.4, 0.9, 0.2, 0.7], list("abcdef")
    assert cluster_mean(values, groups) == cluster_mean(values, groups)
    assert cluster_mean(values, groups, seed=1) != cluster_mean(values, groups)


@pytest.mark.parametrize(
    ("values", "groups", "note"),
    [
        ([0.1, 0.9], ["a", "a"], "one source case: no interval"),
        ([0.1, 0.9], ["a", "b"], "fewer than 5 source cases"),
        ([0.0] * 6, list("abcdef"), "all values are equal"),
        ([], [], "no sample"),
    ],
)
def test_an_interval_that_must_not_be_trusted_says_so(values: list[float], groups: list[str], note: str) -> None:
    record = cluster_mean(values, groups)
    assert note in record["note"]
    assert (record["low"] is None) == (len(set(groups)) < 5)
    assert "note" not in cluster_mean([0.1, 0.2, 0.3, 0.4, 0.5], list("abcde"))
