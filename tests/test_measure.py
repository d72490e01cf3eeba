"""Measured facts against shapes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import GenerateConfig
from pipeline.manifest import TUMOR_TYPE
from pipeline.measure import measure_sample, recist
from pipeline.organs import tumor_id
from pipeline.spec import draw_sample
from pipeline.synthesis import render
from tests.cases import make_bank


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
        for tumor in facts["tumors"]:
            tumors += 1
            assert set(tumor) == {field.name for field in TUMOR_TYPE}
            assert tumor["diameter_mm"] == pytest.approx((6 * tumor["volume_mm3"] / math.pi) ** (1 / 3))
            x0, y0, z0, x1, y1, z1 = tumor["bbox_vox"]
            inside = mask[x0:x1, y0:y1, z0:z1]
            assert all(inside.any(axis=axes)[end] for axes in [(1, 2), (0, 2), (0, 1)] for end in (0, -1))
            assert tumor["contrast_hu"] == pytest.approx(tumor["mean_hu"] - tumor["parenchyma_hu"])
            assert abs(tumor["parenchyma_hu"] - case.stats["liver"].mean_hu) < 25
            assert tumor["recist_long_mm"] >= tumor["recist_short_mm"] > 0
            patch = np.array(facts["affine"]).reshape(4, 4)
            voxel = np.linalg.solve(patch[:3, :3], np.array(tumor["center_mm"]) - patch[:3, 3])
            assert np.all(voxel >= (x0, y0, z0))
            assert np.all(voxel <= (x1, y1, z1))
    assert tumors > 25
