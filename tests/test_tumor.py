"""Drawing one tumor: every number follows the preset of kind, phase and organ; switches leave the rest alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.bank import Bank
from pipeline.case import Case
from pipeline.config import TumorSettings
from pipeline.organs import TUMOR_ORGANS
from pipeline.presets import (
    Absolute,
    BySize,
    Ellipsoidal,
    LogUniform,
    Relative,
    TumorKind,
    Uniform,
    WallGrowth,
    preset_of,
)
from pipeline.spec import TumorSpec
from pipeline.spec.tumor import Wanted, draw_diameter, draw_tumor, level_in, share_at
from pipeline.steps import STEPS
from pipeline.synthesis.engines.ellipsoid import EllipsoidForm
from pipeline.synthesis.engines.growth import GrowthForm
from tests.specs import PHASES, follows, is_share

LIMITS = (7.5, 60.0)
# Limits of tumors beyond which a kind's own ends matter, in that order.
KINDS = [(o, k) for o in TUMOR_ORGANS for k in preset_of(o).kinds]
DISTRACTORS = [(o, k) for o in TUMOR_ORGANS for k in preset_of(o).distractors]
BOTH = [pytest.param(o, k, id=f"{o}/{k}") for o, k in KINDS] + [
    pytest.param(o, k, id=f"{o}/{k} (distractor)") for o, k in DISTRACTORS
]
SEED_PAPER = list(preset_of("liver", "seed-paper").kinds)
DRAWS = 350
each_kind = pytest.mark.parametrize(("organ", "name"), BOTH[: len(KINDS)])


def wanted(case: Case, organ: str, kind: TumorKind, name: str = "kind", **changes: Any) -> Wanted:
    want = Wanted(case, organ, name, kind, TumorSettings(), LIMITS, "ellipsoid", frozenset())
    return replace(want, **changes)


def tumors(want: Wanted, count: int = DRAWS, seed: int = 0) -> list[TumorSpec]:
    rng = np.random.default_rng(np.random.SeedSequence((seed, 23)))
    return [draw_tumor(rng, want, k + 1) for k in range(count)]


@pytest.fixture(scope="module")
def case(abdomens: Bank) -> Case:
    return abdomens.load("portal_venous")


# -- size -------------------------------------------------------------------------------------------------------------


@each_kind
def test_diameters_follow_the_kind_cut_to_what_fits(case: Case, organ: str, name: str) -> None:
    kind = preset_of(organ).kinds[name]
    rng = np.random.default_rng(np.random.SeedSequence((3, 23)))
    values = [draw_diameter(rng, wanted(case, organ, kind)) for _ in range(1000)]
    assert LIMITS[0] <= min(values) <= max(values) <= LIMITS[1]
    assert follows(values, kind.diameter_mm, *LIMITS)


@pytest.mark.parametrize("name", SEED_PAPER)
def test_classes_of_the_seed_paper_have_their_radii(case: Case, name: str) -> None:
    radius = {"tiny": 4, "small": 8, "medium": 16, "large": 32}[name]
    kind = preset_of("liver", "seed-paper").kinds[name]
    values = [t.diameter_mm for t in tumors(wanted(case, "liver", kind, limits=(0.1, 500.0)))]
    assert follows(values, kind.diameter_mm)
    assert np.median(values) == pytest.approx(2 * radius, rel=0.03)
    assert all(1.5 * radius <= value <= 2.5 * radius for value in values)


@pytest.mark.parametrize(("given", "ends"), [((8, 30), (8, 30)), ((2, 12), (7.5, 12)), ((40, 90), (40, 60))])
def test_a_wanted_diameter_is_log_uniform_within_what_fits(
    case: Case, given: tuple[float, float], ends: tuple[float, float]
) -> None:
    want = wanted(case, "liver", preset_of("liver").kinds["hcc"], settings=TumorSettings(diameter_mm=given))
    assert follows([t.diameter_mm for t in tumors(want)], LogUniform(*ends))


# -- level ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("organ", "name"), BOTH)
def test_the_level_is_that_of_the_phase(abdomens: Bank, organ: str, name: str, phase: str) -> None:
    case, preset = abdomens.load(phase), preset_of(organ)
    kind = preset.kinds.get(name) or preset.distractors[name]
    parenchyma = case.stats[organ].mean_hu
    found = tumors(wanted(case, organ, kind))
    level = level_in(kind.level, phase)
    if isinstance(level, Absolute):
        assert follows([t.contrast_hu + parenchyma for t in found], level.hu)
        assert {t.base for t in found} == {"mean" if kind.base == "parenchyma" else kind.base}
        return
    assert {t.base for t in found} == {kind.base}
    contrasts = np.array([t.contrast_hu for t in found])
    assert (contrasts + parenchyma >= kind.lowest_hu - 1e-6).all()
    if isinstance(level.hu, Uniform) and level.hu.low == level.hu.high:
        assert set(contrasts) == {level.hu.low}
    elif kind.lowest_hu - parenchyma < _lowest(level):  # nothing had to be made brighter
        assert follows(contrasts, level.hu)


def _lowest(level: Relative) -> float:
    hu: Any = level.hu
    return float(min(part.low for _, part in hu.parts) if hasattr(hu, "parts") else hu.low)


def test_most_levels_need_no_correction(abdomens: Bank) -> None:
    """Else the test above would say little."""
    free = [
        kind.lowest_hu - abdomens.load(phase).stats[organ].mean_hu < _lowest(level)
        for organ, name in KINDS
        for phase in PHASES
        for kind in [preset_of(organ).kinds[name]]
        for level in [level_in(kind.level, phase)]
        if isinstance(level, Relative)
    ]
    assert np.mean(free) > 0.6


def test_phases_differ(abdomens: Bank) -> None:
    kind = preset_of("liver").kinds["hcc"]
    mean = {p: np.mean([t.contrast_hu for t in tumors(wanted(abdomens.load(p), "liver", kind))]) for p in PHASES}
    assert mean["arterial"] > 0 > mean["native"] > mean["portal_venous"]


@pytest.mark.parametrize(("phase", "as_in"), [("unknown", "portal_venous"), ("arterial", "arterial")])
def test_an_unknown_phase_is_taken_as_portal_venous(phase: str, as_in: str) -> None:
    levels = preset_of("liver").kinds["hcc"].level
    assert level_in(levels, phase) is level_in(levels, as_in)
    one = Relative(Uniform(-20, -10))
    assert level_in(one, phase) is one


def test_in_a_fatty_liver_solid_tumors_are_the_brighter_ones(case: Case) -> None:
    fatty = replace(case, stats={**case.stats, "liver": replace(case.stats["liver"], mean_hu=5.0)})
    kind = preset_of("liver").kinds["metastasis"]
    found = [t.contrast_hu for t in tumors(wanted(fatty, "liver", kind))]
    assert min(found) + 5.0 >= kind.lowest_hu
    assert min(found) >= 8


def test_in_dark_parenchyma_contrasts_spread_over_the_room_there_is(case: Case) -> None:
    dark = replace(case, stats={**case.stats, "liver": replace(case.stats["liver"], mean_hu=45.0)})
    kind = preset_of("liver").kinds["metastasis"]  # 42 below, where 30 are left
    found = np.array([t.contrast_hu for t in tumors(wanted(dark, "liver", kind))])
    assert found.min() >= -30
    assert found.std() > 3
    assert (found < -8).all()


def test_a_wanted_contrast_is_uniform(abdomens: Bank) -> None:
    for phase in PHASES:
        settings = TumorSettings(contrast_hu=(-60, -50))
        kind = preset_of("liver").kinds["hcc"]
        found = tumors(wanted(abdomens.load(phase), "liver", kind, settings=settings))
        assert follows([t.contrast_hu for t in found], Uniform(-60, -50))


# -- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("organ", "name"), BOTH)
def test_parts_are_there_in_their_share_and_follow_their_ranges(case: Case, organ: str, name: str) -> None:
    preset = preset_of(organ)
    kind = preset.kinds.get(name) or preset.distractors[name]
    found = tumors(wanted(case, organ, kind))
    for part in ("rim", "core", "septa", "calcification", "mass_effect"):
        preset_part, drawn = getattr(kind, part), [getattr(t, part) for t in found]
        there = [record for record in drawn if record is not None]
        if preset_part is None:
            assert not there
            continue
        share = preset_part.share
        if isinstance(share, BySize):
            share = float(np.mean([share_at(share, t.diameter_mm) for t in found]))
        assert is_share(len(there), DRAWS, share), (part, len(there), share)
        if part == "mass_effect":
            assert follows([record.strength for record in there], preset_part.strength)
        else:
            assert len(there) < 30 or follows([record.hu for record in there], preset_part.hu)
    assert follows([t.texture_grain_mm for t in found], kind.texture_grain_mm)
    if kind.doubling_days is None:
        assert {t.doubling_days for t in found} == {None}
    else:
        assert follows([t.doubling_days for t in found if t.doubling_days], kind.doubling_days)


@pytest.mark.parametrize(("diameter", "share"), [(0.0, 0.009), (60.0, 0.25), (1000.0, 0.5)])
def test_large_tumors_have_a_core_more_often(diameter: float, share: float) -> None:
    assert share_at(BySize(60.0, 15.0, 0.5), diameter) == pytest.approx(share, abs=1e-3)
    assert share_at(0.3, diameter) == 0.3


def test_necrosis_comes_with_size(case: Case) -> None:
    kind = preset_of("kidney").kinds["clear_cell"]

    def share(limits: tuple[float, float]) -> float:
        return float(np.mean([t.core is not None for t in tumors(wanted(case, "kidney", kind, limits=limits))]))

    assert share((8, 20)) < 0.06
    assert share((60, 80)) > 0.3


@pytest.mark.parametrize("part", ["rim", "septa"])
def test_without_contrast_agent_parts_differ_less(abdomens: Bank, part: str) -> None:
    kind = replace(preset_of("liver").kinds["hcc"], level=Relative(Uniform(-5, -5)))
    native, enhanced = (tumors(wanted(abdomens.load(p), "liver", kind)) for p in ("native", "portal_venous"))
    pairs = [(getattr(a, part), getattr(b, part)) for a, b in zip(native, enhanced, strict=True)]
    assert any(a for a, _ in pairs)
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            assert a.hu == pytest.approx(kind.native_parts * b.hu)


@pytest.mark.parametrize(("late", "share"), [(True, 0.25), (False, 1.0)])
def test_a_rim_that_enhances_late_is_faint_in_the_arterial_phase(abdomens: Bank, late: bool, share: float) -> None:
    hcc = preset_of("liver").kinds["hcc"]
    assert hcc.rim is not None
    assert hcc.rim.late  # its capsule
    kind = replace(hcc, level=Relative(Uniform(-5, -5)), rim=replace(hcc.rim, late=late), native_parts=0.25)
    arterial, venous = (tumors(wanted(abdomens.load(p), "liver", kind)) for p in ("arterial", "portal_venous"))
    rims = [(a.rim, b.rim) for a, b in zip(arterial, venous, strict=True) if a.rim and b.rim]
    assert len(rims) > 40
    assert sum(t.rim is not None for t in arterial) == sum(t.rim is not None for t in venous) == len(rims)
    for a, b in rims:
        assert a.hu == pytest.approx(share * b.hu)
        assert hcc.rim.hu.low <= b.hu <= hcc.rim.hu.high  # type: ignore[union-attr]
        assert a.mm == b.mm
    # only the rim is late
    assert [t.septa for t in arterial] == [t.septa for t in venous]
    assert [t.core for t in arterial] == [t.core for t in venous]


@pytest.mark.parametrize(
    ("diameter", "share"), [(5.0, 0.4), (8.0, 0.4), (12.0, 0.6), (16.0, 0.8), (20.0, 1.0), (60.0, 1.0)]
)
def test_small_tumors_are_less_mixed(case: Case, diameter: float, share: float) -> None:
    kind = replace(preset_of("liver").kinds["hcc"], texture_sd_hu=Uniform(20, 20))
    found = tumors(wanted(case, "liver", kind, limits=(diameter, diameter)), 5)
    assert [t.texture_sd_hu for t in found] == pytest.approx([20 * share] * 5)


def test_parts_fit_into_small_tumors(case: Case) -> None:
    for organ, name in KINDS:
        for tumor in tumors(wanted(case, organ, preset_of(organ).kinds[name], limits=(2.5, 8.0)), 60):
            radius = tumor.diameter_mm / 2
            assert 0 < tumor.edge_mm <= max(0.8 * radius, 1.1 * case.spacing_mm)  # about a voxel of blur at least
            assert tumor.rim is None or tumor.rim.mm <= 0.6 * radius
            assert tumor.core is None or tumor.core.depth_mm < radius
            assert tumor.calcification is None or tumor.calcification.grain_mm <= tumor.diameter_mm / 4


def test_the_room_follows_from_the_place(case: Case) -> None:
    def room(organ: str, kind: TumorKind) -> str:
        return tumors(wanted(case, organ, kind), 1)[0].room

    assert {room("kidney", k) for k in preset_of("kidney").kinds.values()} == {"outside"}
    assert {room("colon", k) for k in preset_of("colon").kinds.values()} == {"outside"}
    assert {room("liver", k) for k in preset_of("liver").kinds.values()} == {"organ"}
    assert {room("pancreas", k) for k in preset_of("pancreas").kinds.values()} == {"organ"}
    assert room("colon", preset_of("colon").distractors["stool"]) == "lumen"


# -- form -------------------------------------------------------------------------------------------------------------


@each_kind
def test_forms_have_the_volume_of_the_asked_ball(case: Case, organ: str, name: str) -> None:
    kind = preset_of(organ).kinds[name]
    for tumor in tumors(wanted(case, organ, kind), 30):
        assert isinstance(tumor.form, EllipsoidForm)
        ball = math.prod(tumor.form.half_axes_mm) / (tumor.diameter_mm / 2) ** 3
        assert ball <= 1 + 1e-5  # lobes add volume; half axes are in whole nanometres
        assert ball == pytest.approx(1, abs=1e-5 if not tumor.form.lobes else 0.25)
        rotation = np.array(tumor.form.rotation)
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        if isinstance(kind.form, WallGrowth):  # until it is placed on the wall
            assert tumor.form.half_axes_mm == pytest.approx((tumor.diameter_mm / 2,) * 3)


def test_engine_growth_is_for_solid_kinds(case: Case) -> None:
    for organ, name in KINDS:
        kind = preset_of(organ).kinds[name]
        tumor = tumors(wanted(case, organ, kind, engine="growth"), 1)[0]
        assert isinstance(tumor.form, GrowthForm) == isinstance(kind.form, Ellipsoidal)
        if isinstance(tumor.form, GrowthForm):
            assert tumor.form.full_diameter_mm == tumor.diameter_mm


# -- switches ---------------------------------------------------------------------------------------------------------

GONE: dict[str, Any] = {
    "axis_ratio": lambda t: t.form.engine != "ellipsoid" or np.ptp(t.form.half_axes_mm) < 1e-9,
    "lobulation": lambda t: t.form.engine != "ellipsoid" or not t.form.lobes,
    "deformation": lambda t: t.form.engine != "ellipsoid" or t.form.deformation_mm == 0,
    "soft_edge": lambda t: t.edge_mm == 0,
    "structure": lambda t: t.texture_sd_hu == 0,
    "noise": lambda t: t.noise == 0,
    "mass_effect": lambda t: t.mass_effect is None,
    "rim": lambda t: t.rim is None,
    "core": lambda t: t.core is None,
    "septa": lambda t: t.septa is None,
    "calcification": lambda t: t.calcification is None,
}
# The fields that a part may change; all others stay as they are drawn.
FIELDS = {"axis_ratio": "form", "lobulation": "form", "deformation": "form", "soft_edge": "edge_mm"} | {
    "structure": "texture_sd_hu"
}
ALL_PARTS = replace(
    preset_of("liver").kinds["hcc"],
    calcification=preset_of("liver").kinds["metastasis"].calcification,
    diameter_mm=Uniform(30, 60),
)


def without(tumor: TumorSpec, *fields: str) -> dict[str, Any]:
    return {name: value for name, value in tumor.model_dump().items() if name not in fields}


@pytest.mark.parametrize("engine", ["ellipsoid", "growth"])
@pytest.mark.parametrize("part", GONE)
def test_a_part_that_is_left_out_is_gone_and_the_rest_stays(case: Case, part: str, engine: str) -> None:
    whole = tumors(wanted(case, "liver", ALL_PARTS, engine=engine), 60)
    changed = tumors(wanted(case, "liver", ALL_PARTS, engine=engine, off=frozenset({part})), 60)
    field = FIELDS.get(part, part)
    assert all(GONE[part](tumor) for tumor in changed)
    assert [without(t, field) for t in whole] == [without(t, field) for t in changed]
    if engine == "ellipsoid":
        assert not all(GONE[part](tumor) for tumor in whole)


def test_growth_without_irregularity_is_even(case: Case) -> None:
    def roughness(*off: str) -> list[float]:
        found = tumors(wanted(case, "liver", ALL_PARTS, engine="growth", off=frozenset(off)), 40)
        return [t.form.roughness for t in found if isinstance(t.form, GrowthForm)]

    whole, smooth, stiff = roughness(), roughness("lobulation"), roughness("deformation")
    assert all(a >= b > 0 for a, b in zip(whole, smooth, strict=True))
    assert all(a >= b for a, b in zip(whole, stiff, strict=True))
    assert sum(whole) > max(sum(smooth), sum(stiff))
    assert set(roughness("lobulation", "deformation")) == {0.0}


def test_every_part_of_these_steps_is_tested() -> None:
    assert {*STEPS["shape"], *STEPS["texture"], *STEPS["effects"]} == {*GONE, "upstream"}


def test_everything_left_out_is_a_plain_ball(case: Case) -> None:
    off = frozenset(part for step in ("shape", "texture", "effects") for part in STEPS[step])
    for tumor in tumors(wanted(case, "liver", ALL_PARTS, off=off), 20):
        assert all(gone(tumor) for gone in GONE.values())
        assert isinstance(tumor.form, EllipsoidForm)
        assert tumor.form.half_axes_mm == pytest.approx((tumor.diameter_mm / 2,) * 3)
