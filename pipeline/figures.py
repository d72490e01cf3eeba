"""The project's one look for pictures: CT slices with labels, histograms. In: arrays. Out: matplotlib figures, PNG.

Slices are shown as radiologists read them: axial and coronal from the feet or the front (the patient's right on the
image's left), sagittal with the front on the left; HU windowed to `WINDOW_HU`. Warm and filled is a tumor, cool and
outlined an organ; all colours are of the palette of Okabe and Ito (2008), told apart with any common colour vision.
Figures never touch pyplot's global state, and matplotlib is imported only when a figure is made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.organs import CLASS_NAMES, is_tumor

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

View = Literal["axial", "coronal", "sagittal"]
Spacing = float | Sequence[float]  # mm, one for all axes or one each for X, Y, Z
CTArray = npt.NDArray[np.integer[Any]]  # HU
LabelArray = npt.NDArray[np.integer[Any]]  # class ids of pipeline.organs
MaskArray = npt.NDArray[np.bool_]

WINDOW_HU = (-160.0, 240.0)  # abdominal soft tissue: level 40, width 400
_PLANES: dict[View, tuple[int, int]] = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}  # across, up
_CUT_AXIS: dict[View, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
_LETTERS: dict[View, tuple[str, str]] = {
    "axial": ("R", "A"),
    "coronal": ("R", "S"),
    "sagittal": ("A", "S"),
}  # left, top

_BLUE, _VERMILLION = "#0072B2", "#D55E00"
_ORGAN_COLOURS = ("#56B4E9", "#009E73", "#FFFFFF", _BLUE)
_TUMOR_COLOURS = (_VERMILLION, "#E69F00", "#CC79A7", "#F0E442")
_MARK_COLOUR = "#F0E442"
_LINES = ("solid", "dashed", "dotted", "dashdot")
_PANEL_INCHES = 3.0
_SMALL_INCHES = 1.5
_GREYS = 41  # of small pictures
_LINE_WIDTH = 0.7  # points
_DPI = 150


@dataclass(frozen=True)
class Panel:
    """One picture: a CT slice in HU and its class ids or None, both `(across, up)` as cut from `(X, Y, Z)` arrays."""

    title: str
    ct: CTArray
    label: LabelArray | None = None
    view: View = "axial"
    mark: MaskArray | None = None  # outlined as well: what no label tells
    filled: bool = True  # tumors; False leaves their edge and texture as they are

    def __post_init__(self) -> None:
        if self.ct.ndim != 2 or (self.label is not None and self.label.shape != self.ct.shape):
            label = None if self.label is None else self.label.shape
            raise ValueError(
                f"panel {self.title!r}: needs a 2-D CT and a label of its shape, got {self.ct.shape}, {label}"
            )


def to_display(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Image rows and columns of a slice `(X, Y)`, `(X, Z)` or `(Y, Z)` cut from a RAS+ array, as a view of it.

    The top row is the most anterior (axial) or superior one; the left column the patient's right, or front (sagittal).
    """
    return plane.T[::-1, ::-1]


def largest_cross_section(label: LabelArray, axis: int) -> int:
    """Index along an axis of the slice with most tumor; without tumor the middle one. `label` is `(X, Y, Z)`."""
    tumor = np.isin(label, [i for i in np.unique(label) if is_tumor(int(i))])
    area = tumor.sum(axis=tuple(a for a in range(3) if a != axis))
    return int(area.argmax()) if area.any() else label.shape[axis] // 2


def panels(
    columns: Sequence[Panel],
    *,
    title: str = "",
    spacing_mm: Spacing,
    window: tuple[float, float] = WINDOW_HU,
) -> Figure:
    """Panels side by side at one scale, with a legend of the classes they show and a scale bar."""
    return sheet([columns], title, spacing_mm, window)


def before_after_figure(
    before: CTArray,
    after: CTArray,
    label: LabelArray,
    spacing_mm: Spacing,
    title: str = "",
    shown: MaskArray | None = None,
) -> Figure:
    """Healthy, with tumor, and outlined, in the axial, coronal and sagittal slice with most tumor. Arrays `(X, Y, Z)`.

    `shown`: voxels of a look-alike, which the label does not tell; outlined where they are no tumor.
    """
    tumor = np.isin(label, [i for i in np.unique(label) if is_tumor(int(i))])
    mark = None if shown is None or not (shown & ~tumor).any() else shown
    rows = [before_after_row(before, after, label, view, mark) for view in _CUT_AXIS]
    return sheet(rows, title, spacing_mm, WINDOW_HU)


def before_after_row(
    before: CTArray, after: CTArray, label: LabelArray, view: View, mark: MaskArray | None = None
) -> list[Panel]:
    """Healthy, with tumor, and outlined, in the slice of a view with most tumor."""
    axis = _CUT_AXIS[view]
    if mark is None:
        cut = largest_cross_section(label, axis)
    else:
        cut = int(mark.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())
    healthy, tumor, classes = (np.take(array, cut, axis) for array in (before, after, label))
    marked = None if mark is None else np.take(mark, cut, axis)
    return [
        Panel(f"healthy, {view}", healthy, None, view),
        Panel("with tumor" if mark is None else "with look-alike", tumor, None, view),
        Panel("label" if mark is None else "label, look-alike dotted", tumor, classes, view, marked, filled=False),
    ]


def series_figure(
    times: Sequence[tuple[str, CTArray, LabelArray]],
    center_vox: Sequence[int],
    spacing_mm: Spacing,
    title: str = "",
    columns: int = 6,
) -> Figure:
    """One lesion at several times, in the axial slice through its centre: the image, below it the same outlined.

    `times`: caption, CT and class ids `(X, Y, Z)`, all of one grid.
    """
    z = center_vox[2]
    images = [Panel(caption, ct[:, :, z]) for caption, ct, _ in times]
    outlined = [Panel("", ct[:, :, z], label[:, :, z], filled=False) for _, ct, label in times]
    rows = [row[start : start + columns] for start in range(0, len(times), columns) for row in (images, outlined)]
    return sheet(rows, title, spacing_mm, WINDOW_HU, inches=2.2)


def grid_figure(
    images: Sequence[tuple[str, CTArray, LabelArray | None]],
    columns: int = 6,
    *,
    title: str = "",
    spacing_mm: Spacing | None = None,
) -> Figure:
    """A contact sheet of axial slices: caption, CT and class ids or None `(X, Y)`; scale bar with spacing only."""
    cells = [Panel(*image) for image in images]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return sheet(rows, title, spacing_mm, WINDOW_HU, inches=1.9)


def histogram_figure(
    values: npt.ArrayLike,
    *,
    xlabel: str,
    ylabel: str = "samples",
    title: str = "",
    bins: int = 30,
    log_x: bool = False,
) -> Figure:
    """Counts of values with their median; `log_x` makes bins and axis logarithmic (positive values only)."""
    from matplotlib.figure import Figure

    numbers = np.asarray(values, np.float64).ravel()
    shown = numbers[np.isfinite(numbers)]
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(shown, bins=_bin_edges(shown, bins, log_x).tolist(), color=_BLUE, edgecolor="white", linewidth=0.5)
    _plain(axes)
    if log_x:
        _log_axis(axes)
    if shown.size:
        median = float(np.median(shown))
        axes.axvline(median, color=_VERMILLION, linewidth=1.5, label=f"median {median:.3g}")
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.set_title(title, fontsize=10)
    left_out = f", {numbers.size - shown.size} not finite" if shown.size < numbers.size else ""
    axes.set_xlabel(f"{xlabel}   (n = {shown.size}{left_out})", fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    return figure


def png_bytes(figure: Figure, dpi: int = _DPI) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_png(figure: Figure, path: Path, dpi: int = _DPI) -> Path:
    """Write the figure as PNG; returns the path."""
    path.write_bytes(png_bytes(figure, dpi))
    return path


def save_small_png(figure: Figure, path: Path, dpi: int = _DPI) -> Path:
    """Write the figure as PNG of a few colours, for pages in a repository; a fraction of the size. Returns the path."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png_bytes(figure, dpi))).convert("RGB"))
    colours, which = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    palette = _palette()
    distance = ((colours[:, None].astype(int) - palette) ** 2).sum(axis=-1)
    picture = Image.fromarray(distance.argmin(axis=-1).astype(np.uint8)[which].reshape(pixels.shape[:2]))
    picture.putpalette(palette.astype(np.uint8).tobytes())  # makes it a picture of mode P
    picture.save(path, format="PNG", optimize=True)
    return path


def _palette() -> npt.NDArray[np.int_]:
    """Greys in steps of 10 HU, the colours of classes and marks, and these halfway to grey, of smoothed lines."""
    from PIL import ImageColor

    greys = np.rint(np.linspace(0, 255, _GREYS)).astype(int)
    lines = np.array([ImageColor.getrgb(c)[:3] for c in (*_TUMOR_COLOURS, *_ORGAN_COLOURS, _MARK_COLOUR)])
    return np.concatenate([np.repeat(greys[:, None], 3, axis=1), lines, (lines + 128) // 2])


def class_style(class_id: int) -> tuple[str, str]:
    """Colour and line style of a class: four warm colours for tumors, four cool ones for organs, by turns of lines."""
    rank = (class_id - 1) // 2
    colours = _TUMOR_COLOURS if is_tumor(class_id) else _ORGAN_COLOURS
    return colours[rank % len(colours)], _LINES[rank // len(colours) % len(_LINES)]


def sheet(
    rows: Sequence[Sequence[Panel]],
    title: str,
    spacing_mm: Spacing | None,
    window: tuple[float, float] = WINDOW_HU,
    inches: float = _PANEL_INCHES,
) -> Figure:
    """Rows of panels at one scale; the first row decides the widths of the columns. Small panels get small letters."""
    from matplotlib.figure import Figure

    if not rows or not rows[0]:
        raise ValueError("a figure needs at least one panel")
    spacing = np.broadcast_to(np.asarray(1.0 if spacing_mm is None else spacing_mm, np.float64), 3)
    sizes = [[_size_mm(panel, spacing) for panel in row] for row in rows]
    widths, heights = [width for width, _ in sizes[0]], [max(height for _, height in row) for row in sizes]
    scale, points = inches / max(widths), 8.5 if inches > _SMALL_INCHES else 6.0
    legend = _legend_handles([panel.label for row in rows for panel in row])
    lines = sum(1 + max(panel.title.count("\n") for panel in row) for row in rows)
    extra = 0.026 * points * lines + (0.3 if title else 0) + (0.2 * math.ceil(len(legend) / 6) + 0.12 if legend else 0)
    figure = Figure(figsize=(scale * sum(widths) + 0.15, scale * sum(heights) + extra), layout="constrained")
    grid = figure.add_gridspec(len(rows), len(widths), width_ratios=widths, height_ratios=heights)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            _draw(axes, panel, sizes[i][j], window, points)
            if j == 0 and spacing_mm is not None:
                _scale_bar(axes, sizes[i][j], points)
    if title:
        figure.suptitle(title, fontsize=10)
    if legend:
        columns = min(6, len(legend))
        dark = {"facecolor": "#303030", "labelcolor": "white", "framealpha": 1.0}
        figure.legend(handles=legend, loc="outside lower center", ncols=columns, fontsize=8, **dark)
    return figure


def _size_mm(panel: Panel, spacing: npt.NDArray[np.float64]) -> tuple[float, float]:
    across, up = _PLANES[panel.view]
    return panel.ct.shape[0] * float(spacing[across]), panel.ct.shape[1] * float(spacing[up])


def _draw(axes: Axes, panel: Panel, size: tuple[float, float], window: tuple[float, float], points: float) -> None:
    low, high = window
    extent = (0.0, size[0], size[1], 0.0)
    axes.imshow(to_display(panel.ct), cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest")
    if panel.label is not None:
        _overlay(axes, to_display(panel.label), extent, panel.filled)
    if panel.mark is not None and panel.mark.any():
        _outline(axes, to_display(panel.mark), extent, _MARK_COLOUR, "dotted")
    axes.set_title(panel.title, fontsize=points, pad=3)
    axes.set_axis_off()
    left, top = _LETTERS[panel.view]
    _mark(axes, left, (0.015, 0.5), "left", "center", points)
    _mark(axes, top, (0.5, 0.985), "center", "top", points)


def _overlay(axes: Axes, label: LabelArray, extent: tuple[float, float, float, float], filled: bool) -> None:
    """Outlines, and for tumors a translucent fill that leaves their texture visible."""
    for class_id in _classes(label):
        colour, line = class_style(class_id)
        _outline(axes, label == class_id, extent, colour, line, fill=filled and is_tumor(class_id))


def _outline(
    axes: Axes,
    mask: MaskArray,
    extent: tuple[float, float, float, float],
    colour: str,
    line: str,
    *,
    fill: bool = False,
) -> None:
    """Thin enough to see the edge below it."""
    rows, columns = mask.shape
    x = (np.arange(columns + 2) - 0.5) * extent[1] / columns  # one voxel beyond each edge, so that outlines close
    y = (np.arange(rows + 2) - 0.5) * extent[2] / rows
    values = np.pad(mask, 1).astype(np.float32)
    if fill:
        axes.contourf(x, y, values, levels=[0.5, 2.0], colors=[colour], alpha=0.3)
    axes.contour(x, y, values, levels=[0.5], colors=[colour], linewidths=_LINE_WIDTH, linestyles=[line])
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])


def _classes(label: LabelArray) -> list[int]:
    return [int(i) for i in np.unique(label) if i > 0]


def _legend_handles(labels: Sequence[LabelArray | None]) -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = []
    for class_id in sorted({i for label in labels if label is not None for i in _classes(label)}):
        colour, line = class_style(class_id)
        name = CLASS_NAMES.get(class_id, f"class {class_id}").replace("_", " ")
        if is_tumor(class_id):
            handles.append(Patch(facecolor=colour, edgecolor=colour, label=name))
        else:
            handles.append(Line2D([], [], color=colour, linestyle=line, linewidth=1.5, label=name))
    return handles


def _scale_bar(axes: Axes, size: tuple[float, float], points: float) -> None:
    """A round length of up to a third of the picture's width, in its lower left corner."""
    length = max(n for n in (0.1, 1, 2, 5, 10, 20, 50, 100, 200) if n <= max(size[0] / 3, 0.1))
    left, y = 0.04 * size[0], 0.95 * size[1]
    axes.plot([left, left + length], [y, y], color="white", linewidth=2.0, solid_capstyle="butt", path_effects=_halo())
    _mark(axes, f"{length:g} mm", (left, y - 0.02 * size[1]), "left", "bottom", points, in_mm=True)


def _mark(axes: Axes, text: str, at: tuple[float, float], ha: str, va: str, points: float, in_mm: bool = False) -> None:
    where = axes.transData if in_mm else axes.transAxes
    size = 0.8 * points
    axes.text(*at, text, transform=where, ha=ha, va=va, color="white", fontsize=size, path_effects=_halo())


def _halo() -> list[Any]:
    """White marks stay readable on bright tissue."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.0, foreground="black")]


def _bin_edges(shown: npt.NDArray[np.float64], bins: int, log_x: bool) -> npt.NDArray[np.float64]:
    if not log_x or not shown.size:
        return np.asarray(np.histogram_bin_edges(shown, bins), np.float64)
    if shown.min() <= 0:
        raise ValueError(f"a logarithmic axis needs positive values, found {shown.min():g}")
    low, high = float(shown.min()), float(shown.max())
    return np.geomspace(low, high, bins + 1) if low < high else np.array([low / 1.1, low * 1.1])


def _plain(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _log_axis(axes: Axes) -> None:
    """Plain numbers at 1, 2, 5, 10, 20, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
