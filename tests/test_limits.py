"""What a request can ask for, and that the message of one that cannot be met names the limit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pipeline.bank import Bank
from pipeline.case import OrganStats
from pipeline.config import TumorSettings
from pipeline.errors import InputError
from pipeline.organs import TUMOR_ORGANS
from pipeline.presets import preset_of
from pipeline.spec import check_bank
from pipeline.spec.limits import MIN_DIAMETER_VOXELS, diameter_limits, kind_weights, possible_kinds
from tests.specs import config

LARGE = OrganStats(volume_ml=1500, mean_hu=100, sd_hu=10, max_depth_mm=50)
THIN = OrganStats(volume_ml=60, mean_hu=100, sd_hu=10, max_depth_mm=8)


def ball_mm(volume_ml: float) -> float:
    return (6 * volume_ml * 1000 / math.pi) ** (1 / 3)


def with_stats(bank: Bank, organ: str, **changes: float) -> Bank:
    """The bank, as if the organ had been measured otherwise."""
    records = tuple(replace(r, stats={**r.stats, organ: replace(r.stats[organ], **changes)}) for r in bank.records)
    return replace(bank, records=records)


# -- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organ", TUMOR_ORGANS)
def test_without_settings_the_preset_weighs_the_kinds(organ: str) -> None:
    preset = preset_of(organ)
    weights = kind_weights(preset, organ, TumorSettings())
    assert weights == {name: weight for name, weight in preset.weights.items() if weight}


def test_settings_replace_the_weights() -> None:
    settings = TumorSettings(kinds={"cyst": 2.0, "hcc": 1.0, "icc": 0.0})
    assert kind_weights(preset_of("liver"), "liver", settings) == {"cyst": 2.0, "hcc": 1.0}


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"glioma": 1.0}, ["liver has no tumor kind glioma", "metastasis", "hcc"]),
        ({"hcc": 1.0, "b": 1.0, "a": 0.0}, ["a, b"]),
        ({"hcc": 0.0}, ["weights", "liver", "zero"]),
        ({}, ["zero"]),
        ({"focal_fat": 1.0}, ["focal_fat"]),  # a look-alike is no tumor
    ],
)
def test_other_kinds_are_refused(kinds: dict[str, float], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        kind_weights(preset_of("liver"), "liver", TumorSettings(kinds=kinds))
    assert all(word in str(caught.value) for word in words), str(caught.value)


# -- diameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("organ", "kind", "stats", "elongated", "patch", "most"),
    [
        ("liver", "hcc", LARGE, False, (96, 96, 96), 1.8 * 50),  # most of the ball in the organ
        ("liver", "hcc", LARGE, False, (96, 96, 32), 0.8 * 32 * 2),  # the patch's shortest edge
        ("liver", "hcc", replace(LARGE, volume_ml=100), False, (96, 96, 96), ball_mm(50)),  # half of the organ
        ("pancreas", "pdac", THIN, True, (96, 96, 96), 2.5 * 8),  # along the gland
        ("pancreas", "pdac", THIN, False, (96, 96, 96), 1.8 * 8),
        ("kidney", "clear_cell", THIN, False, (96, 96, 96), 3.6 * 8),  # out of the kidney
        ("colon", "annular", THIN, False, (96, 96, 96), ball_mm(15)),  # along the wall
    ],
)
def test_organ_and_patch_limit_diameters(
    organ: str, kind: str, stats: OrganStats, elongated: bool, patch: tuple[int, int, int], most: float
) -> None:
    settings = config(organ, patch_shape=patch)
    low, high = diameter_limits(preset_of(organ).kinds[kind], stats, elongated, settings, 2.0)
    assert low == MIN_DIAMETER_VOXELS * 2.0
    assert high == pytest.approx(most)


@pytest.mark.parametrize("wanted", [(5.0, 8.0), (20.0, 30.0), (300.0, 400.0)])
def test_only_kinds_of_which_a_wanted_size_fits_are_possible(wanted: tuple[float, float]) -> None:
    preset = preset_of("colon")
    settings = config("colon", patch_shape=(96, 96, 96), tumors={"colon": {"diameter_mm": wanted}})
    weights = kind_weights(preset, "colon", settings.tumors.of("colon"))
    possible = possible_kinds(preset, "colon", LARGE, False, settings, 1.0)
    expected = {
        name: weight
        for name, weight in weights.items()
        if wanted[0] <= diameter_limits(preset.kinds[name], LARGE, False, settings, 1.0)[1]
    }
    assert possible == expected
    assert bool(possible) == (wanted[0] < 100)


# -- a whole request --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organ", TUMOR_ORGANS)
@pytest.mark.parametrize("changes", [{}, {"engine": "growth"}, {"distractor_share": 1}, {"without": ["effects"]}])
def test_presets_are_possible_in_every_organ(abdomens: Bank, organ: str, changes: dict[str, Any]) -> None:
    check_bank(abdomens, config(organ, **changes))


@pytest.mark.parametrize(
    ("organ", "changes", "words"),
    [
        ("liver", {"tumors": {"liver": {"kinds": {"glioma": 1}}}}, ["glioma", "metastasis", "hcc"]),
        ("liver", {"tumors": {"liver": {"kinds": {"hcc": 0}}}}, ["weights", "zero"]),
        ("liver", {"tumors": {"liver": {"diameter_mm": [300, 400]}}}, ["300 to 400 mm", "holds", "patch"]),
        ("liver", {"tumors": {"liver": {"diameter_mm": [1, 2]}}}, ["1 to 2 mm", "the grid of 3 mm shows 7.5 mm"]),
        ("liver", {"tumors": {"liver": {"diameter_mm": [70, 80]}}}, ["70 to 80 mm", "the patch 58 mm"]),
        ("pancreas", {"tumors": {"pancreas": {"diameter_mm": [50, 60]}}}, ["pancreas", "56 ml, 11 mm deep", "28 mm"]),
        ("kidney", {"presets": "seed-paper"}, ["seed-paper", "kidney", "clinical"]),
        ("liver", {"presets": "seed-paper", "tumors": {"liver": {"kinds": {"hcc": 1}}}}, ["hcc", "tiny", "large"]),
        ("liver", {"split_share": {"train": 0, "val": 1, "test": 1}}, ["bank: ", "train", "none of them a sample"]),
        ("liver", {"patch_shape": (8, 8, 8), "tumors": {"liver": {"diameter_mm": [20, 30]}}}, ["the patch 19 mm"]),
    ],
)
def test_impossible_requests_name_the_limit(
    abdomens: Bank, organ: str, changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        check_bank(abdomens, config(organ, **changes))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_60_mm_tumor_needs_more_than_10_ml_of_organ(abdomens: Bank) -> None:
    wanted = config("pancreas", patch_shape=(96, 96, 96), tumors={"pancreas": {"diameter_mm": [60, 60]}})
    small = with_stats(abdomens, "pancreas", volume_ml=10, max_depth_mm=12)
    with pytest.raises(InputError, match=r"pancreas tumors of 60 mm .* \(10 ml, 12 mm deep\) holds 21 mm"):
        check_bank(small, wanted)
    check_bank(with_stats(abdomens, "pancreas", volume_ml=400, max_depth_mm=30), wanted)


def test_one_case_that_is_too_small_is_named(abdomens: Bank) -> None:
    wanted = config("kidney", patch_shape=(96, 96, 96), tumors={"kidney": {"diameter_mm": [40, 50]}})
    check_bank(abdomens, wanted)
    first, *others = with_stats(abdomens, "kidney", max_depth_mm=9).records
    with pytest.raises(InputError, match=f"in case {first.case_id}"):
        check_bank(replace(abdomens, records=(first, *others)), wanted)


def test_an_organ_that_no_case_has_is_named(abdomens: Bank) -> None:
    records = tuple(replace(r, usable_organs=("liver",)) for r in abdomens.records)
    with pytest.raises(InputError, match="no case has a usable kidney"):
        check_bank(replace(abdomens, records=records), config("liver", organs=["liver", "kidney"]))
