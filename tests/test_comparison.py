"""What differs between two datasets: settings, samples by index and by pixels, facts, distributions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.catalog import open_dataset
from pipeline.comparison import _largest_gap, compare, describe_difference
from pipeline.inspection import summarise
from pipeline.views import merge, select
from tests.command import run
from tests.damage import rewrite_part
from tests.datasets import make_dataset

SAMPLES = 10
SAME = {
    "other_image": 0,
    "other_label": 0,
    "other_facts": 0,
    "other_facts_by_column": {},
    "first_other_pixels": [],
    "of_a_under_another_index_in_b": 0,
}


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a`, `copy` of it, `sharded` with other shards, `longer` with more samples, `other` of another seed."""
    folder = tmp_path_factory.mktemp("comparison")
    make_dataset(folder / "a", samples=SAMPLES)
    shutil.copytree(folder / "a", folder / "copy")
    make_dataset(folder / "sharded", samples=SAMPLES, shard_samples=5)
    make_dataset(folder / "longer", samples=13)
    make_dataset(folder / "other", samples=SAMPLES, seed=1)
    return folder


def compared(home: Path, a: str, b: str) -> dict[str, Any]:
    found = compare(open_dataset(home / a), open_dataset(home / b))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_copy_is_the_same(made: Path) -> None:
    found = compared(made, "a", "copy")
    assert found["settings"] == []
    assert found["samples"] == SAME | {"only_in_a": 0, "only_in_b": 0, "in_both": 10, "identical_pixels": 10}
    assert found["shift"] == {"diameter_mm": 0.0, "contrast_hu": 0.0}
    assert found["a"] == summarise(open_dataset(made / "a"))


def test_how_samples_are_stored_is_a_setting_and_no_difference_of_samples(made: Path) -> None:
    found = compared(made, "a", "sharded")
    assert found["settings"] == ["shard_samples: 4 -> 5"]
    assert found["samples"]["identical_pixels"] == 10
    assert found["samples"]["other_facts"] == 0


@pytest.mark.parametrize(("a", "b", "only"), [("a", "longer", (0, 3)), ("longer", "a", (3, 0))])
def test_samples_of_one_alone_are_counted(made: Path, a: str, b: str, only: tuple[int, int]) -> None:
    found = compared(made, a, b)["samples"]
    assert (found["only_in_a"], found["only_in_b"], found["identical_pixels"]) == (*only, 10)


def test_another_seed_is_other_samples(made: Path) -> None:
    found = compared(made, "a", "other")
    assert found["settings"] == ["seed: 0 -> 1"]
    samples = found["samples"]
    assert (samples["in_both"], samples["identical_pixels"], samples["other_image"]) == (10, 0, 10)
    assert samples["other_label"] == 9  # the sample without a tumor has the same liver
    assert samples["first_other_pixels"] == [0, 1, 2, 3, 4]
    assert 0 < found["shift"]["contrast_hu"] <= 1


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda row: row.update(split="val"), "split"),
        (lambda row: row.update(origin_vox=[0, 0, row["index"]]), "origin_vox"),
        (lambda row: row.update(origin_vox=None), "origin_vox"),
        (lambda row: row.update(organs=["liver", "spleen"]), "organs"),
        (lambda row: row["tumors"][0].update(kind="dark"), "tumors.kind"),
        (lambda row: row["tumors"][0].update(vessel_distance_mm=None), "tumors.vessel_distance_mm"),
        (lambda row: row["tumors"][0].update(center_mm=[1.0, 2.0, 3.0]), "tumors.center_mm"),
        (lambda row: row["tumors"][0]["bbox_vox"].__setitem__(5, 77), "tumors.bbox_vox"),
    ],
)
def test_other_facts_are_found_in_their_column(home: Path, change: Any, column: str) -> None:
    rewrite_part(home / "copy", 2, lambda row: change(row) if row["index"] == 9 else None)
    samples = compared(home, "a", "copy")["samples"]
    assert (samples["identical_pixels"], samples["other_facts"]) == (10, 1)
    assert samples["other_facts_by_column"] == {column: 1}


def test_fewer_tumors_are_other_facts_of_every_field(home: Path) -> None:
    rewrite_part(home / "copy", 0, lambda row: row.update(tumors=row["tumors"][1:]) if row["index"] == 3 else None)
    samples = compared(home, "a", "copy")["samples"]
    assert samples["other_facts"] == 1
    assert samples["other_facts_by_column"]["tumors.kind"] == 1


@pytest.mark.parametrize(("name", "where"), [("image", (1, 0)), ("label", (0, 1))])
def test_other_pixels_are_found_by_their_checksums(home: Path, name: str, where: tuple[int, int]) -> None:
    rewrite_part(home / "copy", 1, lambda row: row.update({f"{name}_crc32c": 7}) if row["index"] == 6 else None)
    samples = compared(home, "a", "copy")["samples"]
    assert (samples["other_image"], samples["other_label"]) == where
    assert (samples["identical_pixels"], samples["first_other_pixels"]) == (9, [6])


def test_views_are_compared_with_what_they_are_of(home: Path) -> None:
    select(home / "a", home / "some", where="n_tumors = 2")
    merge([home / "other", home / "a"], home / "both", log=lambda _: None)
    samples = compared(home, "some", "a")["samples"]
    assert (samples["in_both"], samples["identical_pixels"], samples["only_in_b"]) == (5, 5, 5)
    samples = compared(home, "a", "both")["samples"]
    assert (samples["only_in_a"], samples["only_in_b"], samples["identical_pixels"]) == (0, 10, 0)
    assert samples["of_a_under_another_index_in_b"] == 10


def test_a_dataset_without_samples_is_compared(home: Path) -> None:
    (home / "empty").mkdir()
    shutil.copy(home / "a" / "dataset.json", home / "empty")
    found = compared(home, "a", "empty")
    assert (found["samples"]["only_in_a"], found["samples"]["in_both"]) == (10, 0)
    assert found["shift"] == {"diameter_mm": None, "contrast_hu": None}
    assert any("no tumors" in line for line in describe_difference(found))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [([1, 2, 3], [1, 2, 3], 0.0), ([1, 2], [3, 4], 1.0), ([1, 2, 3, 4], [3, 4, 5, 6], 0.5), ([], [1], None)],
)
def test_the_gap_is_that_of_the_cumulative_distributions(
    a: list[float], b: list[float], expected: float | None
) -> None:
    assert _largest_gap(np.array(a, float), np.array(b, float)) == expected


def test_the_command_tells_and_exits_0(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", made / "a", "--diff", made / "other")
    assert code == 0
    lines = out.splitlines()
    assert "settings   seed: 0 -> 1" in lines
    assert "samples    10 in both by index, 0 only in A, 0 only in B" in lines
    assert any(line.startswith("kinds      bright: 14 (100.0 %) | ") for line in lines)
    assert any(line.startswith("diameter   p5 ") and " | p5 " in line for line in lines)
    code, out, _ = run(capsys, "inspect", made / "a", "--diff", made / "other", "--json")
    assert (code, json.loads(out)) == (0, compared(made, "a", "other"))


@pytest.mark.parametrize("flag", [["--where", "index = 1"], ["--sample", "1"], ["--figures", "figures"]])
def test_a_comparison_stands_alone(made: Path, flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "inspect", made / "a", "--diff", made / "other", *flag)
    assert code == 2
    assert "--diff stands alone" in err
