"""Levels are mean + k SD within limits; degraded scans; edits of one field; figures of a level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.presets import Normal, Relative, Uniform, preset_of
from tests.tumors import ellipsoid, sample, tiny, tumor
from training.stress.degrade import with_noise, with_thick_slices
from training.stress.edit import depth_of, elongated, moved, resized
from training.stress.figures import level_figures
from training.stress.levels import ANY_ORGAN, STEPS, STRESSED, Level, Quantity, kept, stressed
from training.stress.score import Outcome
from training.stress.suites import Step, Variant

PLAIN = Quantity(10.0, 4.0, "")
LOG = Quantity(math.log(8.0), math.log(2.0), "", log=True)


@pytest.mark.parametrize(
    ("quantity", "k", "limits", "value", "clipped"),
    [
        (PLAIN, 0, (-math.inf, math.inf), 10.0, False),
        (PLAIN, -2, (-math.inf, math.inf), 2.0, False),
        (PLAIN, -3, (0.0, math.inf), 0.0, True),
        (PLAIN, 3, (0.0, 22.0), 22.0, False),
        (PLAIN, 3, (0.0, 21.9), 21.9, True),
        (LOG, 0, (1.0, 100.0), 8.0, False),
        (LOG, 2, (1.0, 100.0), 32.0, False),
        (LOG, -3, (2.5, 100.0), 2.5, True),
        (LOG, 3, (2.5, 40.0), 40.0, True),
    ],
)
def test_a_level_is_the_mean_plus_k_sd_within_limits(
    quantity: Quantity, k: int, limits: tuple[float, float], value: float, clipped: bool
) -> None:
    level = quantity.at(k, *limits)
    assert (level.k, level.clipped) == (k, clipped)
    assert level.value == pytest.approx(value, abs=1e-6)


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="between 3 and 2"):
        PLAIN.at(0, 3.0, 2.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0, 1, 2, 3, 4, 5, 6]], (-3, -2, -1, 0, 1, 2, 3)),
        ([[2, 2, 2, 3, 4, 4, 4]], (-1, 0, 1)),
        ([[0, 0, 0, 0, 1, 2, 3]], (0, 1, 2, 3)),
        ([[5, 5, 5, 5, 5, 5, 5]], (0,)),
        ([[2, 2, 2, 3, 4, 4, 4], [1, 2, 2, 3, 4, 5, 5]], (-3, -1, 0, 1, 2)),  # one sample that differs is enough
    ],
)
def test_levels_that_repeat_their_inner_neighbour_are_left_out(
    rows: list[list[float]], expected: tuple[int, ...]
) -> None:
    by_k = {k: [Level(k, row[i], False) for row in rows] for i, k in enumerate(STEPS)}
    assert kept(by_k) == expected


@pytest.mark.parametrize("organ", STRESSED)
def test_the_table_agrees_with_the_presets(organ: str) -> None:
    numbers, kind = stressed(organ), preset_of(organ).kinds[stressed(organ).kind]
    assert isinstance(kind.texture_sd_hu, Uniform)
    low, high = kind.texture_sd_hu.low, kind.texture_sd_hu.high
    assert numbers.texture_sd_hu.mean == (low + high) / 2
    assert numbers.texture_sd_hu.sd == pytest.approx(np.linspace(low, high, 100_001).std(), rel=1e-4)
    assert isinstance(kind.level, dict)
    for phase, quantity in numbers.contrast_hu.items():
        level = kind.level[phase]
        assert isinstance(level, Relative)
        first = level.hu if isinstance(level.hu, Normal) else level.hu.parts[0][1]  # type: ignore[union-attr]
        assert isinstance(first, Normal)
        assert (quantity.mean, quantity.sd) == (first.mean, first.sd)


def test_every_number_has_a_source() -> None:
    for numbers in STRESSED.values():
        found = [numbers.diameter_mm, numbers.elongation, numbers.texture_sd_hu, *numbers.contrast_hu.values()]
        assert all(len(quantity.source) > 10 and quantity.sd > 0 for quantity in found)
    assert all(len(quantity.source) > 10 for quantity in (ANY_ORGAN.noise_sd_hu, ANY_ORGAN.thickness_mm))


def test_hollow_organs_have_no_suites() -> None:
    with pytest.raises(InputError, match="liver, pancreas, kidney"):
        stressed("colon")


# ---- a worse scan ----


def column(*hu: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.int16]]:
    return np.array(hu, np.int16).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("thickness_mm", "hu", "expected"),
    [
        (1.0, (0, 100, 200, 300), (0, 100, 200, 300)),
        (0.5, (0, 100, 200, 300), (0, 100, 200, 300)),
        # slices of 50 and 250 with centres at 1 and 3 mm; voxel centres at 0.5, 1.5, 2.5, 3.5
        (2.0, (0, 100, 200, 300), (50, 100, 200, 250)),
        (4.0, (0, 100, 200, 300), (150, 150, 150, 150)),
        # slices of (0 + 100 / 2) / 1.5 and (100 / 2 + 200) / 1.5, centres at 0.75 and 2.25
        (1.5, (0, 100, 200), (33, 100, 167)),
        # the last slice covers one voxel only
        (2.0, (0, 0, 90), (0, 22, 68)),
    ],
)
def test_thick_slices_are_means_brought_back_linearly(
    thickness_mm: float, hu: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert with_thick_slices(column(*hu), thickness_mm, 1.0).ravel().tolist() == list(expected)


@given(n=st.integers(1, 40), thickness=st.floats(0.3, 60.0), spacing=st.floats(0.3, 5.0), hu=st.integers(-1024, 3071))
def test_thick_slices_keep_plain_tissue(n: int, thickness: float, spacing: float, hu: int) -> None:
    image = np.full((2, 3, n), hu, np.int16)
    assert np.array_equal(with_thick_slices(image, thickness, spacing), image)


def test_noise_is_one_field_scaled_and_differs_between_samples() -> None:
    image = np.zeros((20, 20, 20), np.int16)
    once, twice = with_noise(image, 10.0, 3, 4), with_noise(image, 20.0, 3, 4)
    assert np.abs(twice - 2 * once).max() <= 2  # but for rounding
    assert once.std() == pytest.approx(10.0, rel=0.05)
    assert not np.array_equal(once, with_noise(image, 10.0, 3, 5))
    assert np.array_equal(with_noise(image, 0.0, 3, 4), image)


# ---- edits ----


@settings(max_examples=50)
@given(ratio=st.floats(1.0, 4.0), axes=st.tuples(*[st.floats(3.0, 20.0)] * 3))
def test_elongation_keeps_the_volume(ratio: float, axes: tuple[float, float, float]) -> None:
    long, b, c = elongated(tumor(form=ellipsoid(*axes)), ratio).form.half_axes_mm  # type: ignore[attr-defined]
    assert b == c
    assert long / b == pytest.approx(ratio, rel=1e-5)
    assert long * b * c == pytest.approx(math.prod(axes), rel=1e-5)


def test_a_smaller_tumor_has_a_smaller_outline_and_parts_that_fit() -> None:
    large = tumor(
        diameter_mm=40.0,
        form=ellipsoid(25.0, 20.0, 16.0, deformation_mm=2.0, deformation_grid_mm=16.0),
        edge_mm=3.0,
        rim={"hu": 20.0, "mm": 4.0},
        core={"hu": -30.0, "depth_mm": 10.0, "edge_mm": 3.0},
        calcification={"hu": 100.0, "grain_mm": 4.0, "threshold": 2.0},
    )
    small = resized(large, 4.0)
    assert small.form.half_axes_mm == (2.5, 2.0, 1.6)  # type: ignore[attr-defined]
    assert (small.form.deformation_mm, small.form.deformation_grid_mm) == pytest.approx((0.2, 1.6))  # type: ignore[attr-defined]
    assert (small.edge_mm, small.rim.mm) == pytest.approx((1.6, 1.2))  # type: ignore[union-attr]
    assert (small.core.depth_mm, small.calcification.grain_mm) == pytest.approx((1.0, 1.0))  # type: ignore[union-attr]
    assert resized(large, 40.0) == large


@pytest.mark.parametrize("depth_mm", [8.0, 15.0, 40.0])
def test_a_moved_tumor_lies_at_its_depth_and_no_farther_than_it_must(depth_mm: float) -> None:
    case, start = tiny(), tumor(center_vox=(20.3, 26.0, 22.0))
    after = moved(start, case, depth_mm, 0.0)
    assert depth_of(after, case) == pytest.approx(depth_mm, abs=case.spacing_mm / 2)
    depths = case.surface_distance_mm.astype(float)
    at = np.argwhere((np.abs(depths - depth_mm) <= case.spacing_mm / 2) & (case.organs == 1))
    nearest = np.linalg.norm(at - np.array(start.center_vox), axis=1).min()
    found = np.linalg.norm(np.rint(after.center_vox) - np.array(start.center_vox))
    assert found == pytest.approx(nearest, abs=1e-9)
    assert after.model_copy(update={"center_vox": start.center_vox}) == start


def test_a_moved_tumor_keeps_clear_of_vessels_where_it_can() -> None:
    case = tiny()
    voxels = np.argwhere((case.organs == 1) & (case.vessel_distance_mm < 1) & (case.surface_distance_mm > 30))
    on_vessel = tumor(center_vox=tuple(voxels[0].astype(float)), diameter_mm=12.0)
    depth = depth_of(on_vessel, case)
    at = tuple(np.rint(moved(on_vessel, case, depth, 1.0).center_vox).astype(int))
    assert case.vessel_distance_mm[at] >= 6.0
    assert moved(on_vessel, case, depth, 0.0) == on_vessel


# ---- figures ----


def outcome(found: bool, truth_voxels: int = 10, dice: float = 0.5) -> Outcome:
    return Outcome(truth_voxels, 10.0, -40.0, found, found, dice if found else 0.0, 1, 0.2, 0.3)


def step(values: Sequence[float]) -> Step:
    levels = tuple(Level(1, value, value > 5) for value in values)
    return Step(1, levels, tuple(Variant(sample(tumor())) for _ in values))


def test_a_level_counts_what_was_lost_and_gained_and_what_the_organ_cut_to_nothing() -> None:
    yes, no, cut = outcome(True), outcome(False), outcome(False, truth_voxels=0)
    now = [yes, no, yes, yes, cut, yes, yes, no]
    at_mean = [yes, yes, no, cut, yes, yes, yes, yes]
    figures = level_figures(step([1, 2, 6, 7, 8, 9, 3, 4]), now, at_mean, seed=0)
    assert (figures["pairs"], figures["lost"], figures["gained"]) == (6, 2, 1)
    assert (figures["sensitivity"]["count"], figures["sensitivity"]["n"]) == (5, 7)
    assert (figures["clipped"], figures["cut_to_nothing"], figures["cases"]) == (4, 1, 1)
    assert figures["value"] == {"mean": 5.0, "low": 1, "high": 9}
    assert figures["dice"]["mean"] == pytest.approx(5 / 14)
    assert figures["dice"]["low"] is None  # one case gives no interval
    low, high = figures["sensitivity"]["low"], figures["sensitivity"]["high"]
    assert (low, high) == pytest.approx((0.3589, 0.9178), abs=1e-4)  # Wilson, 5 of 7
