"""What --gc removes, and everything that it must not."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import InputError, PhantumorError
from pipeline.files import create_file
from pipeline.manifest import part_name
from pipeline.store import FolderStore, Store, open_store
from tests.damage import (
    assert_same,
    attempt_folder,
    copy_home,
    copy_to_store,
    cut,
    edit_json,
    flip,
    make_home,
    part_of,
    rewrite_part,
)
from workers import garbage
from workers.garbage import remove_garbage
from workers.verify import verify

OLD = time.time() - 2 * 3600


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("garbage"))


@pytest.fixture
def dataset(home: Path, tmp_path: Path) -> Path:
    """With every file two hours old."""
    dataset = copy_home(home, tmp_path)
    age(dataset)
    return dataset


def age(folder: Path, seconds: float = OLD) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (seconds, seconds))


def removed_from(dataset: Path, minutes: float = 60) -> list[str]:
    return [found.file for found in remove_garbage(open_store(dataset), minutes)]


def orphan(dataset: Path, name: str = "000001-aaaaaaaaaaaa.zarr", of: int = 1) -> Path:
    """An attempt as a killed worker leaves it, two hours old."""
    folder = Path(shutil.copytree(attempt_folder(dataset, of), dataset / "shards" / name))
    shutil.rmtree(folder / "label")
    age(folder)
    return folder


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 10)
    age(path)
    return path


def record(dataset: Path, attempt: str = "000001-aaaaaaaaaaaa") -> Path:
    """The start record of an attempt, two hours old."""
    return old_file(dataset / f"running/{attempt}.json")


def names(dataset: Path) -> set[str]:
    return {path.relative_to(dataset).as_posix() for path in dataset.rglob("*") if path.is_file()}


def test_a_whole_dataset_has_no_garbage(home: Path, dataset: Path) -> None:
    assert removed_from(dataset, 0) == []
    assert_same(dataset, home / "data")


def test_orphans_and_temporary_files_are_removed_with_their_sizes(home: Path, dataset: Path) -> None:
    left = [
        old_file(dataset / ".dataset.json.1234abcd.tmp"),
        old_file(dataset / "manifest/.000001.parquet.1234abcd.tmp"),
        old_file(dataset / "running/.000001-aaaaaaaaaaaa.json.1234abcd.tmp"),
        record(dataset),
        old_file(dataset / "runs/20261123T124044-3fa9c1/.progress.json.1234abcd.tmp"),
        orphan(dataset),
        orphan(dataset, "000002-0123456789abcdef.zarr", of=2),
    ]
    sizes = [sum(f.stat().st_size for f in [p, *p.rglob("*")] if f.is_file()) for p in left]
    removed = remove_garbage(open_store(dataset), 60)
    assert [(g.file, g.bytes) for g in removed] == [
        (path.relative_to(dataset).as_posix(), size) for path, size in zip(left, sizes, strict=True)
    ]
    assert sizes[:5] == [10] * 5
    assert_same(dataset, home / "data")
    assert names(dataset) == names(home / "data")


def test_what_is_left_alone_is_told_and_when_it_may_go(dataset: Path) -> None:
    young = orphan(dataset, "000002-0123456789abcdef.zarr")
    os.utime(young)
    record(dataset)
    report = verify(dataset, gc=True, gc_age_minutes=60)
    assert [g.file for g in report.removed] == ["running/000001-aaaaaaaaaaaa.json"]
    left = report.to_json()["left_young"]
    assert (left["count"], 3500 < left["seconds"] <= 3600) == (1, True)
    [line] = [line for line in report.lines() if line.startswith("left alone")]
    assert "left alone 1 leftovers" in line
    assert "--gc removes them in 59 min" in line or "in 1 h 00 min" in line
    assert verify(dataset, gc=True, gc_age_minutes=0).swept.young == 0


def test_what_a_killed_writer_leaves_is_recognised(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the name that this test gives it."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", lambda *_: os._exit)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # as if killed before
        create_file(dataset / part_name(7), b"rows")
    assert len(removed_from(dataset, 0)) == 1
    assert list((dataset / "manifest").glob(".*")) == []


def test_attempts_of_a_shard_that_nobody_committed_are_orphans(dataset: Path) -> None:
    kept = attempt_folder(dataset, 0)
    for name in ("manifest.parquet", "manifest/000001.parquet", "manifest/000002.parquet"):
        (dataset / name).unlink()
    assert len(removed_from(dataset)) == 2
    assert list((dataset / "shards").iterdir()) == [kept]


def test_an_attempt_that_wrote_nothing_is_an_orphan(dataset: Path) -> None:
    folder = dataset / "shards/000001-aaaaaaaaaaaa.zarr"
    folder.mkdir()
    assert removed_from(dataset) == []
    age(folder)
    assert removed_from(dataset) == ["shards/000001-aaaaaaaaaaaa.zarr"]
    assert not folder.exists()


@pytest.mark.parametrize("minutes", [60.0, 0.0])
def test_what_is_being_written_is_kept(dataset: Path, minutes: float) -> None:
    """One young file makes the whole attempt young, start record included; with age 0 everything goes."""
    folder, started = orphan(dataset), record(dataset)
    os.utime(folder / "image/c/0/0/0/0")
    file = old_file(dataset / ".manifest.parquet.12345678.tmp")
    os.utime(file)
    assert len(removed_from(dataset, minutes)) == (0 if minutes else 3)
    assert folder.exists() == file.exists() == started.exists() == bool(minutes)


def test_an_attempt_that_began_just_now_is_kept(dataset: Path) -> None:
    folder, started = orphan(dataset), record(dataset)
    os.utime(started)
    assert removed_from(dataset) == []
    assert folder.exists()


def test_start_records_of_attempts_long_dead_are_removed(home: Path, dataset: Path) -> None:
    """Of one that was committed, of one that lost, and of one that left nothing else."""
    attempt = part_of(dataset, 0).attempt
    left = [record(dataset, f"000000-{attempt}"), record(dataset), record(dataset, "000099-bbbbbbbbbbbb")]
    other = old_file(dataset / "running/notes.txt")
    assert len(removed_from(dataset)) == 3
    assert not any(path.exists() for path in left)
    assert other.exists()
    assert attempt_folder(dataset, 0).exists()


@pytest.mark.parametrize(
    "foreign",
    [
        "notes.txt",
        "shards/backup.zarr/zarr.json",
        "shards/000001-mine.zarr/zarr.json",
        "manifest/notes.tmp",
        "manifest/.notes.tmp",
        ".git/.x.12345678.tmp",
        "runs/one/run.json",
        "failures/000001.json",
        "growth/000001.json",
    ],
)
def test_what_is_not_ours_is_kept(dataset: Path, foreign: str) -> None:
    old_file(dataset / foreign)
    age(dataset)
    assert removed_from(dataset, 0) == []
    assert (dataset / foreign).exists()


def test_links_are_kept_and_not_followed(dataset: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(attempt_folder(dataset, 1), elsewhere)
    (dataset / "shards/000001-bbbbbbbbbbbb.zarr").symlink_to(elsewhere)
    (dataset / ".x.12345678.tmp").symlink_to(dataset / "dataset.json")
    assert removed_from(dataset, 0) == []
    assert (elsewhere / "zarr.json").exists()


def unreadable_part(dataset: Path) -> None:
    (dataset / "manifest.parquet").unlink()
    cut(dataset / "manifest/000001.parquet", 30)


def part_names_another(dataset: Path) -> None:
    """As a flipped bit in the part's metadata would."""
    (dataset / "manifest.parquet").unlink()
    rewrite_part(dataset, 1, whole=False, attempt="cccccccccccc")


def part_is_gone(dataset: Path) -> None:
    (dataset / "manifest/000001.parquet").unlink()


@pytest.mark.parametrize("rival", [False, True])
@pytest.mark.parametrize("damage", [unreadable_part, part_names_another, part_is_gone])
def test_what_may_be_the_committed_attempt_is_kept(dataset: Path, damage: Callable[[Path], None], rival: bool) -> None:
    attempt = attempt_folder(dataset, 1)
    if rival:
        orphan(dataset)
    damage(dataset)
    removed_from(dataset, 0)
    assert attempt.is_dir()


def test_a_broken_whole_manifest_keeps_what_the_parts_name(home: Path, dataset: Path) -> None:
    flip(dataset / "manifest.parquet", 200)
    left = orphan(dataset)
    assert [dataset / file for file in removed_from(dataset, 0)] == [left]
    assert verify(dataset, repair=True).ok
    assert_same(dataset, home / "data")


def test_a_whole_manifest_out_of_reach_keeps_everything(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(store: Store) -> object:
        raise InputError(f"{store.url}/manifest.parquet") from PermissionError(13, "Permission denied")

    left = orphan(dataset)
    monkeypatch.setattr(garbage, "open_whole", refused)
    assert removed_from(dataset, 0) == []
    assert left.exists()


def test_an_attempt_that_its_owner_removes_meanwhile_is_no_error(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = orphan(dataset), orphan(dataset, "000002-bbbbbbbbbbbb.zarr", of=2)
    now_of = garbage._now_of

    def removed_before(store: Store) -> float:
        shutil.rmtree(first)
        return now_of(store)

    monkeypatch.setattr(garbage, "_now_of", removed_before)
    assert dataset / removed_from(dataset)[-1] == second
    assert not second.exists()


def test_a_disk_that_refuses_is_one_message(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    orphan(dataset)
    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(PhantumorError, match=r"Permission denied\. The same command"):
        removed_from(dataset)


def test_a_full_disk_is_freed(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the time of its clock can be asked for by writing a file."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    left = orphan(dataset)
    monkeypatch.setattr(FolderStore, "replace", full)
    assert dataset / removed_from(dataset)[0] == left
    assert not left.exists()


@pytest.mark.parametrize(("ahead_s", "removed"), [(-7200, 1), (7200, 1), (0, 1)])
def test_ages_go_by_the_clock_of_the_store(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float, removed: int
) -> None:
    """Ours may be hours ahead or behind: an old attempt goes, a young one stays."""
    now = time.time()
    orphan(dataset)
    young = orphan(dataset, "000002-bbbbbbbbbbbb.zarr", of=2)
    os.utime(young / "zarr.json")
    monkeypatch.setattr(garbage.time, "time", lambda: now + ahead_s)
    assert len(removed_from(dataset)) == removed
    assert young.exists()


def test_where_nothing_is_suspicious_nothing_is_read_or_written(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a clean dataset is only listed")

    for name in ("read", "read_range", "open", "replace", "create", "remove", "writer"):
        monkeypatch.setattr(FolderStore, name, forbidden)
    assert removed_from(dataset, 0) == []


def test_nothing_is_left_where_there_is_no_dataset(tmp_path: Path) -> None:
    assert removed_from(tmp_path / "new") == []
    assert not (tmp_path / "new").exists()


def test_verify_removes_nothing_without_gc(dataset: Path) -> None:
    left = orphan(dataset)
    assert verify(dataset).ok
    assert left.is_dir()


def test_verify_says_what_it_removed(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan(dataset)
    old_file(dataset / ".a.12345678.tmp")
    capsys.readouterr()
    assert main(["verify", str(dataset), "--gc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "removed .a.12345678.tmp (10 B)"
    assert lines[1].startswith("removed shards/000001-aaaaaaaaaaaa.zarr (")
    assert lines[2].startswith("removed 2 leftovers, ")
    assert lines[3].endswith("all is well")


def test_the_dataset_must_be_one(dataset: Path) -> None:
    left = orphan(dataset)
    edit_json(dataset / "dataset.json", lambda document: document.update(format_version=99))
    with pytest.raises(InputError):
        verify(dataset, gc=True, gc_age_minutes=0)
    assert left.is_dir()


# ---- object stores ----


def test_in_an_object_store_it_is_the_same(dataset: Path, s3_url: str) -> None:
    store = copy_to_store(dataset, s3_url)
    whole = {entry.key for entry in store.entries()}
    assert remove_garbage(store, 0) == []
    group = "shards/000001-aaaaaaaaaaaa.zarr"
    store.replace(f"{group}/image/c/0/0/0/0", b"x" * 10)
    store.replace("running/000001-aaaaaaaaaaaa.json", json.dumps({"run": ""}).encode())
    assert remove_garbage(store, 60) == []
    removed = remove_garbage(store, 0)
    assert [(g.file, g.bytes) for g in removed] == [("running/000001-aaaaaaaaaaaa.json", 11), (group, 10)]
    assert {entry.key for entry in store.entries()} == whole
    assert verify(store.url).ok
