"""Drawing from distributions: the right ones, cut where they should be, and nothing but the generator decides."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from pipeline.presets import Choice, Distribution, LogNormal, LogUniform, Mixture, Normal, Uniform
from pipeline.spec.distributions import choose, direction, draw, rotation, weighted, within
from tests.specs import cdf, follows

DISTRIBUTIONS: list[Distribution] = [
    Uniform(2, 6),
    Uniform(-8, -3),
    LogUniform(4, 20),
    Normal(-40, 10, -70, -10),
    Normal(0, 30, -10, 50),  # cut unevenly
    LogNormal(2.5, 0.5, 5, 60),
    LogNormal(3.2, 0.9, 10, 30),  # both ends cut much away
    Mixture(((1, Uniform(0, 1)), (3, Uniform(10, 11)))),
    Mixture(((0.5, LogNormal(2.5, 0.7, 4, 80)), (0.5, LogUniform(4, 20)))),
    Mixture(((0.2, Uniform(0, 1)), (0.8, Mixture(((0.5, Normal(5, 1, 2, 8)), (0.5, Uniform(0, 10))))))),
]


def rng_of(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, 17)))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_draws_follow_the_distribution(distribution: Distribution) -> None:
    rng = rng_of()
    values = [draw(rng, distribution) for _ in range(3000)]
    assert follows(values, distribution)
    assert cdf(distribution, min(values)) >= 0
    moved = 0.3 * np.std(values)
    assert not follows([value + moved for value in values], distribution)  # the test can tell


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_the_ends_are_never_passed(distribution: Distribution) -> None:
    rng = rng_of(2)
    shares = cdf(distribution, np.array([draw(rng, distribution) for _ in range(500)]))
    assert ((shares > -1e-9) & (shares < 1 + 1e-9)).all()
    if isinstance(distribution, Normal | LogNormal):
        values = [draw(rng, distribution) for _ in range(2000)]
        assert distribution.low <= min(values) <= max(values) <= distribution.high


@pytest.mark.parametrize("value", [0.0, -12.5, 7.0])
def test_equal_ends_are_a_number(value: float) -> None:
    assert draw(rng_of(), Uniform(value, value)) == value


def test_the_generator_alone_decides() -> None:
    for distribution in DISTRIBUTIONS:
        assert draw(rng_of(3), distribution) == draw(rng_of(3), distribution)
        assert draw(rng_of(3), distribution) != draw(rng_of(4), distribution)


@pytest.mark.parametrize(
    ("distribution", "low", "high"),
    [
        (LogNormal(2.5, 0.7, 4, 80), 8, 30),
        (Mixture(((0.5, LogNormal(2.5, 0.7, 4, 80)), (0.5, LogUniform(4, 20)))), 10, 60),
        (Mixture(((0.5, Uniform(0, 10)), (0.5, Uniform(20, 30)))), 5, 22),  # of one part more is left than of the other
        (Uniform(0, 10), 2, 30),
    ],
)
def test_cutting_keeps_what_is_left_as_it_was(distribution: Distribution, low: float, high: float) -> None:
    rng = rng_of()
    values = [within(rng, distribution, low, high) for _ in range(3000)]
    assert low <= min(values)
    assert max(values) <= high
    assert follows(values, distribution, low, high)


@pytest.mark.parametrize("distribution", [Normal(0, 1, 40, 50), LogNormal(0, 0.1, 40, 50)])
def test_ends_that_are_never_hit_are_still_kept(distribution: Distribution) -> None:
    rng = rng_of()
    values = [draw(rng, distribution) for _ in range(50)]
    assert 40 <= min(values) <= max(values) <= 50
    assert 100 <= within(rng, distribution, 100, 110) <= 110


@pytest.mark.parametrize("weights", [[1, 3], [0.7, 0.2, 0.1], [5, 0, 5], [0, 2, 2, 4]])
def test_weights_are_shares(weights: list[float]) -> None:
    rng = rng_of()
    counts = Counter(weighted(rng, weights) for _ in range(4000))
    assert all(weights[index] > 0 for index in counts)
    used = [k for k, weight in enumerate(weights) if weight > 0]
    expected = [4000 * weights[k] / sum(weights) for k in used]
    assert stats.chisquare([counts[k] for k in used], expected).pvalue > 1e-3


def test_a_single_weight_leaves_no_choice() -> None:
    assert {weighted(rng_of(seed), [0.3]) for seed in range(20)} == {0}


def test_a_choice_gives_its_numbers() -> None:
    rng = rng_of()
    counts = Counter(choose(rng, Choice({1: 0.56, 2: 0.27, 5: 0.17})) for _ in range(4000))
    assert set(counts) == {1, 2, 5}
    assert stats.chisquare([counts[1], counts[2], counts[5]], [2240, 1080, 680]).pvalue > 1e-3


def test_rotations_are_rotations_and_uniform() -> None:
    rng = rng_of()
    rotations = np.array([rotation(rng) for _ in range(2000)])
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(rotations), 1)
    for row in range(3):
        for axis in range(3):  # a coordinate of a uniform unit vector is uniform between -1 and 1 (Archimedes)
            assert stats.kstest(rotations[:, row, axis], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    angles = np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert stats.kstest(angles, lambda a: (a - np.sin(a)) / math.pi).pvalue > 1e-3  # of the angle of a rotation


def test_directions_are_unit_vectors_and_uniform() -> None:
    rng = rng_of()
    directions = np.array([direction(rng) for _ in range(2000)])
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)
    for axis in range(3):
        assert stats.kstest(directions[:, axis], stats.uniform(-1, 2).cdf).pvalue > 1e-3
