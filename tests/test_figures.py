"""Pictures: the right way up, the right scale, the right names, and PNG that a page can embed."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.figures import (
    Panel,
    before_after_figure,
    class_style,
    grid_figure,
    histogram_figure,
    largest_cross_section,
    panels,
    png_bytes,
    save_png,
    to_display,
)
from pipeline.organs import CLASS_IDS, is_tumor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPE = (24, 20, 16)
LIVER, LIVER_TUMOR, SPLEEN = (CLASS_IDS[name] for name in ("liver", "liver_tumor", "spleen"))


def volume() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).normal(40, 15, SHAPE).astype(np.int16)


def labels() -> npt.NDArray[np.uint8]:
    """A liver with a tumor that is largest at z = 5, y = 11; and a spleen."""
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 5:15, 2:12] = LIVER
    label[2:6, 2:6, 2:12] = SPLEEN
    label[13:16, 10:13, 4:7] = LIVER_TUMOR
    label[12:17, 10:13, 5] = LIVER_TUMOR
    label[12:17, 11, 4:7] = LIVER_TUMOR
    return label


def names(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize(("axis", "view"), [(2, "axial"), (1, "coronal"), (0, "sagittal")])
def test_the_right_anterior_superior_corner_is_shown_top_left(axis: int, view: str) -> None:
    ct = np.zeros(SHAPE, np.int16)
    ct[-1, -1, -1] = 1
    shown = to_display(np.take(ct, -1, axis))
    assert shown[0, 0] == 1, view
    assert shown.sum() == 1
    across, up = (n for i, n in enumerate(SHAPE) if i != axis)
    assert shown.shape == (up, across)


def test_display_is_a_view_of_the_slice() -> None:
    plane = volume()[:, :, 3]
    assert np.shares_memory(to_display(plane), plane)


def test_a_tumor_on_the_patients_right_front_is_painted_top_left() -> None:
    from matplotlib.image import imread

    ct, label = np.full((40, 40), -1000, np.int16), np.zeros((40, 40), np.uint8)
    label[30:38, 30:38] = LIVER_TUMOR
    figure = panels([Panel("", ct, label)], spacing_mm=1.0)
    pixels = imread(io.BytesIO(png_bytes(figure)))[..., :3]
    picture = pixels[: int(0.8 * len(pixels))]  # without the legend
    row, column = np.argwhere(picture[..., 0] - picture[..., 2] > 0.15).mean(0)
    assert row < 0.4 * len(pixels)
    assert column < 0.4 * pixels.shape[1]


def test_pictures_are_to_scale() -> None:
    figure = panels([Panel("CT", volume()[:, :, 0])], spacing_mm=(0.5, 2.0, 9.0))
    (axes,) = figure.axes
    assert axes.images[0].get_extent() == pytest.approx([0, 12, 40, 0])
    assert {text.get_text() for text in axes.texts} == {"R", "A", "2 mm"}
    left, right = axes.lines[0].get_xdata()
    assert right - left == pytest.approx(2.0)


def test_hu_are_windowed_not_stretched() -> None:
    figure = panels([Panel("CT", volume()[:, :, 0])], spacing_mm=1.0, window=(-100, 300))
    assert figure.axes[0].images[0].get_clim() == (-100, 300)


def test_the_legend_names_the_classes_shown() -> None:
    ct, label = volume()[:, :, 5], labels()[:, :, 5]
    assert names(panels([Panel("CT", ct), Panel("Truth", ct, label)], spacing_mm=1.0)) == [
        "liver",
        "liver tumor",
        "spleen",
    ]
    assert names(panels([Panel("CT", ct)], spacing_mm=1.0)) == []
    label[:2, :2] = 200
    assert "class 200" in names(panels([Panel("Truth", ct, label)], spacing_mm=1.0))


def test_every_class_has_its_own_look_and_tumors_never_an_organs_colour() -> None:
    styles = {i: class_style(i) for i in CLASS_IDS.values() if i}
    assert len(set(styles.values())) == len(styles)
    tumors = {colour for i, (colour, _) in styles.items() if is_tumor(i)}
    assert not tumors & {colour for i, (colour, _) in styles.items() if not is_tumor(i)}


@pytest.mark.parametrize(("axis", "index"), [(2, 5), (1, 11), (0, 13)])
def test_the_slice_with_most_tumor_is_shown(axis: int, index: int) -> None:
    assert largest_cross_section(labels(), axis) == index


def test_without_tumor_the_middle_is_shown() -> None:
    assert largest_cross_section(np.where(labels() == LIVER, LIVER, 0), 2) == SHAPE[2] // 2


def test_before_after_shows_the_same_cut_three_times_in_two_views() -> None:
    before, label = volume(), labels()
    after = np.where(label == LIVER_TUMOR, before - 40, before).astype(np.int16)
    figure = before_after_figure(before, after, label, 2.0, "case")
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for k, (axis, index) in enumerate(((2, 5), (1, 11))):
        healthy, tumor = (to_display(np.take(array, index, axis)) for array in (before, after))
        assert np.array_equal(shown[3 * k], healthy)
        assert np.array_equal(shown[3 * k + 1], tumor)
        assert np.array_equal(shown[3 * k + 2], tumor)
    assert names(figure) == ["liver", "liver tumor", "spleen"]


def test_every_view_has_its_letters() -> None:
    figure = before_after_figure(volume(), volume(), labels(), 2.0, "case")
    letters = [{text.get_text() for text in axes.texts} & set("RAS") for axes in figure.axes]
    assert letters == [{"R", "A"}] * 3 + [{"R", "S"}] * 3 + [{"A", "S"}] * 3


@pytest.mark.parametrize(("count", "columns", "shown"), [(1, 6, (1, 1)), (5, 2, (3, 2)), (12, 4, (3, 4))])
def test_grid_fills_rows(count: int, columns: int, shown: tuple[int, int]) -> None:
    figure = grid_figure([(f"{i}", volume()[:, :, i], None) for i in range(count)], columns)
    assert [axes.get_title() for axes in figure.axes] == [str(i) for i in range(count)]
    assert figure.axes[0].get_gridspec().get_geometry() == (shown[0], min(columns, count))


def test_histogram_counts_every_finite_value() -> None:
    values = [1.0, 2.0, 2.5, 8.0, float("nan")]
    figure = histogram_figure(values, xlabel="diameter (mm)", title="Tumors", bins=7)
    (axes,) = figure.axes
    assert sum(bar.get_height() for bar in axes.patches) == 4
    assert axes.get_xlabel().split() == "diameter (mm) (n = 4, 1 not finite)".split()
    assert axes.get_ylabel() == "samples"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["median 2.25"]


def test_logarithmic_bins_hold_every_value() -> None:
    figure = histogram_figure(np.geomspace(1, 1000, 50), xlabel="mm³", log_x=True)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert sum(bar.get_height() for bar in axes.patches) == 50


FIGURES: dict[str, Callable[[], Any]] = {
    "panels": lambda: panels([Panel("a", volume()[:, :, 5], labels()[:, :, 5])] * 3, title="t", spacing_mm=1.5),
    "before and after": lambda: before_after_figure(volume(), volume(), labels(), 2.0, "title"),
    "flat voxels": lambda: before_after_figure(volume(), volume(), labels(), (1.0, 1.0, 3.0), "title"),
    "grid": lambda: grid_figure([("a", volume()[:, :, 5], labels()[:, :, 5])] * 8, spacing_mm=2.0),
    "uneven grid": lambda: grid_figure([("a", volume()[:, :, 5], None), ("b", volume()[:9, :7, 5], None)]),
    "histogram": lambda: histogram_figure([1, 2, 3], xlabel="mm"),
    "one value": lambda: histogram_figure([2.0], xlabel="mm", log_x=True),
    "no value": lambda: histogram_figure([], xlabel="mm"),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_png_is_of_sane_size_and_repeatable(kind: str) -> None:
    data = png_bytes(FIGURES[kind]())
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert 250 <= width <= 3000
    assert 200 <= height <= 3000
    assert 3_000 < len(data) < 2_000_000
    assert data == png_bytes(FIGURES[kind]())


def test_save_png_writes_what_png_bytes_gives(tmp_path: Path) -> None:
    path = save_png(FIGURES["histogram"](), tmp_path / "h.png")
    assert path.read_bytes() == png_bytes(FIGURES["histogram"]())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Panel("x", volume()), "2-D CT"),
        (lambda: Panel("x", volume()[:, :, 0], labels()[:, 0, :]), "label of its shape"),
        (lambda: panels([], spacing_mm=1.0), "at least one panel"),
        (lambda: grid_figure([]), "at least one panel"),
        (lambda: histogram_figure([0.0, 1.0], xlabel="mm", log_x=True), "positive values, found 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_matplotlib_comes_late_and_pyplot_never() -> None:
    code = (
        "import sys, pipeline.figures as f; assert 'matplotlib' not in sys.modules; "
        "f.png_bytes(f.histogram_figure([1.0], xlabel='mm')); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])
