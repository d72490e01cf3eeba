"""Scribbles: inside their class, through its middle and along its border, as long as asked for, in the right slices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.annotations.instances import TumorMask, tumor_masks
from pipeline.annotations.records import IntArray
from pipeline.annotations.scribbles import draw_scribbles
from pipeline.annotations.settings import AnnotationSettings
from tests.blobs import SPACING_MM, facts, made_up, row_of

Plane = npt.NDArray[np.bool_]
WITH_CORNERS = np.ones((3, 3), bool)
EVERY_MM = 6.0  # four slices of 1.5 mm


def drawn(
    label: npt.NDArray[np.uint8], tumors: list[TumorMask], classes: list[int], seed: int = 0, **changes: float
) -> dict[int, IntArray]:
    settings = AnnotationSettings.model_validate({"scribble_every_mm": EVERY_MM} | changes)
    return dict(draw_scribbles(label, tumors, classes, SPACING_MM, settings, np.random.default_rng(seed)))


def planes(label: npt.NDArray[np.uint8], class_id: int, voxels: IntArray) -> dict[int, tuple[Plane, Plane]]:
    """By scribbled slice: the class, and what is drawn of it."""
    marked = np.zeros(label.shape, bool)
    marked.flat[voxels] = True
    return {int(z): (label[:, :, z] == class_id, marked[:, :, z]) for z in np.flatnonzero(marked.any(axis=(0, 1)))}


def border_of(plane: Plane) -> Plane:
    """Voxels with a neighbour of another class to the left or right, in front or behind."""
    return plane & ~ndimage.binary_erosion(plane, border_value=1)


def pieces_of(plane: Plane) -> list[Plane]:
    numbers, count = ndimage.label(plane, WITH_CORNERS)
    return [numbers == k for k in range(1, count + 1)]


def test_strokes_stay_in_their_class_and_run_through_middle_and_border() -> None:
    seen = 0
    for index in range(12):
        label, row, _ = made_up(index)
        tumors = tumor_masks(label, row)
        found = drawn(label, tumors, [0, 1, 2, 5, 6], seed=index)
        assert set(found) == set(np.unique(label).tolist())
        for class_id, voxels in found.items():
            assert (label.flat[voxels] == class_id).all()
            assert (np.diff(voxels) > 0).all()
            for whole, marked in planes(label, class_id, voxels).values():
                touched = [piece for piece in pieces_of(whole) if (piece & marked).any()]
                for piece in touched:
                    depth = ndimage.distance_transform_cdt(np.pad(piece, 1), "chessboard")[1:-1, 1:-1]
                    assert (2 * depth[marked & piece] > depth.max()).any()
                    assert (marked & border_of(piece)).any() or not border_of(piece).any()
                    assert len(pieces_of(marked & piece)) <= 2
                    seen += 1
    assert seen > 200


def test_all_classes_are_drawn_in_the_same_slices_and_each_tumor_somewhere() -> None:
    for index in range(12):
        label, row, masks = made_up(index)
        found = drawn(label, tumor_masks(label, row), [1, 2, 5, 6], seed=index)
        levels = sorted(planes(label, 1, found[1]))
        assert set(np.diff(levels)) == {round(EVERY_MM / SPACING_MM)}
        marked = np.zeros(label.shape, bool)
        for voxels in found.values():
            marked.flat[voxels] = True
        for mask in masks:
            slices = set(np.flatnonzero((marked & mask).any(axis=(0, 1))).tolist())
            shown = {z for z in levels if mask[:, :, z].any()}
            areas = mask.sum(axis=(0, 1))
            assert slices == (shown or {int(areas.argmax())})


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_strokes_are_as_long_as_asked_for(share: float) -> None:
    """A bar of 21 x 5 voxels: its middle is a way of 19 voxels, its border has 48."""
    label = np.zeros((31, 15, 1), np.uint8)
    label[5:26, 5:10] = 1
    ((whole, marked),) = planes(label, 1, drawn(label, [], [1], scribble_length=share)[1]).values()
    border = border_of(whole)
    assert border.sum() == 48
    assert (marked & border).sum() == max(1, round(48 * share))
    assert (marked & ~border).sum() == max(1, round(19 * share))


def test_longer_strokes_of_a_sample_hold_more_voxels() -> None:
    label, row, _ = made_up(2)
    tumors = tumor_masks(label, row)
    lengths = [
        sum(map(len, drawn(label, tumors, [1, 2, 5, 6], scribble_length=s).values())) for s in (0.1, 0.3, 0.6, 1)
    ]
    assert all(a * 1.3 < b for a, b in pairwise(lengths))


def test_a_class_that_fills_the_patch_has_no_border() -> None:
    label = np.ones((9, 9, 1), np.uint8)
    (marked,) = (m for _, m in planes(label, 1, drawn(label, [], [1], scribble_length=1.0)[1]).values())
    assert 3 <= marked.sum() <= 5  # a way through the inner half, 5 x 5
    assert marked[2:-2, 2:-2].sum() == marked.sum()


def test_a_single_voxel_is_drawn() -> None:
    label = np.ones((7, 7, 9), np.uint8)
    label[3, 4, 5] = 2
    mask = label == 2
    tumors = tumor_masks(label, row_of(label, [facts(1, mask)]))
    found = drawn(label, tumors, [1, 2], scribble_every_mm=1000)
    assert found[2].tolist() == np.flatnonzero(mask).tolist()


def test_a_tumor_touches_no_other_ones_stroke() -> None:
    """Two tumors in one slice are drawn one by one, so both are."""
    label = np.ones((24, 12, 1), np.uint8)
    label[2:8, 3:9] = 2
    label[14:20, 3:9] = 2
    masks = [label == 2, label == 2]
    masks[0][12:], masks[1][:12] = False, False
    tumors = tumor_masks(label, row_of(label, [facts(k, mask) for k, mask in enumerate(masks, 1)]))
    marked = np.zeros(label.shape, bool)
    marked.flat[drawn(label, tumors, [1, 2])[2]] = True
    assert all((marked & mask).any() for mask in masks)


def test_classes_that_are_not_annotated_get_no_stroke() -> None:
    label, row, _ = made_up(0)
    assert set(drawn(label, tumor_masks(label, row), [1, 2])) == {1, 2}
