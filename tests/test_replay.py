"""Replay: what fits all its checksums and is not what the recipe gives; which samples are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.manifest import part_name
from tests.damage import KINDS, assert_same, copy_home, flip, forge, make_homes, part_of, rewrite_part
from workers.plan import Plan
from workers.replay import choose, indices_of
from workers.verify import verify


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_homes(tmp_path_factory.mktemp("replay"))


@pytest.fixture
def home(homes: dict[str, Path]) -> Path:
    return homes["full"]


@pytest.fixture
def dataset(home: Path, tmp_path: Path) -> Path:
    return copy_home(home, tmp_path)


def brighter(index: int, image: Any, label: Any) -> None:
    if index == 6:
        image[3, 4, 5] += 1


def both(index: int, image: Any, label: Any) -> None:
    image[0, 0, 0] -= 7
    label[0, 0, 0] ^= 1


@pytest.mark.parametrize("kind", ["full", "delta"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (brighter, [("image", "sample 6: 1 voxels of its image differ")]),
        (both, [(name, f"sample {k}: 1 voxels of its {name}") for k in range(4, 8) for name in ("image", "label")]),
    ],
)
def test_a_forged_shard_is_found_and_made_again(
    homes: dict[str, Path], tmp_path: Path, kind: str, change: Any, expected: list[tuple[str, str]]
) -> None:
    dataset = copy_home(homes[kind], tmp_path)
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
    assert_same(dataset, homes[kind] / "data")


def test_a_recipe_of_other_pixels_is_found_and_made_again(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["recipe"], tmp_path)
    forge(dataset, 1, brighter)
    assert verify(dataset).findings == []
    report = verify(dataset, replay=1.0)
    found = [(f.file, f.what) for f in report.findings if "crc32c" in f.what]
    assert found == [(part_name(1), "sample 6: what its spec gives has another image_crc32c")]
    assert verify(dataset, replay=1.0, repair=True).ok
    assert_same(dataset, homes["recipe"] / "data")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_dataset_replays(homes: dict[str, Path], kind: str) -> None:
    report = verify(homes[kind] / "data", replay=1.0)
    assert (report.findings, report.replayed, report.notes) == ([], 10, [])


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


PLAN = Plan(1000, 64)
ALL = indices_of(PLAN, range(16))


@pytest.mark.parametrize(
    ("fraction", "count"), [(1.0, 1000), (0.5, 500), (0.3, 300), (0.01, 10), (0.0001, 1), (1e-12, 1)]
)
def test_the_share_is_kept_and_is_at_least_one(fraction: float, count: int) -> None:
    chosen = choose(5, ALL, fraction)
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert chosen == choose(5, ALL, fraction)


def test_a_larger_share_holds_a_smaller_one() -> None:
    assert set(choose(5, ALL, 0.1)) < set(choose(5, ALL, 0.2))


def test_the_choice_is_of_the_given_shards_and_changes_with_the_seed() -> None:
    assert choose(5, indices_of(PLAN, [3, 15]), 1.0) == [*PLAN.indices(3), *PLAN.indices(15)]
    assert choose(5, indices_of(PLAN, []), 1.0) == []
    assert choose(5, ALL, 0.1) != choose(6, ALL, 0.1)


def test_samples_of_a_dataset_that_grew_keep_their_lots() -> None:
    grown = indices_of(Plan(3000, 64, (1000,)), range(48))
    assert {i for i in choose(5, grown, 0.5) if i < 1000} <= set(choose(5, ALL, 0.6))


def test_the_choice_is_even() -> None:
    """Of 100,000 samples a tenth: each tenth of the dataset gives its share, within 5 standard deviations."""
    chosen = np.array(choose(7, np.arange(100_000), 0.1))
    counts = np.histogram(chosen, 10, (0, 100_000))[0]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(10_000 * 0.1 * 0.9)
