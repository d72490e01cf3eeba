"""Reading samples into batches: the threads that fill reused buffers.

In: readers of samples, and which samples are wanted. Out: host tensors. Which sample comes when is the stream's matter.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import InputError
from pipeline.grid import Index3
from pipeline.shard import DTYPES
from pipeline.shard_objects import THREADS, BrokenSampleError, in_reading_thread
from training.buffers import BufferPool
from training.order import IntArray

Batch = dict[str, torch.Tensor]
Window = tuple[float, float]
OnBroken = Literal["raise", "skip"]
MOST_EMPTY = 100
_BROKEN = np.iinfo(np.int64).min  # in place of the index of a sample that could not be read


class SourceReader(Protocol):
    """Reads the samples of one source; threads share it."""

    def expect(self, places: IntArray) -> None:
        """Begin to fetch these samples, which are read soon."""

    def read(
        self,
        k: int,
        image: npt.NDArray[np.int16],
        label: npt.NDArray[np.uint8],
        healthy: npt.NDArray[np.int16] | None = None,
    ) -> int:
        """Fill the arrays with the sample at place k of the source; its index."""

    def close(self) -> None: ...


Relabel = Callable[[int, int, npt.NDArray[np.uint8]], None]
"""Number of a source, index of one of its samples, and the sample's label, which is changed in place."""


class Relabelled:
    """A reader whose labels are changed as they are read; by the threads that read, of which there may be several."""

    def __init__(self, reader: SourceReader, source: int, relabel: Relabel) -> None:
        self._reader, self._source, self._relabel = reader, source, relabel
        self.expect, self.close = reader.expect, reader.close

    def read(
        self,
        k: int,
        image: npt.NDArray[np.int16],
        label: npt.NDArray[np.uint8],
        healthy: npt.NDArray[np.int16] | None = None,
    ) -> int:
        """As the reader, with another label."""
        index = self._reader.read(k, image, label, healthy)
        self._relabel(self._source, index, label)
        return index


class BatchReader:
    """Fills batches by threads from several sources. Errors wait in the futures.

    `patch_shape` (X, Y, Z) is that of all samples. With `healthy` a batch also has their healthy twins. Of samples that
    are broken, `on_broken` says whether that is an error, or they are left out and counted in `skipped`.
    """

    def __init__(
        self,
        readers: Sequence[SourceReader],
        patch_shape: Index3,
        batch_size: int,
        threads: int,
        window: Window | None,
        dtype: torch.dtype,
        pinned: bool,
        healthy: bool = False,
        on_broken: OnBroken = "raise",
    ) -> None:
        shape = (batch_size, 1, *patch_shape)
        dtypes = {"image": dtype, "label": torch.uint8} | ({"healthy": dtype} if healthy else {})
        self.pools = {name: BufferPool(shape, of, pinned) for name, of in dtypes.items()}
        self.skipped = 0  # samples that were left out of finished batches
        self._readers, self._threads, self._window = readers, threads, window
        self._patch_shape, self._skip = patch_shape, on_broken == "skip"
        self._executor: ThreadPoolExecutor | None = None
        self._broken: deque[BrokenSampleError] = deque()  # that nobody was told of yet
        self._told: set[str] = set()  # shards
        self._last = ""  # error
        self._empty = 0  # batches in a row without a whole sample

    def start(self, source: IntArray, place: IntArray) -> tuple[Batch, list[Future[None]]]:
        """Begin to read a batch of n samples: by number, the source of each (n,) and its place there (n,).

        It is filled when all futures are done, and ready after `finish`.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, THREADS)
        self.expect(source, place)
        batch = {name: pool.lend(len(place)) for name, pool in self.pools.items()}
        batch["index"] = torch.empty(len(place), dtype=torch.int64)
        pieces = min(self._threads, len(place))
        slots = [range(k, len(place), pieces) for k in range(pieces)]
        return batch, [self._executor.submit(self._fill, batch, source, place, piece) for piece in slots]

    def expect(self, source: IntArray, place: IntArray) -> None:
        """Begin to fetch samples of batches that come soon, where they lie far away."""
        for number, reader in enumerate(self._readers):
            reader.expect(place[source == number])

    def _fill(self, batch: Batch, source: IntArray, place: IntArray, slots: range) -> None:
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        names = [name for name in ("image", "healthy") if name in self.pools]
        scratch = {name: np.empty(self._patch_shape, DTYPES["image"]) for name in names} if self._window else {}
        for slot in slots:
            out = {name: scratch.get(name, arrays[name][slot, 0]) for name in names}
            reader, label = self._readers[source[slot]], arrays["label"][slot, 0]
            try:
                arrays["index"][slot] = reader.read(int(place[slot]), out["image"], label, out.get("healthy"))
            except BrokenSampleError as error:
                if not self._skip:
                    raise
                self._broken.append(error)
                arrays["index"][slot] = _BROKEN
            if self._window is not None:
                for name in names:
                    _scale_to_window(out[name], self._window, arrays[name][slot, 0])

    def is_whole(self, batch: Batch) -> bool:
        """Whether no sample was broken of a batch whose futures are done."""
        return not bool((batch["index"] == _BROKEN).any())

    def finish(self, batch: Batch) -> Batch:
        """The batch without broken samples, perhaps an empty one. Warns once of each broken shard.

        InputError when MOST_EMPTY batches in a row hold no whole sample.
        """
        if not self._skip:
            return batch
        if self.is_whole(batch):
            self._empty = 0
            return batch
        whole = batch["index"] != _BROKEN
        lost = len(whole) - int(whole.sum())
        self.skipped += lost
        last = self._warn()
        self._empty = self._empty + 1 if lost == len(whole) else 0
        if self._empty == MOST_EMPTY:
            raise InputError(f"of {MOST_EMPTY} batches in a row no sample can be read: {last}")
        return {name: tensor[whole] for name, tensor in batch.items()}

    def _warn(self) -> str:
        """Tell of shards that were not told of yet; the last error."""
        while self._broken:
            error = self._broken.popleft()
            self._last = str(error)
            if error.shard not in self._told:
                self._told.add(error.shard)
                warnings.warn(
                    f"sample left out, as will be other broken ones of its shard: {error}",
                    stacklevel=3,
                )
        return self._last

    def stop(self) -> None:
        """Cancel what has not begun, wait for what has, and close the files."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=not in_reading_thread(), cancel_futures=True)
        for reader in self._readers:
            reader.close()


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
