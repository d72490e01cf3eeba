from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.resample import axis_weights, isotropic_grid, resample_ct, resample_labels, resample_labels_to
from tests.ct_files import ball

ANISOTROPIC = np.diag([0.7, 0.8, 2.5, 1.0])


def oblique(degrees: float = 20) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (-40, 25, 7)
    return turn @ ANISOTROPIC


def places(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates (X, Y, Z, 3) of every voxel, mm."""
    return np.stack(np.indices(shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([1.0005, 0.9995, 1, 1])])
def test_a_grid_that_has_the_spacing_is_left_alone(affine: np.ndarray) -> None:
    ct, labels = np.zeros((4, 5, 6), np.int16), np.zeros((4, 5, 6), np.uint8)
    assert resample_ct(ct, affine, 1.0)[0] is ct
    assert resample_labels(labels, affine, 1.0)[0] is labels
    assert isotropic_grid((4, 5, 6), affine, 1.0) == ((4, 5, 6), affine)


@given(
    shape=st.tuples(*[st.integers(1, 400)] * 3),
    sizes=st.tuples(*[st.floats(0.3, 6)] * 3),
    spacing=st.floats(0.3, 6),
    degrees=st.floats(-40, 40),
)
def test_the_isotropic_grid_covers_the_same_place(
    shape: tuple[int, int, int], sizes: tuple[float, float, float], spacing: float, degrees: float
) -> None:
    turn = oblique(degrees)
    turn[:3, :3] /= np.linalg.norm(turn[:3, :3], axis=0)
    affine = turn @ np.diag([*sizes, 1.0])
    new_shape, grid = isotropic_grid(shape, affine, spacing)
    if grid is affine:
        return
    np.testing.assert_allclose(np.linalg.norm(grid[:3, :3], axis=0), spacing)
    np.testing.assert_allclose(grid[:3, :3] / spacing, affine[:3, :3] / sizes, atol=1e-9)
    extent, new_extent = np.array(shape) * sizes, np.array(new_shape) * spacing
    assert (np.abs(extent - new_extent) <= np.maximum(spacing / 2, spacing - extent) + 1e-6).all()
    middle, new_middle = (m @ [*(np.array(s) / 2 - 0.5), 1] for m, s in ((affine, shape), (grid, new_shape)))
    np.testing.assert_allclose(middle, new_middle, atol=1e-6)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 1.9])
def test_a_linear_field_keeps_its_values_in_the_world(spacing: float) -> None:
    shape, affine = (30, 25, 12), oblique()
    slope = np.array([6.0, -9.0, 4.0])
    field = np.rint(places(shape, affine) @ slope).astype(np.int16)
    out, grid = resample_ct(field, affine, spacing)
    expected = places(out.shape, grid) @ slope
    inner = tuple(slice(round(5 / spacing), -round(5 / spacing)) for _ in range(3))
    assert np.abs(out[inner] - expected[inner]).max() <= 1.5


def test_a_constant_stays_constant_to_the_edge() -> None:
    for spacing in (0.4, 1.0, 3.3):
        out, _ = resample_ct(np.full((20, 17, 9), -987, np.int16), ANISOTROPIC, spacing)
        assert (out == -987).all()


def test_shrinking_averages_instead_of_skipping() -> None:
    board = (np.indices((24, 24, 24)).sum(axis=0) % 2 * 1000).astype(np.int16)
    out, _ = resample_ct(board, np.eye(4), 3.0)
    assert np.abs(out.astype(int) - 500).max() < 25


def test_noise_shrinks_with_the_spacing_as_averaging_does() -> None:
    noise = np.random.default_rng(0).normal(0, 100, (40, 40, 40)).astype(np.int16)
    out, _ = resample_ct(noise, np.eye(4), 3.0)
    assert out.std() < 100 / 3**1.5 * 1.6


def test_labels_keep_volume_and_beat_nearest_neighbours() -> None:
    """A ball drawn finely is the truth for a ball drawn coarsely and resampled."""
    coarse = ball((24, 24, 24), (11.5, 11.5, 11.5), 8).astype(np.uint8)
    out, grid = resample_labels(coarse, np.diag([3.0, 3, 3, 1]), 1.0)
    distance = np.linalg.norm(places(out.shape, grid) - 34.5, axis=-1)
    truth = distance <= (3 / (4 * np.pi) * np.count_nonzero(coarse)) ** (1 / 3) * 3
    nearest = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    assert np.count_nonzero(out) == pytest.approx(27 * np.count_nonzero(coarse), rel=0.01)
    assert np.count_nonzero(out != truth) < 0.7 * np.count_nonzero(nearest != truth)


def test_touching_classes_leave_no_gap_between_them() -> None:
    halves = np.ones((9, 9, 9), np.uint8)
    halves[4:] = 3
    out, _ = resample_labels(halves, np.diag([2.0, 2, 2, 1]), 0.7)
    assert set(np.unique(out)) == {1, 3}
    assert (np.diff((out == 3).astype(int), axis=0) >= 0).all()


@pytest.mark.parametrize("spacing", [0.9, 1.0, 1.4])
def test_predictions_come_back_to_the_input_grid(spacing: float) -> None:
    labels = np.zeros((40, 36, 18), np.uint8)
    labels[ball(labels.shape, (15, 18, 9), 7)] = 2
    labels[ball(labels.shape, (28, 18, 9), 5)] = 1
    there, grid = resample_labels(labels, oblique(), spacing)
    back = resample_labels_to(there, grid, labels.shape, oblique())
    assert back.shape == labels.shape
    for class_id in (1, 2):
        a, b = labels == class_id, back == class_id
        assert 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) > 0.9


def test_the_target_may_be_flipped_and_swapped() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7), np.uint8)
    affine = oblique()
    flipped = labels.transpose(2, 0, 1)[::-1, :, ::-1]
    swap = np.array([[0, 1.0, 0, 0], [0, 0, -1, 5], [-1, 0, 0, 6], [0, 0, 0, 1]])  # flipped index -> index
    np.testing.assert_array_equal(resample_labels_to(labels, affine, flipped.shape, affine @ swap), flipped)


def test_outside_the_source_is_background() -> None:
    wider = np.eye(4)
    wider[:3, 3] = -2
    out = resample_labels_to(np.full((3, 3, 3), 7, np.uint8), np.eye(4), (7, 7, 7), wider)
    np.testing.assert_array_equal(out, np.pad(np.full((3, 3, 3), 7), 2))


def test_an_empty_label_image_stays_empty() -> None:
    assert not resample_labels(np.zeros((4, 4, 4), np.uint8), np.diag([2.0, 2, 2, 1]), 1.0)[0].any()


def test_grids_at_an_angle_are_refused() -> None:
    with pytest.raises(ValueError, match="not parallel"):
        resample_labels_to(np.zeros((20, 20, 20), np.uint8), oblique(0), (20, 20, 20), oblique(20))


@given(
    n_in=st.integers(1, 40),
    n_out=st.integers(1, 40),
    step=st.floats(0.2, 4) | st.floats(-4, -0.2),
    start=st.floats(-10, 50),
)
@settings(deadline=None)
def test_weights_are_averages_of_voxels_around_the_position(n_in: int, n_out: int, step: float, start: float) -> None:
    weights = axis_weights(n_in, n_out, step, start).toarray()
    assert weights.shape == (n_out, n_in)
    assert weights.min() >= 0
    for j, row in enumerate(weights):
        position = start + step * j
        if -0.5 < position < n_in - 0.5:
            assert row.sum() == pytest.approx(1, abs=1e-5)
            if abs(step) <= 1.5:
                assert row @ np.arange(n_in) == pytest.approx(min(max(position, 0), n_in - 1), abs=1e-4)
        elif not -0.51 < position < n_in - 0.49:
            assert row.sum() == 0
