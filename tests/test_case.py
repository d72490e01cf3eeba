from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.case import build_case, parenchyma_cell, parenchyma_shape
from pipeline.errors import InputError
from tests.ct_files import LIVER, SPACING_MM, liver_ball, make_affine, make_ct, spleen_ball

ORGANS = (liver_ball() * 1 + spleen_ball() * 9).astype(np.uint8)


def build(**changes: Any) -> Any:
    given = {"ct": make_ct(), "organs": ORGANS, "affine": make_affine(), "spacing_mm": SPACING_MM} | changes
    return build_case("case-7", **given)


def test_a_case_holds_what_placement_needs() -> None:
    case = build(split="val", sources={"ct.nii.gz": "ab"})
    assert (case.case_id, case.split, case.spacing_mm) == ("case-7", "val", SPACING_MM)
    assert case.sources == {"ct.nii.gz": "ab"}
    assert set(case.voxels) == {"liver"}
    assert case.voxels["liver"].dtype == np.int32
    np.testing.assert_array_equal(case.voxels["liver"], np.flatnonzero(liver_ball()))
    assert set(case.stats) == {"liver", "spleen"}
    assert case.stats["liver"].mean_hu == LIVER
    assert case.stats["liver"].volume_ml == pytest.approx(np.count_nonzero(liver_ball()) * 0.125)
    assert case.stats["liver"].max_depth_mm == case.surface_distance_mm[liver_ball()].max()
    assert case.phase == "portal_venous"
    assert (case.noise.dtype, case.parenchyma["liver"].dtype, dict(case.along)) == (np.int8, np.int16, {})
    types = (case.ct.dtype, case.organs.dtype, case.vessels.dtype, case.surface_distance_mm.dtype)
    assert types == (np.int16, np.uint8, np.uint8, np.float16)
    assert (case.vessel_distance_mm[liver_ball()] == 200).all()


def test_the_same_arrays_give_the_same_case_in_any_memory_order() -> None:
    first, second = build(), build(ct=np.asfortranarray(make_ct()), organs=np.asfortranarray(ORGANS))
    for name in ("ct", "organs", "vessels", "surface_distance_mm", "vessel_distance_mm"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.voxels["liver"], second.voxels["liver"])


def test_inputs_are_not_written_to() -> None:
    ct, organs = make_ct(), ORGANS.copy()
    ct.flags.writeable = organs.flags.writeable = False
    build(ct=ct, organs=organs)


def test_real_tumor_voxels_take_no_synthetic_tumor() -> None:
    organs = ORGANS.copy()
    organs[17, 11, 9] = 2
    case = build(organs=organs)
    tumor = np.ravel_multi_index((17, 11, 9), organs.shape)
    assert tumor not in case.voxels["liver"]
    assert case.organs[17, 11, 9] == 2
    assert case.surface_distance_mm[17, 11, 10] == SPACING_MM


def test_a_partial_organ_stays_labelled_but_unused() -> None:
    organs = ORGANS.copy()
    organs[2:4, 4, 4] = 5
    case = build(organs=organs)
    assert "kidney" in case.stats
    assert "kidney" not in case.voxels
    assert (case.organs == 5).sum() == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"organs": np.zeros_like(ORGANS)}, "empty organ.*liver: 0 voxels"),
        ({"ct": np.full_like(make_ct(), -400)}, "implausible organ: liver has a mean of -400 HU"),
    ],
)
def test_bad_masks_are_the_users_errors(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(**changes)


def test_implausible_organs_can_be_allowed() -> None:
    assert build(ct=np.full_like(make_ct(), -400), allow_implausible=True).stats["liver"].mean_hu == -400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ct": make_ct().astype(np.float32)}, "ct must be int16"),
        ({"organs": ORGANS.astype(np.int16)}, "organs uint8"),
        ({"organs": ORGANS[:-1]}, "one 3-D shape"),
        ({"organs": ORGANS + np.uint8(100)}, "hold the id 109"),
        ({"spacing_mm": 4.0}, "another spacing than 4.0 mm"),
    ],
)
def test_callers_errors(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(**changes)


@pytest.mark.parametrize(
    ("spacing_mm", "cell"), [(0.2, 20), (0.75, 5), (1.0, 4), (1.5, 3), (2.0, 2), (3.0, 1), (5.0, 1), (10.0, 1)]
)
def test_parenchyma_points_are_about_4_mm_apart(spacing_mm: float, cell: int) -> None:
    assert parenchyma_cell(spacing_mm) == cell


@given(st.tuples(*[st.integers(1, 600)] * 3), st.floats(0.2, 10))
def test_every_voxel_lies_between_two_parenchyma_points(shape: tuple[int, int, int], spacing_mm: float) -> None:
    cell = parenchyma_cell(spacing_mm)
    for voxels, points in zip(shape, parenchyma_shape(shape, spacing_mm), strict=True):
        assert (voxels - 1) // cell + 1 == points - 1  # the point above the last voxel is the last point


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vessels": np.zeros((2, 2, 2), np.uint8)}, "vessels has shape"),
        ({"noise": np.zeros((2, 2, 2), np.int8)}, "noise has shape"),
        ({"parenchyma": {}}, "arrays of its organs"),
        ({"parenchyma": {"liver": np.zeros((2, 2, 2), np.int16)}}, "arrays of its organs"),
        ({"along": {"liver": np.zeros(3, np.uint8)}}, "arrays of its organs"),
        ({"voxels": {}}, "arrays of its organs"),
    ],
)
def test_arrays_of_different_shapes_make_no_case(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(build(), **changes)
