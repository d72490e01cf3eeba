"""Score over an amount of data as inline SVG: a line a series, whiskers, log axis. In: points. Out: markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.markup import Markup, tag
from training.report.plot import (
    GREY,
    GRID,
    LEFT,
    RIGHT,
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

_MARGIN = 0.06  # of the axis before the first and behind the last point


@dataclass(frozen=True)
class Point:
    """A mean (0 to 1) at an amount, with the ends of its interval where it has one."""

    amount: int
    mean: float
    low: float | None
    high: float | None


def amount_chart(
    series: Mapping[str, Sequence[Point]], x_title: str, y_title: str, level: tuple[str, float] | None = None
) -> Markup:
    """`level` is a named value without an amount, drawn as a dashed line across."""
    amounts = sorted({point.amount for points in series.values() for point in points})
    parts = [*share_grid(), *titles(f"{x_title} (log scale)", y_title)]
    for amount in amounts:
        x = _x(amount, amounts)
        parts += [line(x, TOP, x, y_at(0), GRID), text(x, y_at(0) + 16, f"{amount:,}".replace(",", "\N{THIN SPACE}"))]
    if level is not None:
        y = y_at(level[1])
        parts += [line(LEFT, y, WIDTH - RIGHT, y, GREY, dash="5 4"), text(LEFT + 6, y - 5, level[0], "start", GREY)]
    for points, colour in zip(series.values(), series_colours(len(series)), strict=True):
        parts += _series(points, amounts, colour)
    return svg([*parts, *legend(list(series))], f"{y_title} over {x_title}")


def _x(amount: int, amounts: Sequence[int]) -> float:
    if len(amounts) == 1:
        return x_at(0.5)
    share = math.log(amount / amounts[0]) / math.log(amounts[-1] / amounts[0])
    return x_at(_MARGIN + (1 - 2 * _MARGIN) * share)


def _series(points: Sequence[Point], amounts: Sequence[int], colour: str) -> list[Markup]:
    places = [(_x(p.amount, amounts), y_at(p.mean)) for p in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [tag("polyline", points=path, fill="none", stroke=colour, stroke_width=2)]
    for point, (x, y) in zip(points, places, strict=True):
        if point.low is not None and point.high is not None:
            parts.append(line(x, y_at(point.low), x, y_at(point.high), colour, width=1.5))
        parts.append(tag("circle", cx=x, cy=y, r=4, fill=colour))
    return parts
