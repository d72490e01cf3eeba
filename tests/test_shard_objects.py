"""Shard objects far away: few requests, many at once, whole or in ranges, and all of it the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import s3_client, shard_objects
from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.object_cache import ObjectCache
from pipeline.reader import SampleReader, column_names, located
from pipeline.shard_objects import THREADS, BrokenSampleError
from tests.datasets import make_dataset, object_file, open_files_below
from tests.faulty_proxy import FaultyProxy, faulty_proxy, retry_at_once
from tests.s3_server import S3Server

SAMPLES, SHAPE = 12, (8, 8, 8)
MODES = ("ranges", "whole", "cache")


@pytest.fixture(scope="module")
def url(s3: S3Server) -> str:
    """12 samples in 3 shards."""
    url = s3.new_url()
    make_dataset(url, SAMPLES, SHAPE)
    return url


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


def reader_of(dataset: Dataset, **options: Any) -> SampleReader:
    return SampleReader(dataset, located(dataset, dataset.columns(column_names(dataset))), **options)


def options_of(mode: str, folder: Path) -> dict[str, Any]:
    return {"ranges": {}, "whole": {"whole_objects": True}, "cache": {"cache": ObjectCache(folder)}}[mode]


def read(reader: SampleReader, k: int) -> bytes:
    image, label = np.full(SHAPE, 77, np.int16), np.full(SHAPE, 77, np.uint8)
    assert reader.read(k, image, label) == k
    return image.tobytes() + label.tobytes()


def stored(dataset: Dataset, k: int) -> bytes:
    sample = dataset.sample(k)
    return sample.image.tobytes() + sample.label.tobytes()


def fetching() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_the_same_bytes_however_they_come(url: str, tmp_path: Path, mode: str, ahead: bool) -> None:
    dataset = open_dataset(url)
    reader = reader_of(dataset, **options_of(mode, tmp_path))
    order = [7, 0, 11, 7, 3, 3, 8]
    if ahead:
        reader.expect(np.array(order))
    assert [read(reader, k) for k in order] == [stored(dataset, k) for k in order]
    reader.close()
    assert fetching() == []
    assert open_files_below(tmp_path) == []


@pytest.mark.parametrize("ahead", [False, True])
def test_a_sample_in_ranges_takes_two_requests(url: str, proxy: FaultyProxy, ahead: bool) -> None:
    reader = reader_of(open_dataset(url))
    if ahead:
        reader.expect(np.arange(4))
    for k in range(4):
        read(reader, k)
    assert proxy.count("GET", "shards/") == 8
    reader.close()


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_whole_object_takes_one_request(url: str, proxy: FaultyProxy, tmp_path: Path, mode: str) -> None:
    options = options_of(mode, tmp_path)
    dataset = open_dataset(url)
    reader = reader_of(dataset, **options)
    for _ in range(3):
        reader.expect(np.arange(SAMPLES))
        for k in range(SAMPLES):
            read(reader, k)
    assert proxy.count("GET", "shards/") == 6  # 3 shards, image and label
    reader.close()
    if mode == "cache":
        again = reader_of(dataset, **options)
        read(again, 5)
        assert proxy.count("GET", "shards/") == 6
        again.close()


def test_few_whole_objects_are_kept(url: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_objects, "WHOLE_SHARDS", 1)
    reader = reader_of(open_dataset(url), whole_objects=True)
    for k in (0, 1, 4, 5, 0):
        read(reader, k)
    assert proxy.count("GET", "shards/") == 6
    assert len(reader._objects._open._made) == 2
    reader.close()


def test_ranges_that_are_expected_come_at_once(url: str, proxy: FaultyProxy) -> None:
    """All requests are made while the first is not answered yet."""
    reader = reader_of(open_dataset(url))
    proxy.script("GET", "shards/", *["wait"] * 8)
    reader.expect(np.arange(4))
    found: list[bytes] = []
    consumer = threading.Thread(target=lambda: found.append(read(reader, 0)))
    consumer.start()
    while proxy.count("GET", "shards/") < 8:
        assert consumer.is_alive()
    assert found == []
    proxy.let_go.set()
    consumer.join()
    assert proxy.most_at_once >= 8
    reader.close()


def test_what_was_fetched_and_not_read_is_let_go_of(url: str) -> None:
    reader = reader_of(open_dataset(url))
    reader.expect(np.arange(SAMPLES))
    reader.close()
    assert fetching() == []
    assert not reader._objects._fetched
    read(reader, 3)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_cut_object_is_named_with_its_remedy(s3: S3Server, tmp_path: Path, mode: str) -> None:
    dataset = make_dataset(s3.new_url(), 4, SHAPE)
    store, key = dataset.object_key(0, "image")
    store.replace(key, store.read(key)[:-9])
    reader = reader_of(dataset, **options_of(mode, tmp_path))
    for _ in range(2):
        with pytest.raises(InputError, match=r"broken shard 000000: .*/image/c/0/0/0/0: has .* instead of .*--repair"):
            read(reader, 1)


def test_what_was_fetched_of_a_broken_sample_is_not_handed_out_later(s3: S3Server) -> None:
    dataset = make_dataset(s3.new_url(), 4, SHAPE)
    objects = {dataset.object_key(0, name)[1]: b"" for name in ("image", "label")}
    for key in objects:
        objects[key] = dataset.store.read(key)
        dataset.store.remove([key])
    reader = reader_of(dataset)
    reader.expect(np.array([1]))
    with pytest.raises(BrokenSampleError, match="broken shard 000000"):
        read(reader, 1)
    assert not reader._objects._fetched
    for key, data in objects.items():
        dataset.store.replace(key, data)
    assert read(reader, 1) == stored(dataset, 1)
    reader.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [403, 503])
def test_an_object_store_that_is_away_breaks_no_sample(
    url: str, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, status: int
) -> None:
    retry_at_once(monkeypatch)
    monkeypatch.setattr(s3_client, "_PATIENT", s3_client._PATIENT | {"max_retries": 3})
    reader = reader_of(open_dataset(url), **options_of(mode, tmp_path))
    proxy.script("GET", "shards/", *[status] * 100)
    with pytest.raises(PhantumorError, match=rf"shard 000000 cannot be read: {url}/shards/.*may be whole") as raised:
        read(reader, 0)
    assert not isinstance(raised.value, BrokenSampleError)
    proxy.faults.clear()
    read(reader, 0)
    reader.close()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {"flipped": lambda data: flip(data, 40), "cut": lambda data: data[:40]}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("opened", [False, True])
def test_a_damaged_copy_is_made_again(tmp_path: Path, damage: str, opened: bool) -> None:
    """Its bytes are changed in place, as a disk that fails changes them."""
    dataset, cache = make_dataset(tmp_path / "data", 4, SHAPE), ObjectCache(tmp_path / "cache")
    reader = reader_of(dataset, cache=cache)
    read(reader, 0)
    copies = [path for path in cache.folder.iterdir() if not path.name.startswith(".")]
    if not opened:
        reader.close()
    for path in copies:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for k in (0, 1):
        assert read(reader, k) == stored(dataset, k)
    sources = {dataset.store.read(dataset.object_key(0, name)[1]) for name in ("image", "label")}
    assert {path.read_bytes() for path in copies} == sources
    reader.close()
    assert open_files_below(tmp_path) == []


def test_a_damaged_shard_is_told_of_with_a_copy_as_well(tmp_path: Path) -> None:
    dataset, cache = make_dataset(tmp_path / "data", 4, SHAPE), ObjectCache(tmp_path / "cache")
    file = object_file(dataset, 0, "image")
    file.write_bytes(flip(file.read_bytes(), 40))
    reader = reader_of(dataset, cache=cache)
    for _ in range(2):
        with pytest.raises(BrokenSampleError, match=r"broken shard 000000: .*crc32c differs.*--repair"):
            read(reader, 0)
    assert read(reader, 1) == stored(dataset, 1)
    reader.close()
