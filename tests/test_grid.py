"""Index arithmetic on grids, against the slow and obvious way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.grid import Index3, bounding_box, crop, overlap, shifted_affine

FILL = -1000
shapes = st.tuples(*[st.integers(1, 5)] * 3)
origins = st.tuples(*[st.integers(-9, 9)] * 3)


def numbered(shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
    """Every voxel its own number, from 1."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.int16).reshape(shape)


def padded_crop(array: npt.NDArray[np.int16], origin: Index3, shape: Index3) -> npt.NDArray[np.int16]:
    """The same as `crop`: pad far enough on every side, then slice."""
    pad = 20
    wide = np.pad(array, pad, constant_values=FILL)
    return wide[tuple(slice(o + pad, o + pad + n) for o, n in zip(origin, shape, strict=True))]


@given(shapes, origins, shapes)
def test_a_crop_is_a_slice_of_the_padded_array(limits: Index3, origin: Index3, shape: Index3) -> None:
    array = numbered(limits)
    found = crop(array, origin, shape, FILL)
    assert found.shape == shape
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, padded_crop(array, origin, shape))


@given(shapes, origins, shapes)
def test_an_overlap_is_the_same_voxels_seen_from_both_sides(limits: Index3, origin: Index3, shape: Index3) -> None:
    of_array, of_box = overlap(origin, shape, limits)
    for a, b, o, n, s in zip(of_array, of_box, origin, limits, shape, strict=True):
        assert 0 <= a.start <= a.stop or a.start == a.stop
        assert list(range(a.start, a.stop)) == [o + k for k in range(b.start, b.stop)]
        assert list(range(a.start, a.stop)) == [v for v in range(o, o + s) if 0 <= v < n]


@pytest.mark.parametrize(
    "origin", [(9, 0, 0), (-9, 0, 0), (0, 3, 0), (0, -2, 0), (50, -50, 50), (2, 2, 3)], ids=lambda origin: str(origin)
)
def test_a_crop_outside_the_array_is_all_fill(origin: Index3) -> None:
    assert (crop(numbered((4, 3, 3)), origin, (2, 2, 2), FILL) == FILL).all()


@pytest.mark.parametrize("origin", [(0, 0, 0), (1, 1, 1), (-1, 0, 0)])
def test_a_crop_is_a_contiguous_copy(origin: Index3) -> None:
    array = numbered((4, 4, 4))
    found = crop(array, origin, (3, 3, 3), FILL)
    found[:] = 0
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(array, numbered((4, 4, 4)))


def test_a_crop_reads_read_only_maps() -> None:
    array = numbered((4, 4, 4))
    array.flags.writeable = False
    assert crop(array, (0, 0, 0), (4, 4, 4), FILL).flags.writeable


AFFINES = {
    "isotropic": np.diag([2.0, 2.0, 2.0, 1.0]),
    "shifted": np.array([[0.7, 0, 0, -120], [0, 0.8, 0, 33.5], [0, 0, 2.5, -900], [0, 0, 0, 1]]),
    "oblique": np.array([[0.6, -0.8, 0, 5], [0.8, 0.6, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1]]),
    "flipped": np.array([[-1, 0, 0, 90.0], [0, 0, -1, 80], [0, 1, 0, 70], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@given(origin=origins, voxel=shapes)
def test_a_crops_affine_maps_its_voxels_to_where_they_were(
    affine: npt.NDArray[np.float64], origin: Index3, voxel: Index3
) -> None:
    in_crop = shifted_affine(affine, origin) @ [*voxel, 1]
    in_array = affine @ [*np.add(origin, voxel), 1]
    np.testing.assert_allclose(in_crop, in_array, atol=1e-9)


def test_the_affine_given_is_left_as_it_was() -> None:
    affine = np.eye(4)
    shifted_affine(affine, (1, 2, 3))
    np.testing.assert_array_equal(affine, np.eye(4))


@given(shapes, st.data())
def test_a_bounding_box_is_the_smallest_that_holds_all(shape: Index3, data: st.DataObject) -> None:
    voxels = data.draw(st.lists(st.tuples(*[st.integers(0, n - 1) for n in shape]), min_size=1, max_size=6))
    mask = np.zeros(shape, np.uint8)
    mask[tuple(np.transpose(voxels))] = 2
    low, high = bounding_box(mask)
    assert low == tuple(np.min(voxels, axis=0))
    assert high == tuple(np.max(voxels, axis=0) + 1)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        bounding_box(np.zeros((3, 3, 3), bool))
