"""Score over annotation time as inline SVG: a named dot with whiskers an arm, log axis with a place for zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.markup import Markup, tag
from training.report.plot import (
    GRID,
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    legend,
    line,
    series_colours,
    share_grid,
    svg,
    text,
    titles,
    x_at,
    y_at,
)

_ZERO, _FIRST, _LAST = 0.04, 0.16, 0.9  # where zero, the lowest and the highest power of ten lie on the axis
_LETTER, _LINE = 7.2, 13.0  # of a name, in the drawing's units
_KEY_ROOM = 52.0  # above the plot, for the key


@dataclass(frozen=True)
class Dot:
    """An arm: its minutes and its mean (0 to 1), with the ends of its interval where it has one."""

    name: str
    minutes: float
    mean: float
    low: float | None
    high: float | None


def minutes_chart(series: Mapping[str, Sequence[Dot]], y_title: str) -> Markup:
    """A colour a series; names stand beside their dots."""
    dots = [dot for group in series.values() for dot in group]
    powers = _powers([dot.minutes for dot in dots])
    x_title = "annotation time in minutes (log scale)"
    parts = [*_grid(powers, zero=any(dot.minutes == 0 for dot in dots)), *titles(x_title, y_title)]
    taken: list[tuple[float, float, float, float]] = [
        (_x(dot.minutes, powers) - 5, y_at(dot.mean) - 5, _x(dot.minutes, powers) + 5, y_at(dot.mean) + 5)
        for dot in dots
    ]
    for group, colour in zip(series.values(), series_colours(len(series)), strict=True):
        for dot in group:
            parts += _dot(dot, _x(dot.minutes, powers), colour, taken)
    return svg([*parts, *legend(list(series), first_y=-_KEY_ROOM + 14)], f"{y_title} over {x_title}", above=_KEY_ROOM)


def _powers(minutes: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that hold all amounts above zero."""
    logs = [math.log10(value) for value in minutes if value > 0] or [0.0]
    low = math.floor(min(logs))
    return low, max(math.ceil(max(logs)), low + 1)


def _x(minutes: float, powers: tuple[int, int]) -> float:
    if minutes == 0:
        return x_at(_ZERO)
    low, high = powers
    return x_at(_FIRST + (_LAST - _FIRST) * (math.log10(minutes) - low) / (high - low))


def _grid(powers: tuple[int, int], zero: bool) -> list[Markup]:
    parts = share_grid()
    marks = [0.0] if zero else []
    for value in (*marks, *(10.0**power for power in range(powers[0], powers[1] + 1))):
        x = _x(value, powers)
        parts += [line(x, TOP, x, y_at(0), GRID), text(x, y_at(0) + 16, f"{value:,g}".replace(",", "\N{THIN SPACE}"))]
    return parts


def _dot(dot: Dot, x: float, colour: str, taken: list[tuple[float, float, float, float]]) -> list[Markup]:
    y, parts = y_at(dot.mean), []
    if dot.low is not None and dot.high is not None:
        parts.append(line(x, y_at(dot.low), x, y_at(dot.high), colour, width=1.5))
    name_x, name_y = _free_place(x, y, dot.name, taken)
    return [*parts, tag("circle", cx=x, cy=y, r=4.5, fill=colour), text(name_x, name_y, dot.name, "start", colour)]


def _free_place(x: float, y: float, name: str, taken: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Where the name begins: beside the dot, or a little up or down, so that no two names or dots overlap."""
    width = _LETTER * len(name)
    places = [(side, y + 4 + step) for step in _STEPS for side in (x + 8, x - 8 - width)]
    boxes = [(left, base - _LINE + 3, left + width, base + 3) for left, base in places]
    inside = [box for box in boxes if box[0] > LEFT and box[2] < WIDTH and box[1] > TOP - 8 and box[3] < HEIGHT]
    box = next((box for box in inside if not any(_overlap(box, other) for other in taken)), (inside or boxes)[0])
    taken.append(box)
    return box[0], box[3] - 3


_STEPS = (0.0, -_LINE, _LINE, -2 * _LINE, 2 * _LINE, -3 * _LINE, 3 * _LINE)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
