"""Streaming: the right samples in the right order whatever reads them, resumable, and never a hang or a wrong byte."""

from __future__ import annotations

import faulthandler
import gc
import itertools
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from pipeline import reader
from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from tests.datasets import make_dataset, object_file, open_files_below
from training import stream as stream_module
from training.augment import to_window
from training.device_copy import Copying
from training.order import IntArray, Tail, epoch_permutation
from training.reader import Batch, BatchReader
from training.stream import ShardStream

SHAPE = (8, 9, 10)
HANG_S = 60
# In flight, in the consumer's hands, and for a moment in those of two threads that have just finished.
FEW_BUFFERS = 4 + 1 + 2


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that hangs ends the whole run, with the stacks of all threads."""
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert reading_threads() == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """25 samples in 7 shards, 15 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("stream") / "dataset", samples=25, patch_shape=SHAPE)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("pristine") / "dataset", samples=40, patch_shape=SHAPE).path


@pytest.fixture
def own_dataset(pristine: Path, tmp_path: Path) -> Dataset:
    """A dataset of its own to break: 40 samples, 4 in each of 10 shards."""
    return open_dataset(shutil.copytree(pristine, tmp_path / "dataset"))


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("shard-stream")]


def indices(batches: Any, count: int | None = None) -> list[list[int]]:
    """The indices of each batch, of the first `count` ones."""
    return [batch["index"].tolist() for batch in itertools.islice(batches, count)]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def collect(stream: ShardStream, into: list[list[int]], look: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Read to the end; the indices of what was delivered are in `into`, also after an error."""
    for batch in stream:
        look(batch)
        into.append(batch["index"].tolist())


def assert_is_stored(dataset: Dataset, batch: dict[str, torch.Tensor]) -> None:
    """Image and label of each sample of the batch are those that the dataset holds under its index."""
    for k, index in enumerate(batch["index"].tolist()):
        sample = dataset.sample(index)
        np.testing.assert_array_equal(batch["image"][k, 0].numpy(), sample.image)
        np.testing.assert_array_equal(batch["label"][k, 0].numpy(), sample.label)


# -- what comes -------------------------------------------------------------------------------------------------------


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


# -- determinism ------------------------------------------------------------------------------------------------------


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


# -- the end of a finite stream ---------------------------------------------------------------------------------------


def ranks_of(dataset: Dataset, batch_size: int, world_size: int, **settings: Any) -> list[list[list[int]]]:
    """The indices of each batch of each rank."""
    return [
        indices(ShardStream(dataset, batch_size, rank=rank, world_size=world_size, threads=1, **settings))
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("tail", get_args(Tail))
def test_each_sample_comes_once_over_all_ranks_but_for_what_the_tail_says(
    dataset: Dataset, world_size: int, tail: Tail
) -> None:
    ranks = ranks_of(dataset, 1, world_size, epochs=1, seed=4, tail=tail)
    whole = flat(indices(ShardStream(dataset, 15, epochs=2, seed=4)))
    missing = -15 % world_size
    wanted = {
        "short": whole[:15],
        "drop": whole[: 15 - 15 % world_size],
        "pad": whole[:15] + [-1] * missing,
        "wrap": whole[: 15 + missing],
    }[tail]
    steps = itertools.zip_longest(*ranks, fillvalue=[])
    assert flat(share for shares in steps for share in shares) == wanted
    if tail != "short":
        assert len({len(batches) for batches in ranks}) == 1


def test_places_that_are_no_sample_repeat_one(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 4, epochs=1, rank=1, world_size=2, tail="pad")
    *_, last = stream  # positions 12, 13, 14 and one beyond the end
    assert stream.positions.tolist() == [12, 13, 14, 14]
    assert [index < 0 for index in last["index"].tolist()] == [False, False, False, True]
    assert torch.equal(last["image"][3], last["image"][2])
    assert torch.equal(last["label"][3], last["label"][2])
    assert stream.position == 15


@pytest.mark.parametrize("tail", get_args(Tail))
def test_after_any_tail_a_stream_goes_on_with_the_next_epoch(dataset: Dataset, tail: Tail) -> None:
    train = np.array(dataset.indices_of("train"))
    stream = ShardStream(dataset, 4, epochs=1, tail=tail)
    for epoch in range(3):
        seen = flat(indices(stream))
        assert stream.position == 15 * (epoch + 1)
        assert seen[:12] == train[epoch_permutation(15, 0, epoch)].tolist()[:12]
        assert len(seen) == {"short": 15, "drop": 12, "pad": 16, "wrap": 16}[tail]


def test_dropping_all_there_is_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"would drop everything: .* 15 samples in all, a batch of all ranks takes 16"):
        ShardStream(dataset, 4, epochs=1, rank=1, world_size=4, tail="drop")


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"shuffle": "shard"}, {"weights": {"n_tumors = 2": 3.0}}, {"where": "n_tumors > 0", "shuffle": False}],
    ids=["shard", "weights", "where"],
)
def test_every_position_can_be_resumed_with_any_number_of_ranks(dataset: Dataset, settings: dict[str, Any]) -> None:
    whole = indices(ShardStream(dataset, 1, epochs=2, **settings))
    ranks = [ShardStream(dataset, 2, epochs=2, rank=rank, world_size=3, threads=1, **settings) for rank in range(3)]
    for position in range(len(whole)):
        for stream in ranks:
            stream.load_state_dict(stream.state_dict() | {"position": position})
        steps = itertools.zip_longest(*map(indices, ranks), fillvalue=[])
        assert flat(share for shares in steps for share in shares) == flat(whole[position:])


@pytest.mark.parametrize("delivered", range(8))
def test_a_saved_state_goes_on_with_the_next_sample(dataset: Dataset, delivered: int) -> None:
    stream = ShardStream(dataset, 4, seed=2, epochs=2)
    batches = iter(stream)
    first = flat(indices(batches, delivered))
    state = json.loads(json.dumps(stream.state_dict()))
    rest = flat(indices(batches))
    assert state["position"] == len(first) == 4 * delivered
    for batch_size, world_size in ((4, 1), (3, 2), (1, 3), (5, 1)):
        resumed = []
        for rank in range(world_size):
            other = ShardStream(dataset, batch_size, seed=2, epochs=2, rank=rank, world_size=world_size)
            other.load_state_dict(state)
            resumed.append(indices(other))
        steps = itertools.zip_longest(*resumed, fillvalue=[])
        assert flat(share for shares in steps for share in shares) == rest


def test_every_rank_has_the_same_state(dataset: Dataset) -> None:
    states = []
    for rank in range(2):
        stream = ShardStream(dataset, 2, rank=rank, world_size=2)
        indices(stream, 3)
        states.append(stream.state_dict())
    assert states[0] == states[1]
    assert states[0]["position"] == 12


def test_loading_a_state_while_reading_goes_there(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 4)
    start = stream.state_dict()
    batches = iter(stream)
    first = indices(batches, 2)
    stream.load_state_dict(start)
    assert indices(batches, 2) == first
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"split": "val"}, "split: train -> val"),
        ({"shuffle": False}, "shuffle: full -> index"),
        ({"shuffle": "shard"}, "shuffle: full -> shard"),
    ],
)
def test_the_state_of_another_stream_is_refused(dataset: Dataset, other: dict[str, Any], named: str) -> None:
    state = ShardStream(dataset, 4).state_dict()
    with pytest.raises(InputError, match=named) as caught:
        ShardStream(dataset, 4, **other).load_state_dict(state)
    assert "start anew" in str(caught.value)


@pytest.mark.parametrize(("samples", "seed", "named"), [(30, 0, "samples: 15 -> 18"), (25, 1, "manifest: ")])
def test_the_state_of_another_dataset_is_refused(
    dataset: Dataset, tmp_path: Path, samples: int, seed: int, named: str
) -> None:
    other = make_dataset(tmp_path / "other", samples=samples, patch_shape=SHAPE, seed=seed)
    with pytest.raises(InputError, match=named):
        ShardStream(other, 4).load_state_dict(ShardStream(dataset, 4).state_dict())


@pytest.mark.parametrize("position", [-1, 2.0, "3", None])
def test_what_is_no_position_is_refused(dataset: Dataset, position: object) -> None:
    stream = ShardStream(dataset, 4, epochs=1)
    with pytest.raises(InputError, match="must be a whole number from 0"):
        stream.load_state_dict(stream.state_dict() | {"position": position})


# -- iterating more than once -----------------------------------------------------------------------------------------


def test_iterating_again_goes_on_with_as_many_epochs(dataset: Dataset) -> None:
    whole = flat(indices(ShardStream(dataset, 4, epochs=6)))
    stream = ShardStream(dataset, 4, epochs=2)
    assert [flat(indices(stream)) for _ in range(3)] == [whole[:30], whole[30:60], whole[60:]]
    assert stream.state_dict()["position"] == 90


@pytest.mark.parametrize(("iteration", "delivered"), [(0, 0), (0, 3), (0, 4), (1, 1), (1, 4), (2, 3), (2, 4)])
def test_any_iteration_is_resumed_where_it_was_and_then_comes_the_next_one(
    dataset: Dataset, iteration: int, delivered: int
) -> None:
    """One that was saved at its end, after 4 batches, gives nothing more."""
    whole = flat(indices(ShardStream(dataset, 4, epochs=4)))
    stream = ShardStream(dataset, 4, epochs=1)
    for _ in range(iteration):
        indices(stream)
    seen = flat(indices(stream, delivered))
    resumed = ShardStream(dataset, 4, epochs=1)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert seen + flat(indices(resumed)) == whole[15 * iteration : 15 * (iteration + 1)]
    assert flat(indices(resumed)) == whole[15 * (iteration + 1) : 15 * (iteration + 2)]


def test_after_a_break_a_stream_goes_on(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 4, epochs=1)
    assert indices(stream, 1) + indices(stream, 2) + indices(stream) == indices(ShardStream(dataset, 4, epochs=1))


def test_two_running_iterators_share_the_sequence(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=1)
    first, second = iter(stream), iter(stream)
    found = []
    for batches in (first, second, second, first, second):
        batch = next(batches)
        assert_is_stored(dataset, batch)
        found.append(batch["index"].tolist())
    assert stream.state_dict()["position"] == 10
    second.close()  # type: ignore[attr-defined]
    found += indices(first)
    assert found == indices(ShardStream(dataset, 2, epochs=1))


def test_an_abandoned_iterator_does_not_stop_the_running_one(dataset: Dataset) -> None:
    stream = ShardStream(dataset, 2, epochs=1)
    abandoned = iter(stream)
    found = indices(abandoned, 1)
    running = iter(stream)
    found += indices(running, 1)
    del abandoned
    assert reading_threads()
    assert found + indices(running) == indices(ShardStream(dataset, 2, epochs=1))


# -- buffers ----------------------------------------------------------------------------------------------------------


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


# -- stopping ---------------------------------------------------------------------------------------------------------


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


# -- broken shards ----------------------------------------------------------------------------------------------------


def cut_object(dataset: Dataset, shard: int, name: str) -> None:
    file = object_file(dataset, shard, name)
    os.truncate(file, dataset.manifest[f"{name}_range"].to_pylist()[4 * shard + 3][0] + 10)


def flip_a_byte(dataset: Dataset, shard: int, name: str) -> None:
    file = object_file(dataset, shard, name)
    data = bytearray(file.read_bytes())
    offset, length = dataset.manifest[f"{name}_range"].to_pylist()[4 * shard + 3]
    data[offset + length // 2] ^= 1
    file.write_bytes(data)


def remove_shard(dataset: Dataset, shard: int, name: str) -> None:
    shutil.rmtree(object_file(dataset, shard, name).parents[5])


FAULTS = [
    (cut_object, "ends .* bytes early"),
    (flip_a_byte, "crc32c differs"),
    (remove_shard, "No such file"),
]


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize(("damage", "reason"), FAULTS)
def test_a_broken_shard_is_one_error_that_names_it(
    own_dataset: Dataset, damage: Callable[[Dataset, int, str], None], reason: str, name: str
) -> None:
    stream = ShardStream(own_dataset, 2, split="all", epochs=1, shuffle=False, threads=2, prefetch=2)
    delivered: list[list[int]] = []

    def damage_in_mid_epoch(batch: dict[str, torch.Tensor]) -> None:
        if not delivered:
            damage(own_dataset, 5, name)
        assert_is_stored(own_dataset, batch)

    with pytest.raises(InputError, match=rf"broken shard 000005.*{reason}.*verify .* --repair") as error:
        collect(stream, delivered, damage_in_mid_epoch)
    assert reading_threads() == []
    assert str(error.value).count("broken shard") == 1
    first_bad = 20 if damage is remove_shard else 22
    assert delivered == [[k, k + 1] for k in range(0, first_bad, 2)]
    assert stream.state_dict()["position"] == first_bad


def test_a_repaired_shard_is_read_where_the_stream_failed(own_dataset: Dataset) -> None:
    file = object_file(own_dataset, 3, "image")
    data = file.read_bytes()
    file.unlink()
    stream = ShardStream(own_dataset, 4, split="all", epochs=1, shuffle=False)
    before: list[list[int]] = []
    with pytest.raises(InputError, match="broken shard 000003"):
        collect(stream, before, lambda batch: None)
    file.write_bytes(data)
    assert flat(before + indices(stream)) == list(range(40))


@pytest.mark.parametrize("threads", [1, 4])
def test_errors_in_every_worker_reach_the_consumer_once(own_dataset: Dataset, threads: int) -> None:
    shutil.rmtree(Path(own_dataset.path) / "shards")
    with pytest.raises(InputError, match="broken shard"):
        next(iter(ShardStream(own_dataset, 4, threads=threads, prefetch=8)))


def test_an_unforeseen_error_in_a_worker_is_not_swallowed(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(reader, "decode_sample", out_of_memory)
    with pytest.raises(MemoryError, match="no room"):
        next(iter(ShardStream(dataset, 4)))


def test_broken_samples_are_left_out_where_that_is_asked_for(own_dataset: Dataset) -> None:
    remove_shard(own_dataset, 9, "image")
    stream = ShardStream(own_dataset, 16, split="all", epochs=1, shuffle=False, tail="pad", on_broken="skip")
    with pytest.warns(UserWarning, match="broken shard 000009"):
        found = [(batch["index"].tolist(), stream.positions.tolist()) for batch in stream]
    assert found == [(list(kept), list(kept)) for kept in (range(16), range(16, 32), range(32, 36))]
    assert stream.skipped == 4 + 8  # and the copies of the last one, which was to fill up the batch
    assert stream.position == 40


# -- bad arguments ----------------------------------------------------------------------------------------------------


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
        ({"device": "quantum"}, "device quantum cannot be used here: .* Use cpu or cuda"),
    ],
)
def test_arguments_that_break_a_rule_are_refused(dataset: Dataset, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShardStream(dataset, **({"batch_size": 2} | arguments))


# -- devices ----------------------------------------------------------------------------------------------------------


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
