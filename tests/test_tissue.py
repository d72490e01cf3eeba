from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.anatomy import surface_distance_mm
from pipeline.case import Case, OrganStats, parenchyma_cell, parenchyma_shape
from pipeline.organs import CLASS_IDS, organ_id
from pipeline.tissue import NOISE_SDS, SHADING_HU, donor_noise, parenchyma
from tests.cases import make_abdomen
from tests.ct_files import ball

SHAPE = (56, 52, 48)
LIVER = ball(SHAPE, (28, 26, 24), 18)
VESSEL = LIVER & (np.hypot(*(np.indices(SHAPE)[1:] - np.reshape((24, 22), (2, 1, 1, 1)))) <= 3)


def grain(sd_hu: float, correlation: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=SHAPE)
    noise = ndimage.gaussian_filter(noise, correlation) if correlation else noise
    return noise * sd_hu / noise.std()


def noise_of(hu: np.ndarray, spacing_mm: float = 1.0, organ: str = "liver") -> np.ndarray:
    """The noise of a scan of LIVER with VESSEL."""
    organs = (LIVER * organ_id(organ)).astype(np.uint8)
    ct = np.rint(hu).astype(np.int16)
    return donor_noise(ct, organs, VESSEL.astype(np.uint8), surface_distance_mm(organs, spacing_mm), spacing_mm)


def scan(blur: float = 0.0) -> np.ndarray:
    """HU without noise: liver with a vessel in fat."""
    hu = np.where(VESSEL, 180.0, np.where(LIVER, 110.0, -100.0))
    return ndimage.gaussian_filter(hu, blur) if blur else hu


@pytest.mark.parametrize(("spacing_mm", "correlation"), [(0.7, 0.0), (0.7, 0.7), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0)])
def test_noise_of_plain_tissue_is_kept(spacing_mm: float, correlation: float) -> None:
    found = noise_of(scan() + grain(12, correlation), spacing_mm)
    deep = ndimage.binary_erosion(LIVER, iterations=6) & ~ndimage.binary_dilation(VESSEL, iterations=6)
    for region in (deep, ~ndimage.binary_dilation(LIVER, iterations=3)):
        assert 0.85 * 12 < found[region].std() < 1.05 * 12
        assert abs(found[region].mean()) < 0.5


@pytest.mark.parametrize(("blur", "spacing_mm", "most"), [(0.0, 1.0, 1.5), (0.0, 3.0, 1.5), (0.8, 1.0, 4.0)])
def test_borders_of_organs_and_vessels_leave_no_trace(blur: float, spacing_mm: float, most: float) -> None:
    found = noise_of(scan(blur) + grain(12), spacing_mm).astype(float)
    for border in (LIVER, VESSEL):
        inner = border & ~ndimage.binary_erosion(border)
        outer = ~border & ndimage.binary_dilation(border)
        assert abs(found[inner].mean()) < most
        assert abs(found[outer].mean()) < 1.5 * most


def test_slow_shading_is_no_noise() -> None:
    found = noise_of(scan() + np.linspace(-30, 30, SHAPE[0])[:, None, None])
    assert np.abs(found[ndimage.binary_erosion(LIVER, iterations=5)]).max() <= 3


def test_structures_are_clipped_to_the_noise() -> None:
    hu = scan() + grain(12)
    hu[28, 34, 30] += 900
    found = noise_of(hu)
    assert 20 < found[28, 34, 30] < 1.1 * NOISE_SDS * 12
    assert np.abs(noise_of(scan() + grain(300)).astype(int)).max() == 127


def test_air_around_the_body_has_no_noise() -> None:
    hu = scan() + grain(12)
    hu[:, :4] = -1000 + grain(12)[:, :4]
    found = noise_of(hu)
    assert not found[:, :2].any()
    assert found[:, 6:].any()


def test_the_content_of_a_hollow_organ_leaves_no_edge() -> None:
    case = make_abdomen()
    colon = case.organs == organ_id("colon")
    for part in (case.ct < -500, (case.ct > -60) & (case.ct < 60)):  # gas, stool
        inner = colon & part
        assert abs(float(case.noise[inner].mean())) < 3
        edge = inner & ~ndimage.binary_erosion(inner)
        assert abs(float(case.noise[edge].mean())) < 4


def shaded_case(spacing_mm: float, hollow: bool = False) -> tuple[np.ndarray, np.ndarray, OrganStats]:
    """Parenchyma HU on its grid, and the voxel index of each grid point, for an organ brighter at higher x."""
    organ = "colon" if hollow else "kidney"
    organs = (LIVER * CLASS_IDS[organ]).astype(np.uint8)
    hu = 90 + 0.5 * (np.indices(SHAPE)[0] - 28)
    ct = np.where(LIVER, hu, -100).astype(np.int16)
    if hollow:
        ct[ball(SHAPE, (28, 26, 24), 15)] = -900
    stats = OrganStats(30, 90.0, 10.0, 18)
    vessels = np.zeros_like(organs)
    surface = surface_distance_mm(organs, spacing_mm)
    return parenchyma(ct, organs, vessels, surface, organ, stats, spacing_mm), hu, stats


@pytest.mark.parametrize("spacing_mm", [1.0, 1.4, 2.0, 3.0])
@pytest.mark.parametrize("hollow", [False, True])
def test_parenchyma_is_the_tissue_around_and_fades_to_the_mean(spacing_mm: float, hollow: bool) -> None:
    found, hu, stats = shaded_case(spacing_mm, hollow)
    cell = parenchyma_cell(spacing_mm)
    assert found.shape == parenchyma_shape(SHAPE, spacing_mm)
    assert found.dtype == np.int16
    middle = [round(c / cell) for c in (28, 26, 24)]
    row = found[:, middle[1], middle[2]].astype(int)
    inside = slice(round(14 / cell), round(42 / cell) + 1)
    assert np.abs(row[inside] - hu[:, 26, 24][::cell][inside]).max() <= 5
    assert row[round(40 / cell)] > row[round(16 / cell)] + 3
    assert np.abs(np.diff(found.astype(int), axis=0)).max() <= 4
    assert abs(int(found[0, 0, 0]) - stats.mean_hu) <= 2


def test_parenchyma_stays_near_the_mean() -> None:
    organs = (LIVER * 1).astype(np.uint8)
    ct = np.where(np.indices(SHAPE)[0] > 28, 190, 30).astype(np.int16)
    nothing, surface = np.zeros_like(organs), surface_distance_mm(organs, 2.0)
    found = parenchyma(ct, organs, nothing, surface, "liver", OrganStats(100, 110.0, 80.0, 20), 2.0)
    assert (found.min(), found.max()) == (110 - SHADING_HU, 110 + SHADING_HU)


def test_vessels_do_not_tint_parenchyma() -> None:
    organs = (LIVER * 1).astype(np.uint8)
    ct = np.rint(scan()).astype(np.int16)
    surface = surface_distance_mm(organs, 1.0)
    found = parenchyma(ct, organs, VESSEL.astype(np.uint8), surface, "liver", OrganStats(100, 110.0, 12.0, 20), 1.0)
    assert (found == 110).all()


@pytest.fixture(scope="module", params=["native", "arterial", "portal_venous"])
def abdomen(request: pytest.FixtureRequest) -> Case:
    return make_abdomen(phase=request.param)


def test_every_organ_of_an_abdomen_has_noise_and_parenchyma(abdomen: Case) -> None:
    assert set(abdomen.voxels) == {"liver", "pancreas", "kidney", "colon"}
    for organ, voxels in abdomen.voxels.items():
        assert 8 < abdomen.noise.ravel()[voxels].std() < 11
        assert np.abs(abdomen.parenchyma[organ] - abdomen.stats[organ].mean_hu).max() <= SHADING_HU + 1
