"""Reading into batches: several sources, few open files, broken samples left out, and no thread that stays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline import shard_objects
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.reader import SampleReader, column_names, located
from pipeline.shard_objects import BrokenSampleError
from tests.datasets import make_dataset, open_files_below
from training.augment import to_window
from training.reader import MOST_EMPTY, Batch, BatchReader

SHAPE = (8, 8, 8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("reader") / "dataset", samples=20, patch_shape=SHAPE)


def sample_reader(dataset: Dataset) -> SampleReader:
    return SampleReader(dataset, located(dataset, dataset.columns(column_names(dataset))))


def batch_reader(*readers: Any, threads: int = 2, **options: Any) -> BatchReader:
    given = {"window": None, "dtype": torch.int16, "pinned": False} | options
    return BatchReader(readers, SHAPE, 20, threads, **given)


def read(reading: BatchReader, place: Sequence[int], source: Sequence[int] | None = None) -> Batch:
    batch, pieces = reading.start(np.array(source or [0] * len(place)), np.array(place))
    for piece in pieces:
        piece.result()
    return reading.finish(batch)


class Numbers:
    """A source whose sample k is full of k, its healthy twin of -k; some are broken, one is a mistake in the code."""

    def __init__(self, broken: Sequence[int] = (), mistake: int | None = None) -> None:
        self.broken, self.mistake = broken, mistake
        self.expected: list[int] = []
        self.closed = 0

    def expect(self, places: npt.NDArray[np.int64]) -> None:
        self.expected += places.tolist()

    def read(
        self,
        k: int,
        image: npt.NDArray[np.int16],
        label: npt.NDArray[np.uint8],
        healthy: npt.NDArray[np.int16] | None = None,
    ) -> int:
        if k in self.broken:
            raise BrokenSampleError(f"shard {k // 10}", f"sample {k} is broken")
        if k == self.mistake:
            raise ZeroDivisionError
        image[...], label[...] = k, k
        if healthy is not None:
            healthy[...] = -k
        return 1000 + k

    def close(self) -> None:
        self.closed += 1


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_batch_holds_the_samples_of_its_sources(threads: int) -> None:
    sources = Numbers(), Numbers()
    reading = batch_reader(*sources, threads=threads, healthy=True)
    place, source = [3, 1, 4, 1, 5], [0, 1, 1, 0, 0]
    batch = read(reading, place, source)
    assert batch["index"].tolist() == [1003, 1001, 1004, 1001, 1005]
    for name, sign, dtype in (("image", 1, torch.int16), ("label", 1, torch.uint8), ("healthy", -1, torch.int16)):
        assert batch[name].shape == (5, 1, *SHAPE)
        assert batch[name].dtype == dtype
        assert [set(sample.unique().tolist()) for sample in batch[name]] == [{sign * k} for k in place]
    assert [s.expected for s in sources] == [[3, 1, 5], [1, 4]]
    reading.stop()
    assert [s.closed for s in sources] == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_window_is_for_image_and_healthy_twin(dtype: torch.dtype) -> None:
    batch = read(batch_reader(Numbers(), window=(-4.0, 6.0), dtype=dtype, healthy=True), [2, 3, 9])
    assert batch["label"].unique().tolist() == [2, 3, 9]
    for name, values in (("image", [2, 3, 9]), ("healthy", [-2, -3, -9])):
        expected = to_window(torch.tensor(values, dtype=torch.int16), (-4.0, 6.0))
        torch.testing.assert_close(batch[name][:, 0, 0, 0, 0].float(), expected, rtol=0, atol=1e-3)
        assert batch[name].dtype == dtype


# -- what is broken ---------------------------------------------------------------------------------------------------


def test_a_broken_sample_is_an_error() -> None:
    with pytest.raises(BrokenSampleError, match="sample 7 is broken"):
        read(batch_reader(Numbers([7])), range(12))


@pytest.mark.parametrize("threads", [1, 3])
def test_broken_samples_are_left_out_and_counted_with_one_warning_a_shard(threads: int) -> None:
    reading = batch_reader(Numbers([1, 2, 11]), threads=threads, on_broken="skip", healthy=True)
    with pytest.warns(UserWarning, match="is broken") as said:
        batches = [read(reading, place) for place in ([0, 1, 2, 3], [2, 5], [11, 12])]
    assert [batch["index"].tolist() for batch in batches] == [[1000, 1003], [1005], [1012]]
    assert batches[0]["image"].unique().tolist() == [0, 3]
    assert batches[0]["healthy"].unique().tolist() == [-3, 0]
    assert reading.skipped == 4
    assert len(said) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(reading, [1, 2, 11, 4])["index"]) == 1
    assert reading.skipped == 7


def test_what_was_added_to_a_batch_stays_with_its_samples() -> None:
    reading = batch_reader(Numbers([1]), on_broken="skip")
    batch, pieces = reading.start(np.zeros(3, np.int64), np.arange(3))
    for piece in pieces:
        piece.result()
    with pytest.warns(UserWarning, match="sample 1"):
        finished = reading.finish(batch | {"source": torch.tensor([5, 6, 7])})
    assert finished["source"].tolist() == [5, 7]


def test_nothing_left_of_many_batches_in_a_row_is_an_error() -> None:
    reading = batch_reader(Numbers([4, 5]), on_broken="skip")
    with pytest.warns(UserWarning, match="is broken"):
        assert len(read(reading, [4, 5])["index"]) == 0
    assert len(read(reading, [3, 5])["index"]) == 1
    for _ in range(MOST_EMPTY - 1):
        read(reading, [4, 5])
    with pytest.raises(InputError, match=r"of 100 batches in a row no sample can be read: sample [45] is broken"):
        read(reading, [4, 5])
    assert reading.skipped == 2 * MOST_EMPTY + 3


@pytest.mark.parametrize("between", [[3, 6], [3, 5]])
def test_a_sample_that_can_be_read_begins_the_count_of_batches_without_one_anew(between: list[int]) -> None:
    reading = batch_reader(Numbers([4, 5]), on_broken="skip")
    with pytest.warns(UserWarning, match="is broken"):
        read(reading, [4, 5])
    for _ in range(2):
        assert len(read(reading, between)["index"]) > 0
        for _ in range(MOST_EMPTY - 1):
            assert len(read(reading, [4, 5])["index"]) == 0


def test_a_mistake_is_never_skipped() -> None:
    with pytest.raises(ZeroDivisionError):
        read(batch_reader(Numbers(mistake=4), on_broken="skip"), range(12))


# -- files and threads ------------------------------------------------------------------------------------------------


def test_more_shards_than_open_files_are_read_with_few_open(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_objects, "OPEN_FILES", 3)
    reading = batch_reader(sample_reader(dataset))
    batch = read(reading, range(20))
    assert len(open_files_below(Path(dataset.path))) == 3
    assert all((batch["image"][i, 0].numpy() == dataset.sample(i).image).all() for i in range(20))
    reading.stop()
    assert open_files_below(Path(dataset.path)) == []


def test_stopping_twice_or_before_the_start_is_harmless(dataset: Dataset) -> None:
    reading = batch_reader(sample_reader(dataset))
    reading.stop()
    reading.start(np.zeros(4, np.int64), np.arange(4))
    reading.stop()
    reading.stop()


def test_a_reading_thread_may_stop_its_own_reader(dataset: Dataset) -> None:
    """The garbage collector may end an abandoned iterator in any thread, also in one that reads."""
    reading = batch_reader(sample_reader(dataset))
    reading.start(np.zeros(4, np.int64), np.arange(4))
    executor = reading._executor
    assert isinstance(executor, ThreadPoolExecutor)
    executor.submit(reading.stop).result()
    executor.shutdown()
