"""Whole batches for loaders: a `ShardStream` that the processes of one loader share.

It travels to them as places and settings: files and threads are opened by the process that reads.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.settings import differences
from pipeline.store import Location
from training.portable import portable
from training.reader import Batch
from training.sources import Source
from training.stream import ShardStream

MOST_WORKERS = 1024  # of one loader


@dataclass
class _Iteration:
    """How far one iteration of a process has come."""

    number: int  # 0, 1, 2, ...: with epochs, each goes on where the one before ends
    first: int  # global position that it starts at
    end: int | None  # global position that it ends at
    position: int  # of the next batch


class ShardBatches(IterableDataset[Batch]):
    """Whole batches for a loader: `DataLoader(ShardBatches("DATASET", batch_size=2), batch_size=None, num_workers=2)`.

    The loader delivers what `ShardStream(dataset, batch_size, split, seed, rank=rank, world_size=world_size)` does,
    batch for batch, whatever the number of workers: of k workers, w reads every k-th batch from the w-th on, in one
    thread. Without workers, `threads` read. `options` are those of the stream. MONAI's loaders also need
    `collate_fn=dict`, as these batches need no collating. Loader processes copy every batch into fresh shared memory,
    so they pay only where transforms are slow.

    With `epochs` one iteration is that many epochs, and the next iteration goes on with those after them. Without, an
    iteration never ends, and the next one starts over. Each loader needs a ShardBatches of its own.

    `state_dict` is of the last iteration in this process. `torchdata.stateful_dataloader.StatefulDataLoader` collects
    the workers' states and gives them back; it needs the same number of workers for that.
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
        *,
        threads: int = 2,
        **options: Any,
    ) -> None:
        if options.pop("device", None) is not None:
            raise InputError("ShardBatches: loaders pass on host memory, so leave `device` out and move their batches")
        self._source, self._epochs, self._threads = portable(dataset), epochs, threads
        self._batch_size, self._world_size = batch_size, world_size
        self._options = {"split": split, "seed": seed, "rank": rank, "world_size": world_size, **options}
        with self._open(epochs, threads) as stream:
            self.samples = stream.samples  # of an epoch
            self._identity = {name: value for name, value in stream.state_dict().items() if name != "position"}
        self._current: _Iteration | None = None
        self._loaded: _Iteration | None = None
        # Iterations that each worker has begun: shared, as most loaders start new workers for every iteration.
        self._begun = _shared(torch.zeros(MOST_WORKERS, dtype=torch.int64))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begun = _shared(self._begun)  # which it no longer is after plain pickling

    def _open(self, epochs: int | None, threads: int) -> ShardStream:
        return ShardStream(self._source, self._batch_size, epochs=epochs, threads=threads, **self._options)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one iteration: this worker's, or all where no worker is."""
        worker, workers = _loader_worker()
        current = self._loaded or self._iteration(int(self._begun[worker]))
        self._loaded, self._current = None, current
        self._begun[worker] = current.number + 1
        return self._batches(current, worker, workers)

    def _iteration(self, number: int) -> _Iteration:
        if self._epochs is None or self.samples is None:
            return _Iteration(number, 0, None, 0)
        length = self._epochs * self.samples
        return _Iteration(number, number * length, (number + 1) * length, number * length)

    def _batches(self, current: _Iteration, worker: int, workers: int) -> Iterator[Batch]:
        """Every `workers`-th batch of this rank, from the `worker`-th on."""
        step = self._batch_size * self._world_size  # from one batch of a rank to its next one
        stop = current.end
        if stop is not None and workers > 1:
            stop -= (stop - current.first) % (step * workers)
        yield from self._read(current, worker, workers, stop)
        if stop is None or current.end is None:
            return
        # Too few are left for a batch for each worker: the first ones read one more, as the stream splits it.
        last = stop + worker * step
        if current.position <= last < current.end:
            current.position = last
            yield from self._read(current, 0, 1, min(last + step, current.end))

    def _read(self, current: _Iteration, worker: int, workers: int, stop: int | None) -> Iterator[Batch]:
        """Every `workers`-th batch of this rank from the current position on, of those that begin before `stop`."""
        if stop is not None and current.position >= stop:
            return
        epochs = None if self._epochs is None else (current.number + 1) * self._epochs
        threads = self._threads if get_worker_info() is None else 1
        with self._open(epochs, threads) as stream:
            stream.load_state_dict({**self._identity, "position": current.position})
            stream.share(worker, workers, stop)
            # No name here holds a batch, or its buffer could not be reused while the next one is waited for.
            yield from iter(partial(_next, iter(stream), stream, current), None)

    def state_dict(self) -> dict[str, Any]:
        """Where the last iteration in this process stands, and of which stream; small, JSON-able."""
        if self._current is None and self._loaded is None and bool(self._begun.any()):
            raise InputError(
                "ShardBatches: loader workers read, and know where they are. Save the state of a "
                "torchdata.stateful_dataloader.StatefulDataLoader, or use num_workers=0"
            )
        current = self._loaded or self._current or self._iteration(0)
        return {"iteration": current.number, "position": current.position, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration be the rest of a saved one; refuses the state of another stream."""
        number, position = state.get("iteration"), state.get("position")
        if not isinstance(number, int) or not isinstance(position, int) or number < 0:
            raise InputError("ShardBatches: this is no state of it: iteration and position must be whole numbers")
        loaded = self._iteration(number)
        changed = differences(
            {name: value for name, value in state.items() if name not in ("iteration", "position")}, self._identity
        )
        if position < loaded.first or (loaded.end is not None and position > loaded.end):
            changed.append(f"position {position} is not of iteration {number} of {self._epochs} epochs")
        if changed:
            raise InputError(
                f"ShardBatches: this state was saved of other batches: {'; '.join(changed)}. Make them with the same "
                "dataset, split, seed, shuffle and epochs, or start anew"
            )
        self._loaded = replace(loaded, position=position)


def _next(batches: Iterator[Batch], stream: ShardStream, current: _Iteration) -> Batch | None:
    batch = next(batches, None)
    current.position = stream.position
    return batch


def _shared(counts: torch.Tensor) -> torch.Tensor:
    """The same tensor, in memory that this process shares with those that it starts."""
    shared: torch.Tensor = counts.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def _loader_worker() -> tuple[int, int]:
    """Number of this loader worker, and how many there are; (0, 1) outside of them."""
    info = get_worker_info()
    if info is None:
        return 0, 1
    if info.num_workers > 1 and multiprocessing.parent_process() is None:
        raise InputError(
            "ShardBatches: several loader workers that are threads of one process all take themselves for the same "
            "one. Use num_workers=0 and more `threads` of the stream, or workers that are processes"
        )
    if info.num_workers > MOST_WORKERS:
        raise InputError(f"ShardBatches: num_workers={info.num_workers}: at most {MOST_WORKERS}")
    return info.id, info.num_workers
