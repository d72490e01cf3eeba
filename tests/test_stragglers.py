"""Since when shards are at work, from start records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.store import FolderStore
from workers.stragglers import Starts


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def begin(store: FolderStore, shard: int, attempt: str, run: str = "mine") -> str:
    key = f"running/{shard:06d}-{attempt}.json"
    store.replace(key, f'{{"run": "{run}"}}'.encode())
    return key


def test_time_counts_from_the_first_look_that_saw_the_record(store: FolderStore) -> None:
    starts = Starts(store, "mine")
    assert starts.look({1, 2}, 10.0) == {}
    begin(store, 1, "aa")
    assert starts.look({1, 2}, 20.0) == {1: 20.0}
    begin(store, 2, "bb")
    assert starts.look({1, 2}, 30.0) == {1: 20.0, 2: 30.0}


def test_the_newest_attempt_counts_as_an_older_one_may_have_died(store: FolderStore) -> None:
    starts = Starts(store, "mine")
    begin(store, 1, "bb")
    starts.look({1}, 10.0)
    begin(store, 1, "aa")
    assert starts.look({1}, 20.0) == {1: 20.0}
    begin(store, 1, "cc")
    assert starts.look({1}, 30.0) == {1: 30.0}


def test_other_shards_other_runs_and_other_files_do_not_count(store: FolderStore) -> None:
    begin(store, 1, "aa", run="another")
    begin(store, 2, "bb")
    store.replace("running/notes.txt", b"mine")
    store.replace("running/000003-cc.json", b"no json")
    store.replace("running/000004-dd.json", b"[]")
    assert Starts(store, "mine").look({1, 3, 4}, 10.0) == {}


def test_what_this_run_left_is_removed(store: FolderStore) -> None:
    kept = begin(store, 1, "aa", run="another")
    begin(store, 1, "bb")
    Starts(store, "mine").clear()
    assert [entry.key for entry in store.entries("running")] == [kept]


def test_a_store_that_does_not_answer_is_asked_again_later(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(store, 1, "aa")
    starts = Starts(store, "mine")
    with monkeypatch.context() as broken:
        broken.setattr(store, "entries", _silent)
        assert starts.look({1}, 10.0) == {}
        starts.clear()
    assert starts.look({1}, 20.0) == {1: 20.0}


def _silent(_: str) -> Any:
    raise OSError(5, "Input/output error")
