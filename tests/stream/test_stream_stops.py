"""However reading stops, nothing runs on and buffers come back."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import reader
from pipeline.catalog import Dataset
from tests.datasets import open_files_below
from tests.stream.helpers import FEW_BUFFERS, assert_is_stored, collect, flat, indices, reading_threads
from training.stream import ShardStream

# -- buffers -----------------------------------------------------------------------------------------------------------


def test_the_usual_loop_reuses_its_buffers(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=10)
    for batch in stream:
        assert_is_stored(dataset, batch)
    assert stream.allocated_buffers <= FEW_BUFFERS


def test_batches_that_are_kept_stay_right(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=3)
    batches = list(stream)
    for batch in batches:
        assert_is_stored(dataset, batch)
    assert stream.allocated_buffers == len(batches)


def test_a_kept_slice_stays_right(dataset: Dataset) -> None:
    kept = [(batch["index"].tolist()[-1], batch["image"][-1, 0, 2:5]) for batch in ShardStream(dataset, 2, epochs=3)]
    for index, part in kept:
        np.testing.assert_array_equal(part.numpy(), dataset.sample(index).image[2:5])


def test_buffers_serve_all_passes_until_close_frees_them(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=1)
    for _ in range(5):
        indices(stream)
    made = stream.allocated_buffers
    assert made <= FEW_BUFFERS
    stream.close()
    indices(stream)
    assert stream.allocated_buffers > made


# -- stopping ----------------------------------------------------------------------------------------------------------


def break_out(stream: ShardStream) -> None:
    for _ in stream:
        assert reading_threads()
        break


def fail_in_the_loop(stream: ShardStream) -> None:
    with pytest.raises(ZeroDivisionError):
        collect(stream, [], lambda batch: 1 / 0)


def interrupt_the_loop(stream: ShardStream) -> None:
    def interrupt(batch: dict[str, torch.Tensor]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(stream, [], interrupt)


def close_while_an_iterator_is_held(stream: ShardStream) -> None:
    batches = iter(stream)
    next(batches)
    stream.close()
    stream.close()
    assert reading_threads() == []


def leave_the_context(stream: ShardStream) -> None:
    with stream:
        next(iter(stream))


def drop_the_stream_unread(stream: ShardStream) -> None:
    iter(stream)


def collect_an_abandoned_cycle(stream: ShardStream) -> None:
    cycle: list[Any] = [iter(stream)]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()


@pytest.mark.parametrize(
    "end",
    [
        indices,
        break_out,
        fail_in_the_loop,
        interrupt_the_loop,
        close_while_an_iterator_is_held,
        leave_the_context,
        drop_the_stream_unread,
        collect_an_abandoned_cycle,
    ],
)
def test_threads_and_files_are_gone_however_reading_ends(
    dataset: Dataset, end: Callable[[ShardStream], object]
) -> None:
    end(ShardStream(dataset, 2, epochs=4, threads=3))
    assert reading_threads() == []
    assert open_files_below(Path(dataset.path)) == []


@pytest.fixture
def default_interrupts() -> Iterator[None]:
    """Test runners may ignore SIGINT in their worker processes."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("default_interrupts")
@pytest.mark.parametrize("call", range(10, 40))
def test_no_ctrl_c_is_lost_and_each_can_be_resumed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Many tries, because an interrupt gets lost only when it meets Python code in a destructor."""
    decode, calls = reader.decode_sample, itertools.count()
    whole = flat(indices(ShardStream(dataset, 2), 200))

    def interrupting(*given: Any) -> None:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        decode(*given)

    monkeypatch.setattr(reader, "decode_sample", interrupting)
    stream = ShardStream(dataset, 2)
    seen: list[list[int]] = []
    with pytest.raises(KeyboardInterrupt):
        collect(stream, seen, lambda batch: len(seen) < 190 or pytest.fail("the interrupt was lost"))
    assert reading_threads() == []
    position = stream.state_dict()["position"]
    assert flat(seen) == whole[: 2 * len(seen)]
    assert position - 2 * len(seen) in (0, 2)  # the signal may fall between the delivery and the loop's first line
    assert indices(stream, 1) == [whole[position : position + 2]]
