"""Drawing specs: determinism, limits, shares, and the rules of placement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.bank import Bank
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.organs import organ_id
from pipeline.presets import LogNormal, LogUniform, Mixture, Normal, Uniform
from pipeline.spec import SampleSpec, check_bank, draw, draw_sample
from tests.cases import SPACING_MM, make_bank

PATCH = (32, 32, 24)
Config = Callable[..., GenerateConfig]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


def config(**changes: object) -> GenerateConfig:
    return GenerateConfig.model_validate({"samples": 100, "patch_shape": PATCH, **changes})


@pytest.mark.parametrize(
    ("distribution", "low", "high", "mean"),
    [
        (Uniform(2, 6), 2, 6, 4),
        (LogUniform(4, 20), 4, 20, 16 / math.log(5)),
        (Normal(-40, 10, -70, -10), -70, -10, -40),
        (LogNormal(2.5, 0.5, 5, 60), 5, 60, 14.3),
        (Mixture(((1, Uniform(0, 1)), (3, Uniform(10, 11)))), 0, 11, (0.5 + 3 * 10.5) / 4),
    ],
)
def test_distributions_stay_in_their_ends_and_have_their_mean(
    distribution: object, low: float, high: float, mean: float
) -> None:
    rng = np.random.default_rng(1)
    values = np.array([draw(rng, distribution) for _ in range(4000)])  # type: ignore[arg-type]
    assert low <= values.min()
    assert values.max() <= high
    assert abs(values.mean() - mean) < 0.06 * (high - low)


def test_a_spec_depends_on_seed_and_index_alone(bank: Bank) -> None:
    forward = [draw_sample(bank, config(), index) for index in range(12)]
    backward = [draw_sample(bank, config(), index) for index in reversed(range(12))]
    assert forward == backward[::-1]
    assert draw_sample(bank, config(samples=7, shard_samples=3), 5) == forward[5]
    assert draw_sample(bank, config(seed=1), 5) != forward[5]
    # (seed, index) are not added up: seed 1 is not seed 0 one sample later
    assert draw_sample(bank, config(seed=1), 4).tumors != forward[5].tumors


def test_json_keeps_a_spec_exactly(bank: Bank) -> None:
    for index in range(20):
        spec = draw_sample(bank, config(), index)
        assert SampleSpec.model_validate_json(spec.model_dump_json()) == spec


def test_shares_are_met(bank: Bank) -> None:
    specs = [draw_sample(bank, config(body_share=0.2, healthy_share=0.3), index) for index in range(600)]
    without = sum(not spec.tumors for spec in specs) / len(specs)
    assert 0.44 < without < 0.58  # some tumors find no place beside the half that asks for none
    splits = Counter(spec.split for spec in specs)
    assert 0.72 < splits["train"] / len(specs) < 0.88
    assert splits["val"]
    assert splits["test"]
    assert all(bank.load(spec.case_id).split == spec.split for spec in specs)


def test_a_split_without_share_or_cases_gives_no_sample(bank: Bank) -> None:
    only_test = config(split_share={"train": 0, "val": 0, "test": 1})
    assert {draw_sample(bank, only_test, index).split for index in range(30)} == {"test"}


def test_tumors_lie_in_patch_and_organ_and_apart(bank: Bank) -> None:
    wanted = config(body_share=0, healthy_share=0, tumors={"liver": {"count": [3, 5], "diameter_mm": [8, 20]}})
    several = 0
    for index in range(60):
        spec = draw_sample(bank, wanted, index)
        case = bank.load(spec.case_id)
        several += len(spec.tumors) > 1
        for k, tumor in enumerate(spec.tumors):
            voxel = np.rint(tumor.center_vox).astype(int)
            assert case.organs[tuple(voxel)] == organ_id("liver")
            assert np.all(voxel >= spec.origin_vox)
            assert np.all(voxel < np.add(spec.origin_vox, spec.patch_shape))
            assert tumor.instance == k + 1
            for other in spec.tumors[:k]:
                apart = math.dist(tumor.center_vox, other.center_vox) * SPACING_MM
                assert apart >= tumor.reach_mm + other.reach_mm + 2 * SPACING_MM
    assert several > 20


def test_tumors_keep_off_vessels_where_there_is_room(bank: Bank) -> None:
    small = config(body_share=0, healthy_share=0, tumors={"liver": {"count": [1, 1], "diameter_mm": [8, 12]}})
    clear = []
    for index in range(60):
        spec = draw_sample(bank, small, index)
        case = bank.load(spec.case_id)
        for tumor in spec.tumors:
            voxel = tuple(np.rint(tumor.center_vox).astype(int))
            clear.append(float(case.vessel_distance_mm[voxel]) + SPACING_MM >= tumor.diameter_mm / 2)
    assert np.mean(clear) > 0.95


def test_half_axes_have_the_volume_of_the_asked_ball(bank: Bank) -> None:
    for index in range(30):
        for tumor in draw_sample(bank, config(), index).tumors:
            assert math.prod(tumor.half_axes_mm) == pytest.approx((tumor.diameter_mm / 2) ** 3)
            rotation = np.array(tumor.rotation)
            assert np.allclose(rotation @ rotation.T, np.eye(3))
            assert np.linalg.det(rotation) == pytest.approx(1)


def test_settings_change_the_presets(bank: Bank) -> None:
    changed = config(
        body_share=0,
        healthy_share=0,
        tumors={"liver": {"kinds": {"hcc": 1}, "diameter_mm": [10, 11], "contrast_hu": [-60, -50], "count": [2, 2]}},
    )
    tumors = [t for index in range(20) for t in draw_sample(bank, changed, index).tumors]
    assert {t.kind for t in tumors} == {"hcc"}
    assert all(10 <= t.diameter_mm <= 11 for t in tumors)
    assert all(-60 <= t.contrast_hu <= -50 for t in tumors)
    assert max(t.instance for t in tumors) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"organs": ["pancreas"]}, ["pancreas", "presets"]),
        ({"tumors": {"liver": {"kinds": {"glioma": 1}}}}, ["glioma", "metastasis", "hcc"]),
        ({"tumors": {"liver": {"kinds": {"hcc": 0}}}}, ["weights", "zero"]),
        ({"tumors": {"liver": {"diameter_mm": [300, 400]}}}, ["300", "organ holds", "patch"]),
        ({"tumors": {"liver": {"diameter_mm": [1, 2]}}}, ["1 to 2 mm", "grid"]),
    ],
)
def test_impossible_requests_name_the_limit(bank: Bank, changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        check_bank(bank, config(**changes))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_patch_larger_than_the_case_is_centred_on_it(bank: Bank) -> None:
    spec = draw_sample(bank, config(patch_shape=(80, 32, 64)), 0)
    assert spec.origin_vox[0] == (60 - 80) // 2
    assert spec.origin_vox[2] == (44 - 64) // 2
    assert 0 <= spec.origin_vox[1] <= 52 - 32


def test_bank_path_is_in_the_message(tmp_path: Path) -> None:
    one = make_bank(tmp_path / "one", cases=1)
    with pytest.raises(InputError, match="none of them a sample"):
        check_bank(one, config(split_share={"train": 0, "val": 1, "test": 1}))
