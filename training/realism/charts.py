"""Line charts of the realism report as inline SVG. In: series of points. Out: markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training.report.markup import Markup, join, tag

WIDTH, HEIGHT = 460.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 14.0, 46.0
_INK, _GRID = "#333", "#ddd"


@dataclass(frozen=True)
class Line:
    """A named series; a point without y is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)


def line_chart(lines: Sequence[Line], x_title: str, y_title: str) -> Markup:
    """Lines over one x axis, with grid, titles and legend."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y if y is not None] or [0.0]
    y_ticks, x_ticks = _ticks(min(0.0, *ys), max(0.0, *ys)), _ticks(min(xs), max(xs))
    axes = _Axes((min(xs), max(xs)), (y_ticks[0], y_ticks[-1]))
    shown = [x for x in x_ticks if axes.x[0] <= x <= axes.x[1]]
    parts = [*_grid(axes, shown, y_ticks), *_titles(x_title, y_title)]
    parts += [part for line in lines for part in _path(axes, line)]
    parts += [part for k, line in enumerate(lines) for part in _key(k, line)]
    label = f"{y_title} over {x_title}"
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=label)


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose the range, about five steps."""
    span = max(high - low, 1e-9)
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * k for k in (1, 2, 5, 10) if span / (unit * k) <= 6)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [k * step for k in range(first, last + 1)]


def _grid(axes: _Axes, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Markup]:
    parts = []
    for y in y_ticks:
        (x1, at), (x2, _) = axes.at(axes.x[0], y), axes.at(axes.x[1], y)
        parts += [_line(x1, at, x2, at, _GRID), _text(x1 - 6, at + 4, _number(y), "end")]
    for x in x_ticks:
        (at, y1), (_, y2) = axes.at(x, axes.y[0]), axes.at(x, axes.y[1])
        parts += [_line(at, y1, at, y2, _INK if x == 0 else _GRID), _text(at, y1 + 16, _number(x), "middle")]
    return parts


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _titles(x_title: str, y_title: str) -> list[Markup]:
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = tag("text", y_title, text_anchor="middle", fill=_INK, transform=f"translate(13 {middle:.0f}) rotate(-90)")
    return [turned, _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x_title, "middle")]


def _path(axes: _Axes, line: Line) -> list[Markup]:
    """One stroke for each stretch without gaps."""
    stretches: list[list[str]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if y is None:
            stretches.append([])
        else:
            stretches[-1].append("{:.1f},{:.1f}".format(*axes.at(x, y)))
    return [_stroke(" ".join(points), line) for points in stretches if points]


def _stroke(points: str, line: Line) -> Markup:
    dash = "5 4" if line.dashed else None
    return tag("polyline", points=points, fill="none", stroke=line.colour, stroke_width=2, stroke_dasharray=dash)


def _key(k: int, line: Line) -> list[Markup]:
    y = _TOP + 12 + 16 * k
    mark = _line(_LEFT + 8, y - 4, _LEFT + 28, y - 4, line.colour, 2.0, "5 4" if line.dashed else None)
    return [mark, _text(_LEFT + 34, y, line.name, "start")]


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str | None = None
) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour, stroke_width=width, stroke_dasharray=dash)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, fill=_INK)
