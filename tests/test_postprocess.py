from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import InputError
from training.network import ClassTable
from training.prediction.postprocess import Removed, Rules, describe, main_component, postprocess

Labels = npt.NDArray[np.uint8]
LIVER, LIVER_TUMOR, KIDNEY, KIDNEY_TUMOR, COLON, COLON_TUMOR = 1, 2, 5, 6, 7, 8
TABLE = ClassTable(
    {
        "background": 0,
        "liver": LIVER,
        "liver_tumor": LIVER_TUMOR,
        "kidney": KIDNEY,
        "kidney_tumor": KIDNEY_TUMOR,
        "colon": COLON,
        "colon_tumor": COLON_TUMOR,
    }
)
ONE_MM = (1.0, 1.0, 1.0)


def empty() -> Labels:
    return np.zeros((30, 12, 12), np.uint8)


def apply(labels: Labels, spacing_mm: tuple[float, float, float] = ONE_MM, **rules: float) -> Labels:
    before = labels.copy()
    found, _ = postprocess(labels, spacing_mm, TABLE, Rules(**rules))
    assert np.array_equal(labels, before)
    return found


def removed(labels: Labels, name: str, spacing_mm: tuple[float, float, float] = ONE_MM, **rules: float) -> Removed:
    (one,) = (part for part in postprocess(labels, spacing_mm, TABLE, Rules(**rules))[1] if part.tumor == name)
    return one


def test_without_rules_nothing_changes() -> None:
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 5, 6], np.uint8), (9, 9, 9))
    assert np.array_equal(apply(labels), labels)
    assert describe(postprocess(labels, ONE_MM, TABLE, Rules())[1]) == ""


@pytest.mark.parametrize(
    ("spacing", "mm", "kept"),
    [
        (ONE_MM, 4.0, 4),
        (ONE_MM, 3.9, 3),
        ((0.5, 1, 1), 3.0, 6),
        ((2.0, 1, 1), 3.0, 1),
        (ONE_MM, 0.0, 0),
        (ONE_MM, 100.0, 18),
    ],
)
def test_tumor_voxels_stay_within_the_distance_of_the_organ(
    spacing: tuple[float, float, float], mm: float, kept: int
) -> None:
    """A liver up to x = 9, and tumor voxels from x = 11 on that touch neither it nor each other."""
    labels = empty()
    labels[2:10, 2:10, 2:10] = LIVER
    labels[11:29, 4, 4] = LIVER_TUMOR
    found = apply(labels, spacing, within_organ_mm=mm)
    near = [x for x in range(11, 29) if (x - 9) * spacing[0] <= mm + 1e-6]
    assert np.flatnonzero(found[:, 4, 4] == LIVER_TUMOR).tolist() == near
    assert np.array_equal(found == LIVER, labels == LIVER)
    gone = removed(labels, "liver_tumor", spacing, within_organ_mm=mm)
    assert gone.outside_mm3 == pytest.approx((18 - len(near)) * math.prod(spacing))
    assert abs(len(near) - kept) <= 1


def test_the_core_and_the_bulge_of_a_large_tumor_stay() -> None:
    labels = empty()
    labels[2:6, 2:10, 2:10] = LIVER
    labels[6:28, 1:11, 1:11] = LIVER_TUMOR
    assert np.array_equal(apply(labels, within_organ_mm=1), labels)


def test_a_tumor_in_a_false_piece_of_organ_goes_and_the_piece_stays() -> None:
    labels = empty()
    labels[2:10, 2:10, 2:10] = LIVER
    labels[24:28, 2:6, 2:6] = LIVER
    labels[25:27, 3:5, 3:5] = LIVER_TUMOR
    labels[26:29, 8:11, 8:11] = LIVER_TUMOR  # and a larger one far from any organ
    found = apply(labels, within_organ_mm=5)
    assert not (found == LIVER_TUMOR).any()
    assert np.array_equal(found == LIVER, labels == LIVER)


def test_organ_voxels_decide_which_component_is_the_largest() -> None:
    labels = empty()
    labels[1:4, 1:4, 1:4] = LIVER
    labels[10:29, 1:11, 1:11] = LIVER_TUMOR
    labels[10, 1, 1] = LIVER
    assert np.array_equal(main_component(labels, LIVER_TUMOR), labels[:, :, :] * (np.arange(30) < 5)[:, None, None] > 0)


@pytest.mark.parametrize(
    ("organ", "pieces"), [(LIVER, [0]), (KIDNEY, [0, 1]), (COLON, [0, 1, 2])], ids=["liver", "kidney", "colon"]
)
def test_a_patient_has_two_kidneys_and_a_colon_in_pieces(organ: int, pieces: list[int]) -> None:
    labels = empty()
    for k, (low, edge) in enumerate([(1, 6), (10, 5), (20, 4)]):
        labels[low : low + edge, 1 : 1 + edge, 1 : 1 + edge] = organ
        labels[low + 1, 2, 2 : 3 + k] = organ + 1
    found = apply(labels, within_organ_mm=1)
    assert [k for k, low in enumerate([1, 10, 20]) if found[low + 1, 2, 2] == organ + 1] == pieces


def test_without_an_organ_no_tumor_lies_in_one() -> None:
    labels = empty()
    labels[3:6, 3:6, 3:6] = LIVER_TUMOR
    labels[12:20, 3:9, 3:9] = KIDNEY
    labels[13:15, 4:6, 4:6] = KIDNEY_TUMOR
    found = apply(labels, within_organ_mm=10)
    assert not (found == LIVER_TUMOR).any()
    assert np.array_equal(found >= KIDNEY, labels >= KIDNEY)
    assert np.array_equal(found[12:20], labels[12:20])


def test_small_tumors_go_to_the_organ_around_them_or_to_the_background() -> None:
    labels = empty()
    labels[1:12, 1:11, 1:11] = LIVER
    labels[4, 4, 4] = labels[5, 5, 5] = LIVER_TUMOR  # one of two voxels: they touch at a corner
    labels[8:10, 4:6, 4:6] = LIVER_TUMOR
    labels[20, 5, 5] = LIVER_TUMOR
    labels[0, 0, 0] = LIVER_TUMOR  # at the edge of the image: 6 voxels around it are air, one is liver
    labels[22:25, 1:4, 1:4] = KIDNEY
    labels[23, 2, 2] = LIVER_TUMOR
    found = apply(labels, min_tumor_mm3=8)
    assert (found[8:10, 4:6, 4:6] == LIVER_TUMOR).all()
    assert int((found == LIVER_TUMOR).sum()) == 8
    assert found[4, 4, 4] == found[5, 5, 5] == LIVER
    assert found[20, 5, 5] == found[0, 0, 0] == found[23, 2, 2] == 0
    gone = removed(labels, "liver_tumor", min_tumor_mm3=8)
    assert gone == Removed("liver_tumor", 0.0, 4, 2.0, 3.0)
    assert "4 too small (0.002 ml now organ, 0.003 ml now background)" in gone.line()
    assert (apply(labels, min_tumor_mm3=2)[4, 4, 4], apply(labels, min_tumor_mm3=2)[20, 5, 5]) == (LIVER_TUMOR, 0)


def test_the_least_volume_counts_mm3_not_voxels() -> None:
    labels = empty()
    labels[3:5, 3, 3] = LIVER_TUMOR
    assert (apply(labels, (2.0, 2.0, 2.0), min_tumor_mm3=16) == LIVER_TUMOR).sum() == 2
    assert not apply(labels, (2.0, 2.0, 2.0), min_tumor_mm3=16.1).any()


def test_what_is_cut_off_is_then_judged_by_its_size() -> None:
    """Of a far streak only its first voxel is near enough, and that alone is too small."""
    labels = empty()
    labels[2:10, 2:10, 2:10] = LIVER
    labels[12:20, 4, 4] = LIVER_TUMOR
    both = {"within_organ_mm": 3.0, "min_tumor_mm3": 2.0}
    assert not (apply(labels, **both) == LIVER_TUMOR).any()
    assert removed(labels, "liver_tumor", **both) == Removed("liver_tumor", 7.0, 1, 0.0, 1.0)


@pytest.mark.parametrize("rules", [{"within_organ_mm": -1.0}, {"min_tumor_mm3": math.nan}])
def test_rules_that_mean_nothing_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"must be 0 or more"):
        Rules(**rules)


def test_the_distance_needs_the_organ() -> None:
    table = ClassTable({"background": 0, "liver_tumor": 2})
    with pytest.raises(InputError, match="segments liver_tumor without it"):
        Rules(within_organ_mm=3).check(table)
    Rules(min_tumor_mm3=3).check(table)
