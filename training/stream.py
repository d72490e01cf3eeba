"""Samples of a dataset as an endless or finite stream of batches, in the global order of `training.order`.

In: a dataset's manifest (which samples, where their bytes lie) and its shard objects. Out: batches of reused host
buffers, or of device tensors. Threads of this process read ahead: decoding releases the interpreter lock, and a reused
buffer costs a tenth of the fresh shared memory that loader processes need (`python benchmarks/stream.py`).
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from pipeline.settings import differences
from training.order import batch_end, places, rank_positions
from training.reader import Batch, BatchReader, Window, split_samples

FLOAT_DTYPES = (torch.float32, torch.float16, torch.float64)


@dataclass(frozen=True)
class _Pending:
    """A batch that is being read, and the position after it."""

    batch: Batch
    pieces: list[Future[None]]
    after: int


class ShardStream:
    """Batches of one split: `for batch in ShardStream("DATASET", batch_size=2)`.

    A batch is `{"image": int16 HU (B, 1, X, Y, Z), "label": uint8 (B, 1, X, Y, Z), "index": int64 (B,)}` on `device`
    (None: on the host). With `window=(low, high)` HU the image is (clip(HU) - low) / (high - low) * 2 - 1 in `dtype`.
    `batch_size` is per rank. `epochs=None` never ends; otherwise each sample comes `epochs` times over all ranks, and
    the very last batch is shorter (on some ranks missing, where fewer samples than ranks are left). `shuffle=False`
    keeps the order of indices. A tensor may be kept as long as wanted; its buffer is reused when nothing refers to it
    any more.

    The stream has one position, so an iterator that is begun while another runs goes on where the other one is; each
    batch is delivered once. One thread consumes a stream; several need a stream each.
    """

    def __init__(
        self,
        dataset: Dataset | str | os.PathLike[str],
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
        shuffle: bool = True,
    ) -> None:
        _check_counts(batch_size=batch_size, threads=threads, prefetch=prefetch, world_size=world_size, epochs=epochs)
        _check_rank(rank, world_size, seed)
        self.dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        self.wait_seconds = 0.0  # that the consumer has waited for batches, in total
        self._device = _checked_device(device)
        held = split_samples(self.dataset, split)
        self.samples = len(held.rows.index)
        self._identity = {
            "split": split,
            "seed": seed,
            "shuffle": shuffle,
            "samples": self.samples,
            "manifest": held.digest,
        }
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._seed, self._shuffle, self._prefetch = seed, shuffle, prefetch
        self._end = None if epochs is None else epochs * self.samples
        image_dtype = _image_dtype(window, dtype)
        pinned = self._device.type == "cuda"
        self._reader = BatchReader(self.dataset, held, batch_size, threads, window, image_dtype, pinned)
        self._position = 0
        self._pending: deque[_Pending] = deque()
        self._running: object | None = None  # the iterator that asked last
        self._copying: tuple[Batch, torch.cuda.Event] | None = None

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
            self._read_ahead()
            if not self._pending:
                self._position = self._end or 0
                return None
            ready = self._pending[0]
            for piece in ready.pieces:
                piece.result()
            self._pending.popleft()
            batch = self._to_device(ready.batch)
            self._position = ready.after
            return batch
        finally:
            self.wait_seconds += time.perf_counter() - began

    def _read_ahead(self) -> None:
        while len(self._pending) < self._prefetch:
            start = self._pending[-1].after if self._pending else self._position
            mine = rank_positions(start, self._batch_size, self._rank, self._world_size, self._end)
            if not mine:
                return
            rows = places(mine, self.samples, self._seed, self._shuffle)
            after = batch_end(start, self._batch_size, self._world_size, self._end)
            self._pending.append(_Pending(*self._reader.start(rows), after))

    def _to_device(self, host: Batch) -> Batch:
        if self._device.type == "cpu":
            return host
        self._finish_copy()
        copied = {
            name: tensor.to(self._device, non_blocking=self._device.type == "cuda") for name, tensor in host.items()
        }
        if self._device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._copying = (host, event)  # the host buffers must not be filled anew before the copy is done
        return copied

    def _finish_copy(self) -> None:
        if self._copying is not None:
            self._copying[1].synchronize()
            self._copying = None

    def _stop(self) -> None:
        self._running = None
        self._reader.stop()
        self._pending.clear()
        self._finish_copy()

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

    @property
    def allocated_buffers(self) -> int:
        """Batch buffers made so far; grows beyond `prefetch + 1 + threads` only when batches are kept."""
        return self._reader.pools["image"].allocated

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch to be delivered starts, and of which stream; JSON-able, the same on every rank."""
        return {"position": self._position, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position, with any number of ranks, threads and batch size; refuses another stream's state."""
        changed = differences({k: v for k, v in state.items() if k != "position"}, self._identity)
        if changed:
            raise InputError(
                f"{self.dataset.path}: this stream state was saved of another stream: {'; '.join(changed)}. A position "
                "means the same sample only with the same dataset, split, seed and shuffle: use those, or start anew"
            )
        position = state.get("position")
        if not isinstance(position, int) or position < 0 or (self._end is not None and position > self._end):
            limit = "" if self._end is None else f" and at most {self._end}, the end of this stream"
            raise InputError(f"{self.dataset.path}: stream position {position!r}: must be a whole number from 0{limit}")
        self._stop()
        self._position = position

    def rewind(self) -> None:
        """Go back to the beginning of the first epoch."""
        self._stop()
        self._position = 0


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"ShardStream: {name} must be at least 1, got {count}")


def _check_rank(rank: int, world_size: int, seed: int) -> None:
    if not 0 <= rank < world_size:
        raise InputError(f"ShardStream: rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
    if seed < 0:
        raise InputError(f"ShardStream: seed must be at least 0, got {seed}")


def _checked_device(device: str | torch.device | None) -> torch.device:
    try:
        checked = torch.device("cpu" if device is None else device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"ShardStream: device {device} cannot be used here: {reason}. Use cpu or cuda") from error
    return checked


def _image_dtype(window: Window | None, dtype: torch.dtype | None) -> torch.dtype:
    if window is None:
        if dtype not in (None, torch.int16):
            raise InputError(
                f"ShardStream: dtype={dtype} needs a window=(low, high) in HU; without one images are int16"
            )
        return torch.int16
    low, high = window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"ShardStream: window must be (low, high) in HU with low < high, got {window}")
    if dtype is not None and dtype not in FLOAT_DTYPES:
        raise InputError(f"ShardStream: dtype with a window must be one of {FLOAT_DTYPES}, got {dtype}")
    return dtype or torch.float32
