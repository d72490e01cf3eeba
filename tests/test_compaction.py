"""`manifest.parquet` of the first shards of a dataset that is being made: what readers and others see of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.manifest import WHOLE, open_whole, part_name
from pipeline.plan import Plan
from pipeline.store import FolderStore
from tests.cases import make_bank
from tests.datasets import make_dataset
from workers import compaction
from workers.attempt import ShardReport
from workers.compaction import Compactor
from workers.generate import generate
from workers.verify import verify

SHARDS, SAMPLES = 12, 24
PLAN = Plan(SAMPLES, 2)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_LOOK_SHARDS", 1), ("_LEAST_SHARDS", 3), ("_SHARE", 2)):
        monkeypatch.setattr(compaction, name, value)


@pytest.fixture
def whole(tmp_path: Path) -> Dataset:
    """A dataset as it will be; parts are taken out of it to make it one that is being made."""
    return make_dataset(tmp_path / "data", SAMPLES, (8, 8, 8), 2)


class Growing:
    """The dataset while its parts come one after another."""

    def __init__(self, whole: Dataset) -> None:
        self.store = whole.store
        self.parts = {shard: self.store.read(part_name(shard)) for shard in whole.parts}
        self.store.remove([WHOLE, *map(part_name, self.parts)])
        self.told = Compactor(self.store, PLAN)

    def commit(self, *shards: int) -> None:
        for shard in shards:
            self.store.create(part_name(shard), self.parts[shard])
            self.told(ShardReport(shard, "committed", 2, 0, 1.0))

    @property
    def held(self) -> list[int]:
        return list(open_whole(self.store).parts()) if self.store.exists(WHOLE) else []


def test_the_first_shards_are_put_together_now_and_then(whole: Dataset) -> None:
    rows, growing, held = whole.manifest, Growing(whole), []
    for shard in range(SHARDS):
        growing.commit(shard)
        held.append(len(growing.held))
        seen = open_dataset(growing.store)
        assert seen.manifest.equals(rows[: 2 * shard + 2])
        assert list(seen.parts) == list(range(shard + 1))
        assert len(seen._files) == (held[-1] > 0) + shard + 1 - held[-1]
    assert held == [0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 9]  # the end is for `finish`


def test_only_what_is_committed_without_a_gap(whole: Dataset) -> None:
    rows, growing = whole.manifest, Growing(whole)
    growing.commit(0, 1, 2, 3, 5, 6, 7, 8)
    assert growing.held == [0, 1, 2]
    growing.commit(4)
    assert growing.held == list(range(9))
    assert open_dataset(growing.store).manifest.equals(rows[:18])


def test_a_reader_that_is_at_work_goes_on_with_what_it_opened(whole: Dataset) -> None:
    rows, growing = whole.manifest, Growing(whole)
    growing.commit(0, 1, 2, 3)
    reader = open_dataset(growing.store)
    growing.commit(*range(4, SHARDS))
    assert len(growing.held) == 9
    assert reader.rows == 8
    assert reader.columns(["index"])["index"].to_pylist() == list(range(8))
    assert reader.row(5) == rows.slice(5, 1).to_pylist()[0]
    assert reader.manifest.equals(rows[:8])
    assert sum(table.num_rows for table in reader.batches()) == 8
    with pytest.raises(InputError, match="no sample with index 8"):
        reader.row(8)


def test_a_reader_does_not_go_on_with_other_attempts(whole: Dataset, tmp_path: Path) -> None:
    growing = Growing(whole)
    growing.commit(0, 1, 2)
    reader = open_dataset(growing.store)
    other = make_dataset(tmp_path / "other", SAMPLES, (8, 8, 8), 2, seed=5)
    growing.store.replace(WHOLE, other.store.read(WHOLE))
    with pytest.raises(InputError, match="written anew since the dataset was opened"):
        reader.columns(["index"])


@pytest.mark.parametrize("damage", [b"no parquet", None])
def test_what_cannot_be_written_or_read_holds_nobody_up(
    whole: Dataset, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = Growing(whole)
    growing.commit(0, 1, 2)
    if damage:
        growing.store.replace(WHOLE, damage)
        growing.commit(3)
        assert growing.held == [0, 1, 2, 3]
    else:
        growing.store.remove([part_name(1)])  # withdrawn by a repair
        growing.store.replace(part_name(1), b"damaged")
        growing.commit(3, 4, 5)
        assert growing.held == [0, 1, 2]


def test_a_part_that_is_replaced_meanwhile_is_seen(whole: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, seen = Growing(whole), []

    def replaced_meanwhile(store: FolderStore, shards: range) -> None:
        compact(store, shards)
        if not seen:
            store.replace(part_name(1), growing.parts[1])
        seen.append(list(shards))

    monkeypatch.setattr(compaction, "compact", replaced_meanwhile)
    growing.commit(0, 1, 2)
    assert seen == [[0, 1, 2], [0, 1, 2]]


def test_shards_that_come_meanwhile_are_left_for_the_next_time(whole: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    growing, later, seen = Growing(whole), iter(range(3, SHARDS)), []

    def committed_meanwhile(store: FolderStore, shards: range) -> None:
        compact(store, shards)
        seen.append(list(shards))
        for shard in itertools.islice(later, 1):
            store.create(part_name(shard), growing.parts[shard])

    monkeypatch.setattr(compaction, "compact", committed_meanwhile)
    growing.commit(0, 1, 2)
    assert seen == [[0, 1, 2]]


def test_a_run_does_it_and_ends_with_the_same_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = make_bank(tmp_path / "bank")
    config = GenerateConfig(samples=9, patch_shape=(16, 16, 16), shard_samples=1, seed=3)
    written: list[int] = []

    def noted(store: FolderStore, shards: range) -> None:
        written.append(len(shards))
        compact(store, shards)

    monkeypatch.setattr(compaction, "compact", noted)
    generate(bank.path, tmp_path / "data", config, log=lambda line: None)
    assert written == [3, 6, 9]
    assert open_dataset(tmp_path / "data").complete
    assert verify(tmp_path / "data").ok


def test_a_damaged_one_of_a_dataset_that_is_being_made_is_repaired(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank")
    config = GenerateConfig(samples=4, patch_shape=(16, 16, 16), shard_samples=1, seed=3)
    generate(bank.path, tmp_path / "data", config, log=lambda line: None)
    store = FolderStore(tmp_path / "data")
    store.remove([part_name(3)])
    store.replace(WHOLE, b"damaged")
    report = verify(store.folder, repair=True)
    assert report.ok, report.lines()
    assert open_dataset(store).rows == 3
