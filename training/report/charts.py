"""Bar charts of the reports as inline SVG. In: shares with intervals, or counts. Out: markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.cells import percent
from training.report.markup import Markup, tag
from training.report.plot import (
    BLUE,
    GREY,
    INK,
    LEFT,
    PLOT_WIDTH,
    RIGHT,
    WIDTH,
    line,
    percent_grid,
    series_colours,
    svg,
    text,
    titles,
    x_at,
    y_at,
)

_GROUP = 0.66  # of a slot's width that its bars fill
_KEY_HEIGHT = 22.0


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
    parts = percent_grid() + titles(x_title, y_title)
    for k, bar in enumerate(bars):
        x = _slot_center(k, len(bars))
        parts += [text(x, y_at(0) + 16, bar.label), _below(x, bar, f"{bar.count} of {bar.n}")]
        parts += _share_bar(bar, x, 0.5 * PLOT_WIDTH / len(bars), BLUE)
    return svg(parts, f"{y_title} by {x_title}")


def grouped_bars(series: Mapping[str, Sequence[ShareBar]], x_title: str, y_title: str) -> Markup:
    """Bars of several series side by side in each slot, of the same labels and n; percents above, n below."""
    parts = percent_grid() + titles(x_title, y_title)
    for k, bars in enumerate(zip(*series.values(), strict=True)):
        slots = len(next(iter(series.values())))
        center, width = _slot_center(k, slots), _GROUP * PLOT_WIDTH / slots / len(bars)
        parts += [text(center, y_at(0) + 16, bars[0].label), _below(center, bars[0], f"n = {bars[0].n}")]
        for place, (bar, colour) in enumerate(zip(bars, series_colours(len(bars)), strict=True)):
            x = center + (place - (len(bars) - 1) / 2) * width
            parts += [*_share_bar(bar, x, 0.86 * width, colour), *_percent_above(bar, x)]
    return svg([*parts, *_key_row(list(series))], f"{y_title} by {x_title}", above=_KEY_HEIGHT)


def count_bars(counts: Mapping[str, int], x_title: str, y_title: str, colour: str) -> Markup:
    """Bars of counts, labelled with the count."""
    top = max(1, *counts.values())
    parts = titles(x_title, y_title)
    for k, (label, count) in enumerate(counts.items()):
        x, y = _slot_center(k, len(counts)), y_at(count / top)
        width = 0.7 * PLOT_WIDTH / len(counts)
        parts += [_bar(x, y, width, colour), text(x, y - 5, str(count)), text(x, y_at(0) + 16, label)]
    return svg([*parts, line(LEFT, y_at(0), WIDTH - RIGHT, y_at(0), INK)], f"{y_title} by {x_title}")


def _share_bar(bar: ShareBar, x: float, width: float, colour: str) -> list[Markup]:
    if bar.n == 0 or bar.low is None or bar.high is None:
        return []
    low, high, cap = y_at(bar.low), y_at(bar.high), min(6.0, width / 3)
    return [
        _bar(x, y_at(bar.count / bar.n), width, colour),
        line(x, low, x, high, INK, width=1.5),
        line(x - cap, low, x + cap, low, INK, width=1.5),
        line(x - cap, high, x + cap, high, INK, width=1.5),
    ]


def _below(x: float, bar: ShareBar, counts: str) -> Markup:
    return text(x, y_at(0) + 30, counts if bar.n else "no tumors", colour=GREY)


def _percent_above(bar: ShareBar, x: float) -> list[Markup]:
    return [] if bar.high is None else [text(x, y_at(bar.high) - 4, percent(bar.count / bar.n).replace(" %", ""))]


def _key_row(names: Sequence[str]) -> list[Markup]:
    """Names of the series in one row above the plot, where no bar can be."""
    parts, x = [], x_at(0)
    for name, colour in zip(names, series_colours(len(names)), strict=True):
        parts += [tag("rect", x=x, y=-19, width=10, height=10, fill=colour), text(x + 15, -10, name, "start")]
        x += 40 + 6.2 * len(name)
    return parts


def _slot_center(k: int, slots: int) -> float:
    return x_at((k + 0.5) / slots)


def _bar(x: float, y: float, width: float, colour: str) -> Markup:
    return tag("rect", x=x - width / 2, y=y, width=width, height=y_at(0) - y, fill=colour, fill_opacity=0.8)
