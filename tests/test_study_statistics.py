"""Figures of readers against tables worked by hand, published examples, scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from training.study.statistics import (
    accuracy_interval,
    answers_needed,
    auc,
    auc_interval,
    cohen_kappa,
    detection,
    equivalence,
    fleiss_kappa,
    forced_choice,
    log_linear,
    rating,
    score_interval,
)

RNG = np.random.default_rng(np.random.SeedSequence(3))


def test_d_prime_and_criterion_by_hand() -> None:
    # 20 synthetic with 15 hits, 10 real with 3 false alarms: H = 15.5 / 21, F = 3.5 / 11.
    found = detection(15, 20, 3, 10)
    assert (log_linear(15, 20), log_linear(3, 10)) == (15.5 / 21, 3.5 / 11)
    assert found["d_prime"] == pytest.approx(0.6375 + 0.4728, abs=2e-4)
    assert found["criterion"] == pytest.approx(-(0.6375 - 0.4728) / 2, abs=2e-4)
    assert detection(0, 5, 0, 5) == pytest.approx({"d_prime": 0, "criterion": 1.382994}, abs=1e-6)
    assert detection(0, 0, 3, 10)["d_prime"] is None


def test_perfect_readers_have_a_finite_d_prime() -> None:
    assert detection(10, 10, 0, 10)["d_prime"] == pytest.approx(2 * stats.norm.ppf(10.5 / 11))


def test_forced_choice_by_hand() -> None:
    # 38 of 50 right: sqrt(2) z(38.5 / 51) = 1.4142 * 0.6900
    found = forced_choice(19, 25, 19, 25)
    assert found["d_prime"] == pytest.approx(0.9758, abs=2e-4)
    assert found["criterion"] == pytest.approx(0)
    assert forced_choice(25, 25, 0, 25)["criterion"] < 0 < forced_choice(0, 25, 25, 25)["criterion"]
    assert forced_choice(0, 0, 0, 0)["d_prime"] is None


def test_ratings_run_from_certainly_real_to_certainly_synthetic() -> None:
    said = [("real", 5), ("real", 1), ("unsure", None), ("synthetic", 1), ("synthetic", 5)]
    assert [rating(answer, confidence) for answer, confidence in said] == [-5, -1, 0, 1, 5]


def test_auc_is_that_of_scikit_learn_and_of_mann_whitney() -> None:
    real, synthetic = RNG.integers(-5, 4, 40), RNG.integers(-4, 6, 30)
    found = auc(real, synthetic)
    truth = np.repeat([0, 1], [40, 30])
    assert found == pytest.approx(roc_auc_score(truth, np.concatenate([real, synthetic])))
    assert found == pytest.approx(stats.mannwhitneyu(synthetic, real).statistic / 1200)
    assert auc([1, 2], [3]) == 1
    assert auc([], [3]) is None


def test_the_bootstrap_of_the_auc_covers_as_scipy_does() -> None:
    real, synthetic = RNG.normal(0, 1, 40), RNG.normal(1, 1, 40)
    found = auc_interval(np.concatenate([real, synthetic])[None], np.repeat([False, True], 40), seed=0)
    expected = stats.bootstrap((real, synthetic), lambda a, b: auc(a, b), n_resamples=2000, method="percentile",
                               vectorized=False, rng=1).confidence_interval  # fmt: skip
    assert found["value"] == pytest.approx(auc(real, synthetic))
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=0.015)


def test_the_auc_of_readers_is_their_mean_and_missing_ratings_are_left_out() -> None:
    synthetic = np.repeat([False, True], 6)
    ratings = np.array([np.repeat([0.0, 1.0], 6), np.repeat([1.0, 0.0], 6), [np.nan, *[0.0] * 5, *[1.0] * 6]])
    found = auc_interval(ratings, synthetic, seed=0)
    assert found["value"] == pytest.approx(2 / 3)
    assert found["low"] < 2 / 3 < found["high"]
    few = auc_interval(ratings[:, 4:8], synthetic[4:8], seed=0)
    assert (few["value"], few["low"]) == (None, None)
    assert "fewer than 5 real or synthetic cases" in few["note"]


def test_a_reader_of_few_cases_is_left_out_of_the_auc() -> None:
    synthetic = np.repeat([False, True], 6)
    whole, begun = np.repeat([0.0, 1.0], 6), np.full(12, np.nan)
    begun[[0, 1, 6, 7]] = [1, 1, 0, 0]  # rates two of each class, the wrong way round
    assert auc_interval(np.array([whole, begun]), synthetic, seed=0)["value"] == 1
    assert auc_interval(begun[None], synthetic, seed=0)["value"] is None
    begun[[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]] = [1] * 5 + [0] * 5
    found = auc_interval(np.array([whole, begun]), synthetic, seed=0)
    assert (found["value"], "note" in found) == (0.5, False)


def test_several_readers_widen_the_interval_of_accuracy() -> None:
    right = RNG.random((1, 40)) < 0.6
    same = np.repeat(right, 5, axis=0).astype(float)  # five readers who always agree know no more than one
    low, high = accuracy_interval(same, 0, 0.95) or (0, 0)
    one_low, one_high = score_interval(float(right.mean()), 40, stats.norm.ppf(0.975))
    assert (low, high) == pytest.approx((one_low, one_high), abs=0.03)
    assert accuracy_interval(same[:1], 0, 0.95) is None
    assert accuracy_interval(same[:, :4], 0, 0.95) is None


@pytest.mark.parametrize(("right", "n", "margin"), [(50, 100, 0.1), (120, 240, 0.1), (30, 60, 0.15), (70, 100, 0.1)])
def test_equivalence_is_two_score_tests_and_a_90_percent_interval(right: int, n: int, margin: float) -> None:
    found = equivalence(right, n, margin)
    result = stats.binomtest(right, n)
    interval = result.proportion_ci(0.9, method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["met"] == (interval.low > 0.5 - margin and interval.high < 0.5 + margin)
    exact = max(
        stats.binomtest(right, n, 0.5 - margin, "greater").pvalue,
        stats.binomtest(right, n, 0.5 + margin, "less").pvalue,
    )
    assert found["p"] == pytest.approx(exact, abs=0.03)


def test_equivalence_by_hand() -> None:
    # z = (0.5 - 0.4) / sqrt(0.24 / 240) = 3.1623 on both sides
    assert equivalence(120, 240, 0.1)["p"] == pytest.approx(stats.norm.sf(3.16228), rel=1e-4)
    assert equivalence(120, 240, 0.1, also=(0.38, 0.55))["met"] is False
    assert equivalence(0, 0, 0.1)["met"] is None


@pytest.mark.parametrize(("margin", "expected"), [(0.05, 857), (0.1, 215), (0.15, 96)])
def test_answers_needed(margin: float, expected: int) -> None:
    assert answers_needed(margin) == expected
    assert equivalence(expected / 2, expected, margin)["met"]


def test_the_answers_needed_give_the_power_they_promise() -> None:
    n = answers_needed(0.1)
    met = [bool(equivalence(k, n, 0.1)["met"]) for k in range(n + 1)]
    power = sum(stats.binom.pmf(k, n, 0.5) for k in range(n + 1) if met[k])
    assert power == pytest.approx(0.8, abs=0.03)


def test_cohen_by_hand_and_by_scikit_learn() -> None:
    # Agreement 35 of 50, chance (25 * 30 + 25 * 20) / 2500 = 0.5
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx({"value": 0.4, "n": 50, "agreed": 0.7})
    a, b = (RNG.choice(["real", "synthetic", "unsure"], 60).tolist() for _ in range(2))
    assert cohen_kappa(a, b)["value"] == pytest.approx(cohen_kappa_score(a, b))
    assert cohen_kappa(["real"] * 4, ["real"] * 4)["value"] is None
    assert cohen_kappa([], [])["value"] is None
    assert cohen_kappa(["real"], ["synthetic"]) == {"value": None, "n": 1, "agreed": 0.0}


def test_fleiss_of_the_published_example() -> None:
    # Fleiss' table as Wikipedia reproduces it: 10 subjects, 14 raters, 5 categories, kappa 0.210
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
             [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    rows = [[str(k) for k, count in enumerate(row) for _ in range(count)] for row in table]
    found = fleiss_kappa(rows)
    assert found["value"] == pytest.approx(0.2099, abs=1e-4)
    assert (found["n"], found["readers"]) == (10, 14)
    assert fleiss_kappa([["real"]])["value"] is None


def test_wilson_of_half_counts_lies_between_its_neighbours() -> None:
    ends = [score_interval(right / 10, 10, 1.645) for right in (4, 4.5, 5)]
    assert ends[0][0] < ends[1][0] < ends[2][0]
    assert math.isclose(ends[2][0] + ends[2][1], 1)
