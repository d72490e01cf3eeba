"""The stages behind the making of samples: order, what fails where, and that nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import GenerateConfig
from pipeline.shard import DTYPES, ShardWriter, decode_chunk, object_path
from pipeline.store import FolderStore
from workers.stages import _QUEUE, Arrays, Clock, ShardSink, _Stage

SHAPE = (8, 8, 8)
GROUP = "shards/000000-0123456789ab.zarr"
SAMPLES = 3 * _QUEUE  # more than can wait


def config(kind: str = "full") -> GenerateConfig:
    return GenerateConfig.model_validate({"samples": SAMPLES, "patch_shape": SHAPE, "store": kind})


def arrays_of(k: int) -> Arrays:
    return {name: np.full(SHAPE, k, dtype) for name, dtype in DTYPES.items()}


def kept(k: int) -> Callable[[], Arrays]:
    return lambda: arrays_of(k)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("shard-")]
    assert not left


def sink_of(folder: Path, kind: str = "full", clock: Clock | None = None) -> ShardSink:
    return ShardSink(FolderStore(folder), GROUP, SAMPLES, config(kind), clock or Clock())


# -- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_samples_come_out_in_order_with_their_ranges(tmp_path: Path, kind: str) -> None:
    with sink_of(tmp_path, kind) as sink:
        for k in range(SAMPLES):
            sink.put({"index": k}, kept(k))
        rows, files = sink.finish()
    assert [row["index"] for row in rows] == list(range(SAMPLES))
    assert [file.path for file in files] == [object_path(name) for name in DTYPES]
    for name in DTYPES:
        data = (tmp_path / GROUP / object_path(name)).read_bytes()
        for k, row in enumerate(rows):
            offset, length = row[f"{name}_range"]
            out = np.empty(SHAPE, DTYPES[name])
            decode_chunk(data[offset : offset + length], out)
            assert (out == k).all()


def test_recipes_have_rows_without_ranges_and_no_files(tmp_path: Path) -> None:
    def never() -> Arrays:
        raise AssertionError("nobody needs these pixels")

    with sink_of(tmp_path, "recipe") as sink:
        for k in range(SAMPLES):
            sink.put({"index": k}, never)
        rows, files = sink.finish()
    assert rows == [{"index": k, "image_range": None, "label_range": None} for k in range(SAMPLES)]
    assert files == []
    assert list(tmp_path.iterdir()) == []


def test_the_clock_tells_of_each_stage(tmp_path: Path) -> None:
    clock = Clock()
    with sink_of(tmp_path, clock=clock) as sink:
        for k in range(SAMPLES):
            sink.put({}, kept(k))
        sink.finish()
    assert set(clock.seconds()) == {"encode", "write", "wall"}
    assert all(seconds > 0 for seconds in clock.seconds().values())


# -- what goes wrong --------------------------------------------------------------------------------------------------


def fill(sink: ShardSink, stored: Callable[[int], Callable[[], Arrays]] = kept) -> Any:
    for k in range(SAMPLES):
        sink.put({}, stored(k))
    return sink.finish()


def test_what_encoding_raises_reaches_the_maker(tmp_path: Path) -> None:
    def broken_third(k: int) -> Callable[[], Arrays]:
        return kept(k) if k != 2 else lambda: {"image": arrays_of(k)["label"]}

    with pytest.raises(ValueError, match=r"image: uint8 .*expected int16"), sink_of(tmp_path) as sink:
        fill(sink, broken_third)
    assert not list(tmp_path.rglob("zarr.json"))


@pytest.mark.parametrize("at", [0, 1, SAMPLES - 1])
def test_what_writing_raises_reaches_the_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    append, calls = ShardWriter.append, []

    def full_disk(self: ShardWriter, chunks: Any) -> Any:
        calls.append(1)
        if len(calls) == at + 1:
            raise OSError(28, "No space left on device")
        return append(self, chunks)

    monkeypatch.setattr(ShardWriter, "append", full_disk)
    with pytest.raises(OSError, match="No space left"), sink_of(tmp_path) as sink:
        fill(sink)
    assert len(calls) == at + 1
    assert not list(tmp_path.rglob("zarr.json"))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_the_maker_raises_ends_the_stages(tmp_path: Path, error: type[BaseException]) -> None:
    def make_one(sink: ShardSink) -> None:
        sink.put({}, kept(0))
        raise error

    with pytest.raises(error), sink_of(tmp_path) as sink:
        make_one(sink)
    assert not list(tmp_path.rglob("zarr.json"))


def test_too_few_samples_are_no_shard(tmp_path: Path) -> None:
    with sink_of(tmp_path) as sink:
        sink.put({}, kept(0))
        with pytest.raises(ValueError, match=f"1 of {SAMPLES} samples"):
            sink.finish()
    assert not list(tmp_path.rglob("zarr.json"))


# -- one stage --------------------------------------------------------------------------------------------------------


def test_a_slow_stage_makes_its_feeder_wait() -> None:
    go, done = threading.Event(), []

    def work(item: int) -> None:
        go.wait()
        done.append(item)

    stage = _Stage("slow", work)
    fed: list[int] = []

    def feed() -> None:
        for item in range(4 * _QUEUE):
            stage.put(item)
            fed.append(item)

    feeder = threading.Thread(target=feed, name="feeder")
    feeder.start()
    while not stage._items.full():  # the feeder fills it, then it has to wait
        threading.Event().wait(0.001)
    assert len(fed) <= _QUEUE + 1  # those that wait and the one that is worked on
    go.set()
    feeder.join()
    stage.finish()
    assert done == list(range(4 * _QUEUE))


def test_after_a_failure_nothing_more_is_done_and_nobody_waits() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        raise ValueError(item)

    stage = _Stage("failing", work)

    def feed() -> None:
        for item in range(100 * _QUEUE):
            stage.put(item)

    with pytest.raises(ValueError, match="0"):
        feed()
    with pytest.raises(ValueError, match="0"):
        stage.finish()
    stage.abandon()
    assert done == [0]


def test_abandoning_drops_what_waits() -> None:
    go, done = threading.Event(), []

    def work(item: int) -> None:
        done.append(item)
        go.wait()

    stage = _Stage("abandoned", work)
    for item in range(_QUEUE):
        stage.put(item)
    stopper = threading.Thread(target=stage.abandon, name="stopper")
    stopper.start()
    while stage._failure is None:
        threading.Event().wait(0.001)
    go.set()
    stopper.join()
    assert len(done) <= 1
    stage.abandon()  # harmless twice
