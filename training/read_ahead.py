"""Batches of a stream before they are delivered: which samples they hold, and how far reading and copying have come.

In: the positions of a batch. Out: the batch on the device. Which positions come next is `training.stream`'s matter.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from training.device_copy import Copying, DeviceCopy
from training.order import IntArray
from training.reader import Batch, BatchReader
from training.sources import Drawn

NO_SAMPLE = -1  # the index of a place that only fills a batch
_IS_SAMPLE, _POSITION = "is_sample", "position"


@dataclass
class _Pending:
    """A batch that is being read, what else is known of its samples, and the position after it."""

    batch: Batch
    pieces: list[Future[None]]
    known: Batch
    positions: IntArray  # of its samples; once it is read, of those that are left
    after: int
    copying: Copying | None = None


class ReadAhead:
    """A queue of batches: `begin` puts one in, `first` waits for the oldest one, `remove_first` takes it out."""

    def __init__(self, drawn: Drawn, reader: BatchReader, copy: DeviceCopy, pad: bool) -> None:
        self._drawn, self._reader, self._copy, self._pad = drawn, reader, copy, pad
        self._pending: deque[_Pending] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def next_start(self, position: int) -> int:
        """Where the batch begins that is to be begun next; `position` where none is begun."""
        return self._pending[-1].after if self._pending else position

    def begin(self, at: IntArray, after: int, end: int | None) -> None:
        """Begin to read the batch of these positions (B,); `after` it the next one begins, at `end` the stream ends."""
        known: Batch = {}
        if end is not None and self._pad:
            known[_IS_SAMPLE] = torch.from_numpy(at < end)
            at = at.clip(max=end - 1)
        known[_POSITION] = torch.from_numpy(at)
        source, place = self._drawn.find(at)
        if self._drawn.counts is not None:
            known["source"] = torch.from_numpy(source)
        batch, pieces = self._reader.start(source, place)
        self._expect(at, end)
        self._pending.append(_Pending(batch, pieces, known, at, after))

    def _expect(self, at: IntArray, end: int | None) -> None:
        """Begin to fetch the objects that samples come from in the window after that of these positions."""
        if self._drawn.window is not None:
            later = at + self._drawn.window
            self._reader.expect(*self._drawn.find(later if end is None else later[later < end]))

    def first(self) -> tuple[Batch, IntArray, int]:
        """The oldest batch, the positions of its samples (B,), and the position after it; waits until it is read.

        It stays in the queue, so that an interrupt loses none.
        """
        oldest = self._pending[0]
        batch = self._copy.delivered(self._copying(oldest))
        self._copy_next()
        return batch, oldest.positions, oldest.after

    def remove_first(self) -> None:
        """Take the oldest batch out: it was delivered."""
        self._pending.popleft()

    def clear(self) -> None:
        """Forget all batches, also those that are read."""
        self._pending.clear()

    def _copying(self, pending: _Pending) -> Copying:
        """The copy of a batch to the device, which begins when it is read."""
        if pending.copying is None:
            for piece in pending.pieces:
                piece.result()
            batch = self._reader.finish(pending.batch | pending.known)
            is_sample = batch.pop(_IS_SAMPLE, None)
            if is_sample is not None:
                batch["index"][~is_sample] = NO_SAMPLE
            pending.positions = batch.pop(_POSITION).numpy()
            pending.copying = self._copy.begin(batch)
        return pending.copying

    def _copy_next(self) -> None:
        """Begin to copy the batch after the oldest one while the consumer computes.

        If it is read by now, and without a fault: faults are told of when a batch's turn comes.
        """
        if self._copy.ahead and len(self._pending) > 1:
            following = self._pending[1]
            read = all(piece.done() and piece.exception() is None for piece in following.pieces)
            if read and self._reader.is_whole(following.batch):
                self._copying(following)
