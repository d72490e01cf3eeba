"""The global order: each sample once per epoch, the same for any number of ranks, resumable anywhere."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.order import (
    MIX_BLOCK,
    WINDOW_SHARDS,
    EpochOrder,
    EpochRules,
    IntArray,
    Tail,
    batch_end,
    epoch_permutation,
    in_windows,
    mix_counts,
    mixed,
    part_seed,
    rank_positions,
    weighted_draws,
    whole_weights,
)

counts = st.integers(1, 40)
seeds = st.integers(0, 2**63 - 1)
small_weights = st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any)


def global_batches(start: int, batch_size: int, world_size: int, end: int, tail: Tail) -> list[list[list[int]]]:
    """Positions of each rank, global batch by global batch, from `start` to `end`."""
    batches = []
    while start < end:
        batches.append([list(rank_positions(start, batch_size, r, world_size, end, tail)) for r in range(world_size)])
        start = batch_end(start, batch_size, world_size, end)
    return batches


def flat(batches: list[list[list[int]]]) -> list[int]:
    return [position for ranks in batches for share in ranks for position in share]


def at(*positions: int) -> IntArray:
    return np.array(positions, np.int64)


# -- one source -------------------------------------------------------------------------------------------------------


@given(counts, seeds, st.integers(0, 2**40))
def test_an_epoch_holds_each_sample_once(n: int, seed: int, epoch: int) -> None:
    order = epoch_permutation(n, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_the_order_is_fixed_for_all_time() -> None:
    """These numbers are part of the format of a stream's state: a change would resume old runs at other samples."""
    assert epoch_permutation(12, 7, 3).tolist() == [4, 2, 5, 8, 7, 3, 11, 10, 0, 1, 9, 6]
    assert weighted_draws(at(1, 5, 2, 2, 1, 1), 7, 3).tolist() == [0, 1, 1, 2, 3, 4]
    assert in_windows(np.arange(20), np.arange(20) // 2, 7, 3).tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        14,
        15,
        16,
        17,
        18,
        19,
        10,
        11,
        12,
        13,
    ]
    source, own = mixed(np.arange(MIX_BLOCK, MIX_BLOCK + 6), at(1024, 3072), 7)
    assert (source.tolist(), own.tolist()) == ([0, 1, 0, 1, 1, 0], [1024, 3072, 1025, 3073, 3074, 1026])
    assert part_seed(7, 1) == 6803338121720843630


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_permutation(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(counts, seeds, st.integers(0, 200), st.integers(0, 60))
def test_places_follow_the_permutations_across_epochs(n: int, seed: int, start: int, length: int) -> None:
    positions = np.arange(start, start + length)
    wanted = [int(epoch_permutation(n, seed, p // n)[p % n]) for p in positions.tolist()]
    assert EpochOrder(EpochRules(n, seed)).places(positions).tolist() == wanted


@given(counts, seeds, st.integers(1, 3), st.sampled_from(["full", "shard", "index"]), st.booleans(), st.data())
def test_resuming_at_any_position_goes_on_with_the_same_samples(
    n: int, seed: int, epochs: int, shuffle: Any, weighted: bool, data: st.DataObject
) -> None:
    rules = EpochRules(n, seed, shuffle, np.arange(n) + 1 if weighted else None, np.arange(n) // 3)
    end = n * epochs
    whole = EpochOrder(rules).places(np.arange(end)).tolist()
    position = data.draw(st.integers(0, end))
    batch_size, world_size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    rest = flat(global_batches(position, batch_size, world_size, end, "short"))
    assert [int(EpochOrder(rules).places(at(p))[0]) for p in rest] == whole[position:]


def test_without_shuffling_the_order_is_that_of_the_indices() -> None:
    assert EpochOrder(EpochRules(4, 5, "index")).places(np.arange(2, 9)).tolist() == [2, 3, 0, 1, 2, 3, 0]


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        EpochRules(0, 0)


# -- shards -----------------------------------------------------------------------------------------------------------


@given(counts, st.integers(1, 6), seeds, st.integers(0, 9))
def test_a_shard_shuffle_holds_each_sample_once(n: int, shard_samples: int, seed: int, epoch: int) -> None:
    rules = EpochRules(n, seed, "shard", shards=np.arange(n) // shard_samples)
    assert sorted(rules.order(epoch).tolist()) == list(range(n))


@given(st.integers(1, 40), st.integers(1, 5), seeds)
def test_a_shard_shuffle_has_few_shards_open_and_opens_each_once(shards: int, shard_samples: int, seed: int) -> None:
    n = shards * shard_samples
    order = EpochRules(n, seed, "shard", shards=np.arange(n) // shard_samples).order(0)
    window = WINDOW_SHARDS * shard_samples
    seen = [set((order[k : k + window] // shard_samples).tolist()) for k in range(0, n, window)]
    assert all(len(open_shards) <= WINDOW_SHARDS for open_shards in seen)
    assert sum(map(len, seen)) == shards


def test_shards_meet_other_shards_in_other_epochs_and_mix_within_a_window() -> None:
    rules = EpochRules(64 * 40, 3, "shard", shards=np.arange(64 * 40) // 64)
    first, second = (rules.order(epoch) // 64 for epoch in (0, 1))
    assert set(first[: 64 * WINDOW_SHARDS].tolist()) != set(second[: 64 * WINDOW_SHARDS].tolist())
    same_shard_next = float((np.diff(first) == 0).mean())
    assert same_shard_next == pytest.approx(1 / WINDOW_SHARDS, abs=0.03)


# -- weights ----------------------------------------------------------------------------------------------------------


@given(small_weights, seeds, st.integers(0, 9))
def test_a_sample_comes_as_often_as_its_weight_says_rounded_up_or_down(
    weights: list[int], seed: int, epoch: int
) -> None:
    n, total = len(weights), sum(weights)
    drawn = weighted_draws(whole_weights(np.array(weights, np.float64)), seed, epoch)
    times = np.bincount(drawn, minlength=n)
    assert times.sum() == n
    for weight, count in zip(weights, times.tolist(), strict=True):
        assert n * weight // total <= count <= -(-n * weight // total)


def test_over_the_epochs_a_sample_comes_in_proportion_to_its_weight() -> None:
    weights = np.array([0.3, 1.0, 2.5, 0.0, 1.2])
    rules = EpochRules(5, 1, weights=whole_weights(weights))
    times = sum(np.bincount(rules.order(epoch), minlength=5) for epoch in range(2000)) / 2000
    np.testing.assert_allclose(times, 5 * weights / weights.sum(), atol=0.04)
    assert times[3] == 0


def test_weights_of_millions_of_samples_do_not_overflow() -> None:
    weights = np.ones(3_000_000)
    weights[::3] = 1e-12
    drawn = weighted_draws(whole_weights(weights), 0, 0)
    times = np.bincount(drawn, minlength=len(weights))
    assert times.sum() == len(weights)
    assert set(times[1::3].tolist()) | set(times[2::3].tolist()) == {1, 2}
    assert times[::3].sum() <= 1


@given(small_weights, seeds)
def test_weighted_draws_are_spread_over_the_epoch(weights: list[int], seed: int) -> None:
    rules = EpochRules(len(weights), seed, weights=whole_weights(np.array(weights, np.float64)))
    drawn = weighted_draws(rules.weights if rules.weights is not None else at(), seed, 0)
    assert rules.order(0).tolist() == drawn[epoch_permutation(len(weights), seed, 0)].tolist()


# -- several sources --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_shares_become_whole_positions_of_a_block(shares: list[float]) -> None:
    found = mix_counts(shares)
    assert found.sum() == MIX_BLOCK
    np.testing.assert_allclose(found, np.array(shares) / sum(shares) * MIX_BLOCK, atol=1)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), seeds, st.integers(0, 5))
def test_a_block_holds_the_shares_exactly_and_each_source_goes_on_where_it_was(
    shares: list[int], seed: int, block: int
) -> None:
    found = mix_counts(shares)
    source, own = mixed(np.arange(block * MIX_BLOCK, (block + 1) * MIX_BLOCK), found, seed)
    assert np.bincount(source, minlength=len(shares)).tolist() == found.tolist()
    for number, count in enumerate(found.tolist()):
        assert own[source == number].tolist() == list(range(block * count, (block + 1) * count))


@settings(max_examples=20)
@given(seeds, st.lists(st.integers(0, 3 * MIX_BLOCK), max_size=9))
def test_any_position_of_a_mixture_is_found_by_itself(seed: int, positions: list[int]) -> None:
    found = mix_counts([1, 3])
    source, own = mixed(np.arange(3 * MIX_BLOCK + 1), found, seed)
    one_by_one = [mixed(at(p), found, seed) for p in positions]
    assert [(int(s[0]), int(o[0])) for s, o in one_by_one] == [(int(source[p]), int(own[p])) for p in positions]


def test_parts_of_a_mixture_have_orders_of_their_own() -> None:
    assert len({part_seed(seed, number) for seed in range(10) for number in range(10)}) == 100


# -- ranks ------------------------------------------------------------------------------------------------------------


@given(counts, st.integers(1, 9), st.integers(1, 8), st.integers(1, 3), st.data())
def test_ranks_cover_every_position_once_and_in_order(
    n: int, batch_size: int, world_size: int, epochs: int, data: st.DataObject
) -> None:
    end = n * epochs
    start = data.draw(st.integers(0, end))
    assert flat(global_batches(start, batch_size, world_size, end, "short")) == list(range(start, end))
    dropped = (end - start) % (batch_size * world_size)
    assert flat(global_batches(start, batch_size, world_size, end, "drop")) == list(range(start, end - dropped))
    beyond = batch_size * world_size - dropped if dropped else 0
    for tail in ("pad", "wrap"):
        assert flat(global_batches(start, batch_size, world_size, end, tail)) == list(range(start, end + beyond))


@given(counts, st.integers(1, 9), st.integers(1, 8))
def test_only_the_last_batch_is_short_and_evenly_so(n: int, batch_size: int, world_size: int) -> None:
    *full, last = global_batches(0, batch_size, world_size, n, "short")
    assert all(len(share) == batch_size for ranks in full for share in ranks)
    sizes = [len(share) for share in last]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


@given(counts, st.integers(1, 9), st.integers(1, 8), st.sampled_from(["drop", "pad", "wrap"]))
def test_other_tails_give_every_rank_full_batches(n: int, batch_size: int, world_size: int, tail: Tail) -> None:
    batches = global_batches(0, batch_size, world_size, n, tail)
    assert {len(share) for ranks in batches for share in ranks} <= {batch_size, *([0] if tail == "drop" else [])}
    assert all(len({len(share) for share in ranks}) == 1 for ranks in batches)


@given(st.integers(0, 10**9), st.integers(1, 9), st.integers(1, 5), st.sampled_from(get_args(Tail)))
def test_an_endless_stream_has_only_full_batches(start: int, batch_size: int, world_size: int, tail: Tail) -> None:
    shares = [rank_positions(start, batch_size, rank, world_size, tail=tail) for rank in range(world_size)]
    assert [p for share in shares for p in share] == list(range(start, batch_end(start, batch_size, world_size, None)))
    assert {len(share) for share in shares} == {batch_size}


@pytest.mark.parametrize("start", [5, 8])
@pytest.mark.parametrize("tail", get_args(Tail))
def test_nothing_comes_at_or_after_the_end(start: int, tail: Tail) -> None:
    assert [len(rank_positions(start, 2, rank, 3, end=5, tail=tail)) for rank in range(3)] == [0, 0, 0]
