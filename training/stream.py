"""Samples as an endless or finite stream of batches, in the global order of `training.order`.

In: what to draw from (`training.sources`). Out: batches of reused host buffers, or of device tensors. Threads of this
process read ahead: decoding releases the interpreter lock, and a reused buffer costs a tenth of the fresh shared memory
that loader processes need (`python benchmarks/stream.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch

from pipeline.catalog import Dataset
from pipeline.config import SPLITS
from pipeline.errors import InputError
from pipeline.object_cache import ObjectCache
from pipeline.reader import EndlessReader, SampleReader, check_twins, refuse_annotated
from pipeline.settings import differences
from pipeline.store import Location
from training.device_copy import DeviceCopy
from training.order import IntArray, Tail, batch_end, rank_positions
from training.read_ahead import ReadAhead
from training.reader import Batch, BatchReader, Relabel, Relabelled, SourceReader, Window
from training.selection import Weights
from training.sources import EndlessPart, Part, Source, open_source
from training.stream_arguments import (
    SHUFFLES,
    check_cache,
    check_choices,
    check_counts,
    check_rank,
    check_skipping,
    image_dtype,
    source_of,
)


class ShardStream:
    """Batches of one split: `for batch in ShardStream("DATASET", batch_size=2)`, or of a `training.sources.Source`.

    A batch is `{"image": int16 HU (B, 1, X, Y, Z), "label": uint8 (B, 1, X, Y, Z), "index": int64 (B,)}` on `device`
    (None: on the host). With `window=(low, high)` HU the image is (clip(HU) - low) / (high - low) * 2 - 1 in `dtype`.
    With `healthy=True` there is also `"healthy"`, the same patch without tumors, like the image (InputError where
    samples are of annotated cases, whose tumors nobody can take away). Of a `Mixture`,
    `index` is that within its source, and `"source"` int64 (B,) the number of that source.

    `batch_size` is per rank. `epochs=None` never ends; otherwise each sample comes `epochs` times over all ranks (with
    weights, as often as they say), and iterating again goes on with as many epochs more, in their own orders. A tensor
    may be kept as long as wanted; its buffer is reused when nothing refers to it any more.

    `shuffle`: "full" (or True), any sample may be next. "shard", the shards are permuted, and the samples of 8 shards
    at a time: each object is opened once an epoch and may be read whole. Two neighbours in a shard of 64 then come 171
    places apart on average, of 100,000 samples that are permuted 33,000; since samples of a shard are drawn
    independently, that matters where shards differ, as those of a merged dataset. False, in the order of indices.

    `tail`, what becomes of the last places of a finite stream that do not fill a batch on every rank: "short", the
    last batch is shorter (on some ranks missing); "drop", they are left out; "pad", batches are filled up with copies
    of the last sample that have index -1; "wrap", with the beginning of the next epoch.

    `on_broken="skip"` leaves out samples that cannot be read, so batches may be shorter, and a batch without any is
    passed over; `skipped` counts them. Not with several ranks, which would drift apart.
    `checksums=False` does not check the crc32c of what is read. A `cache` keeps whole objects on a local disk. With
    `relabel` the threads that read change each label, see `training.reader.Relabel`.

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
        relabel: Relabel | None = None,
    ) -> None:
        check_counts(batch_size=batch_size, threads=threads, prefetch=prefetch, world_size=world_size, epochs=epochs)
        check_rank(rank, world_size, seed)
        check_choices(shuffle, tail, on_broken)
        check_skipping(on_broken, world_size)
        check_cache(cache)
        self._copy = DeviceCopy(device)
        stored_as = image_dtype(window, dtype)
        self._drawn = open_source(source_of(dataset, split, where, weights), seed, SHUFFLES[shuffle])
        self.samples = self._drawn.samples  # of an epoch; None where there are none
        self.classes, self.patch_shape = self._drawn.classes, self._drawn.patch_shape
        self.spacing_mm = self._drawn.spacing_mm
        self._identity = self._drawn.identity
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._prefetch, self._tail = prefetch, tail
        self._length = self._checked_length(epochs)
        self._end = self._end_beyond(0)
        self._stop_before: int | None = None  # begin no batch from there on
        if healthy:
            _check_twins(self._drawn.parts)
        readers = [_reader_of(part, checksums, cache, shuffle == "shard") for part in self._drawn.parts]
        self._reader = BatchReader(
            _relabelled(readers, relabel),
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
        self._resumed = False  # a state was loaded, and nobody has iterated since
        self._positions: IntArray = np.empty(0, np.int64)
        self._ahead = ReadAhead(self._drawn, self._reader, self._copy, tail == "pad")
        self._running: object | None = None  # the iterator that asked last

    def _checked_length(self, epochs: int | None) -> int | None:
        """Positions of one iteration; None where it never ends."""
        if epochs is None:
            return None
        if self.samples is None:
            raise InputError("ShardStream: samples made on the fly have no epochs; leave epochs out and stop the loop")
        length, together = epochs * self.samples, self._batch_size * self._world_size
        if self._tail == "drop" and length < together:
            raise InputError(
                f"ShardStream: tail='drop' would drop everything: {self._drawn.place} gives {length} samples in all, a "
                f"batch of all ranks takes {together}. Use a smaller batch_size, more epochs, or another tail"
            )
        return length

    def _end_beyond(self, position: int) -> int | None:
        """Where the iteration ends that the sample at this position is of."""
        return None if self._length is None else (position // self._length + 1) * self._length

    @property
    def position(self) -> int:
        """The global position at which the next batch begins."""
        return self._position

    @property
    def positions(self) -> IntArray:
        """The global positions of the samples of the batch delivered last, int64 (B,); none before the first one.

        A place that only fills a batch has that of the sample that it repeats.
        """
        return self._positions

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
        """Go on at the current position; at the end of a finite stream, with the epochs after it.

        An iteration that was saved at its end is at its end when it is resumed: it gives nothing, the next one goes on.
        """
        if self._position == self._end and not self._resumed:
            self._end = self._end_beyond(self._position)
        self._resumed = False
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
        self._running = iterator
        while True:
            self._read_ahead()
            if not self._ahead:
                last = self._end if self._stop_before is None else self._stop_before
                self._position = max(self._position, last or 0)
                return None
            batch, positions, after = self._ahead.first()
            self._ahead.remove_first()
            self._position = after
            if len(positions):  # or all of them were broken
                self._positions = positions
                return batch

    def _read_ahead(self) -> None:
        while len(self._ahead) < self._prefetch:
            start = self._ahead.next_start(self._position)
            if self._stop_before is not None and start >= self._stop_before:
                return
            mine = rank_positions(start, self._batch_size, self._rank, self._world_size, self._end, self._tail)
            if not mine:
                return
            after = batch_end(start, self._batch_size, self._world_size, self._end)
            self._ahead.begin(np.arange(mine.start, mine.stop, dtype=np.int64), after, self._end)

    def _stop(self) -> None:
        self._running = None
        self._reader.stop()
        self._ahead.clear()
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
        if not isinstance(position, int) or position < 0:
            raise InputError(f"{place}: stream position {position!r}: must be a whole number from 0")
        self._stop()
        self._position, self._resumed = position, True
        self._end = self._end_beyond(max(position - 1, 0))

    def share(self, worker: int, workers: int, stop: int | None) -> None:
        """Read every `workers`-th batch of this rank from the `worker`-th on, and none from position `stop` on.

        For loaders, whose processes share the batches of one rank.
        """
        self._stop()
        # In a world of `workers` times as many ranks, the shares of rank + k * world_size are those of this rank.
        self._rank += worker * self._world_size
        self._world_size *= workers
        self._stop_before = stop


def _check_twins(parts: Sequence[Part]) -> None:
    """InputError when a source has samples of annotated cases."""
    for part in parts:
        if isinstance(part, EndlessPart):
            splits = [split for split in SPLITS if part.config.split_share.of(split) > 0]
            drawn = [record.case_id for record in part.bank.records if record.split in splits]
            refuse_annotated(part.place, part.bank, drawn)
        else:
            check_twins(part.dataset, part.rows)


def _relabelled(readers: list[SourceReader], relabel: Relabel | None) -> list[SourceReader]:
    if relabel is None:
        return readers
    return [Relabelled(reader, source, relabel) for source, reader in enumerate(readers)]


def _reader_of(part: Part, checksums: bool, cache: ObjectCache | None, whole: bool) -> SourceReader:
    if isinstance(part, EndlessPart):
        return EndlessReader(part.bank, part.config)
    return SampleReader(part.dataset, part.rows, checksums, cache, whole)
