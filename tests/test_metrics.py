"""Overlap, surface and lesion figures: worked by hand, and against MONAI's subvoxel surface Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_surface_dice
from monai.metrics.utils import create_table_neighbour_code_to_surface_area
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from training.metrics import (
    dice,
    equivalent_diameter_mm,
    hausdorff95,
    lesion_table,
    spacing_xyz,
    surface_dice,
    surface_distances,
    volume_ml,
)
from training.surface_area import CORNERS, surface_area_table

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (2.0, 1.0, 0.7)]
SHAPE = (12, 10, 8)


def mask(*boxes: tuple[slice, slice, slice], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A uint8 mask that is 1 in the boxes."""
    out = np.zeros(shape, np.uint8)
    for box in boxes:
        out[box] = 1
    return out


def cube(x: int, y: int, z: int, size: int) -> tuple[slice, slice, slice]:
    """A box with equal sides from a corner voxel."""
    return slice(x, x + size), slice(y, y + size), slice(z, z + size)


EMPTY = mask()
BLOCK = mask(cube(2, 2, 2, 4))


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random smooth mask and a disturbed copy, both reaching the border of the array."""
    rng = np.random.default_rng(np.random.SeedSequence((seed,)))
    field = gaussian_filter(rng.normal(size=(17, 15, 13)), 1.6)
    other = field + rng.uniform(0.1, 0.8) * gaussian_filter(rng.normal(size=field.shape), 1.4)
    return field > np.quantile(field, 0.8), other > np.quantile(other, 0.85)


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
    for measure in (dice, lambda a, b: surface_dice(a, b, 1.0), lambda a, b: lesion_table(a, b, 1.0)):
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


# Lesions


def test_no_lesions() -> None:
    table = lesion_table(EMPTY, EMPTY, 1.0)
    assert table.truth == ()
    assert table.predicted == ()


def test_lesion_facts_with_anisotropic_spacing() -> None:
    truth = mask((slice(1, 3), slice(4, 5), slice(2, 5)))  # 2 x 1 x 3 voxels
    (lesion,) = lesion_table(truth, truth, (1.0, 2.0, 0.5)).truth
    assert (lesion.id, lesion.voxels, lesion.overlap_voxels, lesion.iou) == (1, 6, 6, 1.0)
    assert lesion.volume_mm3 == pytest.approx(6.0)
    assert lesion.diameter_mm == pytest.approx(equivalent_diameter_mm(6.0))
    assert lesion.centroid_vox == (1.5, 4.0, 3.0)


def test_one_voxel_of_overlap_detects() -> None:
    table = lesion_table(BLOCK, mask(cube(5, 5, 5, 3)), 1.0)
    (lesion,), (predicted,) = table.truth, table.predicted
    assert lesion.detected
    assert lesion.overlap_voxels == predicted.overlap_voxels == 1
    assert lesion.iou == pytest.approx(1 / (64 + 27 - 1))
    assert not predicted.false_positive


def test_lesions_side_by_side_do_not_match() -> None:
    """Faces that touch are no overlap."""
    table = lesion_table(mask(cube(0, 0, 0, 2)), mask(cube(2, 0, 0, 2)), 1.0)
    assert not table.truth[0].detected
    assert table.truth[0].iou == 0
    assert table.predicted[0].false_positive


def test_a_prediction_that_merges_two_lesions_detects_both() -> None:
    truth = mask(cube(0, 0, 0, 2), cube(4, 0, 0, 2))
    table = lesion_table(truth, mask((slice(0, 6), slice(0, 2), slice(0, 2))), 1.0)
    assert [(lesion.detected, lesion.iou) for lesion in table.truth] == [(True, 8 / 24), (True, 8 / 24)]
    assert [(lesion.overlap_voxels, lesion.false_positive) for lesion in table.predicted] == [(16, False)]


def test_a_lesion_split_by_the_prediction_counts_once() -> None:
    truth = mask((slice(0, 6), slice(0, 2), slice(0, 2)))
    table = lesion_table(truth, mask(cube(0, 0, 0, 2), cube(4, 0, 0, 2)), 1.0)
    assert [(lesion.detected, lesion.iou) for lesion in table.truth] == [(True, 16 / 24)]
    assert [lesion.false_positive for lesion in table.predicted] == [False, False]


def test_found_missed_and_false_in_one_volume() -> None:
    truth = mask(cube(0, 0, 0, 3), cube(0, 6, 0, 2))
    table = lesion_table(truth, mask(cube(1, 0, 0, 3), cube(9, 7, 5, 2)), 1.0)
    assert {lesion.voxels: lesion.detected for lesion in table.truth} == {27: True, 8: False}
    assert {lesion.voxels: lesion.false_positive for lesion in table.predicted} == {27: False, 8: True}
    assert sum(lesion.iou for lesion in table.truth) == pytest.approx(18 / 36)


def test_lesions_at_the_border_and_filling_the_array() -> None:
    corners = mask(cube(0, 0, 0, 1), cube(11, 9, 7, 1))
    assert [lesion.centroid_vox for lesion in lesion_table(corners, EMPTY, 1.0).truth] == [(0, 0, 0), (11, 9, 7)]
    whole = np.ones((3, 2, 1), np.uint8)
    (lesion,) = lesion_table(whole, whole, 1.0).truth
    assert (lesion.voxels, lesion.iou) == (6, 1.0)


@pytest.mark.parametrize(("connectivity", "expected"), [(26, 1), (18, 2), (6, 3)])
def test_connectivity(connectivity: int, expected: int) -> None:
    """Voxels joined by an edge, then by a corner."""
    truth = mask(cube(1, 1, 1, 1), cube(2, 2, 1, 1), cube(3, 3, 2, 1))
    assert len(lesion_table(truth, EMPTY, 1.0, connectivity).truth) == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_lesions_add_up_to_the_masks(seed: int) -> None:
    truth, prediction = blobs(seed)
    table = lesion_table(truth, prediction, 1.5)
    shared = np.count_nonzero(truth & prediction)
    for lesions, inside in ((table.truth, truth), (table.predicted, prediction)):
        assert [lesion.id for lesion in lesions] == list(range(1, len(lesions) + 1))
        assert sum(lesion.voxels for lesion in lesions) == np.count_nonzero(inside)
        assert sum(lesion.overlap_voxels for lesion in lesions) == shared
    assert all(0 <= lesion.iou <= 1 for lesion in table.truth)
