"""Engine `growth`: volumes, nested times, any window, vessels, borders, extent, growth law, draws."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.case import Case
from pipeline.organs import organ_id
from pipeline.presets.kinds import Ellipsoidal, Uniform
from pipeline.spec.records import TumorSpec
from pipeline.synthesis.engines.growth import GrowthForm, depth_mm, diameters_mm, draw_form, extent_mm
from pipeline.synthesis.window import Window
from tests.cases import SPACING_MM, make_case

CENTER = (29.6, 26.0, 22.3)


@pytest.fixture(scope="module")
def tiny() -> Case:
    return make_case()


@pytest.fixture(scope="module")
def free(tiny: Case) -> Case:
    """Liver everywhere, without vessels or borders."""
    far = np.full(tiny.ct.shape, 200, np.float16)
    organs = np.full_like(tiny.organs, organ_id("liver"))
    return replace(tiny, organs=organs, surface_distance_mm=far, vessel_distance_mm=far)


def _tumor(diameter_mm: float, full_diameter_mm: float = 60.0, roughness: float = 0.6, **fields: object) -> TumorSpec:
    form = GrowthForm(
        full_diameter_mm=full_diameter_mm,
        roughness=roughness,
        roughness_grain_mm=0.2 * full_diameter_mm,
        vessel_speed=0.1,
        border_mm=6.0,
    )
    given = {"center_vox": CENTER, "edge_mm": 3.0, "key": 11, "form": form} | fields
    return TumorSpec.model_validate(
        {"instance": 1, "organ": "liver", "kind": "any", "diameter_mm": diameter_mm, "contrast_hu": -40.0} | given
    )


def _depth(case: Case, tumor: TumorSpec, low: tuple[int, int, int] = (0, 0, 0), size: object = None) -> np.ndarray:
    """In a box of the case; of all of it by default."""
    window = Window((case,), np.array([low]), size or case.ct.shape, torch.device("cpu"))  # type: ignore[arg-type]
    return depth_mm([tumor], window)[0].numpy()


def _distance_mm(case: Case) -> np.ndarray:
    """Of each voxel to CENTER."""
    x, y, z = np.ogrid[tuple(slice(n) for n in case.ct.shape)]
    return np.sqrt((x - CENTER[0]) ** 2 + (y - CENTER[1]) ** 2 + (z - CENTER[2]) ** 2) * case.spacing_mm


# ---- form ----


@pytest.mark.parametrize(("diameter", "full"), [(30, 60), (45, 60), (60, 60), (75, 90)])
@pytest.mark.parametrize("roughness", [0.0, 0.5, 1.0])
def test_the_volume_in_free_tissue_is_the_requested_one(
    free: Case, diameter: float, full: float, roughness: float
) -> None:
    voxels = np.count_nonzero(_depth(free, _tumor(diameter, full, roughness)) > 0)
    assert voxels * SPACING_MM**3 == pytest.approx(math.pi / 6 * diameter**3, rel=0.03)


@pytest.mark.parametrize(("diameter", "full"), [(30, 60), (60, 60), (75, 90)])
def test_without_roughness_it_is_a_ball(free: Case, diameter: float, full: float) -> None:
    exact = diameter / 2 - _distance_mm(free)
    near = np.abs(exact) < 2
    assert np.abs(_depth(free, _tumor(diameter, full, 0.0)) - exact)[near].max() < 0.3 * SPACING_MM


def test_roughness_makes_it_irregular(free: Case) -> None:
    spread = []
    for roughness in (0.0, 0.3, 1.0):
        depth = _depth(free, _tumor(45.0, roughness=roughness))
        spread.append(float(_distance_mm(free)[np.abs(depth) < 1.5].std()))
    assert spread[0] < 1.0 < spread[1] < spread[2]


def test_keys_make_different_forms(free: Case) -> None:
    assert not np.array_equal(_depth(free, _tumor(45.0)), _depth(free, _tumor(45.0, key=12)))


@pytest.mark.parametrize("key", range(4))
def test_earlier_lesions_lie_inside_later_ones(tiny: Case, key: int) -> None:
    diameters = (12.0, 18.0, 19.0, 27.0, 40.0, 41.0, 60.0)
    lesions = [_depth(tiny, _tumor(d, roughness=0.8, key=key)) > 0 for d in diameters]
    for earlier, later in pairwise(lesions):
        assert not np.any(earlier & ~later)
        assert np.count_nonzero(later) > np.count_nonzero(earlier)


# ---- windows ----


@pytest.mark.parametrize(
    ("low", "size"), [((0, 0, 0), (60, 52, 44)), ((20, 11, 9), (13, 22, 7)), ((-9, 30, 30), (80, 31, 40))]
)
@pytest.mark.parametrize("full", [30.0, 60.0, 90.0])
def test_a_voxel_has_the_same_depth_in_any_window(
    tiny: Case, low: tuple[int, int, int], size: tuple[int, int, int], full: float
) -> None:
    tumor = _tumor(25.0, full)
    shift = 10
    whole = _depth(tiny, tumor, (-shift,) * 3, tuple(n + 4 * shift for n in tiny.ct.shape))  # type: ignore[arg-type]
    part = tuple(slice(c + shift, c + shift + n) for c, n in zip(low, size, strict=True))
    assert np.array_equal(_depth(tiny, tumor, low, size), whole[part])


def test_tumors_in_one_call_are_as_alone(tiny: Case, free: Case) -> None:
    tumors = [_tumor(30.0), _tumor(50.0, 90.0, center_vox=(25.0, 24.0, 20.5), edge_mm=1.0), _tumor(9.0, 15.0)]
    cases, corners = (tiny, free, tiny), np.array([[10, 6, 2], [4, 4, 4], [12, 10, 6]])
    together = depth_mm(tumors, Window(cases, corners, (36, 36, 36), torch.device("cpu")))
    for tumor, case, corner, depth in zip(tumors, cases, corners, together, strict=True):
        alone = depth_mm([tumor], Window((case,), corner[None], (36, 36, 36), torch.device("cpu")))[0]
        assert torch.equal(depth, alone)


@pytest.mark.parametrize("center", [CENTER, (12.0, 26.0, 22.0)])
@pytest.mark.parametrize(("diameter", "full", "edge"), [(60, 60, 9.0), (20, 60, 0.0), (6, 6, 4.0)])
def test_nothing_is_touched_outside_the_extent(
    tiny: Case, center: tuple[float, float, float], diameter: float, full: float, edge: float
) -> None:
    tumor = _tumor(diameter, full, 1.0, center_vox=center, edge_mm=edge, room="outside")
    touched = np.argwhere(_depth(tiny, tumor) > -edge / 2)
    assert np.all(np.abs(touched - center) * SPACING_MM <= np.array(extent_mm(tumor)) + 1e-6)


# ---- what slows it down ----


def test_vessels_hold_it_back(free: Case) -> None:
    """A wall of vessel beside the seed."""
    x = np.arange(free.ct.shape[0])[:, None, None]
    wall = np.broadcast_to(np.abs(x - 35) * SPACING_MM, free.ct.shape).astype(np.float16)
    open_, walled = (_depth(c, _tumor(50.0, roughness=0.0)) > 0 for c in (free, replace(free, vessel_distance_mm=wall)))
    assert np.count_nonzero(walled[36:]) < 0.5 * np.count_nonzero(open_[36:])
    assert np.count_nonzero(walled) == pytest.approx(np.count_nonzero(open_), rel=0.05)


@pytest.mark.parametrize("center", [(10.0, 26.0, 22.0), (30.0, 26.0, 8.0)])
def test_it_stays_in_its_organ(tiny: Case, center: tuple[float, float, float]) -> None:
    tumor = _tumor(50.0, center_vox=center)
    lesion = _depth(tiny, tumor) > 0
    assert np.all(tiny.organs[lesion] == organ_id("liver"))
    assert np.count_nonzero(lesion) * SPACING_MM**3 == pytest.approx(math.pi / 6 * 50**3, rel=0.1)


def test_fat_around_the_organ_is_entered_slowly(tiny: Case) -> None:
    center = (9.0, 26.0, 22.0)
    assert tiny.organs[9, 26, 22]
    assert not tiny.organs[6, 26, 22]
    lesion = _depth(tiny, _tumor(30.0, center_vox=center, room="outside", roughness=0.0)) > 0
    outside = np.count_nonzero(lesion & (tiny.organs == 0)) / np.count_nonzero(lesion)
    assert 0.02 < outside < 0.4


def test_no_other_organ_is_entered(tiny: Case) -> None:
    """The liver's right half is made kidney."""
    organs = tiny.organs.copy()
    organs[:28][organs[:28] > 0] = organ_id("kidney")
    lesion = _depth(replace(tiny, organs=organs), _tumor(50.0, room="outside")) > 0
    assert np.count_nonzero(lesion) > 100
    assert not np.any(organs[lesion] == organ_id("kidney"))


def test_it_fills_what_it_can_reach_where_there_is_too_little(free: Case) -> None:
    organs = np.zeros_like(free.organs)
    organs[25:35, 22:30, 18:26] = organ_id("liver")
    lesion = _depth(replace(free, organs=organs), _tumor(60.0)) > 0
    assert np.array_equal(lesion, organs > 0)


def test_without_any_room_there_is_no_lesion(free: Case) -> None:
    nothing = replace(free, organs=np.zeros_like(free.organs))
    assert np.all(_depth(nothing, _tumor(40.0)) < -1.5)


def test_a_lesion_larger_than_its_full_size_is_refused(free: Case) -> None:
    with pytest.raises(ValueError, match=r"61.* more than 60"):
        _depth(free, _tumor(61.0))


# ---- growth law and draws ----


@pytest.mark.parametrize(
    ("days", "expected"),
    [((0.0,), (40.0,)), ((0.0, 300.0), (20.0, 40.0)), ((100.0, 0.0, 50.0), (40.0, 31.748, 35.636))],
)
def test_the_volume_doubles_in_the_doubling_time(days: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert diameters_mm(40.0, 100.0, days) == pytest.approx(expected, abs=1e-3)


def _kind_form(irregular: float) -> Ellipsoidal:
    return Ellipsoidal(Uniform(0.8, 1.2), Uniform(irregular, irregular), Uniform(irregular / 2, irregular / 2))


def test_drawn_forms_follow_the_kind_and_the_generator() -> None:
    forms = [draw_form(np.random.default_rng(5), _kind_form(x), 40.0, frozenset()) for x in (0.02, 0.02, 0.1, 0.9)]
    assert forms[0] == forms[1]
    assert forms[1].roughness < forms[2].roughness < forms[3].roughness == 1
    assert {f.full_diameter_mm for f in forms} == {40.0}
    assert forms[0] != draw_form(np.random.default_rng(6), _kind_form(0.02), 40.0, frozenset())


def test_the_record_survives_json() -> None:
    tumor = _tumor(30.0)
    assert TumorSpec.model_validate_json(tumor.model_dump_json()) == tumor
