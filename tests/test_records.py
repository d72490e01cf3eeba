"""The records of a sample: what cannot be one, and that JSON keeps every one exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.bank import Bank
from pipeline.spec import SampleSpec, TumorSpec
from pipeline.synthesis.engines.ellipsoid import EllipsoidForm
from pipeline.synthesis.engines.growth import GrowthForm
from pipeline.synthesis.engines.wall import WallForm
from tests.specs import config, drawn

BALL: dict[str, Any] = {
    "engine": "ellipsoid",
    "half_axes_mm": [5.0, 5.0, 5.0],
    "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
TUMOR: dict[str, Any] = {
    "instance": 1,
    "organ": "liver",
    "kind": "hcc",
    "center_vox": [10.0, 10.5, 9.25],
    "diameter_mm": 10.0,
    "form": BALL,
    "edge_mm": 1.0,
    "contrast_hu": -30.0,
    "key": 5,
}
SAMPLE: dict[str, Any] = {
    "index": 0,
    "seed": 0,
    "split": "train",
    "case_id": "a",
    "origin_vox": [-3, 0, 7],
    "patch_shape": [16, 16, 16],
    "organs": ["liver"],
    "tumors": [TUMOR],
}
PARTS: dict[str, dict[str, Any]] = {
    "rim": {"hu": 20.0, "mm": 2.0, "nodular": 1.0},
    "core": {"hu": -30.0, "depth_mm": 4.0, "edge_mm": 1.0},
    "septa": {"hu": 8.0, "spacing_mm": 6.0},
    "calcification": {"hu": 150.0, "grain_mm": 2.0, "threshold": 2.3},
    "mass_effect": {"strength": 0.3, "reach_mm": 20.0},
    "upstream": {"duct": [[1, 2, 3], [4, 5, 6]], "duct_mm": 4.0, "duct_hu": 10.0, "atrophy_mm": 2.0},
}


@pytest.mark.parametrize(
    ("settings", "form"),
    [
        (config(distractor_share=0.5), EllipsoidForm),
        (config("kidney", distractor_share=0.5), EllipsoidForm),
        (config("pancreas"), EllipsoidForm),
        (config(engine="growth"), GrowthForm),
        (config(engine="growth", series={"points": 3}), GrowthForm),
        (config(presets="seed-paper"), EllipsoidForm),
        (config("colon", samples=3), WallForm),
    ],
    ids=["liver", "kidney", "pancreas", "growth", "series", "seed-paper", "colon"],
)
def test_json_keeps_a_spec_exactly(abdomens: Bank, settings: Any, form: type) -> None:
    seen = 0
    for _, spec in drawn(abdomens, settings, min(settings.samples, 20)):
        assert SampleSpec.model_validate_json(spec.model_dump_json()) == spec
        assert SampleSpec.model_validate_json(spec.model_dump_json(exclude_none=True)) == spec  # as manifests have it
        seen += sum(isinstance(tumor.form, form) for tumor in spec.tumors)
    assert seen


def test_json_keeps_every_part_and_what_is_not_there() -> None:
    whole = SampleSpec.model_validate(SAMPLE | {"tumors": [TUMOR | PARTS], "series_id": 3, "time_days": 90.0})
    assert SampleSpec.model_validate_json(whole.model_dump_json(exclude_none=True)) == whole
    for part in PARTS:
        assert getattr(whole.tumors[0], part) is not None
        without = TumorSpec.model_validate({**TUMOR, **PARTS, part: None})
        assert TumorSpec.model_validate_json(without.model_dump_json(exclude_none=True)) == without
        assert part not in json.loads(without.model_dump_json(exclude_none=True))


@pytest.mark.parametrize(
    "change",
    [
        {"instance": 0},
        {"diameter_mm": 0.0},
        {"diameter_mm": float("nan")},
        {"contrast_hu": float("inf")},
        {"edge_mm": -0.1},
        {"key": 2**63},
        {"key": -1},
        {"noise": 2},
        {"base": "fat"},
        {"room": "anywhere"},
        {"texture_sd_hu": -1.0},
        {"texture_grain_mm": 0.0},
        {"doubling_days": 0.0},
        {"form": {**BALL, "engine": "cube"}},
        {"form": {k: v for k, v in BALL.items() if k != "engine"}},
        {"form": {**BALL, "engine": "growth"}},
        {"rim": {**PARTS["rim"], "mm": 0.0}},
        {"rim": {**PARTS["rim"], "nodular": 1.5}},
        {"core": {**PARTS["core"], "depth_mm": -1.0}},
        {"septa": {**PARTS["septa"], "spacing_mm": 0.0}},
        {"calcification": {**PARTS["calcification"], "grain_mm": 0.0}},
        {"mass_effect": {**PARTS["mass_effect"], "strength": 1.0}},
        {"mass_effect": {**PARTS["mass_effect"], "strength": 0.0}},
        {"upstream": {**PARTS["upstream"], "duct_mm": -1.0}},
        {"colour": "red"},
    ],
    ids=str,
)
def test_an_invalid_tumor_cannot_exist(change: dict[str, Any]) -> None:
    TumorSpec.model_validate(TUMOR | PARTS)
    with pytest.raises(ValidationError):
        TumorSpec.model_validate(TUMOR | PARTS | change)


@pytest.mark.parametrize(
    "change",
    [{"index": -1}, {"seed": -1}, {"split": "all"}, {"origin_vox": [1, 2]}, {"series_id": -1}, {"time_days": -1.0}],
    ids=str,
)
def test_an_invalid_sample_cannot_exist(change: dict[str, Any]) -> None:
    SampleSpec.model_validate(SAMPLE)
    with pytest.raises(ValidationError):
        SampleSpec.model_validate(SAMPLE | change)


def test_records_do_not_change() -> None:
    with pytest.raises(ValidationError):
        SampleSpec.model_validate(SAMPLE).index = 3  # type: ignore[misc]
