"""Predicted over true volume as inline SVG, on log axes with a place for zero. In: volumes in ml. Out: markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.markup import Markup, tag
from training.report.plot import (
    GRID,
    INK,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    legend,
    line,
    series_colours,
    svg,
    text,
    titles,
    x_at,
    y_at,
)

MAX_POINTS = 2000


def volume_scatter(points: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Predicted over true volume in ml, one point a sample, by series; log axes with a place for zero.

    More than `MAX_POINTS` points a series are thinned evenly, which the chart says.
    """
    positive = [value for pairs in points.values() for pair in pairs for value in pair if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    scale = _VolumeScale(low, max(high, low + 1))
    parts = scale.grid() + titles("true volume (ml)", "predicted volume (ml)")
    step = max(1, math.ceil(max(map(len, points.values()), default=0) / MAX_POINTS))
    for pairs, colour in zip(points.values(), series_colours(len(points)), strict=True):
        parts += [scale.point(truth, predicted, colour) for truth, predicted in pairs[::step]]
    if step > 1:
        parts.append(text(WIDTH - RIGHT - 4, y_at(0) - 6, f"one sample in {step} shown", "end"))
    return svg([*parts, *legend(list(points))], "predicted volume over true volume")


@dataclass(frozen=True)
class _VolumeScale:
    """Log scale over whole decades `10^low` to `10^high` ml; zero has its own line before the first decade."""

    low: int
    high: int

    def share(self, ml: float) -> float:
        """Place on the axis, 0 to 1."""
        return 0.03 if ml <= 0 else 0.12 + 0.88 * (math.log10(ml) - self.low) / (self.high - self.low)

    def point(self, truth_ml: float, predicted_ml: float, colour: str) -> Markup:
        x, y = x_at(self.share(truth_ml)), y_at(self.share(predicted_ml))
        return tag("circle", cx=x, cy=y, r=3.2, fill=colour, fill_opacity=0.55, stroke=colour)

    def grid(self) -> list[Markup]:
        ticks = [0.0, *(10.0**k for k in range(self.low, self.high + 1))]
        parts = []
        for ml in ticks:
            x, y, label = x_at(self.share(ml)), y_at(self.share(ml)), f"{ml:g}"
            parts += [line(LEFT, y, WIDTH - RIGHT, y, GRID), text(LEFT - 6, y + 4, label, "end")]
            parts += [line(x, TOP, x, y_at(0), GRID), text(x, y_at(0) + 16, label)]
        start, end = self.share(10.0**self.low), 1.0
        return [*parts, line(x_at(start), y_at(start), x_at(end), y_at(end), INK, dash="4 3")]
