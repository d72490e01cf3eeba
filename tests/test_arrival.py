"""Fronts: balls in homogeneous tissue, detours around walls, volumes, distances from a surface."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.synthesis.engines._arrival import (
    NEVER,
    distances_mm,
    first_arrivals,
    run_on,
    signed_distance_mm,
    time_of_volume,
)

POINTS, MIDDLE = 31, (15, 15, 15)


def _speed(points: int = POINTS) -> np.ndarray:
    """1 everywhere but at the edges of the grid."""
    speed = np.zeros((points,) * 3, np.float32)
    speed[1:-1, 1:-1, 1:-1] = 1
    return speed


@pytest.mark.parametrize("seed", [(15, 15, 15), (3, 20, 9)])
def test_a_front_in_homogeneous_tissue_is_a_ball(seed: tuple[int, int, int]) -> None:
    speed = _speed()
    times = first_arrivals(seed, speed * 2, 1.5)
    exact = distances_mm(speed.shape, seed, 1.5) / 2
    assert np.allclose(times[speed > 0], exact[speed > 0], rtol=1e-5)
    assert np.all(times[speed == 0] == NEVER)


def test_a_wall_is_gone_around() -> None:
    speed = _speed()
    free = first_arrivals((15, 15, 5), speed, 1.0)
    speed[8:23, 8:23, 10] = 0
    walled = first_arrivals((15, 15, 5), speed, 1.0)
    assert np.all(walled >= free - 1e-4)
    around = 2 * math.hypot(8, 5)  # over the edge of the wall, 8 points from its middle
    assert walled[15, 15, 15] == pytest.approx(around, rel=0.06)
    assert walled[15, 15, 7] == pytest.approx(free[15, 15, 7])


def test_what_is_enclosed_is_never_reached() -> None:
    speed = _speed()
    speed[10:21, 10:21, 10:21] = 0
    speed[15, 15, 15] = 1
    assert np.array_equal(first_arrivals((15, 15, 15), speed, 1.0) < NEVER, distances_mm(speed.shape, MIDDLE, 1) == 0)


def test_slow_tissue_delays_by_its_speed() -> None:
    speed = _speed()
    speed[:, :, 20:] *= np.float32(0.25)
    times = first_arrivals((15, 15, 5), speed, 1.0)
    assert times[15, 15, 25] == pytest.approx(14 + 4 * 6, rel=0.05)


@pytest.mark.parametrize("radius", [2.0, 3.3, 7.5, 12.0])
def test_the_time_of_a_volume_in_homogeneous_tissue_is_the_radius_of_its_ball(radius: float) -> None:
    times = distances_mm((POINTS,) * 3, MIDDLE, 1.0).ravel()
    assert time_of_volume(times, np.ones_like(times), 4 / 3 * math.pi * radius**3) == pytest.approx(radius, rel=0.01)


def test_the_time_grows_with_the_volume_and_ends_when_all_is_full() -> None:
    times = np.array([0, 1, 1.5, 4], np.float32)
    ends = [time_of_volume(times, np.ones_like(times), volume) for volume in (0.5, 1, 2, 3, 3.9, 4, 400)]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(4.5)


@pytest.mark.parametrize("radius", [4.0, 9.4])
def test_the_signed_distance_of_a_ball(radius: float) -> None:
    centre = distances_mm((POINTS,) * 3, MIDDLE, 0.5)
    ahead = (np.float32(radius / 2) - centre) / 3  # a front that was three times as fast as 1
    depth = signed_distance_mm(ahead, np.full_like(ahead, 3), 0.5, 2.0)
    exact = radius / 2 - centre
    near = np.abs(exact) < 1.5
    assert np.abs(depth - exact)[near].max() < 0.3 * 0.5
    assert np.array_equal(depth >= 0, exact >= 0)
    assert np.all(depth[exact < -2.3] == -2)


def test_a_front_runs_on_past_what_held_it() -> None:
    speed = _speed()
    speed[:, :, 18:] = 0
    times = first_arrivals(MIDDLE, speed, 1.0)
    further = run_on(times, times < NEVER, 1.0, 2)
    assert np.array_equal(further[times < NEVER], times[times < NEVER])
    assert further[15, 15, 18] == pytest.approx(3, rel=0.1)
    assert further[15, 15, 19] < NEVER
    assert further[15, 15, 20] == NEVER
