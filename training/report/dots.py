"""Dots with interval whiskers, one named row each, as inline SVG: shares of strata, differences of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.report.markup import Markup, tag
from training.report.plot import BLUE, GREY, GRID, INK, WIDTH, line, svg, text

_LETTER, _GAP, _LEAST = 7.0, 16.0, 70.0  # mean width of a letter; between text and plot; least room for text
_ROW, _TOP, _AXIS = 22.0, 6.0, 42.0
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Dot:
    """A named value with its interval, and what stands at its right; no dot without a value."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    note: str = ""


@dataclass(frozen=True)
class _Axis:
    """From `low` to `high`, drawn between `left` and `right`, beside which stand names and notes."""

    low: float
    high: float
    left: float
    right: float

    def at(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)


def share_dots(dots: Sequence[Dot], x_title: str) -> Markup:
    """Shares (0 to 1) on an axis from 0 to 100 %."""
    return _dots(dots, {k / 100: f"{k} %" for k in range(0, 101, 20)}, x_title)


def difference_dots(dots: Sequence[Dot], x_title: str) -> Markup:
    """Values on an axis around zero, which is drawn darker: what lies on it makes no difference."""
    reach = max((abs(v) for dot in dots for v in (dot.value, dot.low, dot.high) if v is not None), default=0) or 1.0
    step = _round_step(reach / 2)
    count = math.ceil(reach / step)
    ticks = [k * step for k in range(-count, count + 1)]
    return _dots(dots, {tick: f"{tick:.4g}".replace("-", _MINUS) for tick in ticks}, x_title)


def _round_step(at_least: float) -> float:
    """The smallest of 1, 2, 5, 10, ... times a power of ten that is not below a positive number."""
    unit = 10.0 ** math.floor(math.log10(at_least))
    return unit * next(k for k in (1, 2, 5, 10) if unit * k >= at_least * (1 - 1e-9))


def _dots(dots: Sequence[Dot], ticks: Mapping[float, str], x_title: str) -> Markup:
    left, right = _room(dot.name for dot in dots), WIDTH - _room(dot.note for dot in dots)
    axis, bottom = _Axis(min(ticks), max(ticks), left, right), _TOP + _ROW * len(dots)
    parts = []
    for tick, label in ticks.items():
        x, colour = axis.at(tick), INK if tick == 0 else GRID
        parts += [line(x, _TOP, x, bottom, colour), text(x, bottom + 16, label)]
    for k, dot in enumerate(dots):
        parts += _row(dot, _TOP + _ROW * (k + 0.5), axis)
    return svg(
        [*parts, text(axis.at((axis.low + axis.high) / 2), bottom + 36, x_title)], x_title, height=bottom + _AXIS
    )


def _room(words: Iterable[str]) -> float:
    return max(_LEAST, _GAP + _LETTER * max(map(len, words), default=0))


def _row(dot: Dot, y: float, axis: _Axis) -> list[Markup]:
    parts = [text(axis.left - 10, y + 4, dot.name, "end")]
    if dot.note:
        parts.append(text(WIDTH, y + 4, dot.note, "end", GREY))
    if dot.low is not None and dot.high is not None:
        parts.append(line(axis.at(dot.low), y, axis.at(dot.high), y, BLUE, width=2.0))
    if dot.value is not None:
        parts.append(tag("circle", cx=axis.at(dot.value), cy=y, r=4.5, fill=BLUE))
    return parts
