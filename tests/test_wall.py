"""Engine `wall` on made-up colons: tubes with a soft wall and gas in them, 1 mm."""

from __future__ import annotations

from functools import cache

import cc3d
import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.case import Case, build_case
from pipeline.grid import Index3, index3
from pipeline.organs import CLASS_IDS
from pipeline.presets.kinds import Uniform, WallGrowth
from pipeline.spec.records import TumorSpec
from pipeline.synthesis.engines import wall
from pipeline.synthesis.window import Window

SHAPE = (76, 84, 88)
RADIUS_MM = 14.0
LEAN = np.array([0.25, 0.15, 1.0]) / np.linalg.norm([0.25, 0.15, 1.0])
NOWHERE = -100.0


def growth(around: float, slimness: float, inward: float, roughness: float = 0.1) -> WallGrowth:
    return WallGrowth(*(Uniform(v, v) for v in (around, slimness, inward, roughness)))


KINDS = {
    "annular": (growth(1.0, 2.5, 0.7), 32.0),
    "asymmetric": (growth(0.55, 2.0, 0.6), 28.0),
    "polypoid": (growth(0.25, 1.2, 0.95), 18.0),
    "small": (growth(0.15, 1.2, 0.9), 9.0),
}
# What the tubes are: distance from the middle line at points (X, Y, Z, 3) in mm from the centre of the case.
MIDDLES = {
    "straight": lambda p: np.linalg.norm(p - (p @ LEAN)[..., None] * LEAN, axis=-1),
    "bent": lambda p: np.hypot(np.hypot(p[..., 0] + 60, p[..., 2]) - 60, p[..., 1]),
}
AXES = {"straight": LEAN, "bent": np.array([0.0, 0.0, 1.0])}


def points() -> npt.NDArray[np.float64]:
    return np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij"), axis=-1)


def case_of(colon: npt.NDArray[np.bool_], gas: npt.NDArray[np.bool_]) -> Case:
    hu = np.where(gas, -900, np.where(colon, 45, -90)).astype(np.int16)
    organs = np.where(colon, CLASS_IDS["colon"], 0).astype(np.uint8)
    return build_case("tube", hu, organs, np.eye(4), 1.0)


@cache
def tube(name: str) -> Case:
    away = MIDDLES[name](points())
    return case_of(away < RADIUS_MM, away < RADIUS_MM - 3)


@cache
def two_tubes() -> Case:
    """Beside the first, along y, a second one that touches it over a broad line."""
    p = points()
    away = np.minimum(np.hypot(p[..., 0], p[..., 1] + 12), np.hypot(p[..., 0], p[..., 1] - 14))
    return case_of(away < RADIUS_MM, away < RADIUS_MM - 3)


def wall_voxel(case: Case, near: tuple[float, float, float]) -> Index3:
    """The wall voxel nearest to a point in mm from the centre of the case."""
    shell = np.argwhere((case.surface_distance_mm > 0) & (case.surface_distance_mm < 2))
    return index3(shell[np.argmin(((shell - (np.array(SHAPE) - 1) / 2 - near) ** 2).sum(axis=1))])


def drawn(case: Case, kind: str, near: tuple[float, float, float] = (14.0, 2.0, 0.0), seed: int = 0) -> TumorSpec:
    form_of, diameter = KINDS[kind]
    rng = np.random.default_rng(np.random.SeedSequence((seed, 5)))
    found = wall.draw_form(rng, form_of, case, "colon", wall_voxel(case, near), diameter)
    assert found is not None
    form, center = found
    return TumorSpec(
        instance=1,
        organ="colon",
        kind=kind,
        center_vox=center,
        diameter_mm=diameter,
        form=form,
        edge_mm=1.5,
        contrast_hu=0.0,
        room="outside",
        key=1,
    )


def depth_in(case: Case, tumor: TumorSpec, corner: Index3 = (0, 0, 0), size: Index3 = SHAPE) -> torch.Tensor:
    window = Window((case,), np.array([corner]), size, torch.device("cpu"))
    return wall.depth_mm([tumor], window)[0]


def turns(case: Case, tumor: TumorSpec) -> npt.NDArray[np.float64]:
    """Angle around the lumen, -pi to pi from `outward`, of the tumor's voxels in the wall beside its middle."""
    form = tumor.form
    assert isinstance(form, wall.WallForm)
    in_wall = (case.surface_distance_mm > 0) & (case.surface_distance_mm < 2.5)
    at = np.argwhere((depth_in(case, tumor).numpy() > 0) & in_wall) - np.array(tumor.center_vox)
    at = at[np.abs(at @ np.array(form.axis)) < 3]
    return np.arctan2(at @ np.cross(form.axis, form.outward), at @ np.array(form.outward))


@pytest.mark.parametrize("name", MIDDLES)
@pytest.mark.parametrize("kind", KINDS)
def test_volume_is_that_of_the_ball(name: str, kind: str) -> None:
    tumor = drawn(tube(name), kind)
    low = index3(-20 for _ in SHAPE)
    depth = depth_in(tube(name), tumor, low, index3(n + 40 for n in SHAPE))
    volume = float((depth > 0).sum())
    assert volume == pytest.approx(np.pi / 6 * tumor.diameter_mm**3, rel=0.05)


@pytest.mark.parametrize("name", MIDDLES)
def test_the_lumen_is_followed(name: str) -> None:
    form = drawn(tube(name), "annular").form
    assert isinstance(form, wall.WallForm)
    assert abs(np.dot(form.axis, AXES[name])) > np.cos(np.deg2rad(15))
    assert form.radius_mm == pytest.approx(RADIUS_MM, abs=1.5)
    assert abs(np.dot(form.axis, form.outward)) < 1e-4
    assert np.linalg.norm(form.bend) == pytest.approx({"straight": 0.0, "bent": 1 / 60}[name], abs=0.006)
    if name == "bent":  # towards the centre of the circle
        assert form.bend[0] < 0


@pytest.mark.parametrize("name", MIDDLES)
def test_center_is_in_the_middle_beside_the_anchor(name: str) -> None:
    tumor = drawn(tube(name), "polypoid", near=(0.0, 14.0, 10.0))
    at = np.array(tumor.center_vox) - (np.array(SHAPE) - 1) / 2
    assert float(MIDDLES[name](at)) < 1.5
    anchor = np.array(wall_voxel(tube(name), (0.0, 14.0, 10.0)))
    form = tumor.form
    assert isinstance(form, wall.WallForm)
    assert abs((anchor - np.array(tumor.center_vox)) @ np.array(form.axis)) < 2


def test_annular_surrounds_the_lumen_and_others_do_not() -> None:
    case = tube("straight")
    sectors = {kind: len(np.unique(np.floor(turns(case, drawn(case, kind)) / (np.pi / 8)))) for kind in KINDS}
    assert sectors["annular"] == 16
    assert 7 <= sectors["asymmetric"] <= 12
    assert sectors["polypoid"] <= 8
    assert np.abs(turns(case, drawn(case, "polypoid"))).min() < 0.3


def test_annular_narrows_the_lumen_and_leaves_it_open() -> None:
    case = tube("bent")
    tumor = drawn(case, "annular")
    depth = depth_in(case, tumor).numpy()
    lumen = (case.ct < -500) & (depth <= 0)
    middle = round(tumor.center_vox[2])
    healthy, left = ((case.ct < -500)[:, :, middle].sum(), lumen[:, :, middle].sum())
    assert 12 < left < 0.6 * healthy
    pieces = cc3d.connected_components(lumen, connectivity=6)
    ends = [set(np.unique(pieces[:, :, z])) - {0} for z in (0, -1)]
    assert ends[0] & ends[1]


def test_the_wall_under_the_tumor_is_tumor() -> None:
    case = tube("straight")
    tumor = drawn(case, "polypoid")
    form = tumor.form
    assert isinstance(form, wall.WallForm)
    x, y, z = np.rint(np.array(tumor.center_vox) + np.array(form.outward) * (form.radius_mm - 1.5)).astype(int)
    assert depth_in(case, tumor)[x, y, z] > 0


def test_nothing_is_left_where_the_tumor_ends() -> None:
    """No film on the wall: beyond the length, not even the soft edge."""
    case = tube("straight")
    tumor = drawn(case, "annular")
    form = tumor.form
    assert isinstance(form, wall.WallForm)
    seen = np.argwhere(depth_in(case, tumor).numpy() > -tumor.edge_mm / 2) - np.array(tumor.center_vox)
    along = np.abs(seen @ np.array(form.axis))
    assert along.max() < form.length_mm / 2 * (1 + form.swell) / 2 + tumor.edge_mm
    share_thin = (along > form.length_mm / 2).mean()
    assert share_thin < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_a_voxel_has_one_depth_in_all_windows(kind: str) -> None:
    case = tube("bent")
    tumor = drawn(case, kind)
    whole = depth_in(case, tumor).numpy()
    for corner, size in (((11, 7, 20), (40, 33, 29)), ((38, 40, 44), (24, 60, 61)), ((-9, -3, 41), (70, 50, 3))):
        part = depth_in(case, tumor, corner, size).numpy()
        inside = tuple(slice(max(c, 0), min(c + n, s)) for c, n, s in zip(corner, size, SHAPE, strict=True))
        same = tuple(slice(i.start - c, i.stop - c) for i, c in zip(inside, corner, strict=True))
        np.testing.assert_array_equal(part[same].view(np.int32), whole[inside].view(np.int32))


def test_windows_of_several_tumors_are_as_those_of_one() -> None:
    case = tube("straight")
    tumors = [drawn(case, "annular"), drawn(case, "polypoid", near=(0.0, -14.0, 5.0))]
    window = Window((case, case), np.array([(5, 5, 20), (9, 0, 30)]), (60, 60, 40), torch.device("cpu"))
    both = wall.depth_mm(tumors, window)
    for k, tumor in enumerate(tumors):
        assert torch.equal(both[k], depth_in(case, tumor, index3(window.corners[k]), (60, 60, 40)))


@pytest.mark.parametrize("name", MIDDLES)
@pytest.mark.parametrize("kind", KINDS)
def test_extent_is_strict(name: str, kind: str) -> None:
    tumor = drawn(tube(name), kind)
    low = index3(-20 for _ in SHAPE)
    touched = np.argwhere(depth_in(tube(name), tumor, low, index3(n + 40 for n in SHAPE)).numpy() > -0.75) + low
    reach = np.abs(touched - np.array(tumor.center_vox)).max(axis=0)
    extent = np.array(wall.extent_mm(tumor))
    assert (reach <= extent).all()
    assert (extent < reach + 8).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_beside_stays_healthy(kind: str) -> None:
    case = two_tubes()
    depth = depth_in(case, drawn(case, kind, near=(14.0, -12.0, 0.0))).numpy()
    assert (depth > 0).any()
    second = (case.organs > 0) & (points()[..., 1] > 2)
    assert (depth[second] == NOWHERE).all()


def test_other_organs_stay_healthy() -> None:
    healthy = tube("straight")
    organs = np.where((healthy.organs == 0) & (points()[..., 0] > 12), CLASS_IDS["liver"], healthy.organs)
    tumor = drawn(healthy, "asymmetric")
    case = build_case("beside", healthy.ct, organs.astype(np.uint8), np.eye(4), 1.0, allow_implausible=True)
    before, after = (depth_in(c, tumor).numpy() for c in (healthy, case))
    liver = case.organs == CLASS_IDS["liver"]
    assert (before[liver] > 0).any()
    assert (after[liver] == NOWHERE).all()


def test_no_form_where_the_colon_is_collapsed_and_the_same_numbers_are_drawn() -> None:
    p = points()
    slab = (np.abs(p[..., 1]) < 3) & (np.abs(p[..., 0]) < 34)
    flat = case_of(slab, np.zeros_like(slab))
    states = []
    for case in (flat, tube("straight")):
        rng = np.random.default_rng(3)
        found = wall.draw_form(rng, KINDS["annular"][0], case, "colon", wall_voxel(case, (10.0, 0.0, 0.0)), 30.0)
        states.append((found is None, rng.bit_generator.state))
    assert [none for none, _ in states] == [True, False]
    assert states[0][1] == states[1][1]


def test_the_same_seed_draws_the_same_form() -> None:
    first, again, other = (drawn(tube("bent"), "annular", seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.form != other.form


def test_a_form_of_another_engine_is_refused() -> None:
    class Ball:
        engine = "ellipsoid"

    tumor = drawn(tube("straight"), "small").model_copy(update={"form": Ball()})
    with pytest.raises(TypeError, match="ellipsoid"):
        wall.extent_mm(tumor)
