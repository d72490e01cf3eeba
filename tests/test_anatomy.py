from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.anatomy import (
    NO_VESSEL_MM,
    estimate_phase,
    find_vessels,
    organ_stats,
    surface_distance_mm,
    tissue_mask,
    usable_organs,
    vessel_distance_mm,
)
from pipeline.case import OrganStats
from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from tests.ct_files import ball

SHAPE = (64, 64, 48)
LIVER_HU = 110


def noisy_liver(grain: float, sd_hu: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """CT and organs: a liver ball in fat, beside bright bowel, with noise of `grain` voxels correlation."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), grain)
    ct = np.full(SHAPE, -100.0)
    ct[:, :6] = 300
    liver = ball(SHAPE, (32, 32, 24), 27) & (np.indices(SHAPE)[1] >= 6)
    ct[liver] = LIVER_HU
    return (ct + noise * sd_hu / noise.std()).round().astype(np.int16), liver.astype(np.uint8)


def tree() -> np.ndarray:
    """Tubes of 6 and 4 mm width that cross the liver."""
    x, y, z = np.indices(SHAPE)
    trunk = np.hypot(y - 32, z - 24) <= 3
    branch = np.hypot(x - 32, y - 0.5 * z - 20) <= 2
    return trunk | branch


@pytest.mark.parametrize("grain", [0, 1, 2])
@pytest.mark.parametrize("sd_hu", [3, 20, 40])
def test_noise_is_never_a_vessel(grain: float, sd_hu: float) -> None:
    ct, organs = noisy_liver(grain, sd_hu)
    assert not find_vessels(ct, organs, 1.0).any()


@pytest.mark.parametrize(("grain", "sd_hu"), [(0, 20), (0.7, 15), (1, 10)])
def test_enhanced_vessels_are_found_inside_the_liver(grain: float, sd_hu: float) -> None:
    ct, organs = noisy_liver(grain, sd_hu)
    truth = tree() & (organs == 1)
    ct[truth] += 50
    found = find_vessels(ct, organs, 1.0) > 0
    assert not found[organs == 0].any()
    deep = surface_distance_mm(organs, 1.0) > 3
    near = ndimage.binary_dilation(truth)  # smoothing widens what is found by a part of a voxel
    assert np.count_nonzero(found & near) > 0.97 * np.count_nonzero(found)
    assert np.count_nonzero(found & truth & deep) > 0.7 * np.count_nonzero(truth & deep)


def test_dark_vessels_are_not_looked_for() -> None:
    ct, organs = noisy_liver(0, 10)
    ct[tree() & (organs == 1)] -= 30
    assert not find_vessels(ct, organs, 1.0).any()


def test_slow_shading_is_no_vessel() -> None:
    ct, organs = noisy_liver(0, 10)
    ct = (ct + np.linspace(-30, 30, SHAPE[0])[:, None, None]).astype(np.int16)
    assert not find_vessels(ct, organs, 1.0).any()


def test_other_organs_have_no_vessels() -> None:
    ct, organs = noisy_liver(0, 10)
    ct[tree()] = 160
    assert not find_vessels(ct, organs * 5, 1.0).any()


@pytest.mark.parametrize("spacing", [1.0, 2.5])
def test_distances_are_to_the_nearest_other_voxel(spacing: float) -> None:
    organs = np.zeros((12, 11, 10), np.uint8)
    organs[2:9, 1:10, 2:8] = 1
    organs[5:7, 4:6, 4:6] = 2  # a tumor in it
    organs[9:12, 3:8, 3:8] = 3  # an organ that touches it and the border of the volume
    vessels = np.zeros_like(organs)
    vessels[3, 2, 2:6] = 1
    surface = surface_distance_mm(organs, spacing)
    vessel = vessel_distance_mm(organs, vessels, spacing)
    padded = np.pad(organs, 1, constant_values=255)
    sites = np.argwhere(vessels)
    for index in np.argwhere(organs):
        own = organs[tuple(index)]
        others = np.argwhere(padded != own) - 1
        expected = np.linalg.norm(others - index, axis=1).min() * spacing
        assert surface[tuple(index)] == pytest.approx(expected, rel=1e-3)
        if own == 1:
            expected = np.linalg.norm(sites - index, axis=1).min() * spacing
            assert vessel[tuple(index)] == pytest.approx(expected, rel=1e-3)
    assert not surface[organs == 0].any()
    assert not vessel[(organs == 0) | (organs == 2)].any()
    assert (vessel[organs == 3] == NO_VESSEL_MM).all()


def test_figures_leave_vessels_out_and_tumors_are_no_organs() -> None:
    ct = np.full((10, 10, 10), 50, np.int16)
    organs = np.ones((10, 10, 10), np.uint8)
    organs[:2] = 2
    vessels = np.zeros_like(organs)
    vessels[5], ct[5] = 1, 1000
    ct[9] = 70
    stats = organ_stats(ct, organs, vessels, surface_distance_mm(organs, 2.0), 2.0)
    assert set(stats) == {"liver"}
    assert stats["liver"].volume_ml == pytest.approx(800 * 8 / 1000)
    assert stats["liver"].mean_hu == pytest.approx((600 * 50 + 100 * 70) / 700)
    assert stats["liver"].sd_hu == pytest.approx(np.std([50] * 600 + [70] * 100))
    assert stats["liver"].max_depth_mm == 8


def hollow_colon(gas_hu: int = -900, wall_hu: int = 85) -> tuple[np.ndarray, np.ndarray]:
    """CT and organs: a colon ball of 12 voxels radius with 3 voxels of wall, gas above stool, in fat."""
    ct = np.full((32, 32, 32), -100, np.int16)
    outside, inside = ball(ct.shape, (16, 16, 16), 12), ball(ct.shape, (16, 16, 16), 9)
    ct[outside] = wall_hu
    ct[inside] = 25
    ct[inside & (np.indices(ct.shape)[1] > 16)] = gas_hu
    return ct, (outside * CLASS_IDS["colon"]).astype(np.uint8)


def test_the_wall_stands_for_a_hollow_organ() -> None:
    ct, organs = hollow_colon()
    ct[16, 27, 16] = 400  # contrast agent that reached the surface
    nothing = np.zeros_like(organs)
    surface = surface_distance_mm(organs, 1.0)
    stats = organ_stats(ct, organs, nothing, surface, 1.0)["colon"]
    assert stats.volume_ml == pytest.approx(np.count_nonzero(organs) / 1000)
    assert stats.mean_hu == pytest.approx(85, abs=1)
    assert stats.sd_hu < 8
    wall = tissue_mask(ct, organs, nothing, surface, "colon", 1.0)
    assert not wall[16, 27, 16]
    assert np.count_nonzero(wall & (ct == 85)) > 0.95 * np.count_nonzero(ct == 85)
    box = (slice(3, 20), slice(10, 31), slice(0, 9))
    part = tissue_mask(ct[box], organs[box], nothing[box], surface[box], "colon", 1.0)
    np.testing.assert_array_equal(part, wall[box])


@pytest.mark.parametrize("spacing", [0.7, 3.0, 5.0])
def test_a_wall_has_at_least_the_outermost_voxels(spacing: float) -> None:
    ct, organs = hollow_colon()
    nothing, surface = np.zeros_like(organs), surface_distance_mm(organs, spacing)
    outermost = (organs > 0) & ~ndimage.binary_erosion(organs > 0)
    assert tissue_mask(ct, organs, nothing, surface, "colon", spacing)[outermost].all()


@pytest.mark.parametrize(("wall_hu", "expected"), [(-200, 25), (300, 25)])
def test_without_wall_other_soft_tissue_stands_in(wall_hu: int, expected: float) -> None:
    ct, organs = hollow_colon(wall_hu=wall_hu)
    surface = surface_distance_mm(organs, 0.8)
    shell = (surface > 0) & (surface <= 3.0)
    ct[shell] = wall_hu
    assert organ_stats(ct, organs, np.zeros_like(organs), surface, 0.8)["colon"].mean_hu == expected


def test_a_colon_of_gas_alone_is_refused() -> None:
    ct, organs = hollow_colon()
    ct[:] = -900
    nothing, surface = np.zeros_like(organs), surface_distance_mm(organs, 3.0)
    with pytest.raises(InputError, match="colon has a mean of -900 HU, outside -60 to 250 HU"):
        usable_organs(organ_stats(ct, organs, nothing, surface, 3.0), "case")


def test_an_organ_that_is_all_vessel_still_has_figures() -> None:
    organs = np.ones((4, 4, 4), np.uint8)
    stats = organ_stats(np.full_like(organs, 90, np.int16), organs, organs, surface_distance_mm(organs, 2.0), 2.0)
    assert stats["liver"].mean_hu == 90


def figures(**mean_hu: float) -> dict[str, OrganStats]:
    return {organ: OrganStats(1000, hu, 10, 20) for organ, hu in mean_hu.items()}


@pytest.mark.parametrize(
    ("mean_hu", "phase"),
    [
        ({"liver": 45, "aorta": 40, "portal_vein": 38}, "native"),
        ({"liver": 90, "aorta": 45}, "native"),  # amiodarone or iron
        ({"liver": 60, "aorta": 300, "portal_vein": 90}, "arterial"),
        ({"liver": 65, "aorta": 280}, "arterial"),
        ({"liver": 89, "aorta": 177, "portal_vein": 131}, "portal_venous"),
        ({"liver": 100, "aorta": 120, "portal_vein": 125}, "portal_venous"),
        ({"liver": 105, "aorta": 140}, "portal_venous"),
        ({"liver": 141}, "portal_venous"),
        ({"pancreas": 80, "portal_vein": 150}, "portal_venous"),
        ({"liver": 45, "kidney": 32}, "native"),
        ({"kidney": 35}, "native"),
        ({"liver": 60, "kidney": 150}, "unknown"),
        ({"liver": 60}, "unknown"),
        ({"liver": 70, "aorta": 150}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_phase_follows_from_blood_and_organs(mean_hu: dict[str, float], phase: str) -> None:
    assert estimate_phase(figures(**mean_hu)) == phase


def organ(volume_ml: float, mean_hu: float = 60) -> OrganStats:
    return OrganStats(volume_ml, mean_hu, 10, 20)


def test_cut_off_organs_are_not_usable() -> None:
    stats = {"liver": organ(99), "kidney": organ(150), "pancreas": organ(4), "spleen": organ(200)}
    assert usable_organs(stats, "case") == ["kidney"]


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({}, "empty organ.*liver: 0 voxels, pancreas: 0 voxels"),
        ({"liver": organ(40), "spleen": organ(200)}, "empty organ.*liver: 40.0 ml"),
        ({"liver": organ(7000)}, "liver has 7000 ml, more than 6000 ml"),
        ({"liver": organ(1500, -90)}, "liver has a mean of -90 HU, outside -20 to 250 HU.*label map"),
        ({"liver": organ(1500, 700)}, "mean of 700 HU"),
        ({"liver": organ(1500), "kidney": organ(300, -400)}, "kidney has a mean of -400 HU"),
        ({"pancreas": organ(400)}, "pancreas has 400 ml"),
    ],
)
def test_implausible_organs_are_refused(stats: dict[str, OrganStats], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        usable_organs(stats, "case7")
    assert "case7" in str(caught.value)


def test_implausible_organs_can_be_allowed_but_not_missing_ones() -> None:
    assert usable_organs({"liver": organ(7000, 900)}, "case", allow_implausible=True) == ["liver"]
    with pytest.raises(InputError, match="empty organ"):
        usable_organs({"liver": organ(1)}, "case", allow_implausible=True)
