"""Behind a blocked duct: how bright and wide it is, where the gland is thinner, and where nothing changes."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.case import Case, build_case
from pipeline.organs import CLASS_IDS
from pipeline.spec.records import MassEffectSpec, UpstreamSpec
from pipeline.synthesis import render
from pipeline.synthesis.upstream import FAT_HU, GLAND_MM, Replaced, behind_blocked_duct
from tests.tumors import sample, tumor, window

SPACING, SHAPE, RADIUS_MM, GLAND_HU = 1.5, (90, 40, 40), 15.0, 90
MIDDLE = 19.5
PANCREAS = CLASS_IDS["pancreas"]
TUMOR_X = 25.0
DUCT = tuple((x, MIDDLE, MIDDLE) for x in (TUMOR_X, 40.0, 60.0, 80.0))


@cache
def gland() -> Case:
    """A rod of pancreas along x without noise, in fat; the tumor's side is that of small x."""
    _, y, z = np.indices(SHAPE)
    away = SPACING * np.hypot(y - MIDDLE, z - MIDDLE)
    inside = away < RADIUS_MM
    inside[:3] = inside[-3:] = False
    hu = np.where(inside, GLAND_HU, -95).astype(np.int16)
    organs = np.where(inside, PANCREAS, 0).astype(np.uint8)
    case = build_case("gland", hu, organs, np.diag([SPACING] * 3 + [1.0]), SPACING, allow_implausible=True)
    return dataclasses.replace(case, noise=np.zeros_like(case.noise))


def effect(duct_mm: float = 6.0, atrophy_mm: float = 0.0) -> UpstreamSpec:
    return UpstreamSpec(duct=DUCT, duct_mm=duct_mm, duct_hu=12.0, atrophy_mm=atrophy_mm)


def replaced(what: UpstreamSpec, case: Case | None = None) -> Replaced:
    case = case or gland()
    box = window(case)
    t = tumor(organ="pancreas", center_vox=DUCT[0], diameter_mm=16.0)
    return behind_blocked_duct(t, what, torch.from_numpy(case.ct.copy()), box)


@pytest.mark.parametrize("duct_mm", [4.5, 7.5, 10.5])
def test_the_duct_has_its_hu_and_width(duct_mm: float) -> None:
    hu = replaced(effect(duct_mm)).hu.numpy()
    assert hu[30:75, 19:21, 19:21] == pytest.approx(12.0, abs=0.5)
    share = (gland().ct[50] - hu[50]) / (GLAND_HU - 12.0)
    area = float(share.sum()) * SPACING**2
    assert area == pytest.approx(np.pi / 4 * duct_mm**2, rel=0.1)


def test_there_is_no_duct_before_the_tumor() -> None:
    hu = replaced(effect()).hu.numpy()
    assert np.array_equal(hu[:21], gland().ct[:21])
    assert not replaced(effect()).gone.any()


def test_without_width_and_atrophy_nothing_changes() -> None:
    found = replaced(effect(duct_mm=0.0)).hu.numpy()
    away = np.abs(np.indices(SHAPE)[1] - MIDDLE) > 1
    assert np.array_equal(found[away], gland().ct[away])


def test_the_gland_is_thinner_behind_the_tumor_only() -> None:
    found = replaced(effect(atrophy_mm=5.0))
    left = (gland().organs == PANCREAS) & ~found.gone.numpy()
    before, after = (np.count_nonzero(left, axis=(1, 2))[x] * SPACING**2 for x in (15, 60))
    assert before == pytest.approx(np.pi * RADIUS_MM**2, rel=0.03)
    assert after == pytest.approx(np.pi * (RADIUS_MM - 5) ** 2, rel=0.12)
    assert not found.gone[: int(TUMOR_X)].any()


def test_where_no_gland_is_left_there_is_no_duct() -> None:
    found = replaced(effect(atrophy_mm=25.0))
    assert found.gone[50:70][torch.from_numpy(gland().organs[50:70] > 0)].all()
    assert found.hu.numpy()[50:70, 19:21, 19:21] == pytest.approx(FAT_HU, abs=0.5)


def test_atrophy_comes_on_along_the_duct() -> None:
    gone = replaced(effect(atrophy_mm=5.0)).gone.numpy()
    lost = np.count_nonzero(gone, axis=(1, 2))[25:45]
    assert np.all(np.diff(lost) >= 0)
    assert lost[0] == 0
    assert 0 < lost[4] < lost[-1]


def test_what_is_gone_shows_fat_with_the_donors_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-9, 10, SHAPE).astype(np.int8)
    found = replaced(effect(atrophy_mm=5.0), dataclasses.replace(gland(), noise=noise))
    deep = found.gone.numpy() & (gland().surface_distance_mm < 3)
    deep[:40] = False
    assert np.allclose(found.hu.numpy()[deep], FAT_HU + noise[deep], atol=0.1)
    inner = np.zeros(SHAPE, bool)
    inner[40:75, 19:21, 19:21] = True
    assert np.allclose(found.hu.numpy()[inner], 12 + noise[inner], atol=1e-3)


def test_other_organs_and_fat_do_not_change() -> None:
    found = replaced(effect(atrophy_mm=6.0))
    outside = gland().organs != PANCREAS
    assert np.array_equal(found.hu.numpy()[outside], gland().ct[outside])
    assert not found.gone.numpy()[outside].any()


def test_the_blurred_border_of_lost_gland_is_lost_too() -> None:
    """Where the gland shrank, the brighter layer of voxels around it would stay as an empty shell."""
    inside, cube = gland().organs == PANCREAS, np.ones((3, 3, 3), bool)
    layers = [ndimage.binary_dilation(inside, cube, n) & ~inside for n in (1, 2)]
    first, second = layers[0], layers[1] & ~layers[0]
    blurred, noise = gland().ct.copy(), np.random.default_rng(0).integers(-9, 10, SHAPE).astype(np.int8)
    blurred[first], blurred[second] = -20, -60
    blurred[50, first[50]] = -110  # darker than fat: stays
    case = dataclasses.replace(gland(), ct=blurred, noise=noise)
    found = replaced(effect(atrophy_mm=5.0), case)
    beside = first & ndimage.binary_dilation(found.gone.numpy(), cube)
    assert np.array_equal(beside[55:85], first[55:85])
    hu = found.hu.numpy()
    behind = beside.copy()
    behind[50] = False
    fat = hu[behind] - noise[behind]
    assert np.ptp(fat) < 1e-3
    assert FAT_HU < fat.mean() < -60  # of the fat around, whose nearest layer is blurred here
    kept = ~inside & ~behind
    assert np.array_equal(hu[kept], blurred[kept])
    assert first[:25].any()
    assert not behind[:25].any()  # before the tumor no gland is lost


def test_a_far_part_of_the_gland_stays() -> None:
    case = gland()
    organs = case.organs.copy()
    organs[40:60, :4, :4] = PANCREAS  # beside the rod, farther from the duct than its gland is
    apart = build_case("apart", case.ct, organs, case.affine, SPACING, allow_implausible=True)
    far = organs.astype(bool) & (case.organs == 0)
    y, z = np.indices(SHAPE)[1:]
    assert (SPACING * np.hypot(y - MIDDLE, z - MIDDLE))[far].min() > GLAND_MM
    assert not replaced(effect(atrophy_mm=6.0), apart).gone.numpy()[far].any()


def test_crumbs_of_gland_behind_the_tumor_are_lost() -> None:
    case = gland()
    organs = case.organs.copy()
    organs[62:68] = 0  # a gap, bridged by a thread that atrophy takes away
    organs[62:68, 18:22, 18:22] = PANCREAS
    cut = build_case("cut", case.ct, organs, case.affine, SPACING, allow_implausible=True)
    gone = replaced(effect(atrophy_mm=4.0), cut).gone.numpy()
    assert gone[70:87][organs[70:87] > 0].all()
    assert not gone[:40, 17:23, 17:23].any()


def test_a_patch_that_shows_two_pieces_of_a_gland_keeps_both() -> None:
    """A bent gland that the patch cuts in two: the smaller piece, before the tumor, is not behind it."""
    case = gland()
    organs = case.organs.copy()
    organs[8:12] = 0
    pieces = build_case("pieces", case.ct, organs, case.affine, SPACING, allow_implausible=True)
    gone = replaced(effect(atrophy_mm=5.0), pieces).gone
    assert not gone[:8].any()
    assert gone[50].any()


def test_windows_show_the_same_duct() -> None:
    whole = replaced(effect(8.0)).hu
    corner, size = (35, 10, 12), (30, 20, 19)
    inside = tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))
    t = tumor(organ="pancreas", center_vox=DUCT[0], diameter_mm=16.0)
    image = torch.from_numpy(gland().ct[inside].copy())
    part = behind_blocked_duct(t, effect(8.0), image, window(gland(), corner, size)).hu
    assert torch.equal(part, whole[inside])


# ---- in a sample ----


def blocking(atrophy_mm: float = 5.0, mass: MassEffectSpec | None = None) -> np.ndarray:
    t = tumor(
        organ="pancreas", center_vox=DUCT[0], diameter_mm=16.0, upstream=effect(6.0, atrophy_mm), mass_effect=mass
    )
    return render(gland(), sample(t, origin=(0, 0, 0), patch=SHAPE, organs=("pancreas",))).label


def test_the_label_of_a_sample_follows() -> None:
    label = blocking()
    expected = np.where(replaced(effect(6.0, 5.0)).gone.numpy(), 0, gland().organs)
    tumors = label == PANCREAS + 1
    assert tumors.any()
    assert np.array_equal(label[~tumors], expected[~tumors])


def test_labels_that_a_mass_effect_moved_stay_moved() -> None:
    pushed = blocking(0.0, MassEffectSpec(strength=0.5, reach_mm=30.0))
    assert np.count_nonzero((pushed > 0) & (gland().organs == 0)) > 30
