"""Overlap and surface figures: by hand, against MONAI's subvoxel surface Dice, and against `surface-distance`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_surface_dice
from monai.metrics.utils import create_table_neighbour_code_to_surface_area
from scipy.spatial.distance import cdist
from surface_distance import (
    compute_robust_hausdorff,
    compute_surface_dice_at_tolerance,
    compute_surface_distances,
)

from tests.masks import blobs, cube, mask
from training.metrics import (
    dice,
    equivalent_diameter_mm,
    hausdorff95,
    spacing_xyz,
    surface_dice,
    surface_distances,
    volume_ml,
)
from training.surface_area import CORNERS, surface_area_table

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (2.0, 1.0, 0.7)]


EMPTY = mask()
BLOCK = mask(cube(2, 2, 2, 4))


def monai_nsd(truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    one_hot = [torch.from_numpy(m.astype(np.float32))[None, None] for m in (prediction, truth)]
    return float(
        compute_surface_dice(*one_hot, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True)
    )


# Dice and volume


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (BLOCK, BLOCK, 1.0),
        (BLOCK, mask(cube(2, 2, 4, 4)), 0.5),  # shifted by half
        (BLOCK, mask(cube(2, 2, 2, 2)), 2 * 8 / (64 + 8)),
        (BLOCK, mask(cube(7, 6, 2, 2)), 0.0),
        (BLOCK, EMPTY, 0.0),
        (EMPTY, BLOCK, 0.0),
        (EMPTY, EMPTY, None),
    ],
)
def test_dice(truth: np.ndarray, prediction: np.ndarray, expected: float | None) -> None:
    assert dice(truth, prediction) == expected
    assert dice(truth.astype(bool), prediction.astype(bool)) == expected


def test_any_nonzero_value_is_inside() -> None:
    assert dice(BLOCK * 255, BLOCK) == 1.0


def test_volume_and_equivalent_diameter() -> None:
    assert volume_ml(BLOCK, (0.5, 2.0, 3.0)) == pytest.approx(64 * 3 / 1000)
    assert volume_ml(BLOCK, 2.0) == pytest.approx(64 * 8 / 1000)
    assert equivalent_diameter_mm(4 / 3 * math.pi * 5**3) == pytest.approx(10)
    assert equivalent_diameter_mm(0) == 0


@pytest.mark.parametrize("spacing", [0.0, -1.0, math.nan, math.inf, (1.0, 1.0, 0.0)])
def test_impossible_spacing_is_refused(spacing: float | tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        spacing_xyz(spacing)


@pytest.mark.parametrize("other", [mask(shape=(12, 10, 9)), np.zeros((12, 10), np.uint8)])
def test_masks_of_different_shape_are_refused(other: np.ndarray) -> None:
    for measure in (dice, lambda a, b: surface_dice(a, b, 1.0)):
        with pytest.raises(ValueError, match="shape"):
            measure(BLOCK, other)


# Surfaces


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_256_neighbourhoods_are_those_of_monai(spacing: tuple[float, float, float]) -> None:
    table, kernel = create_table_neighbour_code_to_surface_area(spacing)
    weights = np.asarray(kernel).reshape(2, 2, 2)
    theirs = [
        float(table[sum(int(weights[corner]) for bit, corner in enumerate(CORNERS) if code >> bit & 1)])
        for code in range(256)
    ]
    np.testing.assert_allclose(surface_area_table(spacing), theirs, rtol=1e-5)


def test_surface_areas_by_hand() -> None:
    table = surface_area_table((1.0, 1.0, 1.0))
    assert table[0] == table[255] == 0
    assert table[1] == pytest.approx(math.sqrt(3) / 8)  # triangle over one corner
    assert table[0b11] == pytest.approx(math.sqrt(0.5))  # rectangle along an edge
    assert table[0b1111] == pytest.approx(1)  # square through the middle
    assert surface_area_table((2.0, 3.0, 5.0))[0b1111] == pytest.approx(15)  # x = 0 inside: a Y by Z plane


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_surface_dice_is_that_of_monai(seed: int, spacing: tuple[float, float, float], tolerance: float) -> None:
    truth, prediction = blobs(seed)
    ours = surface_dice(truth, prediction, spacing, tolerance)
    assert ours == pytest.approx(monai_nsd(truth, prediction, spacing, tolerance), abs=1e-4)
    assert 0 < ours < 1


ANISOTROPIC = st.tuples(*[st.sampled_from([0.5, 0.7, 0.8, 1.0, 1.5, 2.5, 5.0])] * 3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), ANISOTROPIC, st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_surface_figures_are_those_of_both_oracles(
    seed: int, spacing: tuple[float, float, float], tolerance: float
) -> None:
    truth, prediction = blobs(seed)
    theirs = compute_surface_distances(truth, prediction, spacing)
    ours = surface_dice(truth, prediction, spacing, tolerance)
    # A hair above the tolerance: surface-distance leaves out some distances that equal it, by rounding.
    assert ours == pytest.approx(compute_surface_dice_at_tolerance(theirs, tolerance + 1e-5), abs=1e-3)
    assert ours == pytest.approx(monai_nsd(truth, prediction, spacing, tolerance + 1e-5), abs=1e-3)
    assert hausdorff95(truth, prediction, spacing) == pytest.approx(compute_robust_hausdorff(theirs, 95), abs=1e-3)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [(BLOCK, BLOCK, 1.0), (BLOCK, EMPTY, 0.0), (EMPTY, BLOCK, 0.0), (EMPTY, EMPTY, None)],
)
def test_surface_dice_of_equal_and_empty_masks(
    truth: np.ndarray, prediction: np.ndarray, expected: float | None
) -> None:
    assert surface_dice(truth, prediction, 1.0) == expected


def test_a_distance_equal_to_the_tolerance_is_within_it() -> None:
    shifted = mask(cube(5, 2, 2, 4))  # by 3 voxels
    for spacing in (0.3, 0.6, 0.7, 1.2, 2.4, 2.9):  # float32 puts some of these distances above the tolerance
        assert surface_dice(BLOCK, shifted, spacing, tolerance_mm=3 * spacing) == 1.0
        assert surface_dice(BLOCK, shifted, spacing, tolerance_mm=2.9 * spacing) < 1.0


def test_hausdorff_of_a_shift_depends_on_its_axis() -> None:
    spacing = (1.0, 1.0, 2.5)
    assert hausdorff95(BLOCK, mask(cube(4, 2, 2, 4)), spacing) == pytest.approx(2.0)
    assert hausdorff95(BLOCK, mask(cube(2, 2, 4, 4)), spacing) == pytest.approx(5.0)
    assert hausdorff95(BLOCK, BLOCK, spacing) == 0


def test_hausdorff_is_undefined_without_a_surface() -> None:
    for truth, prediction in ((BLOCK, EMPTY), (EMPTY, BLOCK), (EMPTY, EMPTY)):
        assert hausdorff95(truth, prediction, 1.0) is None
        assert surface_distances(truth, prediction, 1.0) is None


@pytest.mark.parametrize("spacing", SPACINGS)
def test_surface_distances_are_those_of_brute_force(spacing: tuple[float, float, float]) -> None:
    truth, prediction = blobs(11)
    found = surface_distances(truth, prediction, spacing)
    assert found is not None
    (points, areas), (other_points, other_areas) = elements(truth, spacing), elements(prediction, spacing)
    distances = cdist(points, other_points)
    there, back = distances.min(axis=1), distances.min(axis=0)
    assert np.sort(found.truth_mm) == pytest.approx(np.sort(there), abs=1e-4)
    assert np.sort(found.prediction_mm) == pytest.approx(np.sort(back), abs=1e-4)
    assert found.truth_area_mm2.sum() == pytest.approx(areas.sum())
    expected = max(area_percentile(there, areas), area_percentile(back, other_areas))
    assert hausdorff95(truth, prediction, spacing) == pytest.approx(expected, abs=1e-4)


def elements(inside: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Surface elements (n, 3) in mm and their areas, one voxel corner at a time."""
    padded, table, points, areas = np.pad(inside, 1), surface_area_table(spacing), [], []
    for at in np.ndindex(*(size + 1 for size in inside.shape)):
        cell = padded[at[0] : at[0] + 2, at[1] : at[1] + 2, at[2] : at[2] + 2].ravel()
        if cell.any() and not cell.all():
            points.append(np.array(at) * spacing)
            areas.append(table[sum(1 << bit for bit in range(8) if cell[bit])])
    return np.array(points), np.array(areas)


def area_percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    """Smallest distance within which 95 % of the area lies."""
    return min(d for d in distances if areas[distances <= d].sum() >= 0.95 * areas.sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(0, 4)] * 3), st.permutations(range(3)))
def test_figures_do_not_depend_on_place_or_axis_order(seed: int, margin: tuple[int, ...], axes: list[int]) -> None:
    truth, prediction = blobs(seed)
    spacing = (0.8, 1.0, 2.5)
    moved = [np.pad(m, [(before, 3) for before in margin]).transpose(axes) for m in (truth, prediction)]
    turned = tuple(spacing[axis] for axis in axes)
    assert surface_dice(*moved, turned) == pytest.approx(surface_dice(truth, prediction, spacing))
    assert hausdorff95(*moved, turned) == pytest.approx(hausdorff95(truth, prediction, spacing), abs=1e-4)
    assert dice(*moved) == dice(truth, prediction)
