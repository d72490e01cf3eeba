"""Mass effect: tissue moves outward by the formula, nothing folds, noise stays noise, any window shows the same."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.case import AIR_HU, Case
from pipeline.organs import CLASS_IDS
from pipeline.spec.records import MassEffectSpec, TumorSpec
from pipeline.synthesis import warp as warp_module
from pipeline.synthesis.warp import Warped, mass_effect
from pipeline.synthesis.window import Window
from tests.tumors import CPU, block, tiny, tumor, window

MIDDLE = (22.0, 22.0, 22.0)
EFFECT = MassEffectSpec(strength=0.3, reach_mm=45.0)


def at(center: tuple[float, float, float] = MIDDLE) -> TumorSpec:
    return tumor(center_vox=center)


def warped(case: Case, effect: MassEffectSpec = EFFECT, center: tuple[float, float, float] = MIDDLE) -> Warped:
    return mass_effect([at(center)], [effect], window(case))


def distance_mm(case: Case, center: tuple[float, float, float] = MIDDLE) -> np.ndarray:
    x, y, z = np.indices(case.ct.shape)
    c = np.array(center)
    return np.asarray(case.spacing_mm * np.sqrt((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2))


@cache
def ramp() -> Case:
    """Without noise, HU that say where along x tissue comes from: 16 HU a voxel."""
    hu = np.broadcast_to(16 * np.arange(44)[:, None, None], (44, 44, 44)).astype(np.int16)
    return dataclasses.replace(block(), ct=hu, noise=np.zeros_like(hu, np.int8))


def source_mm(distance: np.ndarray, effect: MassEffectSpec = EFFECT) -> np.ndarray:
    return distance * (1 - effect.strength * (1 - distance / effect.reach_mm) ** 2)


@pytest.mark.parametrize("center", [MIDDLE, (20.3, 22.0, 22.0)])
@pytest.mark.parametrize("strength", [0.1, 0.35, 0.9])
def test_tissue_comes_from_where_the_formula_says(center: tuple[float, float, float], strength: float) -> None:
    effect = MassEffectSpec(strength=strength, reach_mm=45.0)
    found = warped(ramp(), effect, center)
    line = np.arange(8, 36)
    offset = (line - center[0]) * 3.0
    expected = center[0] + np.sign(offset) * source_mm(np.abs(offset), effect) / 3.0
    moved = found.moved[0, 8:36, 22, 22].numpy()
    assert np.array_equal(moved, np.abs(offset) < 45)
    assert np.abs(found.hu[0, 8:36, 22, 22].numpy() / 16 - expected)[moved].max() < 0.07  # a sixteenth of a voxel


def test_distances_grow_so_nothing_folds() -> None:
    found = warped(ramp(), MassEffectSpec(strength=0.99, reach_mm=45.0))
    along_x = np.where(found.moved[0], found.hu[0], ramp().ct)
    assert np.diff(along_x, axis=0).min() >= 0


def test_a_vessel_voxel_moves_outward() -> None:
    case = block()
    hu = case.ct.copy()
    hu[30, 22, 22] = 1000  # 24 mm from the centre
    bright = dataclasses.replace(case, ct=hu)
    line = warped(bright).hu[0, :, 22, 22].numpy() - 100.0
    outward = np.arange(22, 44) * 1.0
    mass = line[22:44].clip(0)
    found = (mass * outward).sum() / mass.sum()
    fine = np.linspace(0, 45, 4501)
    expected = 22 + fine[np.argmin(np.abs(source_mm(fine) - 24))] / 3
    assert expected > 30.4
    assert found == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("case_of", [tiny, block])
def test_nothing_moves_beyond_the_reach(case_of: object) -> None:
    case: Case = case_of()  # type: ignore[operator]
    found = warped(case)
    assert np.array_equal(found.moved[0].numpy(), distance_mm(case) < EFFECT.reach_mm)


@pytest.mark.parametrize("strength", [1e-9, 1e-4])
def test_without_strength_nothing_changes(strength: float) -> None:
    found = warped(tiny(), MassEffectSpec(strength=strength, reach_mm=45.0))
    moved = found.moved[0].numpy()
    assert moved.sum() > 10_000
    assert np.array_equal(found.hu[0].numpy()[moved], tiny().ct[moved])
    assert np.array_equal(found.organs[0].numpy()[moved], tiny().organs[moved])


def test_organ_labels_move_along() -> None:
    """From a centre inside the liver near its face, the face moves outward by the formula."""
    case = block()  # liver from voxel 4 on
    center = (11.0, 22.0, 22.0)
    found = warped(case, MassEffectSpec(strength=0.4, reach_mm=60.0), center)
    line = found.organs[0, :11, 22, 22].numpy()
    first = int(np.flatnonzero(line == CLASS_IDS["liver"])[0])
    effect = MassEffectSpec(strength=0.4, reach_mm=60.0)
    fine = np.linspace(0, 60, 6001)
    moved_to = 11 - fine[np.argmin(np.abs(source_mm(fine, effect) - 22.5))] / 3  # the face lies at 3.5
    assert first == pytest.approx(np.ceil(moved_to), abs=1)
    assert first < 4
    assert set(np.unique(found.organs[0])) == {0, CLASS_IDS["liver"]}


def test_noise_is_not_smoothed() -> None:
    rng = np.random.default_rng(0)
    noise = np.rint(rng.normal(0, 12, block().ct.shape)).clip(-40, 40).astype(np.int8)
    case = dataclasses.replace(block(), ct=(block().ct + noise).astype(np.int16), noise=noise)
    shell = (distance_mm(case) > 15) & (distance_mm(case) < 40)
    found = warped(case, MassEffectSpec(strength=0.8, reach_mm=45.0)).hu[0].numpy()[shell]
    assert found.std() == pytest.approx(case.ct[shell].std(), rel=0.1)
    assert (found == case.ct[shell]).mean() < 0.6  # it is that of other voxels


@settings(max_examples=20, deadline=None)
@given(
    low=st.tuples(*[st.integers(-4, 20)] * 3),
    size=st.tuples(*[st.integers(1, 16)] * 3),
    center=st.tuples(*[st.floats(4, 30)] * 3),
)
def test_a_voxel_is_the_same_in_all_windows(
    low: tuple[int, int, int], size: tuple[int, int, int], center: tuple[float, float, float]
) -> None:
    effect = MassEffectSpec(strength=0.3, reach_mm=24.0)
    whole = mass_effect([at(center)], [effect], window(tiny(), (-4, -4, -4), (40, 40, 40)))
    part = mass_effect([at(center)], [effect], window(tiny(), low, size))
    inside = (slice(0, 1), *(slice(a + 4, a + 4 + n) for a, n in zip(low, size, strict=True)))
    for all_of, some in zip(whole, part, strict=True):
        moved = part.moved
        assert torch.equal(all_of[inside][moved], some[moved])
    assert torch.equal(whole.moved[inside], part.moved)


def test_slabs_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (tiny(), block(), tiny())
    tumors = [at((30.0, 26.2, 20.0)), at((12.0, 20.0, 30.0)), at((5.5, 5.0, 40.0))]
    effects = [EFFECT, MassEffectSpec(strength=0.2, reach_mm=20.0), MassEffectSpec(strength=0.5, reach_mm=33.0)]
    corners = np.array([(20, 15, 10), (2, 8, 20), (-5, -4, 30)])
    together = mass_effect(tumors, effects, Window(cases, corners, (18, 17, 16), CPU))
    monkeypatch.setattr(warp_module, "_SLAB_VOXELS", 1000)
    for b in range(3):
        own = Window(cases[b : b + 1], corners[b : b + 1], (18, 17, 16), CPU)
        alone = mass_effect(tumors[b : b + 1], effects[b : b + 1], own)
        for of_all, of_one in zip(together, alone, strict=True):
            assert torch.equal(of_all[b][alone.moved[0]], of_one[0][alone.moved[0]])
        assert torch.equal(together.moved[b], alone.moved[0])


def test_air_outside_the_case_is_pulled_in_as_air() -> None:
    found = mass_effect([at((1.0, 22.0, 22.0))], [EFFECT], window(block(), (-8, 18, 18), (8, 8, 8)))
    outside = found.hu[0][found.moved[0]]
    assert set(outside.unique().tolist()) <= set(range(AIR_HU, -89))
    assert float(outside.min()) == AIR_HU
