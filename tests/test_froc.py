"""Candidates of a probability image, and the FROC curve over scans, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.masks import SHAPE, blobs, cube, mask
from training.froc import FLOOR, component_peaks, froc, froc_candidates
from training.lesions import components, lesion_table
from training.records import DEFAULTS, Candidate, ScanCandidates, ScoreSettings

TRUTH = mask(cube(0, 0, 0, 3), cube(6, 0, 0, 2))


def probability(*spots: tuple[tuple[slice, slice, slice], float]) -> np.ndarray:
    out = np.full(SHAPE, 0.05, np.float16)
    for box, value in spots:
        out[box] = value
    return out


# Candidates


def test_a_candidate_is_scored_by_its_peak_and_hits_what_it_touches() -> None:
    seen = probability((cube(2, 2, 2, 2), 0.25), (cube(2, 3, 3, 1), 0.75), (cube(9, 7, 5, 1), 0.5))
    found = froc_candidates(seen, TRUTH, (1.0, 2.0, 0.5))
    assert found == [Candidate(0.75, (1,), 8.0), Candidate(0.5, (), 1.0)]


def test_a_candidate_over_two_tumors_hits_both() -> None:
    (found,) = froc_candidates(probability(((slice(0, 8), slice(0, 1), slice(0, 1)), 0.5)), TRUTH, 1.0)
    assert found.lesions == (1, 2)


def test_the_floor_is_within() -> None:
    at = probability().astype(np.float32)
    assert froc_candidates(at, TRUTH, 1.0) == []
    at[5, 5, 5] = FLOOR
    assert len(froc_candidates(at, TRUTH, 1.0)) == 1
    assert froc_candidates(at, TRUTH, 1.0, floor=0.2) == []


@pytest.mark.parametrize(("connectivity", "expected"), [(26, 1), (6, 2)])
def test_connectivity(connectivity: int, expected: int) -> None:
    seen = probability((cube(4, 4, 4, 1), 0.5), (cube(5, 5, 5, 1), 0.5))
    assert len(froc_candidates(seen, TRUTH, 1.0, connectivity)) == expected


def test_least_volume() -> None:
    """The candidate over the tumor that is too small is neither right nor false."""
    seen = probability((cube(6, 0, 0, 3), 0.5), (cube(0, 0, 0, 3), 0.5), (cube(9, 7, 5, 1), 0.9))
    assert froc_candidates(seen, TRUTH, 1.0, min_mm3=9.0) == [Candidate(0.5, (1,), 27.0)]


def test_arrays_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        froc_candidates(probability()[:-1], TRUTH, 1.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_hits_are_ids_of_the_lesion_table(seed: int) -> None:
    truth, predicted = blobs(seed)
    table = lesion_table(truth, predicted, 1.0)
    found = froc_candidates(predicted * np.float32(0.5), truth, 1.0)
    hit = {lesion for candidate in found for lesion in candidate.lesions}
    assert hit == {lesion.id for lesion in table.truth if lesion.matched}
    assert sum(not candidate.lesions for candidate in found) == sum(not lesion.matched for lesion in table.predicted)


def test_peaks_by_label() -> None:
    seen = probability((cube(6, 0, 0, 1), 0.5), (cube(0, 0, 0, 1), 0.25))
    assert component_peaks(components(TRUTH > 0, 26), seen).tolist() == [0, 0.25, 0.5]


# The curve


def scan(case_id: str, tumors: int, *candidates: tuple[float, tuple[int, ...]]) -> ScanCandidates:
    return ScanCandidates(case_id, "liver_tumor", tumors, tuple(Candidate(p, hit, 1.0) for p, hit in candidates))


def test_curve_worked_by_hand() -> None:
    """Two scans, three tumors, one of them never touched."""
    scans = [
        scan("a", 2, (0.9, (1,)), (0.8, ()), (0.3, (1, 2)), (0.2, ())),
        scan("b", 1, (0.8, ()), (0.1, ())),
    ]
    curve = froc(scans, ScoreSettings(froc_false_per_scan=(0.5, 1, 2)))
    assert curve is not None
    assert curve["points"] == [
        {"threshold": 0.9, "false_per_scan": 0.0, "sensitivity": pytest.approx(1 / 3)},
        {"threshold": 0.3, "false_per_scan": 1.0, "sensitivity": pytest.approx(2 / 3)},
        {"threshold": 0.1, "false_per_scan": 2.0, "sensitivity": pytest.approx(2 / 3)},
    ]
    assert curve["at"] == {"0.5": pytest.approx(1 / 3), "1": pytest.approx(2 / 3), "2": pytest.approx(2 / 3)}
    assert curve["mean"] == pytest.approx(5 / 9)
    assert (curve["scans"], curve["tumors"]) == (2, 3)


def test_below_the_first_point_nothing_is_found() -> None:
    """The only hit comes with two false candidates of higher score."""
    curve = froc([scan("a", 1, (0.9, ()), (0.8, ()), (0.5, (1,)))], DEFAULTS)
    assert curve is not None
    assert list(curve["at"].values()) == [0, 0, 0, 0, 1, 1, 1]


def test_equal_scores_count_together() -> None:
    curve = froc([scan("a", 1, (0.5, (1,)), (0.5, ()))], DEFAULTS)
    assert curve is not None
    assert curve["points"] == [{"threshold": 0.5, "false_per_scan": 1.0, "sensitivity": 1.0}]


def test_scans_without_candidates_count() -> None:
    curve = froc([scan("a", 1, (0.5, (1,)), (0.5, ())), scan("b", 0), scan("c", 1)], DEFAULTS)
    assert curve is not None
    assert curve["points"] == [{"threshold": 0.5, "false_per_scan": pytest.approx(1 / 3), "sensitivity": 0.5}]
    none = froc([scan("c", 1)], DEFAULTS)
    assert none is not None
    assert (none["points"], none["mean"]) == ([], 0)


def test_no_curve_without_tumors() -> None:
    assert froc([], DEFAULTS) is None
    assert froc([scan("a", 0, (0.5, ()))], DEFAULTS) is None
