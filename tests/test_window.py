"""Boxes of voxels around tumors: coordinates, crops over the edge, and the crop that GPUs use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.case import AIR_HU
from pipeline.grid import crop
from pipeline.synthesis import window as window_module
from pipeline.synthesis.window import Window, _device_crop, _resident, volume_box
from tests.cases import make_case
from tests.tumors import CPU, tiny, window

corners = st.tuples(*[st.integers(-12, 12)] * 3)
sizes = st.tuples(*[st.integers(1, 14)] * 3)


def test_coordinates_are_0_at_the_point_and_mm_apart() -> None:
    x, y, z = window(tiny(), (8, 6, -2), (5, 7, 9)).axes_mm([(10.0, 6.5, 0.0)])
    assert [a.shape for a in (x, y, z)] == [(1, 5), (1, 7), (1, 9)]
    assert x[0].tolist() == [-6.0, -3.0, 0.0, 3.0, 6.0]
    assert y[0, 0] == -1.5
    assert z[0, 2] == 0.0


@settings(max_examples=200, deadline=None)
@given(
    center=st.tuples(*[st.floats(0, 60)] * 3),
    low=st.tuples(*[st.integers(0, 9)] * 3),
    spacing=st.sampled_from([0.7, 0.8, 1.0, 1.3, 3.0]),
)
def test_a_voxel_has_one_coordinate_in_all_windows(
    center: tuple[float, float, float], low: tuple[int, int, int], spacing: float
) -> None:
    case = _Spaced(spacing)
    whole = Window((case,), np.array([(4, 5, 6)]), (12, 12, 12), CPU).axes_mm([center])  # type: ignore[arg-type]
    part = Window((case,), np.array([(4, 5, 6)]) + low, (3, 3, 3), CPU).axes_mm([center])  # type: ignore[arg-type]
    for all_of, some, start in zip(whole, part, low, strict=True):
        assert np.array_equal(all_of[:, start : start + 3], some)


class _Spaced:
    def __init__(self, spacing_mm: float) -> None:
        self.spacing_mm = spacing_mm


@pytest.mark.parametrize(
    ("corner", "size"),
    [
        ((5, 5, 5), (10, 9, 8)),
        ((-4, 3, 40), (10, 9, 8)),
        ((-20, 0, 0), (10, 9, 8)),
        ((60, 52, 44), (3, 3, 3)),
        ((-5, -5, -5), (90, 80, 70)),
    ],
)
@pytest.mark.parametrize(("name", "fill"), [("ct", AIR_HU), ("organs", 0), ("surface_distance_mm", 0)])
def test_volumes_are_padded_outside(
    corner: tuple[int, int, int], size: tuple[int, int, int], name: str, fill: int
) -> None:
    found = window(tiny(), corner, size).volume(name, fill)[0].numpy()
    volume = getattr(tiny(), name)
    assert found.dtype == volume.dtype
    for at in np.random.default_rng(0).integers(0, size, (60, 3)):
        there = at + corner
        inside = np.all((there >= 0) & (there < volume.shape))
        assert found[tuple(at)] == (volume[tuple(there)] if inside else fill)


def test_a_margin_widens_the_box_on_all_sides() -> None:
    wide = window(tiny(), (10, 0, 20), (6, 5, 4)).volume("ct", AIR_HU, margin=2)
    assert torch.equal(wide, window(tiny(), (8, -2, 18), (10, 9, 8)).volume("ct", AIR_HU))


def test_boxes_of_several_cases_are_stacked() -> None:
    cases = tiny(), make_case(seed=4)
    both = Window(cases, np.array([(1, 2, 3), (-3, 40, 9)]), (7, 6, 5), CPU)
    found = both.volume("ct", AIR_HU)
    assert found.shape == (2, 7, 6, 5)
    for b, case in enumerate(cases):
        assert torch.equal(found[b : b + 1], window(case, tuple(both.corners[b]), (7, 6, 5)).volume("ct", AIR_HU))


def test_a_parameter_is_one_number_a_box() -> None:
    assert window(tiny()).parameter([1.5, -2.0]).tolist() == [[[[1.5]]], [[[-2.0]]]]


@settings(max_examples=300, deadline=None)
@given(corner=corners, size=sizes, shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 99))
def test_the_crop_on_a_device_is_that_of_numpy(
    corner: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int], seed: int
) -> None:
    values = np.random.default_rng(seed).integers(-1024, 3071, shape).astype(np.int16)
    found = _device_crop(torch.from_numpy(values), corner, size, AIR_HU)
    assert found.dtype == torch.int16
    assert np.array_equal(found.numpy(), crop(values, corner, size, AIR_HU))


def test_a_box_on_the_cpu_is_a_copy() -> None:
    case = make_case()
    before = case.ct.copy()
    volume_box(case, "ct", (3, 4, 5), (6, 6, 6), AIR_HU, CPU).fill_(77)
    assert np.array_equal(case.ct, before)


def test_volumes_stay_on_the_device_until_others_need_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "_residents", {})
    a, b, c = (make_case(seed=s) for s in range(3))
    monkeypatch.setattr(window_module, "_RESIDENT_BYTES", 2 * a.ct.nbytes)
    first = _resident(a, "ct", CPU)
    second = _resident(b, "ct", CPU)
    assert _resident(a, "ct", CPU) is first
    assert _resident(a, "organs", CPU).dtype == torch.uint8  # b was used longest ago: it goes
    assert _resident(a, "ct", CPU) is first
    assert _resident(b, "ct", CPU) is not second
    assert torch.equal(_resident(c, "ct", CPU), torch.from_numpy(c.ct))


def test_a_volume_larger_than_the_room_is_still_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "_residents", {})
    monkeypatch.setattr(window_module, "_RESIDENT_BYTES", 1)
    assert torch.equal(_resident(tiny(), "ct", CPU), torch.from_numpy(tiny().ct))
    assert len(window_module._residents) == 1
