"""Measured facts against shapes whose answer is known."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.case import Case
from pipeline.config import GenerateConfig
from pipeline.manifest import TUMOR_TYPE
from pipeline.measure import SHELL_MM, Recist, _longest_possible, _row_ends, measure_sample, recist
from pipeline.organs import CLASS_IDS, organ_id, tumor_id
from pipeline.spec import SampleSpec, draw_sample
from pipeline.synthesis import Instance, Rendered, render
from tests.cases import WALL_MM, make_bank
from tests.tumors import abdomen, block, sample, tiny, tumor, whole


def _brute_long(mask: np.ndarray) -> float:
    best = 0.0
    for z in range(mask.shape[2]):
        points = np.argwhere(mask[:, :, z])
        for a in points:
            for b in points:
                best = max(best, math.dist(a, b))
    return best + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_recist_long_axis_equals_brute_force(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((6, 5, 3)) < density
    mask[2, 2, 1] = True
    assert recist(mask, 1.0).long_mm == pytest.approx(_brute_long(mask))
    assert recist(mask, 2.5).long_mm == pytest.approx(2.5 * _brute_long(mask))


@pytest.mark.parametrize(
    ("box", "long", "short"),
    [((5, 1, 1), 5.0, 1.0), ((1, 7, 2), 7.0, 1.0), ((1, 1, 9), 1.0, 1.0), ((4, 4, 1), math.hypot(3, 3) + 1, None)],
)
def test_recist_of_boxes(box: tuple[int, int, int], long: float, short: float | None) -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[2 : 2 + box[0], 3 : 3 + box[1], 1 : 1 + box[2]] = True
    found = recist(mask, 1.0)
    assert found.long_mm == pytest.approx(long)
    assert found.short_mm == pytest.approx(found.long_mm if short is None else short)


def test_the_longest_slice_counts_not_the_largest() -> None:
    mask = np.zeros((20, 20, 3), bool)
    mask[4:10, 4:10, 0] = True
    mask[2:18, 9, 2] = True
    assert recist(mask, 1.0).long_mm == 16.0
    assert recist(mask, 1.0).short_mm == 1.0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.9), st.integers(1, 24), st.integers(1, 24))
def test_no_slice_is_longer_than_its_bound(seed: int, density: float, x: int, y: int) -> None:
    plane = np.random.default_rng(seed).random((x, y)) < density
    plane[x // 2, y // 2] = True
    points = _row_ends(plane)
    longest = max(math.dist(a, b) for a in points for b in points)
    bound = _longest_possible(points)
    assert longest <= bound <= longest / math.cos(math.pi / 16) ** 2 + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_recist_is_that_of_the_longest_slice_alone(seed: int) -> None:
    """Slices that the bound skips have nothing to add."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((30, 30, 12), bool)
    for z in range(12):
        low = rng.integers(0, 20, 2)
        high = low + rng.integers(1, 11, 2)
        mask[low[0] : high[0], low[1] : high[1], z] = rng.random(high - low) < 0.7
    if mask.any():
        each = [recist(mask[:, :, z : z + 1], 1.5) for z in range(12) if mask[:, :, z].any()]
        assert recist(mask, 1.5) == max(each, key=lambda r: (r.long_mm, r.short_mm))


def test_recist_of_a_voxel_is_its_edge() -> None:
    mask = np.zeros((5, 5, 5), bool)
    mask[0, 4, 2] = True
    assert recist(mask, 0.8) == Recist(0.8, 0.8)


def test_the_short_axis_is_across_the_long_one() -> None:
    mask = np.zeros((40, 40, 1), bool)
    x, y = np.indices((40, 40)) - 20
    mask[..., 0] = (((x + y) / math.sqrt(2) / 16) ** 2 + ((x - y) / math.sqrt(2) / 6) ** 2) < 1
    found = recist(mask, 1.0)
    assert found.long_mm == pytest.approx(32, abs=1.5)
    assert found.short_mm == pytest.approx(12, abs=1.5)


def test_facts_agree_with_image_and_label(tmp_path_factory: pytest.TempPathFactory) -> None:
    bank = make_bank(tmp_path_factory.mktemp("bank") / "bank")
    config = GenerateConfig(samples=40, patch_shape=(40, 36, 28), healthy_share=0, body_share=0)
    tumors = 0
    for index in range(30):
        spec = draw_sample(bank, config, index)
        case = bank.load(spec.case_id)
        rendered = render(case, spec)
        facts = measure_sample(case, spec, rendered)
        mask = rendered.label == tumor_id("liver")
        assert facts["tumor_voxels"] == np.count_nonzero(mask)
        assert facts["n_tumors"] == len(facts["tumors"])
        total = sum(t["volume_mm3"] for t in facts["tumors"])
        assert total == pytest.approx(np.count_nonzero(mask) * case.spacing_mm**3)
        for fact in facts["tumors"]:
            tumors += 1
            assert set(fact) == {field.name for field in TUMOR_TYPE}
            assert fact["diameter_mm"] == pytest.approx((6 * fact["volume_mm3"] / math.pi) ** (1 / 3))
            x0, y0, z0, x1, y1, z1 = fact["bbox_vox"]
            inside = mask[x0:x1, y0:y1, z0:z1]
            assert all(inside.any(axis=axes)[end] for axes in [(1, 2), (0, 2), (0, 1)] for end in (0, -1))
            assert fact["contrast_hu"] == pytest.approx(fact["mean_hu"] - fact["parenchyma_hu"])
            assert abs(fact["parenchyma_hu"] - case.stats["liver"].mean_hu) < 25
            assert fact["recist_long_mm"] >= fact["recist_short_mm"] > 0
            patch = np.array(facts["affine"]).reshape(4, 4)
            voxel = np.linalg.solve(patch[:3, :3], np.array(fact["center_mm"]) - patch[:3, 3])
            assert np.all(voxel >= (x0, y0, z0))
            assert np.all(voxel <= (x1, y1, z1))
    assert tumors > 25


# ---- of made-up samples ----


def made_up(case: Case, organ: str, mask: np.ndarray, hu: int, **changes: Any) -> tuple[SampleSpec, Rendered]:
    """A sample of the whole case with one tumor where `mask` says, of one HU."""
    image, label = case.ct.copy(), np.where(case.organs == organ_id(organ), case.organs, 0).astype(np.uint8)
    image[mask], label[mask] = hu, tumor_id(organ)
    low, high = (f(np.argwhere(mask), axis=0) for f in (np.min, np.max))
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    t = tumor(organ=organ)
    spec = whole(case, t, organs=(organ,)).model_copy(update=changes)
    return spec, Rendered(image, label, (Instance(t, box, mask[box]),))  # type: ignore[arg-type]


def box_mask(shape: tuple[int, ...], low: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = True
    return mask


def test_facts_of_a_made_up_tumor() -> None:
    mask = box_mask(block().ct.shape, (18, 20, 22), (4, 3, 2))
    (facts,) = measure_sample(block(), *made_up(block(), "liver", mask, 40))["tumors"]
    assert facts["volume_mm3"] == 24 * 27
    assert facts["bbox_vox"] == [18, 20, 22, 22, 23, 24]
    assert facts["center_mm"] == pytest.approx([19.5 * 3, 21 * 3, 22.5 * 3])
    assert (facts["mean_hu"], facts["parenchyma_hu"], facts["contrast_hu"]) == (40, 100, -60)
    assert facts["surface_distance_mm"] == float(block().surface_distance_mm[20, 21, 22])
    assert facts["requested_diameter_mm"] == 30


def test_series_are_named() -> None:
    mask = box_mask(block().ct.shape, (18, 20, 22), (4, 3, 2))
    spec, rendered = made_up(block(), "liver", mask, 40, series_id=7, time_days=90.0)
    found = measure_sample(block(), spec, rendered)
    assert (found["series_id"], found["time_days"]) == (7, 90.0)
    alone = measure_sample(block(), *made_up(block(), "liver", mask, 40))
    assert alone["series_id"] is None
    assert alone["time_days"] is None


def test_without_a_vessel_there_is_no_distance_to_one() -> None:
    mask = box_mask(block().ct.shape, (18, 20, 22), (4, 3, 2))
    (facts,) = measure_sample(block(), *made_up(block(), "liver", mask, 40))["tumors"]
    assert not block().vessels.any()
    assert facts["vessel_distance_mm"] is None


def test_in_an_organ_without_vessels_of_a_case_with_some_there_is_no_distance() -> None:
    case = abdomen()
    assert case.vessels.any()
    inside = np.argwhere(case.organs == CLASS_IDS["kidney"])
    mask = box_mask(case.ct.shape, tuple(inside[len(inside) // 2] - 1), (2, 2, 2)) & (case.organs == 5)
    (facts,) = measure_sample(case, *made_up(case, "kidney", mask, 40))["tumors"]
    assert facts["vessel_distance_mm"] is None


@pytest.mark.parametrize("steps", [0, 2, 5])
def test_the_distance_to_a_vessel_is_that_of_the_nearest_voxel(steps: int) -> None:
    case = tiny()
    x, y, z = np.argwhere(case.vessels)[len(np.argwhere(case.vessels)) // 2]
    mask = box_mask(case.ct.shape, (x, y + steps, z), (1, 2, 1))
    (facts,) = measure_sample(case, *made_up(case, "liver", mask, 40))["tumors"]
    assert facts["vessel_distance_mm"] == float(case.vessel_distance_mm[x, y + steps : y + steps + 2, z].min())
    assert (facts["vessel_distance_mm"] == 0) == (steps == 0)


def test_parenchyma_is_measured_in_the_shell_around_the_tumor() -> None:
    """Neither the soft edge, nor the far organ, nor the organ's surface, nor a neighbour counts."""
    case = block(60)
    mask = box_mask(case.ct.shape, (20, 28, 28), (4, 4, 4))
    spec, rendered = made_up(case, "liver", mask, 40)
    away = ndimage.distance_transform_edt(~mask, sampling=3.0)
    image, label = rendered.image, rendered.label
    image[(away > 0) & (away < SHELL_MM[0] + 1)] = 140  # none: the nearest voxels are 3 mm away
    image[away > SHELL_MM[1]] = 500
    neighbour = box_mask(case.ct.shape, (25, 28, 28), (3, 4, 4))
    image[neighbour], label[neighbour] = -50, tumor_id("liver")
    found = measure_sample(case, spec, rendered)["tumors"][0]
    shell = (away >= 2) & (away <= 10) & (label == 1)
    shell &= ndimage.distance_transform_edt(~neighbour, sampling=3.0) >= 2
    assert found["parenchyma_hu"] == pytest.approx(image[shell].mean(dtype=float))


def test_the_soft_edge_of_a_neighbour_is_no_parenchyma() -> None:
    case = block(60, 1.5)
    mask = box_mask(case.ct.shape, (24, 28, 28), (4, 4, 4))
    spec, rendered = made_up(case, "liver", mask, 40)
    neighbour = box_mask(case.ct.shape, (32, 28, 28), (4, 4, 4))
    rendered.image[neighbour], rendered.label[neighbour] = -50, tumor_id("liver")
    away = ndimage.distance_transform_edt(~neighbour, sampling=1.5)
    edge = (away > 0) & (away < SHELL_MM[0])
    assert edge.any()
    rendered.image[edge] = 0  # a voxel, still labelled as liver
    assert measure_sample(case, spec, rendered)["tumors"][0]["parenchyma_hu"] == 100
    far = (away > SHELL_MM[1]) & ~mask
    for beyond, hu in (((away >= SHELL_MM[0]) & (away < 4) & ~mask, 70), (far, 130)):  # there, parenchyma counts
        image = rendered.image.copy()
        image[beyond] = hu
        found = measure_sample(case, spec, dataclasses.replace(rendered, image=image))["tumors"][0]["parenchyma_hu"]
        assert min(hu, 100) < found < max(hu, 100)


def test_where_nothing_healthy_is_near_the_parenchyma_is_that_of_the_organ() -> None:
    mask = block().organs == 1
    (facts,) = measure_sample(block(), *made_up(block(), "liver", mask, 40))["tumors"]
    assert facts["parenchyma_hu"] == block().stats["liver"].mean_hu


def test_of_a_large_tumor_a_coarser_grid_tells_the_same() -> None:
    rng = np.random.default_rng(0)
    case = block(60)
    noisy = dataclasses.replace(case, ct=(case.ct + rng.normal(0, 10, case.ct.shape)).astype(np.int16))
    mask = box_mask(case.ct.shape, (16, 16, 16), (28, 28, 28))
    (facts,) = measure_sample(noisy, *made_up(noisy, "liver", mask, 40))["tumors"]
    assert facts["parenchyma_hu"] == pytest.approx(100, abs=2)
    assert facts["parenchyma_hu"] != noisy.stats["liver"].mean_hu


def test_parenchyma_of_a_hollow_organ_is_its_wall() -> None:
    case = abdomen()
    wall = (case.organs == CLASS_IDS["colon"]) & (case.surface_distance_mm <= WALL_MM)
    x, y, z = np.argwhere(wall & (case.ct > 60) & (case.ct < 110))[200]
    mask = box_mask(case.ct.shape, (x - 1, y - 1, z - 1), (3, 3, 3)) & (case.organs == CLASS_IDS["colon"])
    (facts,) = measure_sample(case, *made_up(case, "colon", mask, 120))["tumors"]
    assert facts["parenchyma_hu"] == pytest.approx(85, abs=8)  # stool has 20, gas -900
    assert facts["vessel_distance_mm"] is None


@pytest.mark.parametrize(
    ("organs", "expected", "annotated"),
    [
        (("liver",), ["liver"], [0, 1, 2]),
        (("kidney", "liver"), ["kidney", "liver"], [0, 5, 6, 1, 2]),
        (("liver", "spleen"), ["liver"], [0, 1, 2]),
    ],
)
def test_organs_that_the_label_shows(organs: tuple[str, ...], expected: list[str], annotated: list[int]) -> None:
    spec = whole(abdomen(), organs=organs)
    found = measure_sample(abdomen(), spec, render(abdomen(), spec))
    assert found["organs"] == expected
    assert found["annotated_classes"] == annotated
    assert (found["n_tumors"], found["tumor_voxels"], found["tumors"]) == (0, 0, [])


def test_an_organ_outside_the_patch_is_annotated_and_not_present() -> None:
    spec = sample(origin=(0, 0, 0), patch=(10, 10, 10), organs=("liver", "pancreas"))
    found = measure_sample(abdomen(), spec, render(abdomen(), spec))
    assert found["organs"] == []
    assert found["annotated_classes"] == [0, 1, 2, 3, 4]


def test_an_organ_of_which_only_the_tumor_is_left_is_present() -> None:
    label = np.zeros(block().ct.shape, np.uint8)
    label[20, 20, 20] = tumor_id("liver")
    spec = whole(block(), organs=("liver",))
    assert measure_sample(block(), spec, Rendered(block().ct, label, ()))["organs"] == ["liver"]
