"""The stages behind the making of samples, side by side with it: one thread encodes, another one writes.

Compressing and writing run without the interpreter's lock. The queues are short, so a slow disk slows the maker down
instead of filling the memory.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from pipeline.config import GenerateConfig
from pipeline.shard import DTYPES, ByteRange, FileDigest, ShardWriter
from pipeline.store import Store

_QUEUE = 4  # samples that wait before each stage: 2.6 MB each at 96^3
_RANGES = tuple(f"{name}_range" for name in DTYPES)
Row = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]


class Clock:
    """Seconds spent in each stage of a shard, and from first to last. Each stage belongs to one thread."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] = self._spent.get(stage, 0.0) + time.perf_counter() - started

    def seconds(self) -> dict[str, float]:
        """Of every stage, and `wall`, which is less than their sum as they run side by side."""
        return {**self._spent, "wall": time.perf_counter() - self._started}


class ShardSink:
    """Takes the samples of a shard in order; keeps them as the dataset's kind of store wants."""

    def __init__(self, store: Store, group: str, samples: int, config: GenerateConfig, clock: Clock) -> None:
        self._rows: list[Row] = []
        self._pixels: _Pixels | None = None
        if config.store != "recipe":
            whole = config.whole_cases
            shape = None if whole else config.patch_shape
            self._pixels = _Pixels(ShardWriter(store, group, samples, shape, config.store, slabs=whole), clock)

    def put(self, row: Row, stored: Callable[[], Arrays]) -> None:
        """Hand on a sample; the thread that encodes calls `stored`. Raises what went wrong with an earlier one."""
        self._rows.append(row)
        if self._pixels is not None:
            self._pixels.put(stored)

    def finish(self) -> tuple[list[Row], list[FileDigest]]:
        """Wait for all samples and make the shard durable; its manifest rows and files."""
        if self._pixels is None:
            return [row | dict.fromkeys(_RANGES) for row in self._rows], []
        ranges, files = self._pixels.finish()
        rows = [
            row | {f"{name}_range": list(where) for name, where in of_sample.items()}
            for row, of_sample in zip(self._rows, ranges, strict=True)
        ]
        return rows, files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pixels is not None:
            self._pixels.abandon()


class _Pixels:
    """The two threads behind a sink, and what they write to."""

    def __init__(self, writer: ShardWriter, clock: Clock) -> None:
        self._writer, self._clock = writer, clock
        self._ranges: list[dict[str, ByteRange]] = []
        self._write = _Stage("write", self._append)
        self._encode = _Stage("encode", self._pack)

    def put(self, stored: Callable[[], Arrays]) -> None:
        self._encode.put(stored)

    def _pack(self, stored: Callable[[], Arrays]) -> None:
        with self._clock.measure("encode"):
            chunks = self._writer.encode(stored())
        self._write.put(chunks)

    def _append(self, chunks: dict[str, list[bytes]]) -> None:
        with self._clock.measure("write"):
            self._ranges.append(self._writer.append(chunks))

    def finish(self) -> tuple[list[dict[str, ByteRange]], list[FileDigest]]:
        self._encode.finish()
        self._write.finish()
        with self._clock.measure("write"):
            return self._ranges, self._writer.finish()

    def abandon(self) -> None:
        try:
            self._encode.abandon()
            self._write.abandon()
        finally:
            self._writer.__exit__(None, None, None)


class _Stage:
    """A thread that works on what is put into its queue. The first failure is raised to whoever puts or finishes."""

    def __init__(self, name: str, work: Callable[[Any], None]) -> None:
        self._work = work
        self._items: queue.Queue[Any] = queue.Queue(_QUEUE)
        self._failure: BaseException | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name=f"shard-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._items.get()) is not _END:
            if self._failure is None:  # after a failure only empty the queue, so that nobody waits to put
                try:
                    self._work(item)
                except BaseException as error:
                    self._failure = error

    def put(self, item: Any) -> None:
        self._raise_failure()
        self._items.put(item)

    def finish(self) -> None:
        """Wait until everything is worked on."""
        self._end()
        self._raise_failure()

    def abandon(self) -> None:
        """Let go of what waits."""
        if self._failure is None and not self._over:
            self._failure = InterruptedError("abandoned")
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._items.put(_END)
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


_END = object()
