"""Placing tumors: in their organ and region, at their depth, off vessels, bone and each other."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import edt
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.bank import Bank
from pipeline.case import Case, build_case
from pipeline.config import TumorSettings
from pipeline.grid import index3
from pipeline.organs import organ_id
from pipeline.presets import Exophytic, Place, preset_of
from pipeline.spec import SampleSpec, TumorSpec
from pipeline.spec.direction import direction_of
from pipeline.spec.place import Site, draw_candidates, draw_region, place, region_voxels
from pipeline.spec.tumor import Wanted, draw_tumor
from pipeline.synthesis.engines.wall import WallForm
from pipeline.synthesis.location import GAP_VOXELS, VESSEL_CLEARANCE_MM
from pipeline.synthesis.render import touched_mm
from tests.specs import config, drawn, drawn_tumors, is_share

WIDE = (64, 48, 40)


@pytest.fixture(scope="module")
def case(abdomens: Bank) -> Case:
    return abdomens.load("portal_venous")


def at(tumor: TumorSpec) -> tuple[int, int, int]:
    return index3(np.rint(tumor.center_vox))


def site_of(case: Case, organ: str, low: Any = (0, 0, 0), high: Any = None, region: str | None = None) -> Site:
    return Site(case, organ, preset_of(organ), low, high or index3(case.ct.shape), frozenset(), region)


def along(case: Case, organ: str, tumor: TumorSpec) -> float:
    """Position of the tumor's centre along its organ, 0 to 1."""
    found = np.searchsorted(case.voxels[organ], np.ravel_multi_index(at(tumor), case.ct.shape))
    return float(case.along[organ][found]) / 255


# -- candidates and regions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", [None, "head", "body", "tail"])
def test_candidates_are_of_the_organ_its_region_and_the_box(case: Case, region: str | None) -> None:
    low, high = (20, 30, 10), (80, 60, 50)
    rng = np.random.default_rng(1)
    found = draw_candidates(rng, site_of(case, "pancreas", low, high, region))
    assert (case.organs[tuple(found.T)] == organ_id("pancreas")).all()
    assert ((found >= low) & (found < high)).all()
    if region is not None:
        position = case.along["pancreas"][
            np.searchsorted(case.voxels["pancreas"], np.ravel_multi_index(tuple(found.T), case.ct.shape))
        ]
        ends = preset_of("pancreas").regions[region]
        assert (position >= 255 * ends[0]).all()
        assert (position <= 255 * ends[1]).all()


def test_no_candidates_where_the_organ_is_not(case: Case) -> None:
    assert len(draw_candidates(np.random.default_rng(1), site_of(case, "pancreas", (0, 0, 0), (8, 8, 8)))) == 0
    assert len(draw_candidates(np.random.default_rng(1), site_of(case, "liver", (5, 5, 5), (5, 9, 9)))) == 0


def test_regions_make_up_the_organ(case: Case) -> None:
    whole = region_voxels(site_of(case, "pancreas"))
    parts = [region_voxels(site_of(case, "pancreas", region=r)) for r in preset_of("pancreas").regions]
    assert set(whole) == set(np.concatenate(parts))
    assert all(len(part) < 0.6 * len(whole) for part in parts)


def test_regions_are_drawn_by_weight_and_only_where_they_are_known(case: Case) -> None:
    rng = np.random.default_rng(1)
    pdac, hcc = preset_of("pancreas").kinds["pdac"], preset_of("liver").kinds["hcc"]
    heads = sum(draw_region(rng, case, "pancreas", pdac, frozenset()) == "head" for _ in range(900))
    assert is_share(heads, 900, 0.667)
    assert draw_region(rng, case, "liver", hcc, frozenset()) is None
    assert draw_region(rng, case, "pancreas", pdac, frozenset({"regions"})) is None


def test_two_thirds_of_pancreatic_carcinomas_are_in_the_head(abdomens: Bank) -> None:
    found = drawn_tumors(abdomens, config("pancreas", tumors={"pancreas": {"kinds": {"pdac": 1}}}), 300)
    positions = np.array([along(c, "pancreas", t) for c, t in found])
    assert len(found) > 290
    assert is_share(int((positions <= 0.4).sum()), len(found), 2 / 3)
    assert is_share(int((positions > 0.7).sum()), len(found), 0.133)


def test_a_thin_organ_runs_along_its_longest_direction(case: Case) -> None:
    middle = index3(np.rint(np.array([-28, 19, 0]) / 3 + (np.array(case.ct.shape) - 1) / 2))
    found = direction_of(case, "pancreas", middle)
    assert found is not None
    expected = np.array([-35, -18, 10]) / np.linalg.norm([-35, -18, 10])  # of the phantom's centre line there
    assert abs(np.array(found.frame[0]) @ expected) > 0.9
    assert np.allclose(np.array(found.frame) @ np.array(found.frame).T, np.eye(3))
    assert np.linalg.det(np.array(found.frame)) == pytest.approx(1)
    assert 4 < found.thickness_mm < 11
    assert direction_of(case, "liver", middle) is None
    assert direction_of(case, "pancreas", (2, 2, 2)) is None


# -- where tumors are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organ", ["liver", "pancreas"])
@pytest.mark.parametrize("engine", ["ellipsoid", "growth"])
def test_tumors_lie_in_organ_and_patch(abdomens: Bank, organ: str, engine: str) -> None:
    for case, spec in drawn(abdomens, config(organ, engine=engine), 60):
        for tumor in spec.tumors:
            assert case.organs[at(tumor)] == organ_id(organ)
            assert np.all(np.array(at(tumor)) >= spec.origin_vox)
            assert np.all(np.array(at(tumor)) < np.add(spec.origin_vox, spec.patch_shape))


MANY: dict[str, Any] = {
    "liver": {"count": [4, 6], "diameter_mm": [8, 20]},
    "kidney": {"count": [4, 4], "diameter_mm": [20, 70]},
    "pancreas": {"count": [3, 4], "diameter_mm": [8, 16]},
}


@pytest.mark.parametrize("organ", MANY)
def test_what_one_tumor_touches_no_other_touches(abdomens: Bank, organ: str) -> None:
    settings = config(organ, patch_shape=WIDE, distractor_share=1, tumors={organ: MANY[organ]})
    several = 0
    for case, spec in drawn(abdomens, settings, 300 if organ == "kidney" else 40):
        several += len(spec.tumors) > 1
        for a, b in combinations((*spec.tumors, *spec.distractors), 2):
            apart = math.dist(a.center_vox, b.center_vox) * case.spacing_mm
            assert apart >= touched_mm(a) + touched_mm(b) + GAP_VOXELS * case.spacing_mm
    assert several > 20


def test_solid_tumors_are_not_at_the_surface(abdomens: Bank) -> None:
    for case, tumor in drawn_tumors(abdomens, config(), 60):
        least = min(tumor.diameter_mm / 4, 0.5 * case.stats["liver"].max_depth_mm)
        assert case.surface_distance_mm[at(tumor)] >= least - 1e-3


def clearances(bank: Bank, **changes: Any) -> list[float]:
    """Distance of the centre from vessels over what the kind asks for."""
    small = {"liver": {"count": [1, 1], "diameter_mm": [8, 30], "kinds": {"metastasis": 1}}}
    found = drawn_tumors(bank, config(tumors=small, **changes), 80)
    return [
        float(c.vessel_distance_mm[at(t)]) / min(t.diameter_mm / 2, VESSEL_CLEARANCE_MM) for c, t in found if t.instance
    ]


def test_tumors_keep_off_vessels_where_there_is_room(abdomens: Bank) -> None:
    assert np.mean(np.array(clearances(abdomens)) >= 1 - 1e-3) > 0.95
    assert min(clearances(abdomens, without=["vessels"])) < 0.7


def test_subcapsular_look_alikes_are_at_the_surface(abdomens: Bank) -> None:
    found = [
        (case, d)
        for case, spec in drawn(abdomens, config("kidney", distractor_share=1), 120)
        for d in spec.distractors
        if d.kind == "perfusion_defect"
    ]
    assert len(found) > 10
    for case, distractor in found:
        assert case.surface_distance_mm[at(distractor)] <= max(0.3 * distractor.diameter_mm, 2 * case.spacing_mm) + 1e-3


# -- kidney: partly outside -------------------------------------------------------------------------------------------


def signed_depth(case: Case, organ: str) -> npt.NDArray[np.float32]:
    """Depth below the organ's surface, mm; negative outside."""
    inside = case.organs == organ_id(organ)
    spacing = (case.spacing_mm,) * 3
    found: npt.NDArray[np.float32] = edt.edt(inside, anisotropy=spacing) - edt.edt(~inside, anisotropy=spacing)
    return found


@pytest.mark.parametrize("phase", ["native", "portal_venous"])
def test_depths_of_kidney_tumors_have_the_exophytic_share(abdomens: Bank, phase: str) -> None:
    """Share of the surface outside: of a ball, (1 - depth / radius) / 2. Means, as depths are met within 1.5 voxels."""
    depth = signed_depth(abdomens.load(phase), "kidney")
    settings = config("kidney", patch_shape=WIDE, tumors={"kidney": {"diameter_mm": [24, 34], "count": [1, 1]}})
    found = [t for c, t in drawn_tumors(abdomens, settings, 300) if c.case_id == phase]
    shares = np.array([(1 - depth[at(t)] / (t.diameter_mm / 2)) / 2 for t in found])
    assert len(found) > 60
    exophytic = preset_of("kidney").kinds["clear_cell"].place.exophytic
    assert exophytic is not None
    assert shares.mean() == pytest.approx(exophytic.base, abs=0.07)
    assert shares.std() == pytest.approx(exophytic.sd, abs=0.06)


def test_some_kidney_tumors_have_their_middle_outside(abdomens: Bank) -> None:
    settings = config("kidney", patch_shape=WIDE, tumors={"kidney": {"diameter_mm": [50, 70], "count": [1, 1]}})
    inside = [c.organs[at(t)] == organ_id("kidney") for c, t in drawn_tumors(abdomens, settings, 80)]
    assert 0.2 < np.mean(inside) < 0.9
    free = [c.organs[at(t)] in (0, organ_id("kidney")) for c, t in drawn_tumors(abdomens, settings, 80)]
    assert all(free)


def test_moving_out_of_the_kidney_never_ends_at_another_tumor(case: Case) -> None:
    """The candidates are apart from the other; the way outward from them leads to it."""
    kind = replace(preset_of("kidney").kinds["papillary"], place=Place(exophytic=Exophytic(0.85, 0.0, 0.0, 0.0)))
    want = Wanted(case, "kidney", "papillary", kind, TumorSettings(), (28.0, 32.0), "ellipsoid", frozenset())
    middle = (np.array(case.ct.shape) - 1) / 2
    placed = 0
    for seed in range(60):
        rng = np.random.default_rng(np.random.SeedSequence((seed, 31)))
        x, y, z = (middle + np.array([127, -50, -30]) / 3).tolist()  # beside the right kidney
        other = draw_tumor(rng, replace(want, limits=(8.0, 9.0)), 1).model_copy(update={"center_vox": (x, y, z)})
        site = site_of(case, "kidney", (70, 20, 15), (82, 28, 25))
        found = place(rng, site, draw_tumor(rng, want, 2), kind, [other])
        if found is not None:
            placed += 1
            apart = math.dist(found.center_vox, other.center_vox) * case.spacing_mm
            assert apart >= touched_mm(found) + touched_mm(other) + GAP_VOXELS * case.spacing_mm
    assert placed > 5


def kidney_beside_muscle(of_muscle: str) -> Case:
    """An upright kidney in fat, with muscle up to its surface on one side of x, on both or on none."""
    shape, middle = (60, 44, 52), np.array([30, 22, 26])
    at = (np.moveaxis(np.indices(shape), 0, -1) - middle) * 3.0
    inside = ((at / (26.0, 24.0, 45.0)) ** 2).sum(axis=-1) < 1
    hu = np.full(shape, -95, np.int16)
    for side, wrapped in ((at[..., 0] < 0, of_muscle in ("left", "both")), (at[..., 0] >= 0, of_muscle == "both")):
        hu[side & wrapped] = 55
    hu[inside] = 170
    organs = np.where(inside, organ_id("kidney"), 0).astype(np.uint8)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    return build_case(of_muscle, hu, organs, affine, 3.0)


@pytest.mark.parametrize(("of_muscle", "left", "right"), [("none", 10, 10), ("left", 0, 10), ("both", 0, 0)])
def test_exophytic_tumors_grow_where_there_is_fat(of_muscle: str, left: int, right: int) -> None:
    """Muscle would cut them: on its side no tumor is that grows far out of the kidney."""
    case = kidney_beside_muscle(of_muscle)
    kind = replace(preset_of("kidney").kinds["papillary"], place=Place(exophytic=Exophytic(0.6, 0.0, 0.0, 0.0)))
    want = Wanted(case, "kidney", "papillary", kind, TumorSettings(), (26.0, 30.0), "ellipsoid", frozenset())
    muscle = np.argwhere(case.ct == 55)
    sides = []
    for seed in range(40):
        rng = np.random.default_rng(np.random.SeedSequence((seed, 37)))
        found = place(rng, site_of(case, "kidney"), draw_tumor(rng, want, 1), kind, [])
        if found is not None:
            sides.append(found.center_vox[0] - 30)
            apart = np.linalg.norm((muscle - found.center_vox) * 3.0, axis=1)
            cut_mm3 = np.count_nonzero(apart <= found.diameter_mm / 2) * 27
            assert cut_mm3 <= 0.15 * math.pi / 6 * found.diameter_mm**3
    on_left, on_right = sum(x < -4 for x in sides), sum(x > 4 for x in sides)
    assert (on_left >= left) if left else not on_left
    assert (on_right >= right) if right else not on_right


# -- colon ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colon(abdomens: Bank) -> list[tuple[Case, SampleSpec]]:
    return list(drawn(abdomens, config("colon", distractor_share=1, patch_shape=WIDE), 24))


def test_colon_tumors_grow_along_the_wall(colon: list[tuple[Case, SampleSpec]]) -> None:
    forms = [(t.kind, t.form) for _, spec in colon for t in spec.tumors]
    assert len(forms) > 15
    for kind, form in forms:
        assert isinstance(form, WallForm)
        assert form.around == 1 or kind != "annular"


def test_stool_lies_in_the_lumen(colon: list[tuple[Case, SampleSpec]]) -> None:
    found = [(case, d) for case, spec in colon for d in spec.distractors]
    assert found
    for case, distractor in found:
        assert distractor.kind == "stool"
        assert case.organs[at(distractor)] == organ_id("colon")
        hu = int(case.ct[at(distractor)]) - int(case.noise[at(distractor)])
        assert not -10 <= hu <= 150


# -- bone -------------------------------------------------------------------------------------------------------------


def test_mass_effect_ends_before_bone(abdomens: Bank) -> None:
    big = {"kidney": {"diameter_mm": [25, 60], "count": [1, 1]}}
    found = drawn_tumors(abdomens, config("kidney", patch_shape=WIDE, tumors=big), 150)
    near = with_effect = 0
    for case, tumor in found:
        bone = np.argwhere((case.organs == organ_id("bone")) | ((case.organs == 0) & (case.ct > 250)))
        nearest = float(np.linalg.norm((bone - tumor.center_vox) * case.spacing_mm, axis=1).min())
        near += nearest < 1.8 * tumor.diameter_mm / 2
        if tumor.mass_effect:
            with_effect += 1
            assert tumor.mass_effect.reach_mm < nearest
            assert tumor.mass_effect.reach_mm >= 1.25 * tumor.diameter_mm / 2 - 1e-9
    assert near > 10
    assert with_effect > 10


# -- switches ---------------------------------------------------------------------------------------------------------


def test_without_depth_tumors_are_anywhere_in_the_organ(abdomens: Bank) -> None:
    settings: dict[str, Any] = {"patch_shape": WIDE, "tumors": {"kidney": {"diameter_mm": [20, 60], "count": [1, 1]}}}
    free = drawn_tumors(abdomens, config("kidney", without=["depth"], **settings), 80)
    assert len(free) == 80
    assert all(c.organs[at(t)] == organ_id("kidney") for c, t in free)
    liver = {"tumors": {"liver": {"diameter_mm": [20, 40], "count": [1, 1]}}}
    depths = [c.surface_distance_mm[at(t)] for c, t in drawn_tumors(abdomens, config(without=["depth"], **liver), 80)]
    assert min(depths) < 5


def test_without_regions_tumors_are_all_along_the_organ(abdomens: Bank) -> None:
    kinds = {"pancreas": {"kinds": {"pdac": 1}}}
    found = drawn_tumors(abdomens, config("pancreas", without=["regions"], tumors=kinds), 200)
    head = np.mean([along(c, "pancreas", t) <= 0.4 for c, t in found])
    assert head < 0.55


def test_without_deformation_walls_are_even(abdomens: Bank) -> None:
    found = drawn_tumors(abdomens, config("colon", without=["deformation"], tumors={"colon": {"count": [1, 1]}}), 4)
    roughness = {t.form.roughness for _, t in found if isinstance(t.form, WallForm)}
    assert roughness == {0.0}
