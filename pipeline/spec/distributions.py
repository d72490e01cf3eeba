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
            return whole(math.exp(rng.uniform(math.log(low), math.log(high))))
        case Normal(mean, sd, low, high):
            return _cut(rng, lambda: float(rng.normal(mean, sd)), low, high)
        case LogNormal(mu, sigma, low, high):
            return _cut(rng, lambda: whole(math.exp(rng.normal(mu, sigma))), low, high)
        case Mixture(parts):
            return draw(rng, parts[weighted(rng, [weight for weight, _ in parts])][1])


def whole(value: float) -> float:
    """In whole millionths: the last bit of exp, log and roots differs between math libraries."""
    return round(value, 6)


def _cut(rng: np.random.Generator, once: Callable[[], float], low: float, high: float) -> float:
    for _ in range(_DRAWS):
        value = once()
        if low <= value <= high:
            return value
    return float(rng.uniform(low, high))


def within(rng: np.random.Generator, distribution: Distribution, low: float, high: float) -> float:
    """A value of `distribution` cut to [low, high] and to its own ends; where they do not meet, the nearer end."""
    least, most = ends(distribution)
    if least > high or most < low:
        return high if least > high else low
    return _cut(rng, lambda: draw(rng, distribution), max(low, least), min(high, most))


def ends(distribution: Distribution) -> tuple[float, float]:
    """Smallest and largest value of a distribution."""
    if isinstance(distribution, Mixture):
        of_parts = [ends(part) for weight, part in distribution.parts if weight > 0]
        return min(low for low, _ in of_parts), max(high for _, high in of_parts)
    return distribution.low, distribution.high


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
    w, x, y, z = unit(rng.normal(size=4).tolist())
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )


def direction(rng: np.random.Generator) -> Vector:
    """A uniformly distributed unit vector."""
    x, y, z = unit(rng.normal(size=3).tolist())
    return x, y, z


def unit(vector: Sequence[float]) -> list[float]:
    """The vector over its length. Written out: a BLAS product differs in its last bit from machine to machine."""
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]
