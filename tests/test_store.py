"""What every store promises, of a folder and of an object store alike."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.store import FolderStore, Location, Store, checked_key, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place: Location = tmp_path / "place" if request.param == "folder" else request.getfixturevalue("s3_url")
    return open_store(place)


def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.entries(prefix)]


def test_nothing_is_there_at_first(store: Store) -> None:
    assert keys(store) == keys(store, "a") == store.groups("a") == []
    assert not store.exists("a/b")
    for access in (store.read, store.size, store.open, lambda key: store.read_range(key, 0, 1)):
        with pytest.raises(FileNotFoundError):
            access("a/b")
    store.remove(["a/b"])
    store.remove_group("a")


def test_an_object_is_written_once_and_replaced_at_will(store: Store) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert (store.read("a/b"), store.size("a/b"), store.exists("a/b")) == (b"first", 5, True)
    store.replace("a/b", b"third")
    assert store.read("a/b") == b"third"
    store.replace("new", b"")
    assert (store.read("new"), store.size("new")) == (b"", 0)


def test_a_replacement_takes_the_place_of_the_older_object_when_it_is_finished(store: Store) -> None:
    store.replace("a/b", b"old")
    dropped = store.replacement("a/b")
    dropped.write(b"never to be")
    dropped.abandon()
    made = store.replacement("a/b")
    made.write(b"half, ")
    assert store.read("a/b") == b"old"
    made.write(b"whole")
    made.finish()
    made.abandon()
    assert store.read("a/b") == b"half, whole"
    assert keys(store) == ["a/b"]
    if store.folder is not None:
        assert os.listdir(store.folder / "a") == ["b"]  # noqa: PTH208


def test_one_of_many_threads_creates(store: Store) -> None:
    start = threading.Barrier(16)

    def attempt(number: int) -> bool:
        start.wait()
        return store.create("commit", b"attempt %d" % number)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    assert sum(won) == 1
    assert store.read("commit") == b"attempt %d" % won.index(True)


def _create_all(place: str, count: int) -> list[bool]:
    store = open_store(place)
    return [store.create(f"commits/{k}", str(os.getpid()).encode()) for k in range(count)]


def test_one_of_many_processes_creates(store: Store) -> None:
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        won = list(pool.map(_create_all, [store.url] * 3, [20] * 3))
    assert [sum(of_key) for of_key in zip(*won, strict=True)] == [1] * 20
    assert len(keys(store, "commits")) == 20


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 10, b"0123456789"), (3, 2, b"34"), (8, 5, b"89"), (9, 1, b"9"), (10, 3, b""), (99, 1, b""), (4, 0, b"")],
)
def test_a_range_ends_with_the_object(store: Store, offset: int, length: int, expected: bytes) -> None:
    store.create("digits", b"0123456789")
    assert store.read_range("digits", offset, length) == expected


def test_an_object_opens_as_a_file(store: Store) -> None:
    table = pa.table({"number": range(100_000), "text": [f"row {k}" for k in range(100_000)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=10_000)
    store.create("table.parquet", sink.getvalue())
    with store.open("table.parquet") as file:
        file.seek(-4, os.SEEK_END)
        assert (file.read(), file.read()) == (b"PAR1", b"")
        assert file.seek(2) == file.tell() == 2
        assert file.read(2) == b"R1"
        read = pq.ParquetFile(file)
        assert read.read(["number"])["number"].to_pylist() == list(range(100_000))
        assert read.read_row_group(7)["text"][0].as_py() == "row 70000"


def test_listing_is_by_key_and_below_a_folder(store: Store) -> None:
    sizes = {"a-b": 1, "a/b/c": 2, "a/b-c": 3, "a/d": 4, "ab/x": 5, "z": 6}
    for key, size in sizes.items():
        store.create(key, bytes(size))
    assert {entry.key: entry.size for entry in store.entries()} == sizes
    assert keys(store) == sorted(sizes)
    assert keys(store, "a") == ["a/b-c", "a/b/c", "a/d"]
    assert keys(store, "a/b") == ["a/b/c"]
    assert store.groups("a") == ["b"]


def test_a_change_is_dated(store: Store) -> None:
    store.create("a", b"")
    store.create("b", b"")
    first, second = store.entries()
    assert abs(first.modified - second.modified) < 60
    assert first.modified > 1.7e9


def test_removal(store: Store) -> None:
    for key in ("a/1", "a/2/3", "a-b", "c"):
        store.create(key, b"x")
    store.remove(["c", "never/was"])
    store.remove_group("a")
    assert keys(store) == ["a-b"]
    store.remove_group("a")
    store.remove([])


def test_more_objects_than_one_request_takes(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: store.replace(f"many/{k:04d}", b""), range(1100)))
    assert keys(store, "many") == [f"many/{k:04d}" for k in range(1100)]
    store.remove_group("many")
    assert keys(store) == []


@pytest.mark.parametrize("pieces", [[], [b"one"], [b"x" * 6_000_000, b"y" * 7_000_000, b"z"]], ids=["empty", "1", "3"])
def test_a_writer_makes_an_object_of_its_pieces(store: Store, pieces: list[bytes]) -> None:
    writer = store.writer("deep/in/object")
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    writer.abandon()
    store.settle("deep")
    assert store.read("deep/in/object") == b"".join(pieces)


def test_a_writer_that_is_abandoned_leaves_nothing_behind_once_its_group_is_removed(store: Store) -> None:
    writer = store.writer("group/object")
    writer.write(b"x" * 9_000_000)
    writer.abandon()
    writer.abandon()
    store.remove_group("group")
    assert keys(store) == []


BAD_KEYS = ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/./b", "a//b", "a/", "a\\b", "a\0b", "s3://bucket/x"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_stays_inside(store: Store, key: str) -> None:
    accesses = [store.read, store.open, store.size, store.exists, store.writer]
    accesses += [lambda key: store.create(key, b""), lambda key: store.replace(key, b"")]
    accesses += [lambda key: store.read_range(key, 0, 1), lambda key: store.remove([key]), store.remove_group]
    for access in accesses:
        with pytest.raises(InputError, match="no path inside"):
            access(key)
    assert keys(store) == []


def test_a_store_travels_between_processes(store: Store) -> None:
    store.create("a", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.url, copy.read("a")) == (store.url, b"x")
    assert store.url in repr(copy)


# ---- folders alone ----


@pytest.mark.parametrize("text", ["file://{}", "file://localhost{}", "{}"])
def test_a_folder_may_be_given_as_a_url(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "with blank"
    place = text.format(str(folder).replace(" ", "%20") if "file:" in text else folder)
    assert open_store(place).folder == open_store(folder).folder == folder


@pytest.mark.parametrize("place", ["gs://bucket/x", "http://host/x", "file://nas/share", "s3x://b", "s3://", ""])
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(InputError, match=r"s3://bucket/prefix"):
        open_store(place)


def test_an_opened_store_is_passed_on(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert open_store(store) is store


def test_what_is_written_aside_and_links_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".part.parquet.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"")
    assert keys(FolderStore(tmp_path)) == ["a"]


def test_a_folder_without_objects_is_a_group_on_a_disk(tmp_path: Path) -> None:
    (tmp_path / "shards" / "000001-aa.zarr").mkdir(parents=True)
    assert FolderStore(tmp_path).groups("shards") == ["000001-aa.zarr"]


def test_what_cannot_be_listed_or_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "shards").write_bytes(b"a file in the way")
    with pytest.raises(NotADirectoryError):
        keys(FolderStore(tmp_path), "shards")
    with pytest.raises(NotADirectoryError):
        FolderStore(tmp_path).remove_group("shards")


def test_the_room_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert (FolderStore(tmp_path / "a" / "b").free_bytes()) > 0


def test_the_room_of_an_object_store_has_no_limit(s3_url: str) -> None:
    assert open_store(s3_url).free_bytes() is None


def test_a_good_key_is_passed_on() -> None:
    assert checked_key("shards/000001-aa.zarr/image/c/0") == "shards/000001-aa.zarr/image/c/0"
