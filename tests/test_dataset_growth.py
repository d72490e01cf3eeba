"""Datasets that grow: what was made stays, byte for byte; of two different growths one wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bank import Bank
from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import read_info
from pipeline.errors import InputError
from pipeline.manifest import committed_shards
from pipeline.plan import Plan
from pipeline.status import dataset_status
from pipeline.store import FolderStore, open_store
from tests.cases import make_bank
from training.stream import ShardStream
from workers.generate import finish, generate, new_info
from workers.growth import begin, planned
from workers.plan import Slice

CONFIG = GenerateConfig(samples=6, patch_shape=(24, 24, 16), shard_samples=4, seed=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


def of(samples: int) -> GenerateConfig:
    return CONFIG.model_copy(update={"samples": samples})


def make(bank: Bank, out: Path, samples: int) -> Dataset:
    generate(bank.path, out, of(samples), log=lambda _: None)
    return open_dataset(out)


def files(out: Path) -> dict[str, bytes]:
    """All that was committed, but for what a growth writes anew."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for folder in ("shards", "manifest")
        for path in (out / folder).rglob("*")
        if path.is_file()
    }


def test_a_larger_dataset_keeps_the_old_part_and_holds_what_one_made_at_once_holds(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path / "grown", 6)
    before = files(tmp_path / "grown")
    make(bank, tmp_path / "grown", 7)
    grown = make(bank, tmp_path / "grown", 13)
    after = files(tmp_path / "grown")
    assert {name: after[name] for name in before} == before
    assert grown.info.grown == (6, 7)
    assert grown.complete
    at_once = make(bank, tmp_path / "at-once", 13)
    same = ["index", "split", "case_id", "image_crc32c", "label_crc32c", "spec", "tumors"]
    assert grown.columns(same).equals(at_once.columns(same))
    for index in range(13):
        assert (grown.sample(index).image == at_once.sample(index).image).all()
    seen = [int(index) for batch in ShardStream(grown, 2, split="all", epochs=1) for index in batch["index"]]
    assert sorted(seen) == list(range(13))


def test_status_counts_the_short_shards_of_a_grown_dataset(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    make(bank, tmp_path, 13)
    assert dataset_status(tmp_path)["samples"] == {"committed": 13, "planned": 13}
    (tmp_path / "manifest/000001.parquet").unlink()  # holds 2 samples
    assert dataset_status(tmp_path)["samples"] == {"committed": 11, "planned": 13}


def test_while_it_grows_the_old_samples_stay_readable(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    store = open_store(tmp_path)
    begin(store, planned(store, new_info(store, bank, of(13))))
    opened = open_dataset(tmp_path)
    assert not opened.complete
    assert opened.indices_of("all") == list(range(6))
    generate(bank.path, tmp_path, of(13), part=Slice(1, 2), log=lambda _: None)  # shard 2: samples 6 to 9
    assert open_dataset(tmp_path).indices_of("all") == list(range(10))
    assert open_dataset(tmp_path).sample(9).row["index"] == 9


def test_a_growth_that_was_cut_off_goes_on(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    (tmp_path / "growth").mkdir()
    (tmp_path / "growth/000001.json").write_text(json.dumps({"samples": 13}))  # killed before dataset.json was written
    assert make(bank, tmp_path, 13).info.grown == (6,)


def test_of_two_different_growths_the_second_is_refused(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    (tmp_path / "growth").mkdir()
    (tmp_path / "growth/000001.json").write_text(json.dumps({"samples": 13}))
    with pytest.raises(InputError, match="grow to 13"):
        generate(bank.path, tmp_path, of(20), log=lambda _: None)
    assert read_info(open_store(tmp_path)).config.samples == 6


@pytest.mark.parametrize("samples", [1, 5])
def test_a_dataset_does_not_shrink(bank: Bank, tmp_path: Path, samples: int) -> None:
    make(bank, tmp_path, 6)
    with pytest.raises(InputError, match="grow, not shrink"):
        generate(bank.path, tmp_path, of(samples), log=lambda _: None)


def test_slices_make_one_dataset_together(bank: Bank, tmp_path: Path) -> None:
    summaries = [
        generate(bank.path, tmp_path / "data", of(13), part=Slice(k, 3), log=lambda _: None) for k in (2, 3, 1)
    ]
    assert [summary.made for summary in summaries] == [4, 4, 5]
    assert [summary.complete for summary in summaries] == [False, False, True]
    assert [summary.committed for summary in summaries] == [4, 8, 13]
    assert [summary.line("data", Slice(k, 3)) for summary, k in zip(summaries[1:], (3, 1), strict=True)] == [
        "data: slice 3/3 made 4 samples in this run; the dataset has 8 of 13, the rest is for the other slices",
        "data: slice 1/3 made 5 samples in this run; the dataset has 13 of 13, it is complete",
    ]
    dataset = open_dataset(tmp_path / "data")
    assert dataset.complete
    assert (tmp_path / "data/manifest.parquet").exists()
    assert dataset.info.plan.shards == 4


def test_a_growth_planned_long_ago_does_not_shrink_what_grew_since(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    store = open_store(tmp_path)
    old_plan = planned(store, new_info(store, bank, of(13)))  # a command that is slow from here on
    make(bank, tmp_path, 13)
    make(bank, tmp_path, 20)
    begin(store, old_plan)
    assert open_dataset(tmp_path).info.config.samples == 20
    other_plan = old_plan.model_copy(update={"config": of(15)})
    with pytest.raises(InputError, match="has grown to 20"):
        begin(store, other_plan)


def test_a_growth_that_others_continued_is_written_on(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    store = open_store(tmp_path)
    (tmp_path / "growth").mkdir()
    for number, samples in ((1, 13), (2, 20)):  # another command wrote dataset.json for 20 and ours comes after it
        (tmp_path / f"growth/{number:06d}.json").write_text(json.dumps({"samples": samples}))
    begin(store, planned(store, new_info(store, bank, of(13))))
    assert read_info(store).grown == (6, 13)
    assert read_info(store).config.samples == 20
    assert make(bank, tmp_path, 20).complete


def test_a_command_of_the_old_size_never_makes_a_manifest_with_holes(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 6)
    store = open_store(tmp_path)
    begin(store, planned(store, new_info(store, bank, of(13))))
    generate(bank.path, tmp_path, of(13), part=Slice(4, 4), log=lambda _: None)  # shard 3 only
    assert committed_shards(store) == [0, 1, 3]
    assert finish(store, Plan(6, 4), anew=True)  # of a driver that knows of six samples
    dataset = open_dataset(tmp_path)
    assert not dataset.complete
    assert dataset.indices_of("all") == [*range(6), *range(10, 13)]
    assert dataset.sample(11).row["index"] == 11
    generate(bank.path, tmp_path, of(13), log=lambda _: None)
    assert open_dataset(tmp_path).indices_of("all") == list(range(13))


def test_a_whole_manifest_with_holes_is_not_followed(bank: Bank, tmp_path: Path) -> None:
    make(bank, tmp_path, 13)
    compact(open_store(tmp_path), [0, 2])
    dataset = open_dataset(tmp_path)
    assert dataset.indices_of("all") == list(range(13))
    assert dataset.sample(5).row["index"] == 5


def test_a_dataset_held_open_stays_what_it_was_when_it_grows(bank: Bank, tmp_path: Path) -> None:
    held = make(bank, tmp_path, 6)
    row = make(bank, tmp_path, 13).row(2)
    assert (held.row(2), held.rows, held.columns(["index"]).num_rows) == (row, 6, 6)


def test_jobs_that_start_together_make_one_dataset(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "data")
    info = new_info(store, bank, of(6))
    look = FolderStore.is_free

    def another_was_faster(place: FolderStore) -> bool:
        monkeypatch.setattr(FolderStore, "is_free", look)
        begin(store, info)
        return look(place)

    monkeypatch.setattr(FolderStore, "is_free", another_was_faster)
    assert planned(store, info) == info
    begin(store, info)


def test_what_a_killed_first_start_left_does_not_block_the_place(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.dataset.json.0123abcd.tmp").write_text("{")
    assert make(bank, tmp_path / "data", 6).complete


def test_a_bank_that_moved_is_written_down(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank")
    generate(bank.path, tmp_path / "data", of(6), log=lambda _: None)
    (tmp_path / "bank").rename(tmp_path / "moved")
    generate(tmp_path / "moved", tmp_path / "data", of(13), log=lambda _: None)
    assert open_dataset(tmp_path / "data").healthy(0).shape == (24, 24, 16)
    (tmp_path / "moved").rename(tmp_path / "again")
    generate(tmp_path / "again", tmp_path / "data", of(13), log=lambda _: None)
    assert open_dataset(tmp_path / "data").healthy(0).shape == (24, 24, 16)
