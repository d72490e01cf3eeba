"""What --gc removes, and everything that it must not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import InputError, PhantumorError
from tests.damage import assert_same, attempt_folder, copy_home, cut, edit_json, flip, make_home, rewrite_part
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


def orphan(dataset: Path, name: str = "000001-aaaaaaaaaaaa.zarr", of: int = 1) -> Path:
    """An attempt as a killed worker leaves it, two hours old."""
    folder = Path(shutil.copytree(attempt_folder(dataset, of), dataset / "shards" / name))
    shutil.rmtree(folder / "label")
    age(folder)
    return folder


def aside(path: Path) -> Path:
    path.write_bytes(b"x" * 10)
    age(path)
    return path


def names(dataset: Path) -> set[str]:
    return {path.relative_to(dataset).as_posix() for path in dataset.rglob("*")}


def test_a_whole_dataset_has_no_garbage(home: Path, dataset: Path) -> None:
    assert remove_garbage(dataset, 0) == []
    assert_same(dataset, home / "data")


def test_orphans_and_temporary_files_are_removed_with_their_sizes(home: Path, dataset: Path) -> None:
    left = [
        orphan(dataset),
        orphan(dataset, "000002-0123456789abcdef.zarr", of=2),
        aside(dataset / ".dataset.json.1234abcd.tmp"),
        aside(dataset / "manifest/.000001.parquet.1234abcd.tmp"),
    ]
    sizes = [sum(f.stat().st_size for f in [p, *p.rglob("*")] if f.is_file()) for p in left]
    removed = remove_garbage(dataset, 60)
    assert [(g.file, g.bytes) for g in removed] == [
        (path.relative_to(dataset).as_posix(), size) for path, size in zip(left, sizes, strict=True)
    ]
    assert sizes[2:] == [10, 10]
    assert_same(dataset, home / "data")
    assert names(dataset) == names(home / "data")


def test_attempts_of_a_shard_that_nobody_committed_are_orphans(dataset: Path) -> None:
    kept = attempt_folder(dataset, 0)
    for name in ("manifest.parquet", "manifest/000001.parquet", "manifest/000002.parquet"):
        (dataset / name).unlink()
    assert len(remove_garbage(dataset, 60)) == 2
    assert list((dataset / "shards").iterdir()) == [kept]


@pytest.mark.parametrize("minutes", [60.0, 0.0])
def test_what_is_being_written_is_kept(dataset: Path, minutes: float) -> None:
    """One young file makes the whole attempt young; with age 0 everything goes."""
    folder = orphan(dataset)
    young = folder / "image/c/0/0/0/0"
    os.utime(young)
    file = aside(dataset / ".manifest.parquet.0.tmp")
    os.utime(file)
    assert len(remove_garbage(dataset, minutes)) == (0 if minutes else 2)
    assert folder.exists() == file.exists() == bool(minutes)


@pytest.mark.parametrize(
    "foreign",
    ["notes.txt", "shards/backup.zarr/zarr.json", "shards/000001-mine.zarr/zarr.json", "manifest/notes.tmp", ".git/x"],
)
def test_what_is_not_ours_is_kept(dataset: Path, foreign: str) -> None:
    (dataset / foreign).parent.mkdir(exist_ok=True)
    aside(dataset / foreign)
    assert remove_garbage(dataset, 0) == []
    assert (dataset / foreign).exists()


def test_links_are_kept_and_not_followed(dataset: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(attempt_folder(dataset, 1), elsewhere)
    (dataset / "shards/000001-bbbbbbbbbbbb.zarr").symlink_to(elsewhere)
    (dataset / ".x.tmp").symlink_to(dataset / "dataset.json")
    assert remove_garbage(dataset, 0) == []
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


@pytest.mark.parametrize("damage", [unreadable_part, part_names_another, part_is_gone])
def test_what_may_be_the_committed_attempt_is_kept(dataset: Path, damage: Callable[[Path], None]) -> None:
    attempt = attempt_folder(dataset, 1)
    damage(dataset)
    assert remove_garbage(dataset, 0) == []
    assert attempt.is_dir()


def test_a_broken_whole_manifest_keeps_what_the_parts_name(home: Path, dataset: Path) -> None:
    flip(dataset / "manifest.parquet", 200)
    left = orphan(dataset)
    assert [dataset / g.file for g in remove_garbage(dataset, 0)] == [left]
    assert verify(dataset, repair=True).ok
    assert_same(dataset, home / "data")


def test_an_attempt_that_its_owner_removes_meanwhile_is_no_error(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = orphan(dataset), orphan(dataset, "000002-bbbbbbbbbbbb.zarr", of=2)
    weigh = garbage._weigh

    def removed_before(path: Path) -> tuple[int, float]:
        if path == first:
            shutil.rmtree(path)
        return weigh(path)

    monkeypatch.setattr(garbage, "_weigh", removed_before)
    assert [dataset / g.file for g in remove_garbage(dataset, 60)] == [second]


def test_a_disk_that_refuses_is_one_message(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    orphan(dataset)
    monkeypatch.setattr(shutil, "rmtree", refuses)
    with pytest.raises(PhantumorError, match=r"Permission denied\. The same command"):
        remove_garbage(dataset, 60)


def test_verify_removes_nothing_without_gc(dataset: Path) -> None:
    left = orphan(dataset)
    assert verify(dataset).ok
    assert left.is_dir()


def test_verify_says_what_it_removed(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orphan(dataset)
    aside(dataset / ".a.tmp")
    capsys.readouterr()
    assert main(["verify", str(dataset), "--gc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("removed shards/000001-aaaaaaaaaaaa.zarr (")
    assert lines[1] == "removed .a.tmp (10 B)"
    assert lines[2].startswith("removed 2 leftovers, ")
    assert lines[3].endswith("all is well")


def test_the_dataset_must_be_one(dataset: Path) -> None:
    left = orphan(dataset)
    edit_json(dataset / "dataset.json", lambda document: document.update(format_version=99))
    with pytest.raises(InputError):
        verify(dataset, gc=True, gc_age_minutes=0)
    assert left.is_dir()
