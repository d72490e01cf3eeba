"""Engine `ellipsoid`: volumes, axes, depth as a distance, reach, and the same depth in every window and batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.presets.kinds import Ellipsoidal, Uniform
from pipeline.spec.distributions import rotation
from pipeline.spec.records import TumorSpec
from pipeline.synthesis.engines import ellipsoid as engine
from pipeline.synthesis.engines.ellipsoid import Along, EllipsoidForm, coarse_step_mm, depth_mm, extent_mm
from pipeline.synthesis.engines.growth import GrowthForm
from pipeline.synthesis.engines.registry import is_coarse, reach_mm
from pipeline.synthesis.window import Window
from tests.tumors import CPU, ellipsoid, tumor

TURN_Z = ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
BENT: dict[str, Any] = {"deformation_mm": 1.5, "deformation_grid_mm": 12.0}


class _Grid:
    """What the engine asks of a case."""

    def __init__(self, spacing_mm: float) -> None:
        self.spacing_mm = spacing_mm


def box(spacing_mm: float, corner: tuple[int, ...], size: tuple[int, ...]) -> Window:
    return Window((_Grid(spacing_mm),), np.array([corner], np.int64), size, CPU)  # type: ignore[arg-type]


def around(t: TumorSpec, spacing_mm: float, most_mm: float | None = None) -> Window:
    """All that the tumor reaches, and more."""
    reach = math.ceil((most_mm or 1.3 * reach_mm(t)) / spacing_mm) + 2
    return box(spacing_mm, [math.floor(c) - reach for c in t.center_vox], (2 * reach + 2,) * 3)  # type: ignore[arg-type]


def points_mm(t: TumorSpec, window: Window) -> npt.NDArray[np.float64]:
    """(X, Y, Z, 3), relative to the centre."""
    return np.stack(np.meshgrid(*(a[0] for a in window.axes_mm([t.center_vox])), indexing="ij"), axis=-1)


def volume_mm3(t: TumorSpec, spacing_mm: float) -> float:
    return int((depth_mm([t], around(t, spacing_mm)) > 0).sum()) * spacing_mm**3


@pytest.mark.parametrize(("diameter", "spacing"), [(30.0, 3.0), (30.0, 1.0), (12.0, 0.8), (60.0, 1.5)])
def test_a_ball_has_its_volume(diameter: float, spacing: float) -> None:
    expected = np.pi / 6 * diameter**3
    assert volume_mm3(tumor(diameter_mm=diameter), spacing) == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize("turn", [None, TURN_Z])
def test_half_axes_and_rotation(turn: Any) -> None:
    form = ellipsoid(20, 12, 8, **({"rotation": turn} if turn else {}))
    t = tumor(form=form, center_vox=(0.0, 0.0, 0.0))
    window = around(t, 1.0)
    inside = points_mm(t, window)[depth_mm([t], window)[0].numpy() > 0]
    expected = (12, 20, 8) if turn else (20, 12, 8)
    assert np.abs(inside).max(axis=0) == pytest.approx(expected, abs=1.01)
    assert len(inside) == pytest.approx(4 / 3 * np.pi * 20 * 12 * 8, rel=0.02)


def test_an_oblique_axis_is_that_of_the_rotation() -> None:
    turn = rotation(np.random.default_rng(5))
    t = tumor(form=ellipsoid(20, 9, 7, rotation=turn), center_vox=(0.0, 0.0, 0.0))
    window = around(t, 1.0)
    inside = points_mm(t, window)[depth_mm([t], window)[0].numpy() > 0]
    _, vectors = np.linalg.eigh(inside.T @ inside)
    assert abs(vectors[:, -1] @ np.array(turn[0])) > 0.999


def drawn(seed: int, look: Ellipsoidal, diameter: float = 30.0, along: Along | None = None) -> EllipsoidForm:
    form = engine.draw_form(np.random.default_rng(seed), look, diameter, frozenset())
    return form if along is None else engine.laid_along(form, along)


def of_one(axis_ratio: float = 1.0, lobulation: float = 0.0, deformation: float = 0.0) -> Ellipsoidal:
    return Ellipsoidal(*(Uniform(v, v) for v in (axis_ratio, lobulation, deformation)))


@pytest.mark.parametrize("lobulation", [0.08, 0.15])
@pytest.mark.parametrize("seed", range(6))
def test_lobes_keep_the_volume(seed: int, lobulation: float) -> None:
    form = drawn(seed, of_one(lobulation=lobulation))
    assert len(form.lobes) == 4
    assert volume_mm3(tumor(form=form), 1.0) == pytest.approx(np.pi / 6 * 30**3, rel=0.03)


def test_lobes_make_the_radius_vary_by_their_sd() -> None:
    directions = np.random.default_rng(0).normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    squares = []
    for seed in range(30):
        radius = np.zeros(len(directions))
        for lobe in drawn(seed, of_one(lobulation=0.1)).lobes:
            radius += lobe.amplitude * np.polynomial.Legendre.basis(lobe.degree)(directions @ np.array(lobe.axis))
        squares.append((radius**2).mean())
    assert math.sqrt(np.mean(squares)) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_a_lobe_is_a_legendre_polynomial(degree: int) -> None:
    lobe = {"axis": (0.0, 0.0, 1.0), "degree": degree, "amplitude": 0.2}
    t = tumor(form=ellipsoid(15, 15, 15, lobes=[lobe]), center_vox=(0.0, 0.0, 0.0), diameter_mm=10.0)
    assert not is_coarse(t, 1.0)
    window = around(t, 1.0)
    at, depth = points_mm(t, window), depth_mm([t], window)[0].numpy()
    distance = np.linalg.norm(at, axis=-1)
    off = distance > 0
    radius = 15 * (1 + 0.2 * np.polynomial.Legendre.basis(degree)(at[off][:, 2] / distance[off]))
    assert np.allclose(depth[off], radius - distance[off], atol=5e-3)


def test_switched_off_parts_are_left_out() -> None:
    off = frozenset({"axis_ratio", "lobulation", "deformation"})
    look = Ellipsoidal(Uniform(0.5, 1.5), Uniform(0.1, 0.2), Uniform(0.1, 0.2))
    form = engine.draw_form(np.random.default_rng(0), look, 30.0, off)
    assert form.half_axes_mm == pytest.approx((15, 15, 15))
    assert form.lobes == ()
    assert form.deformation_mm == 0


def test_in_a_thin_organ_the_long_axis_lies_along_it() -> None:
    frame = rotation(np.random.default_rng(2))
    form = drawn(1, Ellipsoidal(Uniform(0.8, 1.2), Uniform(0, 0), Uniform(0, 0)), 30.0, Along(frame, 9.0))
    assert form.rotation == frame
    assert form.half_axes_mm[0] > 1.8 * max(form.half_axes_mm[1:])
    assert math.prod(form.half_axes_mm) == pytest.approx(15**3)
    assert drawn(1, of_one(), 16.0, Along(frame, 9.0)).half_axes_mm == pytest.approx((8, 8, 8))


forms = st.builds(
    lambda ratios, seed, sd, deformation, radius, edge: (ratios, seed, sd, deformation, radius, edge),
    st.tuples(*[st.floats(0.3, 1.6)] * 3),
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.2),
    st.floats(0, 0.3),
    st.floats(3, 20),
    st.floats(0, 0.8),
)


@settings(max_examples=30, deadline=None)
@given(forms)
def test_nothing_lies_beyond_extent_and_reach(drawn_of: Any) -> None:
    ratios, seed, sd, deformation, radius, edge = drawn_of
    rng = np.random.default_rng(seed)
    axes = [tuple(v / np.linalg.norm(v)) for v in rng.normal(size=(4, 3))]
    form = EllipsoidForm(
        half_axes_mm=tuple(radius * r for r in ratios),
        rotation=rotation(rng),
        lobes=engine._lobes(sd, np.clip(rng.normal(size=4), -2, 2).tolist(), axes),  # type: ignore[arg-type]
        deformation_mm=deformation * radius,
        deformation_grid_mm=0.8 * radius,
    )
    t = tumor(form=form, diameter_mm=2 * radius, edge_mm=edge * radius, center_vox=(0.2, 0.4, -0.3), key=seed)
    window = around(t, radius / 5, 1.1 * reach_mm(t))
    at = points_mm(t, window)[depth_mm([t], window)[0].numpy() > -t.edge_mm / 2]
    slack = 0.01 * radius if is_coarse(t, window.spacing_mm) else 1e-3  # of the interpolation between coarse points
    assert np.all(np.abs(at).max(axis=0) <= np.array(extent_mm(t)) + slack)
    assert np.linalg.norm(at, axis=1).max() <= reach_mm(t) + slack


def test_a_long_tumor_across_the_grid_reaches_as_far_as_it_is_long() -> None:
    diagonal = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])
    t = tumor(form=ellipsoid(24, 6, 6, rotation=diagonal.tolist()), diameter_mm=19.0)
    assert max(extent_mm(t)) < 18
    assert reach_mm(t) > 24


@pytest.mark.parametrize(
    "form",
    [
        ellipsoid(15, 15, 15),
        ellipsoid(20, 14, 12, rotation=rotation(np.random.default_rng(1)), **BENT),
        drawn(3, of_one(lobulation=0.1)),
    ],
    ids=["ball", "bent", "lobed"],
)
def test_coarse_depth_is_the_exact_one_near_the_surface(form: EllipsoidForm, monkeypatch: pytest.MonkeyPatch) -> None:
    t = tumor(form=form, center_vox=(3.3, 4.1, 5.7))
    window = around(t, 1.0)
    assert is_coarse(t, 1.0)
    coarse = depth_mm([t], window)[0]
    monkeypatch.setattr(engine, "coarse_step_mm", lambda *_: None)
    exact = depth_mm([t], window)[0]
    near = exact.abs() < 2.5
    assert not torch.equal(coarse, exact)
    assert float((coarse - exact)[near].abs().max()) < 0.15


def test_coarse_points_are_a_fifth_of_the_radius_apart_where_they_pay() -> None:
    assert coarse_step_mm(tumor(diameter_mm=30.0), 1.0) == 3.0
    assert coarse_step_mm(tumor(diameter_mm=30.0), 2.1) is None
    assert not is_coarse(tumor(diameter_mm=10.0), 1.0)


@pytest.mark.parametrize("spacing", [0.75, 2.5])
@pytest.mark.parametrize("half_axes", [(15, 15, 15), (22, 14, 11)])
def test_depth_is_a_distance_near_the_surface(half_axes: tuple[float, ...], spacing: float) -> None:
    t = tumor(form=ellipsoid(*half_axes))
    depth = depth_mm([t], around(t, spacing))[0].numpy().astype(float)
    slope = np.sqrt(sum(g**2 for g in np.gradient(depth, spacing)))
    near = slope[np.abs(depth) < 1]
    assert near.size > 100
    assert near.mean() == pytest.approx(1, abs=0.03)
    assert np.percentile(near, [2, 98]) == pytest.approx([1, 1], abs=0.12)


def test_the_depth_of_a_ball_is_its_radius_less_the_distance() -> None:
    t = tumor(diameter_mm=10.0)
    window = around(t, 1.0)
    expected = 5 - np.linalg.norm(points_mm(t, window), axis=-1)
    assert np.allclose(depth_mm([t], window)[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("spacing", [1.0, 3.0], ids=["coarse", "fine"])
def test_a_voxel_at_the_very_centre_is_deep_inside(spacing: float) -> None:
    t = tumor(form=ellipsoid(18, 15, 12), center_vox=(4.0, 4.0, 4.0))
    depth = depth_mm([t], box(spacing, (0, 0, 0), (9, 9, 9)))[0]
    assert float(depth[4, 4, 4]) == pytest.approx(12, abs=0.3)
    assert float(depth[3:6, 3:6, 3:6].min()) > 12 - 1.8 * spacing


VARIOUS = (
    tumor(form=ellipsoid(20, 14, 12, **BENT), center_vox=(3.3, 4.1, 5.7), key=11),
    tumor(form=drawn(2, of_one(lobulation=0.1, deformation=0.1)), center_vox=(0.0, 0.5, 2.0), key=12),
    tumor(form=ellipsoid(14, 16, 15), center_vox=(-2.2, 1.1, 0.7), key=13),
)


@pytest.mark.parametrize("spacing", [1.0, 2.9], ids=["coarse", "fine"])
@settings(max_examples=25, deadline=None)
@given(low=st.tuples(*[st.integers(0, 14)] * 3), size=st.tuples(*[st.integers(1, 10)] * 3), which=st.integers(0, 2))
def test_a_voxel_has_one_depth_in_all_windows(
    spacing: float, low: tuple[int, ...], size: tuple[int, ...], which: int
) -> None:
    assert is_coarse(VARIOUS[which], spacing) == (spacing == 1.0)
    whole = depth_mm([VARIOUS[which]], box(spacing, (-12, -11, -10), (24, 24, 24)))[0]
    part = depth_mm([VARIOUS[which]], box(spacing, np.add((-12, -11, -10), low), size))[0]  # type: ignore[arg-type]
    assert torch.equal(part, whole[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))])


@pytest.mark.parametrize("spacing", [1.0, 2.9], ids=["coarse", "fine"])
def test_a_batch_is_as_each_alone(spacing: float) -> None:
    corners = np.array([(-9, -8, -7), (-3, -12, 0), (-10, -10, -10)])
    grid: Any = _Grid(spacing)
    together = depth_mm(VARIOUS, Window((grid,) * 3, corners, (17, 15, 18), CPU))
    for b, t in enumerate(VARIOUS):
        assert torch.equal(together[b], depth_mm([t], box(spacing, tuple(corners[b]), (17, 15, 18)))[0])


def test_deformation_moves_the_surface_by_about_its_sd() -> None:
    bent = tumor(form=ellipsoid(15, 15, 15, deformation_mm=1.5, deformation_grid_mm=12.0), key=3)
    window = around(bent, 2.0)
    change = (depth_mm([bent], window) - depth_mm([tumor()], window))[0]
    near = depth_mm([tumor()], window)[0].abs() < 3
    assert 0.7 < float(change[near].std()) < 2.2
    other = bent.model_copy(update={"key": 4})
    assert not torch.equal(depth_mm([other], window), depth_mm([bent], window))


def test_a_form_of_another_engine_is_refused() -> None:
    form = GrowthForm(full_diameter_mm=30, roughness=0.1, roughness_grain_mm=6, vessel_speed=0.3, border_mm=2)
    with pytest.raises(TypeError, match="growth"):
        extent_mm(tumor(form=form))
