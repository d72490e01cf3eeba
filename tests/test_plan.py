"""Which samples a shard holds, for any sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.plan import Plan
from workers.plan import Slice


@given(st.integers(1, 5000), st.integers(1, 300))
def test_shards_hold_every_sample_once_and_in_order(samples: int, shard_samples: int) -> None:
    plan = Plan(samples, shard_samples)
    held = [index for shard in range(plan.shards) for index in plan.indices(shard)]
    assert held == list(range(samples))
    assert all(len(plan.indices(shard)) == shard_samples for shard in range(plan.shards - 1))
    assert 1 <= len(plan.indices(plan.shards - 1)) <= shard_samples


@given(st.lists(st.integers(1, 700), min_size=1, max_size=5), st.integers(1, 90))
def test_a_dataset_that_grows_keeps_its_shards(steps: list[int], shard_samples: int) -> None:
    totals = [sum(steps[: k + 1]) for k in range(len(steps))]
    plans = [Plan(total, shard_samples, tuple(totals[:k])) for k, total in enumerate(totals)]
    for smaller, larger in pairwise(plans):
        assert [larger.indices(s) for s in range(smaller.shards)] == [smaller.indices(s) for s in range(smaller.shards)]
    plan = plans[-1]
    held = [(shard, index) for shard in range(plan.shards) for index in plan.indices(shard)]
    assert [index for _, index in held] == list(range(plan.samples))
    assert all(plan.shard_of(index) == shard for shard, index in held)


@pytest.mark.parametrize("grown", [(10, 10), (25,), (0,), (5, 3)])
def test_a_dataset_never_shrinks(grown: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="only grows"):
        Plan(25, 10, grown)


@given(st.integers(1, 200), st.integers(1, 20))
def test_slices_share_the_shards_out(shards: int, of: int) -> None:
    held = [Slice(number, of).of_shards(range(shards)) for number in range(1, of + 1)]
    assert sorted(shard for some in held for shard in some) == list(range(shards))
    assert max(map(len, held)) - min(map(len, held)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "/3", "a/b", "-1/3", "1/0", "1/2/3"])
def test_a_slice_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--slice"):
        Slice.parse(text)


def test_a_slice_is_read_from_text() -> None:
    assert Slice.parse("3/16") == Slice(3, 16)
    assert Slice.parse(None) == Slice(1, 1)
