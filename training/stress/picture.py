"""The one picture: a row a suite, on the left the share found and Dice by level, on the right one sample at each level.

In: the suites of `stress.json`, and slices of each suite's first sample. Out: PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.figures import WINDOW_HU, png_bytes, to_display
from training.report.cells import number
from training.report.plot import BLUE, ORANGE, SKY, VERMILION
from training.stress.levels import STEPS, Level
from training.stress.score import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.figures import MaskArray

Record = Mapping[str, Any]
SHOWN_MM = 60.0  # edge of a slice


@dataclass(frozen=True)
class Shown:
    """The sample that stands for a level: the factor's level in it, whether its tumor was found, its slice."""

    level: Level
    found: bool
    slice: Slice | None  # None where the organ cut the tumor to nothing


_TILE_INCHES, _GAP_INCHES = 1.25, 0.07
_CURVE_INCHES, _LEFT_INCHES = 3.7, 0.5  # with margins; of the axis labels
_TITLE_INCHES, _TICKS_INCHES, _TOP_INCHES = 0.32, 0.24, 0.3
_ROW_INCHES = _TITLE_INCHES + _TILE_INCHES + _TICKS_INCHES
_SMALL, _PLAIN = 7.0, 8.5


def picture(suites: Sequence[Record], shown: Mapping[str, Mapping[int, Shown]]) -> bytes:
    """PNG of all suites; `shown` by suite and k."""
    from matplotlib.figure import Figure

    size = (_CURVE_INCHES + (_TILE_INCHES + _GAP_INCHES) * len(STEPS), _TOP_INCHES + _ROW_INCHES * len(suites))
    figure = Figure(figsize=size)
    for row, suite in enumerate(suites):
        top = _TOP_INCHES + _ROW_INCHES * row + _TITLE_INCHES
        curve = _CURVE_INCHES - _LEFT_INCHES - 2 * _GAP_INCHES
        _curve(_axes(figure, _LEFT_INCHES, top, curve, _TILE_INCHES), suite)
        for column, k in enumerate(STEPS):
            if k in shown[suite["name"]]:
                left = _CURVE_INCHES + column * (_TILE_INCHES + _GAP_INCHES)
                _tile(_axes(figure, left, top, _TILE_INCHES, _TILE_INCHES), shown[suite["name"]][k], suite)
    _legend(figure)
    return png_bytes(figure, dpi=110)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, `top` from above. A layout solver would place them a little differently each time."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / up, width / across, height / up))


def value_text(level: Record, suite: Record) -> str:
    """`12.8 mm`, the mean over the level's samples."""
    return _with_unit(level["value"]["mean"], suite)


def _with_unit(value: float, suite: Record) -> str:
    text = number(value, suite["digits"])
    return f"{text} {suite['unit']}" if suite["unit"] else text


def step_text(k: int) -> str:
    """`mean`, `mean + 1 SD`."""
    sign = "+" if k > 0 else "\N{MINUS SIGN}"
    return f"mean {sign} {abs(k)} SD" if k else "mean"


def _curve(axes: Axes, suite: Record) -> None:
    """Shares of found tumors with Wilson whiskers, mean Dice; levels at their k."""
    known = [level for level in suite["levels"] if level["sensitivity"]["n"]]
    ks = [level["k"] for level in known]
    shares = [level["sensitivity"] for level in known]
    found = [100 * share["count"] / share["n"] for share in shares]
    below = [max(0.0, at - 100 * share["low"]) for at, share in zip(found, shares, strict=True)]
    above = [max(0.0, 100 * share["high"] - at) for at, share in zip(found, shares, strict=True)]
    axes.errorbar(ks, found, yerr=[below, above], color=BLUE, marker="o", markersize=4, capsize=3, linewidth=1.2)
    dice = [100 * level["dice"]["mean"] for level in known]
    axes.plot(ks, dice, color=VERMILION, marker="s", markersize=3, linewidth=1.0, linestyle="dashed")
    axes.set_ylim(-4, 104)
    axes.set_xlim(STEPS[0] - 0.4, STEPS[-1] + 0.4)
    axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"], fontsize=_SMALL)
    axes.set_xticks(
        [level["k"] for level in suite["levels"]],
        [number(level["value"]["mean"], suite["digits"]) for level in suite["levels"]],
        fontsize=_SMALL,
    )
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    unit = f" ({suite['unit']})" if suite["unit"] else ""
    axes.set_title(f"{suite['factor']}{unit}", fontsize=_PLAIN, loc="left", fontweight="bold")


def _tile(axes: Axes, shown: Shown, suite: Record) -> None:
    found = "found" if shown.found else "missed"
    axes.set_axis_off()
    step = step_text(shown.level.k) + (", clipped" if shown.level.clipped else "")
    axes.set_title(f"{_with_unit(shown.level.value, suite)}: {found}\n{step}", fontsize=_SMALL, pad=2)
    cut = shown.slice
    if cut is None:
        axes.text(0.5, 0.5, "cut to\nnothing", ha="center", va="center", fontsize=_SMALL, transform=axes.transAxes)
        return
    low, high = WINDOW_HU
    axes.imshow(to_display(cut.hu), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    _outline(axes, to_display(cut.prediction), SKY)
    _outline(axes, to_display(cut.truth), ORANGE)


def _outline(axes: Axes, mask: MaskArray, colour: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=[0.9])


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=BLUE, marker="o", markersize=4, label="tumors found, 95 % Wilson interval"),
        Line2D([], [], color=VERMILION, marker="s", markersize=3, linestyle="dashed", label="mean Dice"),
        Line2D([], [], color=ORANGE, label="true tumor"),
        Line2D([], [], color=SKY, label="predicted tumor"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), fontsize=_PLAIN, frameon=False)
