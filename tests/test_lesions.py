"""Which lesions a prediction finds: tables worked by hand, and what holds for all masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.masks import blobs, cube, mask
from training.lesions import RULES, components, lesion_table, matches
from training.metrics import equivalent_diameter_mm

EMPTY = mask()
BLOCK = mask(cube(2, 2, 2, 4))


def test_no_lesions() -> None:
    table = lesion_table(EMPTY, EMPTY, 1.0)
    assert table.truth == ()
    assert table.predicted == ()


def test_lesion_facts_with_anisotropic_spacing() -> None:
    truth = mask((slice(1, 3), slice(4, 5), slice(2, 5)))  # 2 x 1 x 3 voxels
    (lesion,) = lesion_table(truth, truth, (1.0, 2.0, 0.5)).truth
    assert (lesion.id, lesion.voxels, lesion.overlap_voxels, lesion.iou) == (1, 6, 6, 1.0)
    assert lesion.volume_mm3 == pytest.approx(6.0)
    assert lesion.diameter_mm == pytest.approx(equivalent_diameter_mm(6.0))
    assert lesion.centroid_vox == (1.5, 4.0, 3.0)


def test_one_voxel_of_overlap_detects() -> None:
    table = lesion_table(BLOCK, mask(cube(5, 5, 5, 3)), 1.0)
    (lesion,), (predicted,) = table.truth, table.predicted
    assert lesion.matched
    assert lesion.overlap_voxels == predicted.overlap_voxels == 1
    assert lesion.iou == pytest.approx(1 / (64 + 27 - 1))
    assert predicted.matched


def test_lesions_side_by_side_do_not_match() -> None:
    """Faces that touch are no overlap."""
    table = lesion_table(mask(cube(0, 0, 0, 2)), mask(cube(2, 0, 0, 2)), 1.0)
    assert not table.truth[0].matched
    assert table.truth[0].iou == 0
    assert not table.predicted[0].matched


def test_a_prediction_that_merges_two_lesions_detects_both() -> None:
    truth = mask(cube(0, 0, 0, 2), cube(4, 0, 0, 2))
    table = lesion_table(truth, mask((slice(0, 6), slice(0, 2), slice(0, 2))), 1.0)
    assert [(lesion.matched, lesion.iou) for lesion in table.truth] == [(True, 8 / 24), (True, 8 / 24)]
    assert [(lesion.overlap_voxels, lesion.matched) for lesion in table.predicted] == [(16, True)]


def test_a_lesion_split_by_the_prediction_counts_once() -> None:
    truth = mask((slice(0, 6), slice(0, 2), slice(0, 2)))
    table = lesion_table(truth, mask(cube(0, 0, 0, 2), cube(4, 0, 0, 2)), 1.0)
    assert [(lesion.matched, lesion.iou) for lesion in table.truth] == [(True, 16 / 24)]
    assert [lesion.matched for lesion in table.predicted] == [True, True]


def bar(x: int, length: int) -> tuple[slice, slice, slice]:
    """`length` voxels along X, 2 by 2 across: 4 voxels a step."""
    return slice(x, x + length), slice(0, 2), slice(0, 2)


# Bars along X, as (start, length). By rule: true lesions found, predicted lesions that are right.
TABLES = {
    "equal": ([(0, 4)], [(0, 4)], {"overlap": (1, 1), "iou_0.1": (1, 1), "iou_0.5": (1, 1)}),
    "touching faces": ([(0, 4)], [(4, 4)], {"overlap": (0, 0), "iou_0.1": (0, 0), "iou_0.5": (0, 0)}),
    "one step shared, 1 of 11": ([(0, 6)], [(5, 6)], {"overlap": (1, 1), "iou_0.1": (0, 0), "iou_0.5": (0, 0)}),
    "one step shared, 1 of 10": ([(0, 6)], [(5, 5)], {"overlap": (1, 1), "iou_0.1": (1, 1), "iou_0.5": (0, 0)}),
    "half, 3 of 6": ([(0, 6)], [(0, 3)], {"overlap": (1, 1), "iou_0.1": (1, 1), "iou_0.5": (1, 1)}),
    "just below half, 5 of 11": ([(0, 8)], [(3, 8)], {"overlap": (1, 1), "iou_0.1": (1, 1), "iou_0.5": (0, 0)}),
    # Each true one: 3 of 7 steps of the prediction. The prediction: 6 of 7.
    "merged": ([(0, 3), (4, 3)], [(0, 7)], {"overlap": (2, 1), "iou_0.1": (2, 1), "iou_0.5": (0, 1)}),
    "split": ([(0, 7)], [(0, 3), (4, 3)], {"overlap": (1, 2), "iou_0.1": (1, 2), "iou_0.5": (1, 0)}),
    "missed and false": ([(0, 3)], [(9, 3)], {"overlap": (0, 0), "iou_0.1": (0, 0), "iou_0.5": (0, 0)}),
    "nothing predicted": ([(0, 3)], [], {"overlap": (0, 0), "iou_0.1": (0, 0), "iou_0.5": (0, 0)}),
    "nothing there": ([], [(0, 3)], {"overlap": (0, 0), "iou_0.1": (0, 0), "iou_0.5": (0, 0)}),
    "both ends of the array": ([(0, 2), (10, 2)], [(11, 1)], {"overlap": (1, 1), "iou_0.1": (1, 1), "iou_0.5": (1, 1)}),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_tables_worked_by_hand(name: str, axes: tuple[int, int, int]) -> None:
    truth, prediction, expected = TABLES[name]
    table = lesion_table(*(mask(*(bar(*one) for one in bars)).transpose(axes) for bars in (truth, prediction)), 0.8)
    assert (len(table.truth), len(table.predicted)) == (len(truth), len(prediction))
    found = {
        rule: tuple(sum(matches(rule, lesion.iou) for lesion in side) for side in (table.truth, table.predicted))
        for rule in RULES
    }
    assert found == expected


def test_dice_is_with_all_that_touches() -> None:
    (lesion,) = lesion_table(mask(bar(0, 7)), mask(bar(0, 3), bar(4, 3)), 1.0).truth
    assert lesion.dice == pytest.approx(2 * 6 / (7 + 6))
    (missed,) = lesion_table(mask(bar(0, 7)), EMPTY, 1.0).truth
    assert missed.dice is None


def test_pieces_below_the_least_volume_are_left_out() -> None:
    """The prediction over the small true tumor is neither right nor false; the small prediction is no prediction."""
    truth = mask(cube(0, 0, 0, 3), cube(0, 6, 0, 2))  # 27 and 8 voxels of 2 mm³
    prediction = mask(cube(1, 0, 0, 3), cube(0, 6, 1, 3), cube(9, 7, 5, 3), cube(6, 0, 6, 1))
    table = lesion_table(truth, prediction, (1.0, 1.0, 2.0), min_mm3=17.0)
    assert [(lesion.voxels, lesion.matched) for lesion in table.truth] == [(27, True)]
    assert {(lesion.centroid_vox, lesion.matched) for lesion in table.predicted} == {
        ((2.0, 1.0, 1.0), True),
        ((10.0, 8.0, 6.0), False),
    }
    assert len(lesion_table(truth, prediction, (1.0, 1.0, 2.0), min_mm3=16.0).truth) == 2


def test_a_small_prediction_finds_nothing() -> None:
    table = lesion_table(BLOCK, mask(cube(2, 2, 2, 1)), 1.0, min_mm3=2.0)
    assert [(lesion.matched, lesion.iou) for lesion in table.truth] == [(False, 0.0)]
    assert table.predicted == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([6, 18, 26]))
def test_ids_are_those_of_the_components_of_the_whole_mask(seed: int, connectivity: int) -> None:
    truth, prediction = blobs(seed)
    whole = [np.pad(m, ((3, 0), (0, 2), (5, 1))) for m in (truth, prediction)]
    table = lesion_table(*whole, 1.0, connectivity, min_mm3=3.0)
    for lesions, inside in zip((table.truth, table.predicted), whole, strict=True):
        parts = components(inside, connectivity)
        for lesion in lesions:
            voxels = np.argwhere(parts.labels == lesion.id)
            assert len(voxels) == lesion.voxels
            assert lesion.centroid_vox == pytest.approx(tuple(voxels.mean(axis=0)))
            assert [(side.start, side.stop) for side in lesion.box] == list(
                zip(voxels.min(axis=0), voxels.max(axis=0) + 1, strict=True)
            )


def test_found_missed_and_false_in_one_volume() -> None:
    truth = mask(cube(0, 0, 0, 3), cube(0, 6, 0, 2))
    table = lesion_table(truth, mask(cube(1, 0, 0, 3), cube(9, 7, 5, 2)), 1.0)
    assert {lesion.voxels: lesion.matched for lesion in table.truth} == {27: True, 8: False}
    assert {lesion.voxels: lesion.matched for lesion in table.predicted} == {27: True, 8: False}
    assert sum(lesion.iou for lesion in table.truth) == pytest.approx(18 / 36)


def test_lesions_at_the_border_and_filling_the_array() -> None:
    corners = mask(cube(0, 0, 0, 1), cube(11, 9, 7, 1))
    assert [lesion.centroid_vox for lesion in lesion_table(corners, EMPTY, 1.0).truth] == [(0, 0, 0), (11, 9, 7)]
    whole = np.ones((3, 2, 1), np.uint8)
    (lesion,) = lesion_table(whole, whole, 1.0).truth
    assert (lesion.voxels, lesion.iou) == (6, 1.0)


@pytest.mark.parametrize(("connectivity", "expected"), [(26, 1), (18, 2), (6, 3)])
def test_connectivity(connectivity: int, expected: int) -> None:
    """Voxels joined by an edge, then by a corner."""
    truth = mask(cube(1, 1, 1, 1), cube(2, 2, 1, 1), cube(3, 3, 2, 1))
    assert len(lesion_table(truth, EMPTY, 1.0, connectivity).truth) == expected


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        lesion_table(BLOCK, BLOCK[:-1], 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_lesions_add_up_to_the_masks(seed: int) -> None:
    truth, prediction = blobs(seed)
    table = lesion_table(truth, prediction, 1.5)
    shared = np.count_nonzero(truth & prediction)
    for lesions, inside in ((table.truth, truth), (table.predicted, prediction)):
        assert [lesion.id for lesion in lesions] == list(range(1, len(lesions) + 1))
        assert sum(lesion.voxels for lesion in lesions) == np.count_nonzero(inside)
        assert sum(lesion.overlap_voxels for lesion in lesions) == shared
    assert all(0 <= lesion.iou <= 1 for lesion in table.truth)
