"""What a dataset will cost, told before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

import workers.estimate as estimate
from pipeline.bank import Bank
from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.store import FolderStore
from tests.cases import make_bank
from workers.estimate import ROW_BYTES, Estimate, check_room, crowding_of, estimate_cost, probed
from workers.generate import generate

CONFIG = GenerateConfig(samples=40, patch_shape=(24, 24, 16), shard_samples=20, seed=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.mark.parametrize("kind", ["full", "delta", "recipe"])
def test_the_bytes_are_about_those_that_are_written(bank: Bank, tmp_path: Path, kind: str) -> None:
    config = GenerateConfig.model_validate(CONFIG.model_dump() | {"store": kind})
    told = estimate_cost(bank, config, config.samples)
    generate(bank.path, tmp_path / "data", config, log=lambda _: None)
    written = sum(entry.size for entry in open_dataset(tmp_path / "data").store.entries())
    assert told.samples == 40
    # Few rows to a file are larger than many, so what is told of so small a dataset of recipes is a low bound.
    assert 0.4 < told.bytes / written < 1.6
    assert told.core_seconds > 0


def test_the_cost_grows_with_the_samples() -> None:
    one, many = (probed(lambda index: 1000 + index, 5, samples) for samples in (5, 5000))
    assert one.bytes == 5 * 1002  # the mean of samples 0 to 4
    assert many.bytes == 5000 * 1002


@pytest.mark.parametrize(("most", "least_tried"), [(1, 1), (3, 3), (1000, 64)])
def test_no_more_samples_are_tried_than_there_are(most: int, least_tried: int) -> None:
    tried: set[int] = set()

    def make(index: int) -> int:
        tried.add(index)
        return 1

    probed(make, most, 10)
    assert tried == set(range(least_tried))


def test_a_sample_that_cannot_be_made_is_left_to_the_run() -> None:
    """There it is put aside with a record; one in thousands must not keep the others from being made."""

    def make(index: int) -> int:
        if index == 2:
            raise ZeroDivisionError
        return 100

    assert probed(make, 5, 50).bytes == 50 * 100


@pytest.mark.parametrize("error", [InputError("not confined"), OSError("cannot be read")])
def test_what_every_sample_would_meet_is_raised(error: Exception) -> None:
    def make(index: int) -> int:
        if index == 3:
            raise error
        return 100

    with pytest.raises(type(error), match=str(error)):
        probed(make, 5, 50)


def test_a_generator_that_makes_nothing_says_why() -> None:
    def make(index: int) -> int:
        raise ZeroDivisionError(f"sample {index}")

    with pytest.raises(ZeroDivisionError, match="sample 0"):
        probed(make, 5, 50)


def test_recipes_cost_their_rows(bank: Bank) -> None:
    recipe = CONFIG.model_copy(update={"store": "recipe"})
    assert estimate_cost(bank, recipe, 1000).bytes == 1000 * 2 * ROW_BYTES


@pytest.mark.parametrize(
    ("free", "workers", "line"),
    [
        (5_000_000, 1, "30 samples to make, about 2.0 MB (5.0 MB free), estimated 2 min 00 s on 1 worker"),
        (None, 4, "30 samples to make, about 2.0 MB, estimated 30 s on 4 workers"),
    ],
)
def test_the_line_for_people(free: int | None, workers: int, line: str) -> None:
    told = Estimate(30, 2_000_000, 120.0, 7, 1.84).line(free, workers)
    assert told == f"{line}, scaled up from 7 made in 1.8 s just now; it changes as the machine's load does"


@pytest.mark.parametrize(
    ("workers", "cores", "load", "crowding"),
    [
        (1, 2, 0.0, 1.0),
        (1, 2, 9.0, 1.0),  # what one worker takes was measured beside the others
        (2, 2, 0.0, 1.0),
        (4, 2, 0.0, 2.0),
        (2, 2, 2.0, 4 / 3),
        (64, 64, 8.0, 72 / 64),
    ],
)
def test_workers_share_cores_with_each_other_and_with_what_runs_there(
    workers: int, cores: int, load: float, crowding: float
) -> None:
    assert crowding_of(workers, cores, load) == pytest.approx(crowding)
    told = Estimate(30, 2_000_000, 7200.0).to_json(None, workers, crowding)
    assert told["hours"] == pytest.approx(2 * crowding / workers, abs=1e-4)


def test_a_dry_run_tells_bytes_and_hours(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.generate.estimate_cost", estimate_cost)
    told = generate(bank.path, tmp_path / "data", CONFIG, dry_run=True, log=lambda _: None).to_json()
    assert (told["made"], told["committed"], told["complete"]) == (0, 0, False)
    assert (told["estimate"]["samples"], told["estimate"]["workers"]) == (40, 1)
    assert told["estimate"]["bytes"] > 40 * 100
    assert told["estimate"]["hours"] > 0
    assert not (tmp_path / "data").exists()


class Disk(FolderStore):
    def free_bytes(self) -> int:
        return 1000


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    lines: list[str] = []
    check_room(Estimate(1, 1000, 1.0), Disk(tmp_path), 1, lines.append)
    assert "1.0 kB free" in lines[0]
    with pytest.raises(PhantumorError, match=r"needs about 1.0 kB, its disk has 1.0 kB free.*--store delta"):
        check_room(Estimate(1, 1001, 1.0), Disk(tmp_path), 1, lines.append)


def test_the_probe_stops_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_PROBE_SECONDS", 0.0)
    tried: list[int] = []
    found = probed(lambda index: tried.append(index) or 1, 1000, 10)
    assert len(set(tried)) == found.tried == 4
    assert found.core_seconds == pytest.approx(found.tried_s / 4 * 10)
