"""Reading into batches: what a split is made of, buffers that come back when nobody holds them, bounded open files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline import reader as sample_reader
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from tests.datasets import make_dataset, open_files_below, with_manifest
from training.reader import BatchReader, BufferPool, split_samples


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("reader") / "dataset", samples=20, patch_shape=(8, 8, 8))


def nulled(table: pa.Table, name: str) -> pa.Table:
    """The table with the first value of a column missing."""
    field = table.schema.field(name)
    values = pa.array([None, *table[name].to_pylist()[1:]], field.type)
    return table.set_column(table.schema.get_field_index(name), field, values)


# -- which samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_a_split_is_its_samples_by_index(dataset: Dataset, split: str) -> None:
    held = split_samples(dataset, split)
    assert held.rows.index.tolist() == dataset.indices_of(split)
    rows = [dataset.row(index) for index in held.rows.index.tolist()]
    assert held.rows.shard.tolist() == [row["shard"] for row in rows]
    for name in ("image", "label"):
        assert held.rows.ranges[name].tolist() == [row[f"{name}_range"] for row in rows]


def test_the_split_does_not_depend_on_how_the_manifest_is_laid_out(dataset: Dataset) -> None:
    shuffled = dataset.manifest.take(np.random.Generator(np.random.PCG64(1)).permutation(len(dataset.manifest)))
    chunked = pa.concat_tables([shuffled.slice(0, 7), shuffled.slice(7, 1), shuffled.slice(8)])
    before, after = split_samples(dataset, "train"), split_samples(with_manifest(dataset, chunked), "train")
    assert before.digest == after.digest
    assert before.rows.index.tolist() == after.rows.index.tolist()
    assert before.rows.ranges["label"].tolist() == after.rows.ranges["label"].tolist()


def test_other_pixels_have_another_digest(dataset: Dataset, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", samples=20, patch_shape=(8, 8, 8), seed=1)
    assert split_samples(other, "train").rows.index.tolist() == split_samples(dataset, "train").rows.index.tolist()
    assert split_samples(other, "train").digest != split_samples(dataset, "train").digest


@pytest.mark.parametrize("split", ["training", ""])
def test_an_empty_split_is_refused_with_the_splits_there_are(dataset: Dataset, split: str) -> None:
    with pytest.raises(InputError, match=r"split '.*' holds no sample .*test 4, train 12, val 4.*Name another split"):
        split_samples(dataset, split)


def test_a_dataset_without_samples_says_so(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="no sample at all"):
        split_samples(with_manifest(dataset, dataset.manifest.slice(0, 0)), "train")


@pytest.mark.parametrize("name", ["image_range", "label_range", "shard", "split", "image_crc32c"])
def test_a_manifest_row_without_a_needed_value_is_refused(dataset: Dataset, name: str) -> None:
    with pytest.raises(InputError, match=f"rows without {name}"):
        split_samples(with_manifest(dataset, nulled(dataset.manifest, name)), "train")


# -- buffers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32, torch.float16])
def test_a_lent_tensor_has_the_size_asked_for(dtype: torch.dtype) -> None:
    pool = BufferPool((4, 1, 2, 3, 5), dtype)
    assert pool.lend(3).shape == (3, 1, 2, 3, 5)
    assert pool.lend(4).dtype == dtype


def test_a_buffer_is_lent_again_once_it_is_dropped() -> None:
    pool = BufferPool((2, 4), torch.int16)
    seen = {pool.lend(2).data_ptr() for _ in range(10)}
    assert pool.allocated == len(seen) == 1


HOLDERS = {
    "the tensor": lambda tensor: tensor,
    "one sample": lambda tensor: tensor[1],
    "a reshaped view": lambda tensor: tensor.view(-1)[3:5],
    "a detached alias": lambda tensor: tensor.detach(),
    "the numpy array": lambda tensor: tensor.numpy(),
    "a slice of the numpy array": lambda tensor: tensor.numpy()[1, 2:],
    "the storage": lambda tensor: tensor.untyped_storage(),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_a_buffer_is_not_lent_again_while_anything_refers_to_it(holder) -> None:  # type: ignore[no-untyped-def]
    pool = BufferPool((2, 4), torch.int16)
    tensor = pool.lend(2).fill_(7)
    held = holder(tensor)
    where = tensor.data_ptr()
    del tensor
    others = [pool.lend(2).fill_(9) for _ in range(3)]
    assert where not in {other.data_ptr() for other in others}
    del held
    assert pool.lend(2).data_ptr() == where


def test_a_cleared_pool_forgets_free_and_lent_buffers() -> None:
    pool = BufferPool((2, 4), torch.int16)
    lent = pool.lend(2)
    pool.clear()
    del lent
    pool.lend(2)
    assert pool.allocated == 2


# -- files and threads ------------------------------------------------------------------------------------------------


def batch_reader(dataset: Dataset, threads: int = 2) -> BatchReader:
    return BatchReader(dataset, split_samples(dataset, "all"), 20, threads, None, torch.int16, pinned=False)


def test_more_shards_than_open_files_are_read_with_few_open(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_reader, "OPEN_FILES", 3)
    reading = batch_reader(dataset)
    batch, pieces = reading.start(np.arange(20))
    for piece in pieces:
        piece.result()
    assert len(open_files_below(Path(dataset.path))) == 3
    assert all((batch["image"][i, 0].numpy() == dataset.sample(i).image).all() for i in range(20))
    reading.stop()
    assert open_files_below(Path(dataset.path)) == []


def test_stopping_twice_or_before_the_start_is_harmless(dataset: Dataset) -> None:
    reading = batch_reader(dataset)
    reading.stop()
    reading.start(np.arange(4))
    reading.stop()
    reading.stop()


def test_a_reading_thread_may_stop_its_own_reader(dataset: Dataset) -> None:
    """The garbage collector may end an abandoned iterator in any thread, also in one that reads."""
    reading = batch_reader(dataset)
    reading.start(np.arange(4))
    executor = reading._executor
    assert isinstance(executor, ThreadPoolExecutor)
    executor.submit(reading.stop).result()
    executor.shutdown()
