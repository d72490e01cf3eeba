"""Replay: what fits all its checksums and is not what the recipe gives; which samples are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.catalog import DatasetInfo, read_info
from tests.damage import CONFIG, assert_same, copy_home, flip, forge, make_home, part_of, rewrite_part
from workers.plan import Plan
from workers.replay import choose
from workers.verify import verify


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("replay"))


@pytest.fixture
def dataset(home: Path, tmp_path: Path) -> Path:
    return copy_home(home, tmp_path)


def brighter(index: int, image: Any, label: Any) -> None:
    if index == 6:
        image[3, 4, 5] += 1


def both(index: int, image: Any, label: Any) -> None:
    image[0, 0, 0] -= 7
    label[0, 0, 0] ^= 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (brighter, [("image", "sample 6: 1 voxels of its image differ")]),
        (both, [(name, f"sample {k}: 1 voxels of its {name}") for k in range(4, 8) for name in ("image", "label")]),
    ],
)
def test_a_forged_shard_is_found_and_made_again(
    home: Path, dataset: Path, change: Any, expected: list[tuple[str, str]]
) -> None:
    forge(dataset, 1, change)
    assert verify(dataset).findings == []
    report = verify(dataset, replay=1.0)
    assert report.replayed == 10
    found = [f for f in report.findings if "/c/0/0/0/0" in f.file]
    assert [f.shard for f in found] == [1] * len(expected)
    for finding, (name, what) in zip(found, expected, strict=True):
        assert finding.file == f"shards/000001-{'f0' * 6}.zarr/{name}/c/0/0/0/0"
        assert what in finding.what
    repaired = verify(dataset, replay=1.0, repair=True)
    assert repaired.ok
    assert [repair.note for repair in repaired.repairs] == ["made again, other than what was recorded"]
    assert_same(dataset, home / "data")


def test_a_forged_label_is_found(dataset: Path) -> None:
    forge(dataset, 1, lambda index, image, label: label.fill(0))
    report = verify(dataset, replay=1.0)
    assert {finding.shard for finding in report.findings} == {1}
    assert any("voxels of its label differ" in finding.what for finding in report.findings)


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("tumor_voxels", lambda value: value + 1, "not what is measured in it: tumor_voxels"),
        ("affine", lambda value: [value[0] + 0.01, *value[1:]], "not what is measured in it: affine"),
        ("annotated_classes", lambda value: [0], "not what is measured in it: annotated_classes"),
        ("spec", lambda value: value.replace('"organs":["liver"]', '"organs":["colon"]'), "is drawn for it: organs"),
        ("spec", lambda value: value.replace('"tumors":[{', '"tumours":[{'), "cannot be made again"),
    ],
)
def test_a_changed_row_is_found(dataset: Path, column: str, change: Any, says: str) -> None:
    rewrite_part(dataset, 2, lambda row: row.update({column: change(row[column])}))
    assert verify(dataset).findings == []
    report = verify(dataset, replay=1.0)
    assert not report.ok
    assert any(says in finding.what for finding in report.findings), report.lines()
    assert {finding.shard for finding in report.findings} == {2}


def test_facts_may_differ_in_their_last_bits(dataset: Path) -> None:
    def nudge(row: dict[str, Any]) -> None:
        for tumor in row["tumors"]:
            tumor["mean_hu"] = float(np.nextafter(tumor["mean_hu"], 1e9))

    rewrite_part(dataset, 1, nudge)
    assert verify(dataset, replay=1.0).ok


def test_another_version_is_named_and_nothing_is_made_again(dataset: Path) -> None:
    forge(dataset, 1, brighter)
    rewrite_part(dataset, 1, versions={**part_of(dataset, 1).versions, "torch": "1.0"})
    report = verify(dataset, replay=1.0, repair=True)
    assert not report.ok
    assert "torch 1.0 made it, here is" in report.left[0].what
    assert report.repairs == []
    assert (dataset / f"shards/000001-{'f0' * 6}.zarr").is_dir()


def test_a_damaged_bank_is_not_the_dataset_s_fault(home: Path, tmp_path: Path) -> None:
    import shutil

    dataset = copy_home(home, tmp_path)
    bank = (tmp_path / "bank").resolve()
    (tmp_path / "bank").unlink()
    shutil.copytree(bank, tmp_path / "bank")
    for case in (tmp_path / "bank/cases").iterdir():
        ct = case / "ct/c/0/0/0"
        data = np.fromfile(ct, "<i2")
        (data + 50).tofile(ct)
    report = verify(dataset, replay=1.0, repair=True)
    assert not report.ok
    assert all("cannot be compared" in finding.what and "bytes changed" in finding.what for finding in report.left)
    assert report.repairs == []


def test_broken_shards_are_not_replayed(home: Path, dataset: Path) -> None:
    flip(next((dataset / "shards").glob("000001-*/image/c/0/0/0/0")), 50)
    report = verify(dataset, replay=1.0)
    assert report.replayed == 6
    assert [finding.shard for finding in report.findings] == [1]


# ---- the choice ----


@pytest.fixture(scope="module")
def info(home: Path) -> DatasetInfo:
    large = CONFIG.model_copy(update={"samples": 1000, "shard_samples": 64})
    return read_info(home / "data").model_copy(update={"config": large, "shards": 16})


@pytest.mark.parametrize(
    ("fraction", "count"), [(1.0, 1000), (0.5, 500), (0.3, 300), (0.01, 10), (0.0001, 1), (1e-12, 1)]
)
def test_the_share_is_kept_and_is_at_least_one(info: DatasetInfo, fraction: float, count: int) -> None:
    chosen = choose(info, range(16), fraction)
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert chosen == choose(info, range(16), fraction)


def test_a_larger_share_holds_a_smaller_one(info: DatasetInfo) -> None:
    assert set(choose(info, range(16), 0.1)) < set(choose(info, range(16), 0.2))


def test_the_choice_is_of_the_given_shards_and_changes_with_the_seed(info: DatasetInfo) -> None:
    plan = Plan(1000, 64)
    assert choose(info, [3, 15], 1.0) == [*plan.indices(3), *plan.indices(15)]
    assert choose(info, [], 1.0) == []
    other = info.model_copy(update={"config": info.config.model_copy(update={"seed": 6})})
    assert choose(info, range(16), 0.1) != choose(other, range(16), 0.1)
