"""Drawing from distributions with the generator of a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.presets.kinds import Choice, Distribution, LogNormal, LogUniform, Mixture, Normal, Uniform

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

_DRAWS = 64  # tries to hit the inside of a cut distribution


def draw(rng: np.random.Generator, distribution: Distribution) -> float:
    """One value of a distribution."""
    match distribution:
        case Uniform(low, high):
            return float(rng.uniform(low, high))
        case LogUniform(low, high):
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        case Normal(mean, sd, low, high):
            return _cut(rng, lambda: float(rng.normal(mean, sd)), low, high)
        case LogNormal(mu, sigma, low, high):
            return _cut(rng, lambda: math.exp(rng.normal(mu, sigma)), low, high)
        case Mixture(parts):
            return draw(rng, parts[weighted(rng, [weight for weight, _ in parts])][1])


def _cut(rng: np.random.Generator, once: Callable[[], float], low: float, high: float) -> float:
    for _ in range(_DRAWS):
        value = once()
        if low <= value <= high:
            return value
    return float(rng.uniform(low, high))


def within(rng: np.random.Generator, distribution: Distribution, low: float, high: float) -> float:
    """A value of `distribution` cut to [low, high]."""
    return _cut(rng, lambda: draw(rng, distribution), low, high)


def weighted(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """An index, with the probability of its weight."""
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))


def choose(rng: np.random.Generator, choice: Choice) -> int:
    """One of the numbers of a choice."""
    numbers = list(choice.weights)
    return numbers[weighted(rng, list(choice.weights.values()))]


def rotation(rng: np.random.Generator) -> Matrix:
    """A uniformly distributed rotation, from a normalised quaternion of four normals (Muller 1959)."""
    quaternion = rng.normal(size=4)
    w, x, y, z = (float(v) for v in quaternion / math.sqrt(float(quaternion @ quaternion)))
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )


def direction(rng: np.random.Generator) -> Vector:
    """A uniformly distributed unit vector."""
    v = rng.normal(size=3)
    x, y, z = (float(c) for c in v / math.sqrt(float(v @ v)))
    return x, y, z
