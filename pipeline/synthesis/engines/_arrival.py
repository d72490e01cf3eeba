"""Fronts on a cubic grid: when one first arrives where, what it encloses at a time, how far points are from it.

All float32 additions, multiplications, divisions, square roots and comparisons, one array operation at a time: the same
bits on any machine. Grids are (X, Y, Z); times are lengths in mm over a speed of 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.grid import Index3, slices3

FloatGrid = npt.NDArray[np.float32]
BoolGrid = npt.NDArray[np.bool_]

NEVER = np.float32(1e8)  # arrival time of what is not reached; its square is within float32
_BLOCKED = np.float32(1e9)  # slowness of what is not entered: no front gets through it before NEVER
_STAGES = (
    0.5,
    0.75,
    1.0,
)  # shares of the grid that a front is followed in, one after the other: early rounds are cheap
_BISECTIONS = 26  # halvings of the time, down to the precision of float32


def distances_mm(shape: tuple[int, ...], point: Index3, step_mm: float) -> FloatGrid:
    """Of each grid point to one of them."""
    x, y, z = ((np.arange(n) - p) ** 2 for n, p in zip(shape, point, strict=True))
    squares = x[:, None, None] + y[:, None] + z
    return np.sqrt(squares.astype(np.float32)) * np.float32(step_mm)


def first_arrivals(seed: Index3, speed: FloatGrid, step_mm: float) -> FloatGrid:
    """When a front from `seed` is first at each point, in mm over the speed of 1; `NEVER` where it does not come.

    `speed` is 0 where the front does not go; that includes the edges of the grid.

    The upwind scheme overestimates distances from a point, by a quarter near the seed off the axes. Scaling the
    slowness by the scheme's own gradient of the exact distance makes balls of homogeneous tissue exact.
    """
    distance = distances_mm(speed.shape, seed, step_mm)
    slowness = np.full(speed.shape, _BLOCKED, np.float32)
    np.divide(_upwind_gradient(distance), speed, out=slowness, where=speed > 0)
    times = np.full(speed.shape, NEVER, np.float32)
    times[seed] = 0
    for share in _STAGES:
        around = [math.ceil(share * n) for n in speed.shape]
        box = slices3(
            [max(p - r, 0) for p, r in zip(seed, around, strict=True)],
            [p + r + 1 for p, r in zip(seed, around, strict=True)],
        )
        times[box] = _march(times[box], slowness[box])
    return times


def _upwind_gradient(values: FloatGrid) -> FloatGrid:
    """Size of the gradient times the step, each component towards the lower neighbour; 0 at the edges of the grid."""
    squares = np.zeros_like(values)
    middle = values[1:-1, 1:-1, 1:-1]
    for axis in range(3):
        along = np.moveaxis(values, axis, 0)
        lower = np.moveaxis(np.minimum(along[:-2], along[2:]), 0, axis)
        others = slices3(*zip(*((0, n) if a == axis else (1, n - 1) for a, n in enumerate(lower.shape)), strict=True))
        difference = np.maximum(middle - lower[others], 0)
        squares[1:-1, 1:-1, 1:-1] += difference * difference
    return np.sqrt(squares)


def _march(times: FloatGrid, slowness: FloatGrid, rounds: int | None = None) -> FloatGrid:
    """Lower `times` until |grad T| is `slowness` times the step, wherever a front from its values comes.

    First-order upwind differences (Rouy and Tourin 1992, SIAM J. Numer. Anal. 29:867), all points at once, until
    nothing changes or for a number of rounds. Points at the edges of the grid are not entered.
    """
    out, slow = times.copy(), slowness.copy()
    for axis in range(3):
        np.moveaxis(slow, axis, 0)[[0, -1]] = _BLOCKED
    slab, row = out[0].size, out.shape[2]
    reached = np.flatnonzero((out < NEVER).any(axis=(1, 2)))
    first, last = int(reached[0]), int(reached[-1])
    done = 0
    while rounds is None or done < rounds:
        first, last = max(first - 1, 1), min(last + 1, len(out) - 2)  # a round carries the front one point on
        if not _relax(out.reshape(-1), slow.reshape(-1), first * slab, (last + 1) * slab, (slab, row, 1)):
            break
        done += 1
    return out


def _relax(times: FloatGrid, slowness: FloatGrid, start: int, stop: int, strides: Index3) -> bool:
    """One round at the flat indices from `start` to `stop`; whether anything changed.

    With a <= b <= c the lower neighbours along the axes and f the slowness, T solves the sum of max(T - value, 0)^2
    = f^2. Cutting b - a and c - a at the solution that does without them leaves one formula for all cases.
    """
    here, f = times[start:stop], slowness[start:stop]
    x, y, z = (np.minimum(times[start - s : stop - s], times[start + s : stop + s]) for s in strides)
    low, y = np.minimum(x, y), np.maximum(x, y)
    a, z = np.minimum(low, z), np.maximum(low, z)
    b, c = np.minimum(y, z), np.maximum(y, z)
    f2 = f * f
    b -= a
    np.minimum(b, f, out=b)
    b2 = b * b
    two = (np.sqrt(f2 + f2 - b2) + b) * np.float32(0.5)
    c -= a
    np.minimum(c, two, out=c)
    rest = np.sqrt(3 * f2 - 2 * (b2 + c * (c - b)))
    a += (rest + b + c) * np.float32(1 / 3)
    changed = bool((a < here).any())
    np.minimum(here, a, out=here)
    return changed


def time_of_volume(times: FloatGrid, rates: FloatGrid, volume: float) -> np.float32:
    """When the front has passed `volume` grid cells; the last time where there are fewer.

    A cell fills while a plane front crosses it, at its rate of cells a time. Over a ball of radius r cells such shares
    sum to the mean volume of the balls of radius r - 1/2 to r + 1/2, 1 + 1 / (4 r^2) of its own. Shares are whole
    1024ths, so that their sum does not depend on its order.
    """
    volume *= 1 + 0.25 / (0.75 * volume / math.pi) ** (2 / 3)
    low, high = 0.0, float((times + np.float32(0.5) / rates).max())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        shares = ((np.float32(middle) - times) * rates + np.float32(0.5)).clip(0, 1)
        filled = np.rint(shares * np.float32(1024)).sum(dtype=np.float64) / 1024
        low, high = (middle, high) if filled < volume else (low, middle)
    return np.float32(high)


def run_on(times: FloatGrid, reached: BoolGrid, step_mm: float, rounds: int) -> FloatGrid:
    """Arrival times of a front that runs on for some points at speed 1 past what held it."""
    return _march(times, np.where(reached, _BLOCKED, np.float32(step_mm)), rounds)


def signed_distance_mm(ahead: FloatGrid, speed: FloatGrid, step_mm: float, low_mm: float) -> FloatGrid:
    """Distance to the zero surface of `ahead`, a time, positive where that is, down to `-low_mm`."""
    inside = ahead >= 0
    margin = math.ceil(low_mm / step_mm) + 1
    spans = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = slices3([max(int(s[0]) - margin, 0) for s in spans], [int(s[-1]) + margin + 1 for s in spans])
    within = inside[box]
    distance = _to_surface(ahead[box], speed[box], step_mm)
    # Along a diagonal a front takes sqrt(3) rounds a step. Outside, only so much distance matters.
    distance = _march(distance, np.full(within.shape, step_mm, np.float32), math.ceil(1.75 * low_mm / step_mm))
    distance = _march(distance, np.where(within, np.float32(step_mm), _BLOCKED))
    out = np.full(inside.shape, -low_mm, np.float32)
    out[box] = np.where(within, distance, -np.minimum(distance, np.float32(low_mm)))
    return out


def _to_surface(ahead: FloatGrid, speed: FloatGrid, step_mm: float) -> FloatGrid:
    """Of points whose neighbour is across the zero surface, the distance to it; `NEVER` at the others.

    That is the time to it at the point's own speed, and no more than to where, along an axis, the line between the two
    values crosses zero.
    """
    inside = ahead >= 0
    nearest = np.full_like(ahead, NEVER)
    for axis in range(3):
        values, sides, out = (np.moveaxis(a, axis, 0) for a in (ahead, inside, nearest))
        across = sides[1:] != sides[:-1]
        share = np.where(across, values[1:] / np.where(across, values[1:] - values[:-1], 1), NEVER)
        np.minimum(out[1:], share * np.float32(step_mm), out=out[1:])
        np.minimum(out[:-1], np.where(across, 1 - share, NEVER) * np.float32(step_mm), out=out[:-1])
    return np.where(nearest < NEVER, np.minimum(nearest, np.abs(ahead) * speed), NEVER)
