"""How a finite stream ends, goes on and is resumed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from tests.datasets import make_dataset
from tests.stream.helpers import SHAPE, assert_is_stored, flat, indices, reading_threads
from training.order import Tail, epoch_permutation
from training.stream import ShardStream

# -- the end of a finite stream ----------------------------------------------------------------------------------------


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


# -- resuming ----------------------------------------------------------------------------------------------------------


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


# -- iterating more than once ------------------------------------------------------------------------------------------


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
