from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.image import Volume, check_affine, check_same_grid, check_shape, hounsfield, to_ras, voxel_sizes_mm

AXES = np.diag([0.7, 0.8, 2.5, 1.0])


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AXES


def test_voxel_sizes_of_an_oblique_grid_are_those_of_its_axes() -> None:
    assert voxel_sizes_mm(turned(31)) == pytest.approx((0.7, 0.8, 2.5))


@pytest.mark.parametrize("permutation", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_every_voxel_keeps_its_place_when_turned_to_ras(permutation: tuple[int, ...], signs: tuple[int, ...]) -> None:
    data = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    affine = np.eye(4)
    affine[:3, :3] = (np.diag([1.0, 2.0, 3.0]) * signs)[:, permutation]
    affine[:3, 3] = (5, -6, 7)
    volume = to_ras(data, affine)
    assert (np.diag(volume.affine)[:3] == (1, 2, 3)).all()
    for index in np.ndindex(data.shape):
        place = affine @ (*index, 1)
        back = np.rint(np.linalg.inv(volume.affine) @ place).astype(int)[:3]
        assert volume.data[tuple(back)] == data[index]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 4), "3 dimensions, this image has 2"),
        ((4, 4, 4, 3), "3 dimensions, this image has 4: 4x4x4x3"),
        ((0, 4, 4), "each dimension must be 1 to 2048"),
        ((4, -1, 4), "each dimension must be 1 to 2048"),
        ((2049, 1, 1), "2049x1x1"),
        ((2000, 2000, 2000), "at most 1,500,000,000 voxels"),
    ],
)
def test_shapes_that_are_no_ct_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_shape(shape, "a.nii")


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([1, np.nan, 1, 1]), "NaN or infinity"),
        (np.diag([1, np.inf, 1, 1]), "NaN or infinity"),
        (np.diag([1.0, 1, 0, 1]), "singular"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.diag([0.05, 1, 1, 1]), "absurd spacing 0.05 x 1 x 1 mm"),
        (np.diag([1, 1, 20.5, 1]), "absurd spacing 1 x 1 x 20.5 mm"),
        (np.array([[1.0, 0, 0, 0], [0, 1, 0.2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "right angles.*gantry"),
    ],
)
def test_affines_that_place_voxels_nowhere_are_refused(affine: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_affine(affine, "a.nii")


@pytest.mark.parametrize("affine", [AXES, turned(31), -AXES, np.diag([0.1, 20, 1, 1])])
def test_ordinary_affines_pass(affine: np.ndarray) -> None:
    check_affine(affine, "a.nii")


def volume(shape: tuple[int, int, int] = (10, 10, 10), shift_mm: float = 0, spacing: float = 1) -> Volume:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[0, 3] = shift_mm
    return Volume(np.zeros(shape), affine)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (volume(shape=(10, 10, 9)), "shapes 10x10x10 and 10x10x9"),
        (volume(shift_mm=0.5), "affines differ by up to 0.50 mm"),
        (volume(spacing=1.02), "affines differ by up to 0.31 mm"),
    ],
)
def test_a_mask_on_another_grid_is_refused(mask: Volume, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_same_grid(volume(), mask, "ct.nii", "liver.nii")
    assert "Resample the mask onto the CT grid first" in str(caught.value)
    assert "liver.nii" in str(caught.value)


def test_rounded_headers_are_the_same_grid() -> None:
    check_same_grid(volume(), volume(shift_mm=0.01, spacing=1.0001), "ct.nii", "liver.nii")


def ct(*values: float) -> list[np.ndarray]:
    """Two slices that repeat `values`."""
    return [np.resize(np.array(values), (20, 20))] * 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 0.2, 0.5, 1), "scaled to 0..1"),
        ((0, 40, 120, 255), "scaled to 0..255"),
        ((0, 24, 1040, 1130, 1500), r"offset by \+1024"),
        ((-2000, 0, 24, 1040, 1130, 1500), r"offset by \+1024"),
        ((-1.5, 0, 2.5), "normalised to mean 0"),
        ((-175, 0, 60, 250), "clipped to a window"),
        ((-2000,), "is not a CT"),
        ((0,), "scaled to 0..1"),
        ((-1000, 40, np.nan), "NaN or infinite"),
        ((-1000, 40, np.inf), "NaN or infinite"),
    ],
)
def test_what_is_not_hu_is_refused_with_a_guess(values: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        hounsfield(ct(*values), (20, 20, 2), "a.nii")


def test_hu_are_rounded_and_clipped() -> None:
    hu = hounsfield(ct(-3024, -1000, -0.6, 40.4, 5000), (20, 20, 2), "a.nii")
    assert hu.dtype == np.int16
    assert sorted(set(hu.ravel().tolist())) == [-1024, -1000, -1, 40, 3071]
