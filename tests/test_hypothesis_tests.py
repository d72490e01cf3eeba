"""Tests of paired differences, against counting by hand."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, wilcoxon

from training.hypothesis_tests import holm, mcnemar_p, sign_flip_p, wilcoxon_p


def flipped_by_hand(sums: list[float]) -> float:
    """Share of all ways to flip whose total is at least as far from 0."""
    totals = [abs(np.dot(sums, signs)) for signs in itertools.product((1, -1), repeat=len(sums))]
    return float(np.mean([total >= abs(sum(sums)) - 1e-9 for total in totals]))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_sign_flips_are_exact_for_few_groups(sums: list[int]) -> None:
    found = sign_flip_p([float(value) for value in sums], [f"g{k}" for k in range(len(sums))])
    assert found == pytest.approx(flipped_by_hand([float(value) for value in sums]))


def test_fourteen_groups_are_exact_and_fifteen_are_drawn() -> None:
    values = [(-1) ** k * k / 10 + 0.3 for k in range(15)]
    groups = [f"g{k}" for k in range(15)]
    for seed in range(2):
        assert sign_flip_p(values[:14], groups[:14], seed=seed) == pytest.approx(flipped_by_hand(values[:14]))
    assert len({sign_flip_p(values, groups, seed=seed) for seed in range(3)}) > 1


def test_groups_are_flipped_whole() -> None:
    """Many samples of three source cases give no smaller p than three samples."""
    differences, groups = [0.1, 0.2, 0.3] * 50, ["a", "b", "c"] * 50
    assert sign_flip_p(differences, groups) == pytest.approx(2 / 8)
    assert wilcoxon_p(differences, groups) == pytest.approx(2 / 8)
    alone = [f"g{k}" for k in range(150)]
    assert sign_flip_p(differences, alone) < 0.001
    assert wilcoxon_p(differences, alone) < 0.001


def test_groups_weigh_by_their_samples() -> None:
    """One group of ten small differences, two single large ones against them."""
    differences, groups = [1.0] * 10 + [-2.0, -3.0], ["a"] * 10 + ["b", "c"]
    assert sign_flip_p(differences, groups) == pytest.approx(flipped_by_hand([10.0, -2.0, -3.0]))


def test_random_flips_agree_with_theory_and_repeat() -> None:
    values = np.random.default_rng(np.random.SeedSequence((3,))).normal(0.2, 1, 80).tolist()
    groups = [f"g{k}" for k in range(80)]
    found = sign_flip_p(values, groups)
    assert found == pytest.approx(ttest_1samp(values, 0).pvalue, abs=0.01)
    assert found == sign_flip_p(values, groups)
    assert found != sign_flip_p(values, groups, seed=1)


def test_wilcoxon_is_on_the_means_of_groups() -> None:
    differences, groups = [1.0, 3.0, -1.0, 0.5, 4.0, 0.0, -2.5], ["a", "a", "b", "c", "d", "e", "f"]
    assert wilcoxon_p(differences, groups) == pytest.approx(wilcoxon([2, -1, 0.5, 4, -2.5]).pvalue)


@pytest.mark.parametrize(
    ("differences", "groups", "expected"),
    [([], [], None), ([0.0, 0.0], ["a", "b"], 1.0), ([0.3], ["a"], 1.0), ([0.3, 0.3], ["a", "a"], 1.0)],
)
def test_too_little_to_test(differences: list[float], groups: list[str], expected: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert wilcoxon_p(differences, groups) == expected
        assert sign_flip_p(differences, groups) == expected


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [(0, 0, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 4, 2 * (1 + 5) / 32), (3, 3, 1.0)],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, expected: float) -> None:
    assert mcnemar_p(only_a, only_b) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ps", "expected"),
    [
        ([], []),
        ([None], [None]),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01; 2 x 0.03; 1 x 0.04, but not below the one before
        ([0.5, None, 0.6], [1.0, None, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(ps: list[float | None], expected: list[float | None]) -> None:
    assert holm(ps) == [None if p is None else pytest.approx(p) for p in expected]
