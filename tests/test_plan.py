"""Which samples a shard holds, for any sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.plan import Plan


@given(st.integers(1, 5000), st.integers(1, 300))
def test_shards_hold_every_sample_once_and_in_order(samples: int, shard_samples: int) -> None:
    plan = Plan(samples, shard_samples)
    held = [index for shard in range(plan.shards) for index in plan.indices(shard)]
    assert held == list(range(samples))
    assert all(len(plan.indices(shard)) == shard_samples for shard in range(plan.shards - 1))
    assert 1 <= len(plan.indices(plan.shards - 1)) <= shard_samples


@pytest.mark.parametrize(
    ("committed", "remaining"),
    [([], [0, 1, 2]), ([1], [0, 2]), ([0, 1, 2], []), ([2, 2, 0], [1]), ([7], [0, 1, 2])],
)
def test_remaining_is_planned_minus_committed(committed: list[int], remaining: list[int]) -> None:
    plan = Plan(25, 10)
    assert plan.remaining(committed) == remaining
    assert plan.samples_in(plan.remaining([])) == 25
    assert plan.samples_in([2]) == 5
