"""Reading samples into batches: which bytes belong to a split, reused batch buffers, and the threads that fill them.

In: a dataset's manifest and its shard objects. Out: host tensors. Which sample comes when is the stream's matter.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.reader import Located, SampleReader, column_names, located
from pipeline.shard import DTYPES
from training.order import IntArray

Batch = dict[str, torch.Tensor]
Window = tuple[float, float]
_THREADS = "shard-stream"


@dataclass(frozen=True)
class SplitSamples:
    """The samples of a split by ascending index: what reading needs of their manifest rows."""

    rows: Located
    digest: str  # of the indices and pixel checksums: the same for the same samples, however they are stored


def split_samples(dataset: Dataset, split: str) -> SplitSamples:
    """Take a split's columns out of the manifest (`all` for every sample); an InputError when it has no sample."""
    table = dataset.columns([*column_names(dataset), "split"])
    if split != "all":
        if table["split"].null_count:
            raise InputError(
                f"{dataset.path}: the manifest has rows without split. `phantumor verify` finds such shards"
            )
        table = table.filter(pc.equal(table["split"], split))
    if not table.num_rows:
        raise _empty_split(dataset, split)
    table = table.take(pc.sort_indices(table, [("index", "ascending")]))
    rows = located(dataset, table)
    digest = hashlib.sha256(rows.index.tobytes())
    for name in DTYPES:
        digest.update(rows.crc32c[name].astype(np.uint32).tobytes())
    return SplitSamples(rows, digest.hexdigest()[:16])


def _empty_split(dataset: Dataset, split: str) -> InputError:
    counts = (
        ", ".join(f"{name} {count}" for name, count in sorted(dataset.split_counts().items())) or "no sample at all"
    )
    return InputError(
        f"{dataset.path}: split {split!r} holds no sample (the dataset has: {counts}). Name another split, or "
        "generate a dataset from a bank whose cases are spread over all splits"
    )


class _Loan(weakref.ref[npt.NDArray[Any]]):
    """Watches a view of a lent array."""

    __slots__ = ("array",)
    array: npt.NDArray[Any]


class BufferPool:
    """Batch arrays of one shape that come back by themselves once nobody holds their tensor, or a part of it."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, pinned: bool = False) -> None:
        self.allocated = 0
        self._shape, self._dtype, self._pinned = shape, dtype, pinned
        self.clear()

    def clear(self) -> None:
        """Forget all arrays; those that are lent out live as long as their tensors."""
        self._lent: dict[int, _Loan] = {}
        self._returned: deque[weakref.ref[npt.NDArray[Any]]] = deque()

    def lend(self, count: int) -> torch.Tensor:
        """A tensor of `count` samples whose values are left over from earlier uses."""
        array = self._take_back() if self._returned else self._allocate()
        # The tensor's storage, which slices share, keeps this very view alive: when it dies, nobody reads any more.
        view = array[:count]
        # The callback is no Python code: an interrupt that arrives within such a callback would be lost.
        loan = _Loan(view, self._returned.append)
        loan.array = array
        self._lent[id(loan)] = loan
        return torch.from_numpy(view)

    def _take_back(self) -> npt.NDArray[Any]:
        return self._lent.pop(id(self._returned.pop())).array

    def _allocate(self) -> npt.NDArray[Any]:
        self.allocated += 1
        array: npt.NDArray[Any] = torch.empty(self._shape, dtype=self._dtype, pin_memory=self._pinned).numpy()
        return array


class BatchReader:
    """Fills batches by threads. Errors wait in the futures."""

    def __init__(
        self,
        dataset: Dataset,
        samples: SplitSamples,
        batch_size: int,
        threads: int,
        window: Window | None,
        dtype: torch.dtype,
        pinned: bool,
    ) -> None:
        shape = (batch_size, 1, *dataset.info.patch_shape)
        self.pools = {"image": BufferPool(shape, dtype, pinned), "label": BufferPool(shape, torch.uint8, pinned)}
        self._threads, self._window = threads, window
        self._samples = SampleReader(dataset, samples.rows)
        self._patch_shape = dataset.info.patch_shape
        self._executor: ThreadPoolExecutor | None = None

    def start(self, rows: IntArray) -> tuple[Batch, list[Future[None]]]:
        """Begin to read a batch; it is filled when all futures are done."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, _THREADS)
        batch = {name: pool.lend(len(rows)) for name, pool in self.pools.items()}
        batch["index"] = torch.from_numpy(self._samples.rows.index[rows])
        pieces = min(self._threads, len(rows))
        slots = [range(k, len(rows), pieces) for k in range(pieces)]
        return batch, [self._executor.submit(self._fill, batch, rows, piece) for piece in slots]

    def _fill(self, batch: Batch, rows: IntArray, slots: range) -> None:
        images, labels = batch["image"].numpy(), batch["label"].numpy()
        stored = np.empty(self._patch_shape, DTYPES["image"]) if self._window else None
        for slot in slots:
            row = int(rows[slot])
            if stored is None or self._window is None:
                self._samples.read(row, images[slot, 0], labels[slot, 0])
            else:
                self._samples.read(row, stored, labels[slot, 0])
                _scale_to_window(stored, self._window, images[slot, 0])

    def stop(self) -> None:
        """Cancel what has not begun, wait for what has, and close the files."""
        executor, self._executor = self._executor, None
        if executor is not None:
            # An abandoned iterator may be collected within a reading thread, which cannot wait for itself.
            inside = threading.current_thread().name.startswith(_THREADS)
            executor.shutdown(wait=not inside, cancel_futures=True)
        self._samples.close()


def _scale_to_window(image: npt.NDArray[np.int16], window: Window, out: npt.NDArray[np.floating[Any]]) -> None:
    """Write (clip(HU, low, high) - low) / (high - low) * 2 - 1 into `out`, computed in float32 or finer.

    The same steps as `training.augment.to_window`, so the same values; in place, and in the reading thread alone.
    """
    low, high = window
    work = np.result_type(np.float32, out.dtype)
    scaled = out if out.dtype == work else np.empty(image.shape, work)
    scaled[...] = image
    scaled -= low
    scaled *= 2 / (high - low)
    scaled -= 1
    np.clip(scaled, -1, 1, out=out)
