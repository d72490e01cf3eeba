"""From depth to what is tumor: soft edges, rooms, pieces."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.case import Case, build_case
from pipeline.grid import index3
from pipeline.organs import CLASS_IDS
from pipeline.synthesis.shape import FAT_RANGE_HU, grown, largest_component, room, soft_mask, step
from pipeline.synthesis.window import Window
from tests.tumors import CPU, abdomen, block, tumor, window

FAT, SOFT, BONE, GAS = -95, 45, 400, -900


def depths(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def widths(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


@pytest.mark.parametrize("edge", [0.5, 2.0, 6.0])
def test_the_soft_edge_is_as_wide_as_asked_and_half_on_the_surface(edge: float) -> None:
    found = soft_mask(depths(-99, -edge / 2, -edge / 4, 0, edge / 4, edge / 2, 99), widths(edge)).ravel()
    assert found.tolist() == pytest.approx([0, 0, 0.15625, 0.5, 0.84375, 1, 1])


def test_an_edge_of_no_width_is_hard() -> None:
    assert soft_mask(depths(-0.01, 0.01), widths(0.0)).ravel().tolist() == [0, 1]


def test_edges_are_of_each_tumor() -> None:
    both = soft_mask(depths(-1, 1).repeat(2, 1, 1, 1), widths(1.0, 8.0))
    assert both[0].ravel().tolist() == [0, 1]
    assert 0 < both[1].min() < both[1].max() < 1


def test_the_step_is_monotone_and_symmetric() -> None:
    t = torch.linspace(0, 1, 101)
    assert torch.all(step(t).diff() >= 0)
    assert torch.allclose(step(t) + step(1 - t), torch.ones(101))


# ---- rooms ----


@cache
def mixed() -> Case:
    """Along x: gas, fat, liver, a band that is no organ (by y: fat, gas, bone, blurred border, soft tissue), spleen."""
    shape = (64, 50, 40)
    hu, organs = np.full(shape, FAT, np.int16), np.zeros(shape, np.uint8)
    hu[:4] = GAS
    organs[8:40] = CLASS_IDS["liver"]
    hu[8:40] = 100
    for k, value in enumerate((FAT, GAS, BONE, 40, SOFT)):
        hu[40:50, 10 * k : 10 * k + 10] = value
    organs[50:] = CLASS_IDS["spleen"]
    hu[50:] = FAT  # a mask that reaches over its organ
    return build_case("mixed", hu, organs, np.diag([3.0, 3, 3, 1]), 3.0, allow_implausible=True)


def found_room(case: Case, **changes: Any) -> np.ndarray:
    return room([tumor(**changes)], window(case))[0].numpy()


def test_room_in_the_organ_fades_over_the_last_voxel() -> None:
    case = block()
    found = found_room(case)
    assert np.all(found[case.organs == 0] == 0)
    assert found[3:8, 20, 20].tolist() == [0, 0.5, 1, 1, 1]
    assert set(np.unique(found)) == {0, 0.5, 1}


def test_room_outside_is_fat_beside_the_organ_and_nothing_else() -> None:
    found = found_room(mixed(), room="outside")
    x = slice(43, 50)  # beyond the blurred border
    by_tissue = [found[x, 10 * k + 2 : 10 * k + 8, 5:35] for k in range(5)]
    assert [float(part.mean()) for part in by_tissue] == [1, 0, 0, 0, 0]
    assert np.all(found[8:40] == 1)
    assert np.all(found[:4] == 0)
    assert np.all(found[4:8] == 1)
    assert np.all(found[50:] == 0)  # another organ, whatever its HU


def test_room_outside_has_the_blurred_border_of_the_organ() -> None:
    found = found_room(mixed(), room="outside")
    beside = [bool(found[40, 10 * k + 5, 20]) for k in range(5)]
    assert beside == [True, False, False, True, True]
    assert not found[41:50, 33:38, 5:35].any()


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("end", FAT_RANGE_HU)
def test_fat_ends_at_its_limits(end: int, offset: int) -> None:
    case = mixed()
    hu = case.ct.copy()
    hu[42:50] = end + offset
    changed = build_case("limit", hu, case.organs, np.diag([3.0, 3, 3, 1]), 3.0, allow_implausible=True)
    smooth = int(changed.ct[46, 25, 20]) - int(changed.noise[46, 25, 20])
    found = found_room(changed, room="outside")[46, 25, 20]
    assert bool(found) == (FAT_RANGE_HU[0] <= smooth <= FAT_RANGE_HU[1])


def test_noise_does_not_decide_what_is_fat() -> None:
    """In fat of SD 10 around the kidney, room is whole, but for layers thinner than 3 voxels."""
    case = abdomen()
    found = found_room(case, room="outside", organ="kidney", center_vox=(30.0, 20.0, 20.0))
    smooth = case.ct - case.noise.astype(np.int16)
    fat = (case.organs == 0) & (smooth > FAT_RANGE_HU[0]) & (smooth < FAT_RANGE_HU[1])
    assert np.all(found[ndimage.binary_opening(fat, np.ones((3, 3, 3)))] == 1)
    others = (case.organs > 0) & (case.organs != CLASS_IDS["kidney"])
    assert np.all(found[others] == 0)


def beside_muscle(value: int, part: tuple[slice, slice, slice]) -> Case:
    """Liver below x = 20; above it fat in which `part` has another HU. No noise."""
    shape = (44, 30, 30)
    hu, organs = np.full(shape, FAT, np.int16), np.zeros(shape, np.uint8)
    hu[part] = value
    hu[:20], organs[:20] = 100, CLASS_IDS["liver"]
    case = build_case("muscle", hu, organs, np.diag([3.0, 3, 3, 1]), 3.0, allow_implausible=True)
    return dataclasses.replace(case, noise=np.zeros_like(case.noise))


@pytest.mark.parametrize(("thick", "is_room"), [(1, False), (2, False), (3, True), (4, True)])
def test_tongues_of_fat_thinner_than_3_voxels_are_no_room(thick: int, is_room: bool) -> None:
    """Between two muscles that begin 4 voxels off the liver."""
    case = beside_muscle(SOFT, (slice(24, 44), slice(0, 30), slice(0, 30)))
    hu = case.ct.copy()
    hu[24:, 12 : 12 + thick] = FAT
    found = found_room(dataclasses.replace(case, ct=hu), room="outside")
    assert np.all(found[28:40, 12 : 12 + thick, 5:25] == is_room)
    assert np.all(found[20:24] == 1)  # the fat that the tongue runs into
    assert not found[28:40, :12].any()
    assert not found[28:40, 12 + thick :].any()


@pytest.mark.parametrize(
    ("size", "hu", "is_room"), [(1, SOFT, True), (2, SOFT, True), (4, SOFT, False), (1, BONE, False), (1, GAS, False)]
)
def test_small_holes_in_fat_are_filled(size: int, hu: int, is_room: bool) -> None:
    """A voxel of a vessel that crosses the fat is room, larger things and those of bone or gas are not."""
    hole = (slice(30, 30 + size), slice(14, 14 + size), slice(14, 14 + size))
    found = found_room(beside_muscle(hu, hole), room="outside")
    assert np.all(found[hole] == is_room)
    found[hole] = 1
    assert np.all(found == 1)


def test_room_in_the_lumen_is_what_the_wall_is_not() -> None:
    case = abdomen()
    found = found_room(case, room="lumen", organ="colon") > 0
    colon = case.organs == CLASS_IDS["colon"]
    assert not found[~colon].any()
    gas = colon & (case.ct < -700)
    assert found[gas].mean() > 0.99
    wall = colon & (case.surface_distance_mm <= 3) & (case.ct > 50) & (case.ct < 130)
    assert found[wall].mean() < 0.05


@pytest.mark.parametrize("kind", ["organ", "outside", "lumen"])
@settings(max_examples=20, deadline=None)
@given(low=st.tuples(*[st.integers(0, 20)] * 3), size=st.tuples(*[st.integers(1, 14)] * 3))
def test_a_voxel_has_one_room_in_all_windows(kind: str, low: tuple[int, ...], size: tuple[int, ...]) -> None:
    organ = "colon" if kind == "lumen" else "kidney"
    t = tumor(organ=organ, room=kind)
    corner = (2, 20, 8) if kind == "lumen" else (14, 8, 4)
    part = room([t], window(abdomen(), index3(np.add(corner, low)), index3(size)))[0]
    all_of = room([t], window(abdomen(), corner, (34, 34, 34)))[0]
    assert torch.equal(part, all_of[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))])


def test_rooms_of_a_batch_are_as_each_alone() -> None:
    case = abdomen()
    tumors = [tumor(organ="liver"), tumor(organ="kidney", room="outside"), tumor(organ="colon", room="lumen")]
    corners = np.array([(50, 30, 20), (20, 10, 10), (-5, 20, -5)])
    together = room(tumors, Window((case,) * 3, corners, (30, 28, 26), CPU))
    for b, t in enumerate(tumors):
        alone = room([t], window(case, tuple(int(c) for c in corners[b]), (30, 28, 26)))  # type: ignore[arg-type]
        assert torch.equal(together[b], alone[0])


# ---- pieces ----


def test_grown_by_a_cube() -> None:
    mask = torch.zeros((9, 9, 9), dtype=torch.bool)
    mask[4, 4, 0] = True
    expected = torch.zeros((9, 9, 9))
    expected[2:7, 2:7, :3] = 1
    assert torch.equal(grown(mask, 2), expected)


def test_the_largest_piece_is_kept() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[1:4, 1:4, 1:4] = True
    mask[6:11, 6:11, 6:11] = True
    mask[4, 4, 4] = True  # joined to the smaller one over a corner
    kept, crumbs = largest_component(mask)
    assert crumbs
    assert np.array_equal(np.argwhere(kept)[[0, -1]], [(6, 6, 6), (10, 10, 10)])
    assert np.count_nonzero(kept) == 125


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_piece_or_none_is_returned_as_it_is(count: int) -> None:
    mask = np.zeros((6, 6, 6), bool)
    if count:
        mask[1, 1, 1] = mask[2, 2, 2] = True
    kept, crumbs = largest_component(mask)
    assert not crumbs
    assert np.array_equal(kept, mask)
