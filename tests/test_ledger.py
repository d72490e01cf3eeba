"""What a run writes down, and what it shows."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PhantumorError
from pipeline.progress import Progress
from pipeline.store import FolderStore
from tests.scripted import SAMPLES, Clock, failures, jobs_of
from workers.attempt import ShardReport
from workers.ledger import Ledger, RunFacts
from workers.quarantine import put_aside, quarantined, take_back

FACTS = RunFacts("digest", "bank", "8 processes", "phantumor generate --bank bank --out data")
NOW = datetime(2026, 11, 23, 12, 40, 44, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Book:
    """A ledger on a clock of its own."""

    def __init__(self, folder: Path, facts: RunFacts = FACTS, progress: Progress | None = None) -> None:
        self.folder, self.clock = folder, Clock()
        self.ledger = Ledger(FolderStore(folder), facts, progress=progress, clock=self.clock, now=lambda: NOW)

    def read(self, name: str) -> Any:
        return json.loads((self.folder / "runs" / self.ledger.run / name).read_text())

    def made(self, shard: int, status: Any = "committed") -> None:
        self.ledger.finished(ShardReport(shard, status, SAMPLES, 2_000_000, 1.0))


def test_runs_are_named_by_their_time_and_never_alike(tmp_path: Path) -> None:
    names = {Book(tmp_path).ledger.run for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"20261123T124044-[0-9a-f]{6}", name) for name in names)


def test_a_run_tells_who_where_and_with_what(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.ledger.begin(jobs_of(3), slots=8)
    run = book.read("run.json")
    assert run["run"] == book.ledger.run
    assert run["command"] == "phantumor generate --bank bank --out data"
    assert (run["config_digest"], run["bank"], run["executor"], run["slots"]) == ("digest", "bank", "8 processes", 8)
    assert run["jobs"] == {"shards": 3, "samples": 3 * SAMPLES}
    assert run["software"]["phantumor"]
    assert run["user"]
    assert run["host"]
    assert (run["started"], run["ended"], run["outcome"]) == ("2026-11-23T12:40:44+00:00", None, None)


def test_the_end_adds_how_it_went(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.ledger.begin(jobs_of(3), slots=8)
    book.made(0)
    book.made(1, "already")
    book.ledger.end("stopped", "the disk is full")
    run = book.read("run.json")
    assert (run["outcome"], run["reason"]) == ("stopped", "the disk is full")
    assert run["counts"]["made_samples"] == SAMPLES
    assert run["counts"]["done"] == 2
    assert run["command"]


def test_progress_is_written_every_few_seconds_with_rates(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.ledger.begin(jobs_of(10), slots=2)
    book.clock.now += 4
    book.made(0)
    book.ledger.tick(slots=2, in_flight=4)
    assert not (tmp_path / "runs" / book.ledger.run / "progress.json").exists()
    book.clock.now += 4
    book.made(1)
    book.ledger.tick(slots=2, in_flight=4)
    progress = book.read("progress.json")
    assert (progress["samples_per_s"], progress["mb_per_s"], progress["eta_s"]) == (1.0, 0.5, 32.0)
    assert (progress["slots"], progress["in_flight"], progress["done"]) == (2, 4, 2)
    book.clock.now += 4
    book.made(2)
    book.ledger.tick(slots=2, in_flight=4)
    assert book.read("progress.json") == progress


def test_failures_are_kept_one_a_line_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(tmp_path)
    book.ledger.begin(jobs_of(3), slots=2)
    for failure in failures(*(f"Error{number}" for number in range(1200))):
        book.ledger.failed(failure, "retry")
    book.ledger.end("complete")
    lines = (tmp_path / "runs" / book.ledger.run / "failures.jsonl").read_text().splitlines()
    assert len(lines) == 1000
    last = json.loads(lines[-1])
    assert (last["shard"], last["kind"], last["verdict"]) == (1199, "Error1199", "retry")
    assert book.ledger.tally.retries == book.ledger.tally.failed_attempts == 1200


def test_a_disk_that_is_full_stops_no_run_for_its_progress_but_for_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(tmp_path)
    book.ledger.begin(jobs_of(3), slots=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FolderStore, "replace", full)
    book.clock.now += 60
    book.ledger.tick(slots=2, in_flight=1)
    book.ledger.end("complete")
    with pytest.raises(PhantumorError, match=r"No space left on device.*same command again"):
        book.ledger.given_up(jobs_of(3)[1], failures("Broken"))


def test_the_line_shows_rate_and_failures(tmp_path: Path) -> None:
    stream = io.StringIO()
    book = Book(tmp_path, progress=Progress(8, "samples", stream=stream))
    jobs = jobs_of(3)
    book.ledger.begin(jobs, slots=0)
    book.clock.now += 10
    book.ledger.given_up(jobs[1], failures("Broken"))
    book.made(0)
    book.made(2)
    assert stream.getvalue().splitlines()[-1].startswith("8/8 samples, ")
    assert stream.getvalue().splitlines()[-1].endswith(", 400.0 kB/s, shards failed: 1")


def test_the_line_says_that_nobody_works_yet(tmp_path: Path) -> None:
    stream = Terminal()
    progress = Progress(8, "samples", stream=stream)
    progress._shown -= 1  # due
    book = Book(tmp_path, progress=progress)
    book.ledger.begin(jobs_of(3), slots=0)
    book.clock.now += 60
    book.ledger.tick(slots=0, in_flight=3)
    assert "0/8 samples" in stream.getvalue()
    assert stream.getvalue().endswith(", waiting for a worker")
    book.ledger.end("interrupted")
    assert stream.getvalue().endswith("worker\n")


def test_the_command_to_retry_is_named_once(tmp_path: Path) -> None:
    facts = RunFacts("digest", "bank", "serial", "phantumor generate --retry-failed")
    book = Book(tmp_path, facts)
    book.ledger.given_up(jobs_of(3)[1], failures("Broken"))
    assert json.loads((tmp_path / "failures/000001.json").read_text())["retry"] == facts.command


def test_quarantine_lists_only_its_own_records(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert quarantined(store) == set()
    for job in jobs_of(3)[1:]:
        put_aside(store, job, failures("Broken"), "run", "command")
    (tmp_path / "failures/notes.txt").write_text("mine")
    (tmp_path / "failures/000007.json.bak").write_text("{}")
    assert quarantined(store) == {1, 2}
    take_back(store, [1, 5])
    assert quarantined(store) == {2}


def test_each_failure_is_a_line_for_who_watches(tmp_path: Path) -> None:
    lines: list[str] = []
    ledger = Ledger(FolderStore(tmp_path), FACTS, log=lines.append)
    ledger.begin(jobs_of(3), slots=1)
    for failure, verdict in zip(failures("OSError", "ValueError"), ("retry", "poison"), strict=True):
        ledger.failed(failure, verdict)
    assert len(lines) == 2
    assert lines[0].startswith("shard 0: OSError")
    assert lines[0].endswith("(it is tried again)")
    assert lines[1].endswith("(given up, see failures/)")
