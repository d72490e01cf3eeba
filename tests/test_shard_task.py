"""One shard: what is committed, and what a failed, lost or repeated attempt leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import workers.shard_task as shard_task
from pipeline.bank import Bank
from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.manifest import read_part
from pipeline.shard import array_crc32c
from pipeline.spec import SampleSpec
from pipeline.synthesis import synthesise
from tests.cases import make_bank
from workers.generate import begin, job_for
from workers.plan import Plan
from workers.shard_task import make_shard

CONFIG = GenerateConfig(samples=10, patch_shape=(24, 24, 16), shard_samples=4)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture
def dataset(bank: Bank, tmp_path: Path) -> Path:
    begin(tmp_path / "data", bank, CONFIG, Plan(CONFIG.samples, CONFIG.shard_samples))
    return tmp_path / "data"


def folders(dataset: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in (dataset / "shards").iterdir())


def test_a_shard_holds_its_samples_as_the_manifest_says(bank: Bank, dataset: Path) -> None:
    report = make_shard(job_for(dataset, bank, CONFIG, 2))
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
    make_shard(job_for(dataset, bank, CONFIG, 0))
    part, rows = read_part(dataset, 0)
    assert rows.num_rows == 4
    assert part.config_digest == CONFIG.digest()
    assert {"draw", "synthesise", "measure", "encode", "write"} <= set(part.timings_s)
    assert part.versions["phantumor"]
    for file in part.files:
        assert (dataset / f"shards/000000-{part.attempt}.zarr" / file.path).stat().st_size == file.size


def test_a_repeated_job_changes_nothing(bank: Bank, dataset: Path) -> None:
    make_shard(job_for(dataset, bank, CONFIG, 0))
    before = (dataset / "manifest/000000.parquet").read_bytes()
    assert make_shard(job_for(dataset, bank, CONFIG, 0)).status == "already"
    assert (dataset / "manifest/000000.parquet").read_bytes() == before
    assert folders(dataset) == ["000000"]


def test_the_loser_of_a_race_removes_its_own_files(bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(dataset, bank, CONFIG, 1)
    commit = shard_task.commit_part

    def slower(*arguments: object) -> bool:
        monkeypatch.setattr(shard_task, "commit_part", commit)
        assert make_shard(job).status == "committed"  # the other attempt, in the meantime
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_task, "commit_part", slower)
    assert make_shard(job).status == "lost"
    assert folders(dataset) == ["000001"]
    assert open_dataset(dataset).sample(4).row["shard"] == 1


@pytest.mark.parametrize("step", ["render_batch", "commit_part"])
def test_a_failed_attempt_leaves_nothing(bank: Bank, dataset: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_task, step, fails)
    with pytest.raises(OSError, match="No space"):
        make_shard(job_for(dataset, bank, CONFIG, 0))
    assert folders(dataset) == []
    assert list((dataset / "manifest").iterdir()) == []


def test_a_changed_bank_is_refused(bank: Bank, dataset: Path) -> None:
    import dataclasses

    job = dataclasses.replace(job_for(dataset, bank, CONFIG, 0), bank_fingerprint="0" * 64)
    with pytest.raises(InputError, match="bank changed"):
        make_shard(job)
