"""Copies of objects on a local disk: whole or not there, within their limit, right under many readers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import object_cache
from pipeline.errors import InputError, PhantumorError
from pipeline.object_cache import ObjectCache, ObjectSizeError
from pipeline.store import FolderStore
from tests.datasets import open_files_below
from tests.s3_server import ROOT

SIZE = 1000


class CountedStore(FolderStore):
    """A folder that notes what was read of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[str] = []

    def read(self, key: str) -> bytes:
        self.asked.append(key)
        return super().read(key)


@pytest.fixture
def store(tmp_path: Path) -> CountedStore:
    """Objects a to h, SIZE bytes each."""
    (tmp_path / "store").mkdir()
    for letter in "abcdefgh":
        (tmp_path / "store" / letter).write_bytes(letter.encode() * SIZE)
    return CountedStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def read(cache: ObjectCache, store: CountedStore, key: str) -> bytes:
    handle = cache.open(store, key, SIZE)
    with contextlib.closing(os.fdopen(handle, "rb")) as file:
        return file.read()


def copies(folder: Path) -> list[Path]:
    """What is under its name, the one that was not used for the longest time first."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def grow_old(folder: Path) -> None:
    """Make all that is there older, the order kept: file systems tell times some milliseconds apart only."""
    for age, path in enumerate(reversed(copies(folder)), 1):
        os.utime(path, (1e9 - age, 1e9 - age))


def held(folder: Path) -> str:
    """The objects that are there, by letter."""
    return "".join(sorted(path.read_text()[0] for path in copies(folder)))


def test_an_object_is_copied_once(store: CountedStore, folder: Path) -> None:
    for cache in (ObjectCache(folder), ObjectCache(folder)):
        for _ in range(2):
            assert read(cache, store, "a") == b"a" * SIZE
    assert store.asked == ["a"]


def test_objects_of_the_same_name_do_not_mix(store: CountedStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a").write_bytes(b"z" * SIZE)
    assert read(ObjectCache(folder), store, "a") == b"a" * SIZE
    assert read(ObjectCache(folder), CountedStore(tmp_path / "other"), "a") == b"z" * SIZE


def test_what_was_not_used_for_longest_goes_first(store: CountedStore, folder: Path) -> None:
    cache = ObjectCache(folder, 3 * SIZE)
    for keys, left in (("abc", "abc"), ("a", "abc"), ("d", "acd"), ("c", "acd"), ("ef", "cef")):
        for key in keys:
            grow_old(folder) if folder.exists() else None
            read(cache, store, key)
        assert held(folder) == left


def test_an_open_object_can_be_read_after_its_removal(store: CountedStore, folder: Path) -> None:
    cache = ObjectCache(folder, SIZE)
    handle = cache.open(store, "a", SIZE)
    read(cache, store, "b")
    assert held(folder) == "b"
    assert os.pread(handle, 10, 990) == b"a" * 10
    os.close(handle)


def test_many_readers_in_little_room_read_the_right_bytes(store: CountedStore, folder: Path) -> None:
    cache = ObjectCache(folder, 2 * SIZE)
    keys = [letter for k in range(20) for letter in "abcdefgh"[k % 5 :]]
    with ThreadPoolExecutor(6) as pool:
        for key, found in zip(keys, pool.map(lambda key: read(cache, store, key), keys), strict=True):
            assert found == key.encode() * SIZE
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 * SIZE
    assert open_files_below(folder) == []


def test_of_many_threads_one_copies(store: CountedStore, folder: Path) -> None:
    cache = ObjectCache(folder)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: read(cache, store, "a"), range(8))) == {b"a" * SIZE}
    assert store.asked == ["a"]


def _copier(store: Path, folder: Path, then: str) -> subprocess.Popen[str]:
    """A process that copies object a, and does something when half of it is written."""
    code = f"""
import os, sys
from pathlib import Path
from pipeline import object_cache
from pipeline.store import FolderStore

def half(handle, data):
    os.write(handle, data[:500])
    print("half", flush=True)
    {then}
    os.write(handle, data[500:])

object_cache._write = half
cache = object_cache.ObjectCache(Path({str(folder)!r}))
cache.open(FolderStore(Path({str(store)!r})), "a", {SIZE})
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def waiting_copier(store: CountedStore, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has written half of object a, and goes on when it is told."""
    process = _copier(Path(store.url), folder, "sys.stdin.readline()")
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    yield process
    process.kill()
    process.communicate()


def test_others_wait_for_a_copy_in_the_making(
    store: CountedStore, folder: Path, waiting_copier: subprocess.Popen[str]
) -> None:
    assert copies(folder) == []
    reader = threading.Thread(target=lambda: found.append(read(ObjectCache(folder), store, "a")))
    found: list[bytes] = []
    reader.start()
    assert (found, store.asked) == ([], [])
    waiting_copier.communicate("go on\n")
    reader.join()
    assert (found, store.asked) == ([b"a" * SIZE], [])


def test_a_copier_that_was_killed_leaves_nothing_harmful(
    store: CountedStore, folder: Path, waiting_copier: subprocess.Popen[str]
) -> None:
    waiting_copier.send_signal(signal.SIGKILL)
    waiting_copier.wait()
    (left,) = folder.glob(".*.tmp")
    assert read(ObjectCache(folder), store, "a") == b"a" * SIZE
    assert left.exists()  # it might be at work on another node
    os.utime(left, (0, 0))
    read(ObjectCache(folder), store, "b")
    assert not left.exists()


@pytest.mark.parametrize("change", [b"", b"a" * 500, b"a" * 2000])
def test_a_copy_that_somebody_cut_is_made_again(store: CountedStore, folder: Path, change: bytes) -> None:
    read(ObjectCache(folder), store, "a")
    copies(folder)[0].write_bytes(change)
    assert read(ObjectCache(folder), store, "a") == b"a" * SIZE


def test_a_copy_that_is_removed_is_made_again(store: CountedStore, folder: Path) -> None:
    cache = ObjectCache(folder)
    read(cache, store, "a")
    copies(folder)[0].write_bytes(b"z" * SIZE)
    for _ in range(2):  # whoever comes second finds nothing to remove
        cache.remove(store, "a")
    assert read(cache, store, "a") == b"a" * SIZE
    assert store.asked == ["a", "a"]


def test_an_object_of_another_size_is_refused_and_not_kept(store: CountedStore, folder: Path) -> None:
    with pytest.raises(ObjectSizeError, match="has 1,000 bytes instead of 900"):
        ObjectCache(folder).open(store, "a", 900)
    with pytest.raises(FileNotFoundError):
        ObjectCache(folder).open(store, "x", 900)
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []
    assert open_files_below(folder) == []


def test_an_object_beyond_the_limit_is_refused(store: CountedStore, folder: Path) -> None:
    with pytest.raises(InputError, match=r"a has 1,000 bytes, the object cache may hold 999. Give it a higher limit"):
        read(ObjectCache(folder, 999), store, "a")


def test_a_limit_has_to_be_something(folder: Path) -> None:
    with pytest.raises(InputError, match="cache of 0 bytes holds nothing"):
        ObjectCache(folder, 0)


def test_a_full_disk_is_said_and_keeps_nothing(
    store: CountedStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(object_cache.os, "fsync", full)
    with pytest.raises(PhantumorError, match=rf"cannot write to {folder}: No space left.*Set PHANTUMOR_CACHE"):
        read(ObjectCache(folder), store, "a")
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []
    assert open_files_below(folder) == []


def test_the_folder_is_that_of_the_node(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHANTUMOR_CACHE", str(folder))
    assert ObjectCache().folder == folder / "objects"
