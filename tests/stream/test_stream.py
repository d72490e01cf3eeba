"""The right samples in the right order, whatever reads them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from tests.datasets import make_dataset
from tests.stream.helpers import SHAPE, assert_is_stored, flat, indices
from training.augment import to_window
from training.order import IntArray, epoch_permutation
from training.reader import BatchReader
from training.stream import ShardStream

# -- what comes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_batches_hold_the_stored_samples_of_the_split(dataset: Dataset, split: str) -> None:
    stream = ShardStream(dataset, batch_size=4, split=split, epochs=1)
    seen = []
    for batch in stream:
        count = len(batch["index"])
        assert batch["image"].shape == batch["label"].shape == (count, 1, *SHAPE)
        assert (batch["image"].dtype, batch["label"].dtype, batch["index"].dtype) == (
            torch.int16,
            torch.uint8,
            torch.int64,
        )
        assert_is_stored(dataset, batch)
        seen += batch["index"].tolist()
    assert sorted(seen) == dataset.indices_of(split)
    assert stream.samples == len(seen)


def test_a_dataset_may_be_given_by_its_path(dataset: Dataset) -> None:
    assert indices(ShardStream(dataset.path, 4, epochs=1)) == indices(ShardStream(str(dataset.path), 4, epochs=1))


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 15), (4, [4, 4, 4, 3]), (15, [15]), (100, [15])])
def test_an_epoch_ends_with_a_shorter_batch(dataset: Dataset, batch_size: int, sizes: list[int]) -> None:
    assert [len(b) for b in indices(ShardStream(dataset, batch_size, epochs=1))] == sizes


def test_batches_straddle_epochs_and_each_epoch_has_its_order(dataset: Dataset) -> None:
    train = np.array(dataset.indices_of("train"))
    wanted = np.concatenate([train[epoch_permutation(15, 3, epoch)] for epoch in range(3)]).tolist()
    assert flat(indices(ShardStream(dataset, 4, seed=3, epochs=3))) == wanted
    assert flat(indices(ShardStream(dataset, 4, seed=3), 11)) == wanted[:44]


def test_a_batch_may_be_larger_than_the_split(dataset: Dataset) -> None:
    (batch,) = indices(ShardStream(dataset, 12, split="val"), 1)
    assert sorted(batch) == sorted(2 * dataset.indices_of("val") + batch[10:])


def test_without_shuffling_samples_come_by_index(dataset: Dataset) -> None:
    assert flat(indices(ShardStream(dataset, 2, split="val", epochs=1, shuffle=False))) == [3, 8, 13, 18, 23]


def test_a_growing_dataset_gives_what_is_committed(tmp_path: Path) -> None:
    whole = make_dataset(tmp_path / "dataset", samples=12, patch_shape=SHAPE)
    (Path(whole.path) / "manifest.parquet").unlink()
    (Path(whole.path) / "manifest" / "000001.parquet").unlink()
    growing = open_dataset(whole.path)
    assert sorted(flat(indices(ShardStream(growing, 2, split="all", epochs=1)))) == [0, 1, 2, 3, 8, 9, 10, 11]


def test_a_shard_shuffle_gives_each_sample_once_an_epoch(dataset: Dataset) -> None:
    seen = flat(indices(ShardStream(dataset, 4, epochs=3, shuffle="shard")))
    epochs = [seen[k : k + 15] for k in (0, 15, 30)]
    assert all(sorted(epoch) == dataset.indices_of("train") for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_a_shard_shuffle_asks_for_the_next_shards_while_it_reads_these(
    own_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    expect = BatchReader.expect

    def asking(reading: BatchReader, source: IntArray, place: IntArray) -> None:
        asked.append(place.tolist())
        expect(reading, source, place)

    monkeypatch.setattr(BatchReader, "expect", asking)
    order = flat(indices(ShardStream(own_dataset, 4, split="all", epochs=1, shuffle="shard")))
    own, later = flat(asked[::2]), flat(asked[1::2])
    assert own == order  # of 10 shards, 4 samples each
    assert later == order[28:]  # 7 shards ahead


def test_a_filter_leaves_what_fulfils_it(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 4, epochs=1, where="n_tumors = 2", split="all")
    wanted = [index for index in dataset.indices_of("all") if dataset.row(index)["n_tumors"] == 2]
    assert sorted(flat(indices(stream))) == wanted
    assert stream.samples == len(wanted)


def test_a_stream_tells_what_it_gives(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 4)
    assert stream.classes == {"background": 0, "liver": 1, "liver_tumor": 2}
    assert (stream.patch_shape, stream.spacing_mm, stream.skipped) == (SHAPE, 1.0, 0)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.float64])
def test_a_window_maps_hu_to_minus_one_to_one(dataset: Dataset, dtype: torch.dtype | None) -> None:
    low, high = 20.0, 150.0
    stream = ShardStream(dataset, 4, epochs=1, window=(low, high), dtype=dtype)
    for raw, batch in zip(ShardStream(dataset, 4, epochs=1), stream, strict=True):
        wanted = (raw["image"].double().clip(low, high) - low) / (high - low) * 2 - 1
        assert batch["image"].dtype == (dtype or torch.float32)
        tolerance = 1e-3 if dtype == torch.float16 else 1e-6
        torch.testing.assert_close(batch["image"].double(), wanted, rtol=0, atol=tolerance)
        assert batch["image"].min() == -1
        assert batch["image"].max() == 1


def test_the_window_gives_the_same_values_as_that_of_augmentation(dataset: Dataset) -> None:
    raw = next(iter(ShardStream(dataset, 15)))
    batch = next(iter(ShardStream(dataset, 15, window=(-175, 250), dtype=torch.float32)))
    assert torch.equal(batch["image"], to_window(raw["image"], (-175, 250)))


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
def test_the_positions_of_a_batch_are_those_of_its_samples(dataset: Dataset, rank: int, world_size: int) -> None:
    train = np.array(dataset.indices_of("train"))
    order = np.concatenate([train[epoch_permutation(15, 0, epoch)] for epoch in range(2)])
    stream = ShardStream(dataset, 2, epochs=2, rank=rank, world_size=world_size)
    assert stream.positions.tolist() == []
    for batch in stream:
        assert set(batch) == {"image", "label", "index"}
        assert stream.positions.dtype == np.int64
        assert order[stream.positions].tolist() == batch["index"].tolist()


# -- determinism -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (2, 4), (4, 2), (4, 9)])
def test_threads_and_prefetching_change_nothing(dataset: Dataset, threads: int, prefetch: int) -> None:
    stream = ShardStream(dataset, 4, seed=1, epochs=2, threads=threads, prefetch=prefetch)
    found = []
    for batch in stream:
        assert_is_stored(dataset, batch)
        found.append(batch["index"].tolist())
    assert found == indices(ShardStream(dataset, 4, seed=1, epochs=2, threads=1))


@pytest.mark.parametrize(("batch_size", "world_size"), [(6, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize("epochs", [1, 2, None])
def test_the_global_sequence_is_the_same_for_any_number_of_ranks(
    dataset: Dataset, batch_size: int, world_size: int, epochs: int | None
) -> None:
    streams = [
        ShardStream(dataset, batch_size, epochs=epochs, rank=r, world_size=world_size) for r in range(world_size)
    ]
    ranks = [indices(stream, 7) for stream in streams]
    steps = itertools.zip_longest(*ranks, fillvalue=[])
    assert [flat(shares) for shares in steps] == indices(ShardStream(dataset, 6, epochs=epochs), 7)


# -- bad arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"prefetch": 0}, "prefetch must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"world_size": 0}, "world_size must be at least 1"),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to world_size - 1 = 1, got 2"),
        ({"rank": -1}, "rank must be"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"split": "holdout"}, "split 'holdout' holds no sample .*test 5, train 15, val 5"),
        ({"dtype": torch.float32}, "needs a window"),
        ({"window": (250, -175)}, "low < high"),
        ({"window": (0, float("nan"))}, "low < high"),
        ({"window": (0, 1), "dtype": torch.int16}, "dtype with a window must be one of"),
        ({"shuffle": "shards"}, "shuffle must be one of True, 'full', 'shard', False, got 'shards'"),
        ({"tail": "cut"}, "tail must be one of 'short', 'drop', 'pad', 'wrap', got 'cut'"),
        ({"on_broken": "ignore"}, "on_broken must be one of 'raise', 'skip', got 'ignore'"),
        ({"on_broken": "skip", "world_size": 2}, "world_size=2: .* would drift apart .*verify DATASET --repair"),
        ({"where": "n_tumors > 9"}, "no sample of split 'train' fulfils 'n_tumors > 9'"),
        ({"dataset": ["a", "b"]}, r"a dataset is a path, .* got list. .*Mixture"),
        ({"cache": "/tmp/cache"}, r"cache must be an ObjectCache\(folder, limit_bytes\)"),
        ({"device": "quantum"}, "device quantum cannot be used here: .* Use cpu or cuda"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(dataset: Dataset, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShardStream(**({"dataset": dataset, "batch_size": 2} | arguments))
