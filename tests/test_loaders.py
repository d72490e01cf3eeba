"""Loaders: the stream's batches through any of them, each sample once, resumable; and samples picked by number."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import monai.data
import monai.transforms
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker as torch_worker
from torchdata.stateful_dataloader import StatefulDataLoader

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from tests.datasets import make_dataset, object_file, open_files_below
from training.loaders import ShardBatches, ShardSamples
from training.sources import Mixture, Stored
from training.stream import ShardStream

SHAPE = (8, 9, 10)


@pytest.fixture(autouse=True)
def nothing_left_behind(no_hang: None) -> Iterator[None]:
    mine = f"torch_{os.getpid()}_*"
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("shard-stream")] == []
    assert list(Path("/dev/shm").glob(mine)) == []
    assert multiprocessing.active_children() == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """25 samples in 7 shards, 15 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("loaders") / "dataset", samples=25, patch_shape=SHAPE)


def indices(batches: Iterable[dict[str, Any]], count: int | None = None) -> list[list[int]]:
    return [batch["index"].tolist() for batch in itertools.islice(batches, count)]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def loader(batches: ShardBatches, workers: int = 0, **settings: Any) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None, num_workers=workers, **settings)


def epoch(dataset: Dataset, number: int, batch_size: int = 4) -> list[int]:
    """The order of one epoch, as the stream has it."""
    return flat(indices(ShardStream(dataset, batch_size, epochs=number + 1)))[number * 15 :]


# -- batches ----------------------------------------------------------------------------------------------------------


def as_worker(patch: pytest.MonkeyPatch, number: int, workers: int) -> None:
    """Pretend to be a process of a loader."""
    info = torch_worker.WorkerInfo(id=number, num_workers=workers, seed=0, dataset=None)
    patch.setattr(torch_worker, "_worker_info", info)
    patch.setattr(multiprocessing, "parent_process", lambda: "the loader")


def in_turns(iterators: list[Iterator[Any]]) -> Iterator[Any]:
    """One of each, as a loader asks its workers; those that have ended are left out."""
    while iterators:
        for iterator in list(iterators):
            try:
                yield next(iterator)
            except StopIteration:
                iterators.remove(iterator)


@pytest.mark.parametrize("tail", ["short", "drop", "pad", "wrap"])
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize(
    ("batch_size", "workers", "world_size"), [(4, 1, 1), (4, 2, 1), (2, 3, 1), (3, 2, 2), (1, 4, 3), (7, 3, 1)]
)
def test_any_number_of_workers_gives_the_batches_of_the_stream(
    dataset: Dataset, batch_size: int, workers: int, world_size: int, epochs: int, tail: str
) -> None:
    for rank in range(world_size):
        settings: dict[str, Any] = {"epochs": epochs, "rank": rank, "world_size": world_size, "tail": tail}
        wanted = indices(ShardStream(dataset, batch_size, **settings))
        batches = ShardBatches(dataset, batch_size, **settings)
        begun = []
        for number in range(workers):
            with pytest.MonkeyPatch.context() as patch:
                as_worker(patch, number, workers)
                begun.append(iter(batches))
        assert indices(in_turns(begun)) == wanted


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.filterwarnings("ignore:sample left out")
def test_workers_leave_out_broken_samples_and_nothing_else(tmp_path: Path, workers: int, batch_size: int) -> None:
    dataset = make_dataset(tmp_path / "data", samples=12, patch_shape=SHAPE, shard_samples=1)
    train = dataset.indices_of("train")
    for broken in range(len(train) - batch_size + 1):
        missing = [object_file(dataset, index, "image") for index in train[broken : broken + batch_size]]
        for file in missing:
            file.rename(file.with_suffix(".away"))
        batches = ShardBatches(dataset, batch_size, epochs=1, shuffle=False, on_broken="skip")
        for _ in range(2):  # the second iteration begins where the first one ends
            seen = []
            for number in range(workers):
                with pytest.MonkeyPatch.context() as patch:
                    as_worker(patch, number, workers)
                    seen += flat(indices(batches))
            assert sorted(seen) == train[:broken] + train[broken + batch_size :]
        for file in missing:
            file.with_suffix(".away").rename(file)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_delivers_the_stored_samples_once(dataset: Dataset, workers: int) -> None:
    seen = []
    for batch in loader(ShardBatches(dataset, 4, epochs=1), workers):
        for k, index in enumerate(batch["index"].tolist()):
            sample = dataset.sample(index)
            np.testing.assert_array_equal(batch["image"][k, 0].numpy(), sample.image)
            np.testing.assert_array_equal(batch["label"][k, 0].numpy(), sample.label)
        seen += batch["index"].tolist()
    assert seen == epoch(dataset, 0)


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_every_iteration_goes_on_with_the_next_epoch(dataset: Dataset, settings: dict[str, Any]) -> None:
    batches = DataLoader(ShardBatches(dataset, 4, epochs=1), batch_size=None, **settings)
    assert [flat(indices(batches)) for _ in range(3)] == [epoch(dataset, number) for number in range(3)]
    del batches


def test_without_epochs_it_never_ends_and_starts_over(dataset: Dataset) -> None:
    wanted = indices(ShardStream(dataset, 4), 20)
    batches = loader(ShardBatches(dataset, 4), 2)
    assert indices(batches, 20) == indices(batches, 20) == wanted


def test_pickled_batches_read_the_same(dataset: Dataset) -> None:
    batches: ShardBatches = pickle.loads(pickle.dumps(ShardBatches(dataset, 4, epochs=1)))
    assert [flat(indices(loader(batches, 1))) for _ in range(2)] == [epoch(dataset, 0), epoch(dataset, 1)]


@pytest.mark.soak
def test_spawned_workers_read_the_same(dataset: Dataset) -> None:
    batches = loader(ShardBatches(dataset, 4, epochs=1), 2, multiprocessing_context="spawn")
    assert [flat(indices(batches)) for _ in range(2)] == [epoch(dataset, 0), epoch(dataset, 1)]
    samples = DataLoader(ShardSamples(dataset), batch_size=4, num_workers=2, multiprocessing_context="spawn")
    assert flat(indices(samples)) == dataset.indices_of("train")


@pytest.mark.parametrize("workers", [0, 2])
def test_monais_thread_loader_takes_it_unchanged(dataset: Dataset, workers: int) -> None:
    settings: dict[str, Any] = {"batch_size": None, "collate_fn": dict, "num_workers": workers}
    batches = monai.data.ThreadDataLoader(ShardBatches(dataset, 4, epochs=1), **settings)
    assert flat(indices(batches)) == epoch(dataset, 0)


def test_workers_that_are_threads_of_one_process_are_refused(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    as_worker(monkeypatch, 1, 2)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: None)
    with pytest.raises(InputError, match="processes"):
        iter(ShardBatches(dataset, 4, epochs=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_that_is_left_leaves_nothing_open(dataset: Dataset, workers: int) -> None:
    for _ in loader(ShardBatches(dataset, 2), workers):
        break
    assert open_files_below(Path(dataset.path)) == []


def test_windowed_batches_of_a_mixture_come_through(dataset: Dataset) -> None:
    source = Mixture([(dataset, 3), (Stored(dataset, "val"), 1)])
    settings: dict[str, Any] = {"window": (-100.0, 200.0), "dtype": torch.float32}
    wanted = list(itertools.islice(ShardStream(source, 4, **settings), 6))
    found = itertools.islice(loader(ShardBatches(source, 4, **settings), 2), 6)
    for mine, theirs in zip(wanted, found, strict=True):
        assert sorted(mine) == sorted(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", range(9))
def test_a_resumed_iteration_goes_on_with_the_next_batch(dataset: Dataset, taken: int) -> None:
    def begin() -> ShardBatches:
        return ShardBatches(dataset, 4, epochs=1)

    def through(batches: ShardBatches) -> Iterator[list[int]]:
        while True:
            yield from (batch["index"].tolist() for batch in batches)

    wanted = list(itertools.islice(through(begin()), 12))
    stopped = begin()
    assert list(itertools.islice(through(stopped), taken)) == wanted[:taken]
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = begin()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert list(itertools.islice(through(resumed), 12 - taken)) == wanted[taken:]


@pytest.mark.parametrize(("workers", "taken"), [(0, 0), (0, 3), (0, 8), (2, 3), (2, 8)])
def test_a_stateful_loader_is_resumed(dataset: Dataset, workers: int, taken: int) -> None:
    def begin() -> StatefulDataLoader:
        return StatefulDataLoader(ShardBatches(dataset, 2, epochs=1), batch_size=None, num_workers=workers)

    whole = begin()
    wanted = [indices(whole), indices(whole)]
    stopped = begin()
    iterator = iter(stopped)
    assert indices(iterator, taken) == wanted[0][:taken]
    state = stopped.state_dict()
    del iterator, stopped
    resumed = begin()
    resumed.load_state_dict(state)
    assert indices(resumed) == wanted[0][taken:]
    assert indices(resumed) == wanted[1]


# -- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "where"), [("train", None), ("all", "n_tumors = 2"), ("val", "n_tumors > 0")])
def test_samples_are_the_chosen_ones_by_index(dataset: Dataset, split: str, where: str | None) -> None:
    samples = ShardSamples(dataset.path, split, where)
    held = {"n_tumors = 2": {2}, "n_tumors > 0": {1, 2}}.get(where or "", {0, 1, 2})
    wanted = [index for index in dataset.indices_of(split) if dataset.row(index)["n_tumors"] in held]
    assert [sample["index"] for sample in samples] == wanted
    for sample, index in zip(samples, wanted, strict=True):
        stored = dataset.sample(index)
        np.testing.assert_array_equal(sample["image"].numpy(), stored.image[np.newaxis])
        np.testing.assert_array_equal(sample["label"].numpy(), stored.label[np.newaxis])
    assert samples[-1]["index"] == wanted[-1]
    assert len(samples) == len(wanted)
    with pytest.raises(IndexError):
        samples[len(wanted)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [DataLoader, monai.data.ThreadDataLoader])
def test_loaders_collate_samples(dataset: Dataset, kind: Any, workers: int) -> None:
    samples = ShardSamples(dataset)
    assert samples[3]["image"].shape == (1, *SHAPE)  # its files are open when the workers are forked
    batches = list(kind(samples, batch_size=4, num_workers=workers))
    assert [tuple(batch["image"].shape) for batch in batches] == [(4, 1, *SHAPE)] * 3 + [(3, 1, *SHAPE)]
    assert flat(indices(batches)) == dataset.indices_of("train")
    for k, index in enumerate(batches[2]["index"].tolist()):
        np.testing.assert_array_equal(batches[2]["label"][k, 0].numpy(), dataset.sample(index).label)


@pytest.mark.parametrize("workers", [0, 2])
def test_monais_dictionary_transforms_apply(dataset: Dataset, workers: int) -> None:
    both = ["image", "label"]
    steps = monai.transforms.Compose(
        [
            monai.transforms.ScaleIntensityRanged("image", -100, 200, -1, 1, clip=True),
            monai.transforms.RandFlipd(both, prob=1.0, spatial_axis=0),
            monai.transforms.RandSpatialCropd(both, (8, 8, 8), random_size=False),
        ]
    )
    transformed = monai.data.Dataset(ShardSamples(dataset, "all", "n_tumors > 0"), steps)
    seen = []
    for batch in monai.data.DataLoader(transformed, batch_size=2, num_workers=workers):
        assert batch["image"].shape[1:] == batch["label"].shape[1:] == (1, 8, 8, 8)
        assert batch["image"].dtype == torch.float32
        assert float(batch["image"].abs().max()) <= 1
        seen += batch["index"].tolist()
    assert seen == [index for index in dataset.indices_of("all") if index % 7 != 6]


def test_the_batches_of_a_stream_pass_through_dictionary_transforms(dataset: Dataset) -> None:
    flip = monai.transforms.Flipd(["image", "label"], spatial_axis=1)
    [batch] = itertools.islice(ShardBatches(dataset, 4), 1)
    flipped = flip({name: batch[name][0] for name in ("image", "label")})
    assert torch.equal(torch.as_tensor(flipped["label"]), batch["label"][0].flip(2))


def test_pickled_samples_are_small_and_open_what_they_need(dataset: Dataset) -> None:
    samples = ShardSamples(dataset)
    wanted = samples[5]
    text = pickle.dumps(samples)
    assert len(text) < 4000
    found = pickle.loads(text)[5]
    assert found["index"] == wanted["index"]
    assert torch.equal(found["image"], wanted["image"])


def test_samples_of_a_dataset_that_was_replaced_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "old", samples=10, patch_shape=SHAPE)
    samples = ShardSamples(dataset)
    (tmp_path / "old").rename(tmp_path / "gone")
    make_dataset(tmp_path / "old", samples=5, patch_shape=SHAPE)
    with pytest.raises(InputError, match="changed since"):
        samples[0]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_what_a_loader_cannot_do_is_refused_at_once(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave `device` out"):
        ShardBatches(dataset, 2, device="cpu")
    with pytest.raises(InputError, match="batch_size"):
        ShardBatches(dataset, 0)
    with pytest.raises(InputError, match=r"world_size=2: .* would drift apart"):
        ShardBatches(dataset, 2, world_size=2, on_broken="skip")
    with pytest.raises(InputError, match="no such folder"):
        ShardBatches(tmp_path / "nothing", 2)
    with pytest.raises(InputError, match=r"no sample of split 'train' where n_tumors > 5 \(samples: test 5, train 15"):
        ShardSamples(dataset, where="n_tumors > 5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "seed: 3 -> 0"),
        ({"position": 16}, "position 16 is not of iteration 0"),
        ({"iteration": 1}, "position 0 is not of iteration 1"),
        ({"iteration": None}, "no state of it"),
    ],
)
def test_the_state_of_other_batches_is_refused(dataset: Dataset, change: dict[str, Any], message: str) -> None:
    batches = ShardBatches(dataset, 4, epochs=1)
    with pytest.raises(InputError, match=message):
        batches.load_state_dict(batches.state_dict() | change)


def test_the_state_is_not_asked_of_a_process_that_does_not_read(dataset: Dataset) -> None:
    batches = ShardBatches(dataset, 4, epochs=1)
    assert len(indices(loader(batches, 2))) == 4
    with pytest.raises(InputError, match="StatefulDataLoader"):
        batches.state_dict()
