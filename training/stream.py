"""Samples as an endless or finite stream of batches, in the global order of `training.order`.

In: what to draw from (`training.sources`). Out: batches of reused host buffers, or of device tensors. Threads of this
process read ahead: decoding releases the interpreter lock, and a reused buffer costs a tenth of the fresh shared memory
that loader processes need (`python benchmarks/stream.py`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
import torch

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.object_cache import ObjectCache
from pipeline.reader import EndlessReader, SampleReader
from pipeline.settings import differences
from pipeline.store import Location
from training.device_copy import DeviceCopy
from training.order import IntArray, Shuffle, Tail, batch_end, rank_positions
from training.reader import Batch, BatchReader, SourceReader, Window
from training.selection import Weights
from training.sources import EndlessPart, Part, Source, open_source
from training.stream_arguments import check_choice, check_counts, check_rank, image_dtype, source_of

NO_SAMPLE = -1  # the index of a place that only fills a batch
_IS_SAMPLE = "is_sample"
_SHUFFLES: dict[bool | str, Shuffle] = {True: "full", "full": "full", "shard": "shard", False: "index"}


@dataclass(frozen=True)
class _Pending:
    """A batch that is being read, what else is known of its samples, and the position after it."""

    batch: Batch
    pieces: list[Future[None]]
    known: Batch
    after: int


class ShardStream:
    """Batches of one split: `for batch in ShardStream("DATASET", batch_size=2)`, or of a `training.sources.Source`.

    A batch is `{"image": int16 HU (B, 1, X, Y, Z), "label": uint8 (B, 1, X, Y, Z), "index": int64 (B,)}` on `device`
    (None: on the host). With `window=(low, high)` HU the image is (clip(HU) - low) / (high - low) * 2 - 1 in `dtype`.
    With `healthy=True` there is also `"healthy"`, the same patch without tumors, like the image. Of a `Mixture`,
    `index` is that within its source, and `"source"` int64 (B,) the number of that source.

    `batch_size` is per rank. `epochs=None` never ends; otherwise each sample comes `epochs` times over all ranks (with
    weights, as often as they say). A tensor may be kept as long as wanted; its buffer is reused when nothing refers to
    it any more.

    `shuffle`: "full" (or True), any sample may be next. "shard", the shards are permuted, and the samples of 8 shards
    at a time: each object is opened once an epoch and may be read whole. Two neighbours in a shard of 64 then come 171
    places apart on average, of 100,000 samples that are permuted 33,000; since samples of a shard are drawn
    independently, that matters where shards differ, as those of a merged dataset. False, in the order of indices.

    `tail`, what becomes of the last places of a finite stream that do not fill a batch on every rank: "short", the
    last batch is shorter (on some ranks missing); "drop", they are left out; "pad", batches are filled up with copies
    of the last sample that have index -1; "wrap", with the beginning of the next epoch.

    `on_broken="skip"` leaves out samples that cannot be read, so batches may be shorter, and a batch without any is
    passed over (on this rank alone); `skipped` counts them.
    `checksums=False` does not check the crc32c of what is read. A `cache` keeps whole objects on a local disk.

    The stream has one position, so an iterator that is begun while another runs goes on where the other one is; each
    batch is delivered once. One thread consumes a stream; several need a stream each.
    """

    def __init__(
        self,
        dataset: Dataset | Location | Source,
        batch_size: int,
        split: str = "train",
        seed: int = 0,
        epochs: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: str | torch.device | None = None,
        *,
        threads: int = 2,
        prefetch: int = 4,
        window: Window | None = None,
        dtype: torch.dtype | None = None,
        shuffle: bool | Literal["full", "shard"] = "full",
        tail: Tail = "short",
        where: str | None = None,
        weights: Weights | None = None,
        healthy: bool = False,
        checksums: bool = True,
        on_broken: Literal["raise", "skip"] = "raise",
        cache: ObjectCache | None = None,
    ) -> None:
        check_counts(batch_size=batch_size, threads=threads, prefetch=prefetch, world_size=world_size, epochs=epochs)
        check_rank(rank, world_size, seed)
        check_choice("shuffle", shuffle, *_SHUFFLES)
        check_choice("tail", tail, *get_args(Tail))
        check_choice("on_broken", on_broken, "raise", "skip")
        self.wait_seconds = 0.0  # that the consumer has waited for batches, in total
        self._copy = DeviceCopy(device)
        stored_as = image_dtype(window, dtype)
        self._drawn = open_source(source_of(dataset, split, where, weights), seed, _SHUFFLES[shuffle])
        self.samples = self._drawn.samples  # of an epoch; None where there are none
        self.classes, self.patch_shape = self._drawn.classes, self._drawn.patch_shape
        self.spacing_mm = self._drawn.spacing_mm
        self._identity = self._drawn.identity
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._prefetch, self._tail = prefetch, tail
        self._end = self._checked_end(epochs)
        whole = shuffle == "shard"
        self._reader = BatchReader(
            [_reader_of(part, checksums, cache, whole) for part in self._drawn.parts],
            self.patch_shape,
            batch_size,
            threads,
            window,
            stored_as,
            self._copy.pinned,
            healthy,
            on_broken,
        )
        self._position = 0
        self._pending: deque[_Pending] = deque()
        self._running: object | None = None  # the iterator that asked last

    def _checked_end(self, epochs: int | None) -> int | None:
        """The position after the last one."""
        if epochs is None:
            return None
        if self.samples is None:
            raise InputError("ShardStream: samples made on the fly have no epochs; leave epochs out and stop the loop")
        end, together = epochs * self.samples, self._batch_size * self._world_size
        if self._tail == "drop" and end < together:
            raise InputError(
                f"ShardStream: tail='drop' would drop everything: {self._drawn.place} gives {end} samples in all, a "
                f"batch of all ranks takes {together}. Use a smaller batch_size, more epochs, or another tail"
            )
        return end

    @property
    def position(self) -> int:
        """The global position at which the next batch begins."""
        return self._position

    @property
    def skipped(self) -> int:
        """Samples that were left out because they could not be read."""
        return self._reader.skipped

    @property
    def allocated_buffers(self) -> int:
        """Batch buffers made so far; grows beyond `prefetch + 1 + threads` only when batches are kept."""
        return self._reader.pools["image"].allocated

    # -- batches ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """Go on at the current position; at the end of a finite stream, start over."""
        if self._position == self._end:
            self._position = 0
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        me = object()
        try:
            # No name here holds a batch, or its buffer could not be reused while the next one is waited for.
            yield from iter(partial(self._next, me), None)
        finally:
            if self._running is me:
                self._stop()

    def _next(self, iterator: object) -> Batch | None:
        began = time.perf_counter()
        self._running = iterator
        try:
            while True:
                self._read_ahead()
                if not self._pending:
                    self._position = self._end or 0
                    return None
                ready = self._pending[0]
                for piece in ready.pieces:
                    piece.result()
                batch = self._copy(self._finished(ready))
                self._pending.popleft()
                self._position = ready.after
                if len(batch["index"]):  # or all of them were broken
                    return batch
        finally:
            self.wait_seconds += time.perf_counter() - began

    def _read_ahead(self) -> None:
        while len(self._pending) < self._prefetch:
            start = self._pending[-1].after if self._pending else self._position
            mine = rank_positions(start, self._batch_size, self._rank, self._world_size, self._end, self._tail)
            if not mine:
                return
            after = batch_end(start, self._batch_size, self._world_size, self._end)
            self._pending.append(self._begun(np.arange(mine.start, mine.stop, dtype=np.int64), after))

    def _begun(self, at: IntArray, after: int) -> _Pending:
        """The batch of these positions, of which reading has begun."""
        known: Batch = {}
        if self._end is not None and self._tail == "pad":
            known[_IS_SAMPLE] = torch.from_numpy(at < self._end)
            at = np.minimum(at, self._end - 1)
        source, place = self._drawn.find(at)
        if self._drawn.counts is not None:
            known["source"] = torch.from_numpy(source)
        batch, pieces = self._reader.start(source, place)
        self._expect(at)
        return _Pending(batch, pieces, known, after)

    def _expect(self, at: IntArray) -> None:
        """Begin to fetch the objects that samples come from in the window after that of these positions."""
        if self._drawn.window is not None:
            later = at + self._drawn.window
            self._reader.expect(*self._drawn.find(later if self._end is None else later[later < self._end]))

    def _finished(self, ready: _Pending) -> Batch:
        batch = self._reader.finish(ready.batch | ready.known)
        is_sample = batch.pop(_IS_SAMPLE, None)
        if is_sample is not None:
            batch["index"][~is_sample] = NO_SAMPLE
        return batch

    def _stop(self) -> None:
        self._running = None
        self._reader.stop()
        self._pending.clear()
        self._copy.finish()

    def close(self) -> None:
        """Stop reading, end the threads, close the files and free the buffers. The position stays."""
        self._stop()
        for pool in self._reader.pools.values():
            pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- where it is --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch to be delivered starts, and of which stream; JSON-able, the same on every rank."""
        return {"position": self._position, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position, with any number of ranks, threads and batch size; refuses another stream's state."""
        place = self._drawn.place
        changed = differences({k: v for k, v in state.items() if k != "position"}, self._identity)
        if changed:
            raise InputError(
                f"{place}: this stream state was saved of another stream: {'; '.join(changed)}. A position means the "
                "same sample only with the same sources, split, filter, weights, seed and shuffle: use those, or start "
                "anew"
            )
        position = state.get("position")
        if not isinstance(position, int) or position < 0 or (self._end is not None and position > self._end):
            limit = "" if self._end is None else f" and at most {self._end}, the end of this stream"
            raise InputError(f"{place}: stream position {position!r}: must be a whole number from 0{limit}")
        self._stop()
        self._position = position

    def rewind(self) -> None:
        """Go back to the beginning of the first epoch."""
        self._stop()
        self._position = 0


def _reader_of(part: Part, checksums: bool, cache: ObjectCache | None, whole: bool) -> SourceReader:
    if isinstance(part, EndlessPart):
        return EndlessReader(part.bank, part.config)
    return SampleReader(part.dataset, part.rows, checksums, cache, whole)
