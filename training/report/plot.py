"""What charts are drawn with: colours, the plot's frame, lines, text and keys as inline SVG.

No script, no file, readable in print. `x_at` and `y_at` place shares (0 to 1) of the axes in the drawing.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.report.markup import Markup, join, tag

# Okabe and Ito 2008: told apart with any colour vision.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
SERIES_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
INK, GREY, GRID = "#333", "#666", "#ddd"
WIDTH, HEIGHT = 460.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 18.0, 56.0
LEGEND_ROW = 16
PLOT_WIDTH = WIDTH - LEFT - RIGHT


def x_at(share: float) -> float:
    """Where a share of the x axis lies."""
    return LEFT + share * PLOT_WIDTH


def y_at(share: float) -> float:
    """Where a share of the y axis lies, counted from below."""
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str | None = None
) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour, stroke_width=width, stroke_dasharray=dash)


def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = INK) -> Markup:
    """A label; `anchor` is start, middle or end."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, fill=colour)


def titles(x_title: str, y_title: str) -> list[Markup]:
    """The titles of both axes."""
    middle = (TOP + y_at(0)) / 2
    turned = tag("text", y_title, text_anchor="middle", fill=INK, transform=f"translate(13 {middle:.0f}) rotate(-90)")
    return [turned, text(x_at(0.5), HEIGHT - 8, x_title)]


def percent_grid() -> list[Markup]:
    """Horizontal lines at 0, 20, ... 100 %."""
    parts = []
    for percent in range(0, 101, 20):
        y = y_at(percent / 100)
        parts += [line(LEFT, y, WIDTH - RIGHT, y, GRID), text(LEFT - 6, y + 4, f"{percent} %", "end")]
    return parts


def share_grid() -> list[Markup]:
    """Horizontal lines at 0, 0.2, ... 1."""
    parts = []
    for k in range(6):
        y = y_at(k / 5)
        parts += [line(LEFT, y, WIDTH - RIGHT, y, GRID), text(LEFT - 6, y + 4, f"{k / 5:g}", "end")]
    return parts


def series_colours(count: int) -> list[str]:
    """A colour for each of so many series."""
    return [SERIES_COLOURS[k % len(SERIES_COLOURS)] for k in range(count)]


def legend(names: Sequence[str], x: float = LEFT + 14, first_y: float = TOP + 14) -> list[Markup]:
    """One dot and name a series, from the top down; nothing for a single series."""
    if len(names) < 2:
        return []
    parts = []
    for k, (name, colour) in enumerate(zip(names, series_colours(len(names)), strict=True)):
        y = first_y + LEGEND_ROW * k
        parts += [tag("circle", cx=x, cy=y - 4, r=4, fill=colour), text(x + 10, y, name, "start")]
    return parts


def svg(parts: Sequence[Markup], label: str, height: float = HEIGHT, above: float = 0.0) -> Markup:
    """The whole chart, with room `above` y = 0 where asked; `label` is what a screen reader says."""
    box = f"0 {-above:g} {WIDTH:g} {height + above:g}"
    return tag("svg", join(parts), viewBox=box, role="img", aria_label=label)
