"""The FROC chart as inline SVG: sensitivity over false candidates per scan. In: operating points. Out: markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.markup import Markup, tag
from training.report.plot import (
    GRID,
    LEFT,
    LEGEND_ROW,
    PLOT_WIDTH,
    TOP,
    legend,
    line,
    percent_grid,
    series_colours,
    svg,
    text,
    titles,
    x_at,
    y_at,
)

Point = tuple[float, float]  # false candidates per scan, sensitivity (0 to 1)


@dataclass(frozen=True)
class _Axis:
    """Log scale from `first` to `last` false candidates per scan; what lies below is drawn at the left edge."""

    first: float
    last: float

    def at(self, rate: float) -> float:
        inside = min(max(rate, self.first), self.last)
        return x_at(math.log(inside / self.first) / math.log(self.last / self.first))


def froc_chart(curves: Mapping[str, Sequence[Point]], rates: Sequence[float]) -> Markup:
    """One stepped line a series, up to the last of the `rates` at which the curve is read."""
    axis = _Axis(rates[0] / 2, rates[-1])
    parts = percent_grid() + titles("false candidates per scan (log scale)", "tumors found")
    for rate in rates:
        x = axis.at(rate)
        parts += [line(x, TOP, x, y_at(0), GRID), text(x, y_at(0) + 16, f"{rate:g}")]
    for points, colour in zip(curves.values(), series_colours(len(curves)), strict=True):
        parts.append(_stepped(sorted(points), axis, colour))
    below = legend(list(curves), x_at(0.6), y_at(0.05) - LEGEND_ROW * (len(curves) - 1))  # no curve falls to there
    return svg([*parts, *below], "tumors found over false candidates per scan")


def _stepped(points: Sequence[Point], axis: _Axis, colour: str) -> Markup:
    """Flat from one operating point to the next, as more false candidates alone find nothing; to the right edge."""
    corners = [(LEFT, y_at(0.0))]
    for rate, sensitivity in points:
        if rate <= axis.last:
            corners += [(axis.at(rate), corners[-1][1]), (axis.at(rate), y_at(sensitivity))]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*corners, (LEFT + PLOT_WIDTH, corners[-1][1])])
    return tag("polyline", points=path, fill="none", stroke=colour, stroke_width=2)
