"""How far a dataset has come, told by its files alone."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.manifest import part_name
from pipeline.status import _recent_rate, dataset_status, describe_status
from tests.datasets import make_dataset

SAMPLES, SHARDS = 10, 3  # 4 + 4 + 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status") / "data"
    make_dataset(folder, samples=SAMPLES, patch_shape=(8, 8, 8), shard_samples=4)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def leave(folder: Path, times: dict[int, float]) -> None:
    """Keep only these shards committed, at these times."""
    (folder / "manifest.parquet").unlink()
    for shard in range(SHARDS):
        part = folder / part_name(shard)
        if shard in times:
            os.utime(part, (times[shard], times[shard]))
        else:
            part.unlink()


def test_a_complete_dataset(folder: Path) -> None:
    status = dataset_status(folder)
    assert status["complete"]
    assert status["shards"] == {"committed": 3, "planned": 3}
    assert status["samples"] == {"committed": 10, "planned": 10}
    assert (status["seconds_left"], status["unfinished_attempts"]) == (0.0, 0)
    assert describe_status(status) == [f"{folder}: 10 of 10 samples, 3 of 3 shards, complete"]


@pytest.mark.parametrize(
    ("times", "samples", "rate", "left"),
    [
        ({}, 0, None, None),
        ({0: 100.0}, 4, None, None),
        ({2: 100.0}, 2, None, None),  # the last shard is smaller
        ({0: 100.0, 1: 102.0}, 8, 2.0, 1.0),
        ({1: 100.0, 0: 104.0}, 8, 1.0, 2.0),
        ({0: 100.0, 1: 100.0}, 8, None, None),  # no time between them: no rate
    ],
)
def test_a_growing_dataset(
    folder: Path, times: dict[int, float], samples: int, rate: float | None, left: float | None
) -> None:
    leave(folder, times)
    status = dataset_status(folder)
    assert not status["complete"]
    assert status["shards"] == {"committed": len(times), "planned": 3}
    assert status["samples"] == {"committed": samples, "planned": 10}
    assert status["samples_per_second"] == (None if rate is None else pytest.approx(rate))
    assert status["seconds_left"] == (None if left is None else pytest.approx(left))
    assert (status["seconds_since_last_commit"] is None) == (not times)
    assert status["unfinished_attempts"] == SHARDS - len(times)


def test_the_lines_say_rate_time_left_and_how_to_go_on(folder: Path) -> None:
    leave(folder, {0: 100.0, 1: 102.0})
    lines = describe_status(dataset_status(folder) | {"seconds_since_last_commit": 185.0, "idle": False})
    assert lines == [
        f"{folder}: 8 of 10 samples, 2 of 3 shards",
        "2.0 samples/s of late, 1 s left at that rate",
        "last commit 3 min 05 s ago",
        "1 unfinished attempts; the same generate command resumes",
    ]


def test_a_dataset_that_nobody_works_on_says_so(folder: Path) -> None:
    leave(folder, {0: time.time() - 7202, 1: time.time() - 7200})
    status = dataset_status(folder)
    assert status["idle"]
    assert describe_status(status)[1] == (
        "nothing was committed for 2 h 00 min; 2.0 samples/s before that, 1 s left at that rate"
    )
    os.utime(folder / part_name(0))
    assert not dataset_status(folder)["idle"]


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        ([0, 10, 20, 30], 0.4),
        ([0, 10, 20, 10_000, 10_001, 10_002], 4.0),  # a night between two runs
        ([*range(0, 4000, 2), *range(4000, 6000)], 4.0),  # faster since half an hour: more workers
        ([0, 900, 1800, 2700], 4 / 900),  # whole cases take long
        ([0, 0, 0, 300, 300, 300, 600, 600, 600], 8 * 4 / 600),  # workers that end together make no pauses
        ([5], None),
        ([0, 10_000], None),
    ],
)
def test_the_rate_is_that_of_late_without_pauses(times: list[float], rate: float | None) -> None:
    found, _ = _recent_rate(times, 4)
    assert found == (None if rate is None else pytest.approx(rate, rel=0.01))


def test_nothing_committed_has_no_rate_to_tell(folder: Path) -> None:
    leave(folder, {})
    assert describe_status(dataset_status(folder)) == [
        f"{folder}: 0 of 10 samples, 0 of 3 shards",
        "3 unfinished attempts; the same generate command resumes",
    ]


def test_attempts_without_a_commit_are_counted(folder: Path) -> None:
    leave(folder, {0: 1.0, 1: 2.0})
    for name in ("000000-aaaaaaaa", "000002-bbbbbbbb", "000002-cccccccc", "notes-dddddddd"):
        (folder / "shards" / f"{name}.zarr").mkdir()
    # three here, one of them beside a commit, and the one that lost its part
    assert dataset_status(folder)["unfinished_attempts"] == 4


def test_files_being_written_are_not_committed(folder: Path) -> None:
    leave(folder, {0: 1.0})
    (folder / "manifest" / ".000001.parquet.ab12cd34.tmp").touch()
    assert dataset_status(folder)["shards"]["committed"] == 1


def test_a_dataset_whose_folders_are_not_there_yet(folder: Path) -> None:
    leave(folder, {})
    shutil.rmtree(folder / "manifest")
    shutil.rmtree(folder / "shards")
    assert dataset_status(folder)["unfinished_attempts"] == 0


def test_a_commit_in_the_future_is_now(folder: Path) -> None:
    """The clocks of two machines may differ."""
    leave(folder, {0: 4e9})
    assert dataset_status(folder)["seconds_since_last_commit"] == 0.0


def test_status_needs_no_part_to_be_readable(folder: Path) -> None:
    leave(folder, {0: 1.0, 1: 2.0})
    (folder / part_name(0)).write_bytes(b"")
    assert dataset_status(folder)["shards"]["committed"] == 2


def test_the_status_is_json(folder: Path) -> None:
    leave(folder, {0: 1.0})
    status = dataset_status(folder)
    assert json.loads(json.dumps(status, allow_nan=False)) == status


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a phantumor dataset"):
        dataset_status(tmp_path)


def test_it_tells_who_is_at_work_what_failed_and_how_the_last_run_went(folder: Path) -> None:
    leave(folder, {0: 100.0})
    for name, document in (
        ("running/000001-0123abcd.json", {"shard": 1, "host": "node-7", "pid": 4}),
        ("failures/000002.json", {"shard": 2}),
        ("runs/20261123T100000-aaaaaa/run.json", {"user": "early", "outcome": "complete", "ended": "then"}),
        ("runs/20261123T110000-bbbbbb/run.json", {"user": "ada", "host": "head", "executor": "ray", "started": "now"}),
        ("runs/20261123T110000-bbbbbb/progress.json", {"samples_per_s": 12.5, "retries": 3, "updated": "later"}),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document))
    (folder / "running/000000-cut.json").write_text("{")
    status = dataset_status(folder)
    assert [(r["shard"], r["host"]) for r in status["running"]] == [(1, "node-7")]
    assert status["failed_shards"] == [2]
    assert (status["last_run"]["user"], status["last_run"]["samples_per_s"]) == ("ada", 12.5)
    said = "\n".join(describe_status(status))
    assert "by ada on head (ray), last heard of later" in said
    assert "1 shards being made on node-7" in said
    assert "1 shards failed (2)" in said
