"""The report's charts as inline SVG: drawn from numbers, no script, no file, readable in print.

In: shares with intervals, counts, or pairs of volumes. Out: markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.markup import Markup, join, tag

# Okabe and Ito 2008: told apart with any colour vision.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
SERIES_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_INK, _GRID = "#333", "#ddd"
_WIDTH, _HEIGHT = 460.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 18.0, 56.0
MAX_POINTS = 2000


@dataclass(frozen=True)
class ShareBar:
    """One bar: `count` of `n`, and the ends of the interval as shares (0 to 1); None when n is 0."""

    label: str
    count: int
    n: int
    low: float | None
    high: float | None


def share_bars(bars: Sequence[ShareBar], x_title: str, y_title: str) -> Markup:
    """Bars of shares in percent with interval whiskers; the counts stand under each bar."""
    parts = _percent_grid() + _titles(x_title, y_title)
    for k, bar in enumerate(bars):
        parts += _share_bar(bar, _slot_center(k, len(bars)), 0.5 * _plot_width() / len(bars))
    return _svg(parts, f"{y_title} by {x_title}")


def count_bars(counts: Mapping[str, int], x_title: str, y_title: str, colour: str) -> Markup:
    """Bars of counts, labelled with the count."""
    top = max(1, *counts.values())
    parts = _titles(x_title, y_title)
    for k, (label, count) in enumerate(counts.items()):
        x, y = _slot_center(k, len(counts)), _y(count / top)
        width = 0.7 * _plot_width() / len(counts)
        parts += [_bar(x, y, width, colour), _text(x, y - 5, str(count)), _text(x, _y(0) + 16, label)]
    return _svg([*parts, _axis_line()], f"{y_title} by {x_title}")


def volume_scatter(points: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Predicted over true volume in ml, one point a sample, by series; log axes with a place for zero.

    More than `MAX_POINTS` points a series are thinned evenly, which the chart says.
    """
    positive = [value for pairs in points.values() for pair in pairs for value in pair if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    scale = _VolumeScale(low, max(high, low + 1))
    parts = scale.grid() + _titles("true volume (ml)", "predicted volume (ml)")
    step = max(1, math.ceil(max(map(len, points.values()), default=0) / MAX_POINTS))
    for pairs, colour in zip(points.values(), _cycle(len(points)), strict=True):
        parts += [scale.point(truth, predicted, colour) for truth, predicted in pairs[::step]]
    if step > 1:
        parts.append(_text(_WIDTH - _RIGHT - 4, _y(0) - 6, f"one sample in {step} shown", "end"))
    return _svg([*parts, *_legend(points)], "predicted volume over true volume")


@dataclass(frozen=True)
class _VolumeScale:
    """Log scale over whole decades `10^low` to `10^high` ml; zero has its own line before the first decade."""

    low: int
    high: int

    def share(self, ml: float) -> float:
        """Place on the axis, 0 to 1."""
        return 0.03 if ml <= 0 else 0.12 + 0.88 * (math.log10(ml) - self.low) / (self.high - self.low)

    def point(self, truth_ml: float, predicted_ml: float, colour: str) -> Markup:
        x, y = _x(self.share(truth_ml)), _y(self.share(predicted_ml))
        return tag("circle", cx=x, cy=y, r=3.2, fill=colour, fill_opacity=0.55, stroke=colour)

    def grid(self) -> list[Markup]:
        ticks = [0.0, *(10.0**k for k in range(self.low, self.high + 1))]
        parts = []
        for ml in ticks:
            x, y, label = _x(self.share(ml)), _y(self.share(ml)), f"{ml:g}"
            parts += [_line(_LEFT, y, _WIDTH - _RIGHT, y, _GRID), _text(_LEFT - 6, y + 4, label, "end")]
            parts += [_line(x, _TOP, x, _y(0), _GRID), _text(x, _y(0) + 16, label)]
        start, end = self.share(10.0**self.low), 1.0
        return [*parts, _line(_x(start), _y(start), _x(end), _y(end), _INK, dash="4 3")]


def _share_bar(bar: ShareBar, x: float, width: float) -> list[Markup]:
    parts = [_text(x, _y(0) + 16, bar.label)]
    if bar.n == 0 or bar.low is None or bar.high is None:
        return [*parts, _text(x, _y(0) + 30, "no tumors", colour="#777")]
    low, high = _y(bar.low), _y(bar.high)
    return [
        *parts,
        _text(x, _y(0) + 30, f"{bar.count} of {bar.n}"),
        _bar(x, _y(bar.count / bar.n), width, BLUE),
        _line(x, low, x, high, _INK, width=1.5),
        _line(x - 6, low, x + 6, low, _INK, width=1.5),
        _line(x - 6, high, x + 6, high, _INK, width=1.5),
    ]


def _percent_grid() -> list[Markup]:
    parts = []
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        parts += [_line(_LEFT, y, _WIDTH - _RIGHT, y, _GRID), _text(_LEFT - 6, y + 4, f"{percent} %", "end")]
    return parts


def _legend(names: Mapping[str, object]) -> list[Markup]:
    if len(names) < 2:
        return []
    parts = []
    for k, (name, colour) in enumerate(zip(names, _cycle(len(names)), strict=True)):
        y = _TOP + 14 + 16 * k
        parts += [tag("circle", cx=_LEFT + 14, cy=y - 4, r=4, fill=colour), _text(_LEFT + 24, y, name, "start")]
    return parts


def _cycle(count: int) -> list[str]:
    return [SERIES_COLOURS[k % len(SERIES_COLOURS)] for k in range(count)]


def _plot_width() -> float:
    return _WIDTH - _LEFT - _RIGHT


def _x(share: float) -> float:
    return _LEFT + share * _plot_width()


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _slot_center(k: int, slots: int) -> float:
    return _x((k + 0.5) / slots)


def _bar(x: float, y: float, width: float, colour: str) -> Markup:
    return tag("rect", x=x - width / 2, y=y, width=width, height=_y(0) - y, fill=colour, fill_opacity=0.8)


def _axis_line() -> Markup:
    return _line(_LEFT, _y(0), _WIDTH - _RIGHT, _y(0), _INK)


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str | None = None
) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour, stroke_width=width, stroke_dasharray=dash)


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = _INK) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, fill=colour)


def _titles(x_title: str, y_title: str) -> list[Markup]:
    middle = (_TOP + _y(0)) / 2
    turned = tag("text", y_title, text_anchor="middle", fill=_INK, transform=f"translate(13 {middle:.0f}) rotate(-90)")
    return [turned, _text(_x(0.5), _HEIGHT - 8, x_title)]


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    return tag("svg", join(parts), viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img", aria_label=label)
