"""One shard: what is committed, and what a failed, lost or repeated attempt leaves behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import workers.attempt as attempts
import workers.shard_task as shard_task
from pipeline.bank import Bank
from pipeline.case import Case
from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import read_info, recipe_digest
from pipeline.errors import InputError
from pipeline.manifest import Part, read_part
from pipeline.shard import array_crc32c
from pipeline.spec import SampleSpec
from pipeline.store import open_store
from pipeline.synthesis import Rendered, synthesise
from tests.cases import make_bank
from workers import generate
from workers.failure import SampleError
from workers.generate import new_info
from workers.growth import begin
from workers.shard_task import ShardJob, make_shard

CONFIG = GenerateConfig(samples=10, patch_shape=(24, 24, 16), shard_samples=4)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture
def dataset(bank: Bank, tmp_path: Path) -> Path:
    store = open_store(tmp_path / "data")
    begin(store, new_info(store, bank, CONFIG))
    return tmp_path / "data"


def job_for(dataset: Path, bank: Bank, shard: int) -> ShardJob:
    store = open_store(dataset)
    return generate.job_for(store, bank, read_info(store), shard)


def folders(dataset: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in dataset.glob("shards/*"))


def test_a_shard_holds_its_samples_as_the_manifest_says(bank: Bank, dataset: Path) -> None:
    report = make_shard(job_for(dataset, bank, 2))
    assert (report.status, report.samples) == ("committed", 2)
    opened = open_dataset(dataset)
    assert opened.manifest["index"].to_pylist() == [8, 9]
    for index in (8, 9):
        image, label, row = opened.sample(index)
        assert array_crc32c(image) == row["image_crc32c"]
        assert array_crc32c(label) == row["label_crc32c"]
        spec = SampleSpec.model_validate_json(row["spec"])
        again = synthesise(bank.load(row["case_id"]), spec)
        assert np.array_equal(again[0], image)
        assert np.array_equal(again[1], label)


def test_the_part_names_files_with_size_and_digest(bank: Bank, dataset: Path) -> None:
    make_shard(job_for(dataset, bank, 0))
    part, rows = read_part(open_store(dataset), 0)
    assert rows.num_rows == 4
    assert part.config_digest == recipe_digest(CONFIG)
    assert {"draw", "synthesise", "measure", "encode", "write"} <= set(part.timings_s)
    assert part.versions["phantumor"]
    for file in part.files:
        assert (dataset / f"shards/000000-{part.attempt}.zarr" / file.path).stat().st_size == file.size


def test_a_repeated_job_changes_nothing(bank: Bank, dataset: Path) -> None:
    make_shard(job_for(dataset, bank, 0))
    before = (dataset / "manifest/000000.parquet").read_bytes()
    assert make_shard(job_for(dataset, bank, 0)).status == "already"
    assert (dataset / "manifest/000000.parquet").read_bytes() == before
    assert folders(dataset) == ["000000"]


def test_the_loser_of_a_race_removes_its_own_files(bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(dataset, bank, 1)
    commit = attempts.commit_part

    def slower(*arguments: object) -> bool:
        monkeypatch.setattr(attempts, "commit_part", commit)
        assert make_shard(job).status == "committed"  # the other attempt, in the meantime
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "commit_part", slower)
    assert make_shard(job).status == "lost"
    assert folders(dataset) == ["000001"]
    assert open_dataset(dataset).sample(4).row["shard"] == 1


@pytest.mark.parametrize(("room", "step"), [(shard_task, "render_batch"), (attempts, "commit_part")])
def test_a_failed_attempt_leaves_nothing(
    bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch, room: ModuleType, step: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, step, fails)
    with pytest.raises(OSError, match="No space"):
        make_shard(job_for(dataset, bank, 0))
    assert folders(dataset) == []
    assert list(dataset.glob("manifest/*")) == []
    assert list(dataset.glob("running/*")) == []


def test_a_changed_bank_is_refused(bank: Bank, dataset: Path) -> None:
    job = dataclasses.replace(job_for(dataset, bank, 0), bank_fingerprint="0" * 64)
    with pytest.raises(InputError, match="bank changed"):
        make_shard(job)


def test_while_a_shard_is_made_a_record_tells_where(bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, seen = attempts.commit_part, []

    def looking(*arguments: object) -> bool:
        seen.extend(json.loads(file.read_text()) for file in dataset.glob("running/*.json"))
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "commit_part", looking)
    make_shard(job_for(dataset, bank, 1))
    assert [(record["shard"], record["pid"]) for record in seen] == [(1, os.getpid())]
    assert list(dataset.glob("running/*")) == []


def test_a_fault_of_the_generator_names_its_sample(bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = shard_task.measure_sample

    def stumbles(case: Case, spec: SampleSpec, made: Rendered) -> dict[str, object]:
        if spec.index == 6:
            raise ZeroDivisionError("nothing to measure")
        return measure(case, spec, made)

    monkeypatch.setattr(shard_task, "measure_sample", stumbles)
    with pytest.raises(SampleError) as caught:
        make_shard(job_for(dataset, bank, 1))
    assert caught.value.index == 6
    assert SampleSpec.model_validate_json(caught.value.spec).index == 6
    assert isinstance(caught.value.cause, ZeroDivisionError)
    assert folders(dataset) == []


@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_other_kinds_keep_the_same_rows(bank: Bank, dataset: Path, kind: str) -> None:
    job = job_for(dataset, bank, 1)
    other = dataclasses.replace(job, config=CONFIG.model_copy(update={"store": kind}), dataset=f"{dataset}-{kind}")
    make_shard(job)
    make_shard(other)
    rows, others = (read_part(open_store(place), 1)[1] for place in (dataset, other.dataset))
    assert others.drop(["image_range", "label_range"]).equals(rows.drop(["image_range", "label_range"]))


def test_an_attempt_whose_files_were_cleaned_up_while_it_slept_commits_nothing(
    bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = attempts.Attempt.commit

    def wakes_late(attempt: attempts.Attempt, part: Part, rows: list[dict[str, object]]) -> None:
        shutil.rmtree(dataset / attempt.group)
        commit(attempt, part, rows)

    monkeypatch.setattr(attempts.Attempt, "commit", wakes_late)
    with pytest.raises(OSError, match="not what was written") as caught:
        make_shard(job_for(dataset, bank, 1))
    assert caught.value.errno == errno.ESTALE  # which is tried again
    assert not list(dataset.glob("manifest/*"))
