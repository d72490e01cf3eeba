"""The choice of a place: depth, vessels, others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.organs import CLASS_IDS
from pipeline.synthesis.location import GAP_VOXELS, VESSEL_CLEARANCE_MM, Ball, Rules, ranked_centers
from tests.tumors import block, tiny

FREE = Rules(0.0, np.inf, 0.0, 5.0)
LIVER = np.argwhere(tiny().organs == CLASS_IDS["liver"])


def best_center(*of: Any) -> tuple[int, ...] | None:
    """The first of the ranked places."""
    ranked = ranked_centers(*of)
    return tuple(int(v) for v in ranked[0]) if len(ranked) else None


def candidates(seed: int, n: int = 300) -> np.ndarray:
    return LIVER[np.random.default_rng(seed).integers(len(LIVER), size=n)]


def test_without_rules_the_first_candidate_is_taken() -> None:
    assert best_center(tiny(), candidates(0), FREE, []) == tuple(candidates(0)[0])


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), least=st.floats(0, 40), width=st.floats(0, 20), clearance=st.floats(0, 10))
def test_the_chosen_is_the_first_that_meets_depth_and_clearance(
    seed: int, least: float, width: float, clearance: float
) -> None:
    at = candidates(seed)
    found = best_center(tiny(), at, Rules(least, least + width, clearance, 5.0), [])
    depth = tiny().surface_distance_mm[tuple(at.T)].astype(float)
    vessel = tiny().vessel_distance_mm[tuple(at.T)].astype(float)
    deep = (depth >= least) & (depth <= least + width)
    clear = deep & (vessel >= clearance)
    if clear.any():
        assert found == tuple(at[np.argmax(clear)])
    elif deep.any():
        assert found is not None
        assert float(tiny().vessel_distance_mm[found]) == vessel[deep].max()
        assert least <= float(tiny().surface_distance_mm[found]) <= least + width
    else:
        assert found is None


def test_a_large_tumor_asks_for_no_more_clearance_than_there_is() -> None:
    asked = [best_center(tiny(), candidates(3), FREE._replace(vessel_clearance=c), []) for c in (10.0, 60.0)]
    assert VESSEL_CLEARANCE_MM == 10.0
    assert asked[0] == asked[1]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), reach=st.floats(1, 30), other=st.floats(1, 30))
def test_what_tumors_touch_stays_apart_wherever_in_their_voxels_they_come_to_lie(
    seed: int, reach: float, other: float
) -> None:
    rng = np.random.default_rng(seed)
    at = candidates(seed)
    placed = Ball(tuple(at[-1] + rng.uniform(-0.5, 0.5, 3)), other)
    found = best_center(tiny(), at, FREE._replace(reach=reach), [placed])
    if found is not None:
        jittered = np.array(found) + rng.uniform(-0.5, 0.5, 3)
        apart = np.linalg.norm(jittered - placed.center_vox) * 3
        assert apart >= reach + other + GAP_VOXELS * 3


def test_no_place_beside_a_tumor_that_fills_the_organ() -> None:
    assert best_center(tiny(), candidates(1), FREE, [Ball((30.0, 26.0, 22.0), 200.0)]) is None


@pytest.mark.parametrize("depth", [(500.0, 600.0), (-3.0, -1.0)])
def test_no_place_at_a_depth_that_the_organ_does_not_have(depth: tuple[float, float]) -> None:
    assert best_center(block(), np.full((4, 3), 20), Rules(*depth, 0.0, 5.0), []) is None
