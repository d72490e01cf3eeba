"""The global order: each sample once per epoch, the same for any number of ranks, resumable anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.order import batch_end, epoch_permutation, places, rank_positions

counts = st.integers(1, 40)
seeds = st.integers(0, 2**63 - 1)


def global_batches(start: int, batch_size: int, world_size: int, end: int) -> list[list[list[int]]]:
    """Positions of each rank, global batch by global batch, from `start` to `end`."""
    batches = []
    while start < end:
        batches.append([list(rank_positions(start, batch_size, r, world_size, end)) for r in range(world_size)])
        start = batch_end(start, batch_size, world_size, end)
    return batches


def flat(batches: list[list[list[int]]]) -> list[int]:
    return [position for ranks in batches for share in ranks for position in share]


@given(counts, seeds, st.integers(0, 2**40))
def test_an_epoch_holds_each_sample_once(n: int, seed: int, epoch: int) -> None:
    order = epoch_permutation(n, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_the_order_is_fixed_for_all_time() -> None:
    """These numbers are part of the format of a stream's state: a change would resume old runs at other samples."""
    assert epoch_permutation(12, 7, 3).tolist() == [4, 2, 5, 8, 7, 3, 11, 10, 0, 1, 9, 6]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_permutation(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(counts, st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.data())
def test_ranks_cover_every_position_once_and_in_order(
    n: int, batch_size: int, world_size: int, epochs: int, data: st.DataObject
) -> None:
    end = n * epochs
    start = data.draw(st.integers(0, end))
    assert flat(global_batches(start, batch_size, world_size, end)) == list(range(start, end))


@given(counts, st.integers(1, 9), st.integers(1, 5))
def test_only_the_last_batch_is_short_and_evenly_so(n: int, batch_size: int, world_size: int) -> None:
    *full, last = global_batches(0, batch_size, world_size, n)
    assert all(len(share) == batch_size for ranks in full for share in ranks)
    sizes = [len(share) for share in last]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


@given(st.integers(0, 10**9), st.integers(1, 9), st.integers(1, 5))
def test_an_endless_stream_has_only_full_batches(start: int, batch_size: int, world_size: int) -> None:
    shares = [rank_positions(start, batch_size, rank, world_size) for rank in range(world_size)]
    assert [p for share in shares for p in share] == list(range(start, batch_end(start, batch_size, world_size, None)))
    assert {len(share) for share in shares} == {batch_size}


@given(counts, seeds, st.integers(0, 200), st.integers(0, 60))
def test_places_follow_the_permutations_across_epochs(n: int, seed: int, start: int, length: int) -> None:
    found = places(range(start, start + length), n, seed)
    wanted = [int(epoch_permutation(n, seed, p // n)[p % n]) for p in range(start, start + length)]
    assert found.tolist() == wanted


@given(counts, seeds, st.integers(1, 3), st.data())
def test_resuming_at_any_position_goes_on_with_the_same_samples(
    n: int, seed: int, epochs: int, data: st.DataObject
) -> None:
    end = n * epochs
    whole = places(range(end), n, seed).tolist()
    position = data.draw(st.integers(0, end))
    batch_size, world_size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    rest = flat(global_batches(position, batch_size, world_size, end))
    assert [int(places(range(p, p + 1), n, seed)[0]) for p in rest] == whole[position:]


def test_without_shuffling_the_order_is_that_of_the_indices() -> None:
    assert places(range(2, 9), 4, seed=5, shuffle=False).tolist() == [2, 3, 0, 1, 2, 3, 0]


@pytest.mark.parametrize("start", [5, 8])
def test_nothing_comes_at_or_after_the_end(start: int) -> None:
    assert [len(rank_positions(start, 2, rank, 3, end=5)) for rank in range(3)] == [0, 0, 0]


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        places(range(1), 0, 0)
