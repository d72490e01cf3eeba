"""Which lesions are paired, and what is said about those that are not alike."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.study.lesions import Candidate, Facts, common_place, nearest_to_middle
from pipeline.study.matching import balance, cost, in_turns, match, warnings

FACTS = Facts(20.0, 100.0, 10.0, 0.1, 0)
PLACES = (range(10, 20),) * 3


def lesion(source: str = "a", places: Any = PLACES, **facts: float) -> Candidate:
    def unread() -> Any:
        raise AssertionError("matching reads no scan")

    return Candidate("real", "x", source, replace(FACTS, **facts), 1, places, unread)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.0),
        ({"diameter_mm": 25.0}, 1.0),
        ({"diameter_mm": 16.0}, 1.0),
        ({"diameter_mm": 25.1}, math.inf),
        ({"parenchyma_hu": 130.0}, 1.0),
        ({"noise_hu": 14.0}, 1.0),
        ({"slice_grain": 0.35}, 1.0),
        ({"others": 2}, 4.0),
    ],
)
def test_cost_of_each_difference(changes: dict[str, float], expected: float) -> None:
    assert cost(FACTS, replace(FACTS, **changes)) == pytest.approx(expected)


def test_as_many_pairs_as_can_be_then_the_cheapest() -> None:
    real = [lesion(diameter_mm=20), lesion(diameter_mm=24), lesion(diameter_mm=80)]
    synthetic = [lesion(diameter_mm=24), lesion(diameter_mm=29), lesion(diameter_mm=24.1)]
    assert match(real, synthetic, 30) == [(0, 0), (1, 2)]
    assert match(real[:2], synthetic[:2], 30) == [(0, 0), (1, 1)]  # the best pair alone would leave the first without
    assert match([], synthetic, 30) == []


def test_the_same_scan_is_preferred() -> None:
    assert match([lesion("a")], [lesion("b"), lesion("a", diameter_mm=21)], 30) == [(0, 1)]


def test_a_pair_needs_a_place_in_common() -> None:
    here, there = lesion(), lesion(places=(range(10, 20), range(10, 20), range(25, 30)))
    assert match([here], [there], 30) == []
    assert common_place(here, lesion(places=(range(5, 12), range(17, 40), range(0, 99))), 30) == (11, 17, 15)


@pytest.mark.parametrize(
    ("places", "expected"),
    [(PLACES, (15, 15, 15)), ((range(0, 9), range(18, 30), range(15, 16)), (8, 18, 15)), ((range(3, 3),) * 3, None)],
)
def test_the_place_is_as_near_to_the_middle_as_can_be(places: Any, expected: Any) -> None:
    assert nearest_to_middle(places, 30) == expected


def test_no_scan_comes_twice_before_all_came_once() -> None:
    sources = ["a"] * 5 + ["b"] * 2 + ["c"]
    turns = in_turns(sources, np.random.default_rng(np.random.SeedSequence(1)))
    assert sorted(turns) == list(range(8))
    assert {sources[k] for k in turns[:3]} == {"a", "b", "c"}
    assert sorted(sources[k] for k in turns[3:5]) == ["a", "b"]


def test_what_differs_is_said() -> None:
    real = [lesion("a", parenchyma_hu=100 + k) for k in range(4)]
    other = [lesion("b", parenchyma_hu=120 + k) for k in range(4)]
    rows = {row["fact"]: row for row in balance(real, other)}
    assert rows["parenchyma_hu"]["smd"] == pytest.approx(20 / math.sqrt(1.25))
    assert rows["diameter_mm"]["smd"] == 0
    notes = warnings(real, other, list(rows.values()))
    assert len(notes) == 2
    assert "parenchyma_hu" in notes[0]
    assert "diameter" not in notes[0]
    assert "1 scan(s)" in notes[1]
    assert warnings(real, real, balance(real, real)) == []
