"""Settings: what is refused and how, which source wins, and a digest that changes with every setting."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.settings import Settings, differences, resolve, to_yaml
from pipeline.train_config import TrainConfig

Model = type[Settings]


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def message(model: Model, file: Path | None = None, **overrides: Any) -> str:
    with pytest.raises(InputError) as caught:
        resolve(model, file, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (GenerateConfig, {"sample": 3}, "unknown setting 'sample' (did you mean 'samples'?)"),
        (GenerateConfig, {"Seed": 3}, "unknown setting 'Seed' (did you mean 'seed'?)"),
        (GenerateConfig, {"zzz": 3}, "unknown setting 'zzz'"),
        (GenerateConfig, {"tumors": {"livr": {}}}, "unknown setting 'tumors.livr' (did you mean 'liver'?)"),
        (
            GenerateConfig,
            {"tumors": {"liver": {"diameter": [1, 2]}}},
            "unknown setting 'tumors.liver.diameter' (did you mean 'diameter_mm'?)",
        ),
        (TrainConfig, {"network": {"stride": [2]}}, "unknown setting 'network.stride' (did you mean 'strides'?)"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(model: Model, given: dict[str, Any], expected: str) -> None:
    assert message(model, **given) == expected


OUT_OF_RANGE: list[tuple[Model, dict[str, Any], str]] = [
    (GenerateConfig, {"samples": 0}, "samples: input should be greater than or equal to 1, got 0"),
    (GenerateConfig, {"samples": 2.5}, "samples"),
    (GenerateConfig, {"samples": "many"}, "samples"),
    (GenerateConfig, {"samples": None}, "samples"),
    (GenerateConfig, {"seed": -1}, "seed"),
    (GenerateConfig, {"seed": 2**63}, "seed"),
    (GenerateConfig, {"patch_shape": [96, 96]}, "patch_shape"),
    (GenerateConfig, {"patch_shape": [96, 96, 7]}, "patch_shape.2: input should be greater than or equal to 8, got 7"),
    (GenerateConfig, {"patch_shape": [96, 96, 2000]}, "patch_shape.2"),
    (GenerateConfig, {"patch_shape": 96}, "patch_shape"),
    (GenerateConfig, {"shard_samples": 0}, "shard_samples"),
    (GenerateConfig, {"shard_samples": 5000}, "shard_samples"),
    (GenerateConfig, {"organs": []}, "organs"),
    (GenerateConfig, {"organs": "liver"}, "organs"),
    (GenerateConfig, {"organs": ["liver", "spleen"]}, "organs: 'spleen' is no organ for tumors; choose from liver"),
    (GenerateConfig, {"organs": ["liver", "liver"]}, "organs are named twice"),
    (GenerateConfig, {"healthy_share": 1.1}, "healthy_share"),
    (GenerateConfig, {"healthy_share": float("nan")}, "healthy_share"),
    (GenerateConfig, {"healthy_share": 0.6, "body_share": 0.6}, "healthy_share 0.6 + body_share 0.6"),
    (GenerateConfig, {"split_share": {"train": 0, "val": 0, "test": 0}}, "no split any sample"),
    (GenerateConfig, {"split_share": {"train": -1}}, "split_share.train"),
    (GenerateConfig, {"split_share": {"train": float("inf")}}, "split_share.train"),
    (GenerateConfig, {"store": "tape"}, "store"),
    (GenerateConfig, {"engine": "cube"}, "engine: input should be 'ellipsoid' or 'growth', got 'cube'"),
    (GenerateConfig, {"engine": "wall"}, "engine: input should be 'ellipsoid' or 'growth', got 'wall'"),
    (GenerateConfig, {"tumors": None}, "tumors"),
    (GenerateConfig, {"tumors": {"liver": {"count": [2, 1]}}}, "fewest is more than most"),
    (GenerateConfig, {"tumors": {"liver": {"count": [0, 1]}}}, "tumors.liver.count.0"),
    (GenerateConfig, {"tumors": {"liver": {"count": [1, 21]}}}, "tumors.liver.count.1"),
    (GenerateConfig, {"tumors": {"liver": {"diameter_mm": [30, 5]}}}, "low end 30.0 is above high end 5.0"),
    (GenerateConfig, {"tumors": {"liver": {"diameter_mm": [0, 5]}}}, "a diameter is more than 0"),
    (GenerateConfig, {"tumors": {"liver": {"diameter_mm": [float("nan"), 5]}}}, "tumors.liver.diameter_mm"),
    (GenerateConfig, {"tumors": {"liver": {"diameter_mm": [5, float("inf")]}}}, "tumors.liver.diameter_mm"),
    (GenerateConfig, {"tumors": {"liver": {"kinds": {"hcc": -1}}}}, "tumors.liver.kinds.hcc"),
    (GenerateConfig, {"tumors": {"liver": {"kinds": {"hcc": float("inf")}}}}, "tumors.liver.kinds.hcc"),
    (TrainConfig, {"lr": 0}, "lr"),
    (TrainConfig, {"lr": float("inf")}, "lr"),
    (TrainConfig, {"window": [100, 100]}, "has no width"),
    (TrainConfig, {"window": [100, -100]}, "window: low end 100.0 is above high end -100.0"),
    (TrainConfig, {"window": [float("nan"), 100]}, "window"),
    (TrainConfig, {"network": {"channels": [8, 16], "strides": [2, 2]}}, "2 channel levels need 1 strides, got 2"),
    (TrainConfig, {"network": {"channels": []}}, "network.channels"),
    (TrainConfig, {"augment": {"flip": 1.5}}, "augment.flip"),
    (TrainConfig, {"threads": 0}, "threads"),
    (TrainConfig, {"crop_shape": [4, 8, 8]}, "crop_shape.0"),
]


@pytest.mark.parametrize(("model", "given", "expected"), OUT_OF_RANGE, ids=lambda value: str(value)[:60])
def test_a_value_out_of_range_is_refused_by_its_name(model: Model, given: dict[str, Any], expected: str) -> None:
    assert expected in message(model, **given)


def test_all_findings_are_said_at_once() -> None:
    found = message(GenerateConfig, samples=0, sed=1, healthy_share=7)
    assert all(part in found for part in ("samples: ", "'sed'", "healthy_share: "))


@pytest.mark.parametrize("value", [True, False])
def test_yes_and_no_are_no_numbers(tmp_path: Path, value: bool) -> None:
    assert "seed" in message(GenerateConfig, write(tmp_path, f"seed: {'yes' if value else 'no'}\n"))
    assert "samples" in message(GenerateConfig, samples=value)


def test_settings_never_change_afterwards() -> None:
    settings = GenerateConfig()
    with pytest.raises(ValidationError):
        settings.samples = 5


# -- where settings come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("", {}, {"samples": 1000, "seed": 0}),
        ("# nothing\n", {}, {"samples": 1000}),
        ("samples: 5\n", {}, {"samples": 5, "seed": 0}),
        ("samples: 5\n", {"samples": 7}, {"samples": 7}),
        ("samples: 5\n", {"seed": 3}, {"samples": 5, "seed": 3}),
        ("samples: 5\n", {"samples": 1000}, {"samples": 1000}),  # the default, but given
        ("patch_shape: [8, 9, 10]\n", {"patch_shape": [16, 16, 16]}, {"patch_shape": (16, 16, 16)}),
    ],
)
def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(
    tmp_path: Path, text: str, overrides: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = resolve(GenerateConfig, write(tmp_path, text), overrides).model_dump()
    assert {name: found[name] for name in expected} == expected


def test_groups_merge_setting_by_setting(tmp_path: Path) -> None:
    text = """
split_share: {val: 0.5}
tumors:
  liver: {diameter_mm: [5, 10], count: [1, 2]}
  kidney: {contrast_hu: [-40, 40]}
"""
    overrides = {"tumors": {"liver": {"count": [3, 4]}, "colon": {"count": [1, 1]}}}
    found = resolve(GenerateConfig, write(tmp_path, text), overrides)
    assert found.tumors.of("liver").diameter_mm == (5, 10)
    assert found.tumors.of("liver").count == (3, 4)
    assert found.tumors.of("kidney").contrast_hu == (-40, 40)
    assert found.tumors.of("colon").count == (1, 1)
    assert found.tumors.of("pancreas").count is None
    assert (found.split_share.train, found.split_share.val) == (0.8, 0.5)


def test_without_a_file_the_overrides_decide() -> None:
    assert resolve(TrainConfig, None, {"augment": {"flip": 0}}).augment.flip == 0


def test_an_error_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "samples: -1\n")
    assert message(GenerateConfig, file).startswith(f"--config {file}: samples: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("samples: 1\nseed: [1, 2\n", "is not valid YAML at line 3, column 1"),
        ("samples: 1\n\tseed: 2\n", "is not valid YAML at line 2, column 1"),
        ("samples: 1: 2\n", "is not valid YAML at line 1, column 11"),
        ("samples: *other\n", "undefined alias"),
        ("? [1]\n: 2\n", "is not valid YAML at line 1"),
        ("samples: !!python/object/apply:os.getcwd []\n", "is not valid YAML at line 1"),
        ("- samples\n", "must hold `key: value` lines, it holds a list"),
        ("samples", "must hold `key: value` lines, it holds a str"),
        ("3: 4\n", "keys should be strings"),
        ("samples: 1\nseed: 1\nsamples: 2\n", "samples"),  # named twice: which one counts?
        (b"samples: \x00", "is not valid YAML"),
        (b"\xff\xfe\xff", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    file = write(tmp_path, text)
    found = message(GenerateConfig, file)
    assert expected in found
    assert f"--config {file}" in found


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert message(GenerateConfig, tmp_path / "no.yaml") == f"--config {tmp_path}/no.yaml: No such file or directory"
    assert message(GenerateConfig, tmp_path) == f"--config {tmp_path}: Is a directory"


# -- digest -----------------------------------------------------------------------------------------------------------


class Tiny(Settings):
    b: tuple[float, int] = (1.0, 2)
    a: str = "x"


def test_the_digest_is_fixed_for_all_time() -> None:
    """A dataset is resumed only under the digest it was begun with: another way of hashing would lock out old ones."""
    assert Tiny().digest() == hashlib.sha256(b'{"a":"x","b":[1.0,2]}').hexdigest()


@pytest.mark.parametrize(
    "given", [{}, {"samples": 1000}, {"samples": "1000"}, {"healthy_share": 0.15}, {"patch_shape": [96, 96, 96]}]
)
def test_the_digest_depends_on_values_not_on_who_gave_them(tmp_path: Path, given: dict[str, Any]) -> None:
    assert resolve(GenerateConfig, None, given).digest() == GenerateConfig().digest()
    assert resolve(GenerateConfig, write(tmp_path, yaml.safe_dump(given)), {}).digest() == GenerateConfig().digest()


def test_whole_numbers_are_the_same_range_with_and_without_a_point() -> None:
    first, second = (
        resolve(GenerateConfig, None, {"tumors": {"liver": {"diameter_mm": ends}}}) for ends in ([5, 10], [5.0, 10.0])
    )
    assert first.digest() == second.digest()


CHANGES: list[dict[str, Any]] = [
    {"samples": 999},
    {"seed": 1},
    {"patch_shape": [96, 96, 95]},
    {"shard_samples": 63},
    {"organs": ["kidney"]},
    {"organs": ["liver", "kidney"]},
    {"organs": ["kidney", "liver"]},
    {"healthy_share": 0.150001},
    {"body_share": 0},
    {"distractor_share": 0.1},
    {"presets": "seed-paper"},
    {"engine": "growth"},
    {"engine": "growth", "series": {"points": 2}},
    {"engine": "growth", "series": {"points": 2, "interval_days": 30}},
    {"without": ["rim"]},
    {"without": ["effects"]},
    {"split_share": {"test": 0}},
    {"tumors": {"liver": {"count": [1, 2]}}},
    {"tumors": {"kidney": {"count": [1, 2]}}},
    {"tumors": {"liver": {"diameter_mm": [5, 10]}}},
    {"tumors": {"liver": {"contrast_hu": [5, 10]}}},
    {"tumors": {"liver": {"kinds": {"hcc": 1}}}},
]


def test_every_setting_changes_the_digest() -> None:
    digests = {resolve(GenerateConfig, None, change).digest() for change in [{}, *CHANGES]}
    assert len(digests) == len(CHANGES) + 1
    changed = {name for change in CHANGES for name in change}
    assert changed | {"store"} == set(GenerateConfig.model_fields)  # a new setting belongs into CHANGES


# -- the copy beside every result -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_the_stored_copy_resolves_to_the_same_settings(tmp_path: Path, change: dict[str, Any]) -> None:
    settings = resolve(GenerateConfig, None, change)
    assert resolve(GenerateConfig, write(tmp_path, to_yaml(settings)), {}) == settings


@pytest.mark.parametrize(
    "change", [{}, {"lr": 1e-5}, {"crop_shape": [8, 16, 24]}, {"window": [-0.1, 0.3]}, {"device": "cuda:1"}], ids=str
)
def test_the_stored_copy_of_a_training_as_well(tmp_path: Path, change: dict[str, Any]) -> None:
    settings = resolve(TrainConfig, None, change)
    found = resolve(TrainConfig, write(tmp_path, to_yaml(settings)), {})
    assert found == settings
    assert found.digest() == settings.digest()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 2}, {"a": 3, "b": 2}, ["a: 1 -> 3"]),
        ({"b": 1, "a": [1]}, {"b": 2, "a": [2]}, ["a: [1] -> [2]", "b: 1 -> 2"]),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 5, "d": 2}}}, ["a.b.c: 1 -> 5"]),
        ({"a": 1}, {}, ["a: 1 -> None"]),
        ({}, {"a": {"b": 1}}, ["a: None -> {'b': 1}"]),
        ({"a": {"b": 1}}, {"a": 5}, ["a: {'b': 1} -> 5"]),
    ],
)
def test_differences_name_what_changed(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    assert differences(old, new) == expected
