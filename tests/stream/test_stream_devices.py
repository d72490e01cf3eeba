"""Batches on a device: copied ahead, delivered once."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import reader
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from tests.stream.helpers import FEW_BUFFERS, assert_is_stored, flat, indices, remove_shard
from training import stream as stream_module
from training.device_copy import Copying
from training.order import IntArray, epoch_permutation
from training.reader import Batch, BatchReader
from training.stream import ShardStream


def test_batches_go_to_the_device_and_their_host_buffers_come_back(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=4, device="meta")
    assert all(tensor.device.type == "meta" for batch in list(stream) for tensor in batch.values())
    assert stream.allocated_buffers <= FEW_BUFFERS


class CopiesByItself:
    """Stands in for the copies to a GPU, which run beside the consumer's work; notes what begins and what is wanted."""

    ahead, pinned = True, False

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.wanted: list[list[int]] = []

    def begin(self, host: Batch) -> Copying:
        self.begun.append(host["index"].tolist())
        return Copying(host)

    def delivered(self, copying: Copying) -> Batch:
        self.wanted.append(copying.batch["index"].tolist())
        return copying.batch

    def finish(self) -> None: ...


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> CopiesByItself:
    copies = CopiesByItself()
    monkeypatch.setattr(stream_module, "DeviceCopy", lambda device: copies)
    return copies


@pytest.fixture
def read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are read when they are begun."""
    start = BatchReader.start

    def started(reading: BatchReader, source: IntArray, place: IntArray) -> tuple[Batch, list[Any]]:
        batch, pieces = start(reading, source, place)
        for piece in pieces:
            piece.exception()
        return batch, pieces

    monkeypatch.setattr(BatchReader, "start", started)


@pytest.mark.usefixtures("read_at_once")
def test_the_next_batch_is_copied_while_the_consumer_has_this_one(dataset: Dataset, copies: CopiesByItself) -> None:
    stream = ShardStream(dataset, 4, epochs=1)
    for number, batch in enumerate(stream, 1):
        assert_is_stored(dataset, batch)
        assert copies.wanted[-1] == batch["index"].tolist()
        assert (len(copies.wanted), len(copies.begun)) == (number, min(number + 1, 4))
    assert copies.begun == copies.wanted


@pytest.mark.usefixtures("read_at_once")
def test_a_copy_that_began_is_not_delivered_twice_nor_lost(dataset: Dataset, copies: CopiesByItself) -> None:
    train = np.array(dataset.indices_of("train"))
    stream = ShardStream(dataset, 4, epochs=1)
    first = indices(stream, 1)  # leaves the loop when the second batch is under way
    assert len(copies.begun) == 2
    assert (stream.position, stream.positions.tolist()) == (4, [0, 1, 2, 3])
    assert flat(first + indices(stream)) == train[epoch_permutation(15, 0, 0)].tolist()


def test_a_batch_that_is_not_read_yet_is_not_waited_for(
    dataset: Dataset, copies: CopiesByItself, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls, asked = reader.decode_sample, itertools.count(), threading.Event()

    def waiting(*given: Any) -> None:
        if next(calls) >= 4:
            asked.wait()
        decode(*given)

    monkeypatch.setattr(reader, "decode_sample", waiting)
    batches = iter(ShardStream(dataset, 2, threads=1))
    try:
        next(batches)
        assert len(copies.begun) == 1
    finally:
        asked.set()
    next(batches)
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("read_at_once")
@pytest.mark.parametrize("on_broken", ["raise", "skip"])
def test_a_fault_is_told_of_when_its_batch_is_due(own_dataset: Dataset, copies: CopiesByItself, on_broken: Any) -> None:
    remove_shard(own_dataset, 1, "image")  # samples 4 to 7
    stream = ShardStream(own_dataset, 4, split="all", shuffle=False, on_broken=on_broken)
    batches = iter(stream)
    assert next(batches)["index"].tolist() == [0, 1, 2, 3]
    assert (copies.begun, stream.position, stream.skipped) == ([[0, 1, 2, 3]], 4, 0)
    if on_broken == "raise":
        with pytest.raises(InputError, match="broken shard 000001"):
            next(batches)
        assert stream.position == 4
    else:
        with pytest.warns(UserWarning, match="broken shard 000001"):
            assert next(batches)["index"].tolist() == [8, 9, 10, 11]
        assert (stream.position, stream.skipped) == (12, 4)
        batches.close()  # type: ignore[attr-defined]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"device cuda cannot be used here: .* Use cpu or cuda"):
        ShardStream(dataset, 2, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_stored_samples_from_pinned_buffers(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=10, device="cuda")
    assert stream._reader.pools["image"].lend(1).is_pinned()
    for batch in list(stream):
        assert all(tensor.is_cuda for tensor in batch.values())
        assert_is_stored(dataset, {name: tensor.cpu() for name, tensor in batch.items()})
    assert stream.allocated_buffers <= FEW_BUFFERS + 1
