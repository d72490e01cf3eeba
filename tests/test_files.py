"""Files that are whole or not there, whatever stops the writer."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from pipeline.errors import InputError, PhantumorError
from pipeline.files import create_file, replace_file, sha256_of, sync_folder, writing_to

Write = Callable[[Path, bytes], object]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next flush to disk fail, as it does on a full disk."""

    def fsync(handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 5000])
@pytest.mark.parametrize("write", [create_file, replace_file])
def test_what_is_written_is_there_and_nothing_else(tmp_path: Path, write: Write, data: bytes) -> None:
    write(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_of_many_creators_at_once_one_wins(tmp_path: Path) -> None:
    for attempt in range(5):
        file = tmp_path / f"file {attempt}"
        contents = [bytes([k]) * 10_000 for k in range(8)]
        together = Barrier(8)

        def create(data: bytes, file: Path = file, together: Barrier = together) -> bool:
            together.wait()
            return create_file(file, data)

        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(create, contents))
        assert won.count(True) == 1
        assert file.read_bytes() == contents[won.index(True)]
    assert names(tmp_path) == [f"file {attempt}" for attempt in range(5)]


def test_creating_leaves_an_older_file_alone(tmp_path: Path) -> None:
    assert create_file(tmp_path / "file", b"old")
    assert not create_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_replacing_takes_the_place_of_an_older_file(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        replace_file(tmp_path / "file", b"new")
        assert reader.read() == b"old"  # never overwritten in place, where a crash would leave half of each
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("write", [create_file, replace_file])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, error: BaseException
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    fail_with(error, monkeypatch)
    with pytest.raises(type(error)):
        write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("write", [create_file, replace_file])
def test_a_failed_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    fail_with(OSError(errno.EIO, "Input/output error"), monkeypatch)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "file", b"new")
    assert names(tmp_path) == []


def test_a_replacement_that_cannot_take_its_place_is_removed(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        replace_file(tmp_path / "folder", b"new")
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("write", [create_file, replace_file])
def test_a_missing_folder_is_not_made(tmp_path: Path, write: Write) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "no" / "file", b"x")
    assert names(tmp_path) == []


def test_a_folder_is_flushed_and_closed(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    sync_folder(tmp_path)
    after = len(list(Path("/proc/self/fd").iterdir())) if before else 0
    assert after == before
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "no")


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Permission denied"),
        (OSError("broken"), "broken"),
    ],
    ids=repr,
)
def test_a_disk_error_becomes_one_message_with_the_remedy(error: OSError, reason: str) -> None:
    with pytest.raises(PhantumorError) as caught, writing_to(Path("out"), "Run it again"):
        raise error
    assert str(caught.value) == f"cannot write to out: {reason}. Run it again"
    assert caught.value.exit_code == 1
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [InputError("bad"), ValueError("bad"), KeyboardInterrupt()], ids=repr)
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, writing_to(Path("out"), "Run it again"):
        raise error
    assert caught.value is error


def test_without_an_error_nothing_happens() -> None:
    with writing_to(Path("out"), "Run it again"):
        done = True
    assert done
