"""What is derived of each tumor, against its mask, over thousands of made-up tumors and some of the generator's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist, pdist

from pipeline.annotations.derive import annotate_sample
from pipeline.annotations.instances import tumor_masks
from pipeline.annotations.parsing import parse_report
from pipeline.annotations.records import TumorAnnotation
from pipeline.annotations.settings import AnnotationSettings
from pipeline.bank import Bank
from pipeline.errors import InputError
from pipeline.grid import bounding_box
from pipeline.measure import measure_sample
from pipeline.organs import organ_id, tumor_id
from pipeline.spec import draw_sample
from pipeline.synthesis import render
from tests.blobs import PATCH, SPACING_MM, Label, Mask, facts, made_up, row_of
from tests.specs import config


def longest(mask: Mask) -> float:
    """All pairs of voxels of each axial slice."""
    slices = (np.argwhere(mask[:, :, z]) for z in range(mask.shape[2]))
    return max(float(pdist(points).max(initial=0)) for points in slices if len(points))


def across(mask: Mask, tumor: TumorAnnotation) -> npt.NDArray[np.float64]:
    """How far each voxel of the slice lies to the side of the long axis, in voxels."""
    a, b = np.reshape(tumor.long_axis_vox, (2, 3))
    way = (b - a)[:2] / max(np.linalg.norm(b - a), 1e-9)
    side: npt.NDArray[np.float64] = np.argwhere(mask[:, :, a[2]]) @ np.array([-way[1], way[0]])
    return side


def check_axes(mask: Mask, tumor: TumorAnnotation) -> None:
    ends = np.reshape([*tumor.long_axis_vox, *tumor.short_axis_vox], (4, 3))
    assert mask[tuple(ends.T)].all()
    assert len(set(ends[:, 2])) == 1
    long = float(np.linalg.norm(ends[1] - ends[0]))
    assert long == pytest.approx(longest(mask))
    assert tumor.long_mm == pytest.approx((long + 1) * SPACING_MM)
    width = float(np.ptp(across(mask, tumor)))
    assert tumor.short_mm == pytest.approx((min(width, long) + 1) * SPACING_MM)
    assert tumor.short_mm <= tumor.long_mm


def test_every_label_fits_the_mask_it_is_derived_from() -> None:
    settings, seen = AnnotationSettings(), 0
    for index in range(300):
        label, row, masks = made_up(index)
        found = annotate_sample(label, row, settings, scribbles=False)
        for mask, tumor in zip(masks, found.tumors, strict=True):
            low, high = bounding_box(mask)
            assert tumor.box_vox == (*low, *high)
            assert mask[tumor.point_vox]
            assert tumor.height_mm == (high[2] - low[2]) * SPACING_MM
            assert tumor.volume_mm3 == pytest.approx(mask.sum() * SPACING_MM**3)
            assert label[tumor.point_vox] == tumor.class_id
            check_axes(mask, tumor)
            seen += 1
        assert found.tags == {organ: bool((label == tumor_id(organ)).any()) for organ in ("liver", "kidney")}
        assert found.scribbles == {}
        assert len(found.findings) == len(masks)
    assert seen > 2000


def test_a_report_says_what_was_measured() -> None:
    for index in range(40):
        label, row, _ = made_up(index)
        found = annotate_sample(label, row, AnnotationSettings(), scribbles=False)
        measured = sorted(
            (t.organ, sorted((math.floor(mm + 0.5) for mm in (t.long_mm, t.short_mm, t.height_mm)), reverse=True))
            for t in found.tumors
        )
        for findings in (found.findings, parse_report(found.report)):
            assert sorted((f.organ, list(f.diameters_mm)) for f in findings) == measured
            assert {f.attenuation for f in findings} <= {"hypo"}


def test_the_point_lies_deepest() -> None:
    for index in range(2):
        label, row, masks = made_up(index)
        for mask, tumor in zip(masks, annotate_sample(label, row, AnnotationSettings()).tumors, strict=True):
            around = np.argwhere(np.pad(~mask, 1, constant_values=True)) - 1
            depths = cdist(np.argwhere(mask), around).min(axis=1)
            assert cdist([tumor.point_vox], around).min() == pytest.approx(depths.max())


@pytest.mark.parametrize(("jitter_mm", "voxels"), [(1.4, 0), (3.0, 2), (40.0, 26)])
def test_a_jittered_box_stays_near_the_tumor_and_in_the_patch(jitter_mm: float, voxels: int) -> None:
    moves = []
    for index in range(25):
        label, row, masks = made_up(index)
        settings = AnnotationSettings(box_jitter_mm=jitter_mm)
        for mask, tumor in zip(masks, annotate_sample(label, row, settings, scribbles=False).tumors, strict=True):
            box, tight = np.array(tumor.box_vox), np.ravel(bounding_box(mask))
            moves += np.abs(box - tight).tolist()
            assert (box[:3] < box[3:]).all()
            assert (box >= 0).all()
            assert (box[3:] <= PATCH).all()
            middle = (tight[:3] + tight[3:] - 1) // 2
            assert (box[:3] <= middle).all()
            assert (middle < box[3:]).all()
    assert max(moves) <= voxels
    assert len(set(moves)) >= min(voxels + 1, 10)  # and uses its freedom


def test_labels_follow_from_seed_and_index_alone() -> None:
    label, row, _ = made_up(3)
    plain = AnnotationSettings(box_jitter_mm=6)
    one = annotate_sample(label, row, plain)
    annotate_sample(*made_up(4)[:2], plain)
    again = annotate_sample(label, row, plain)
    assert one.tumors == again.tumors
    assert (one.findings, one.report) == (again.findings, again.report)
    assert one.scribbles.keys() == again.scribbles.keys()
    assert all(np.array_equal(one.scribbles[c], again.scribbles[c]) for c in one.scribbles)
    for other in (
        annotate_sample(label, row, AnnotationSettings(box_jitter_mm=6, seed=1)),
        annotate_sample(label, row | {"index": 4}, plain),
    ):
        assert [t.box_vox for t in other.tumors] != [t.box_vox for t in one.tumors]
        assert any(not np.array_equal(one.scribbles[c], other.scribbles[c]) for c in one.scribbles)
    assert annotate_sample(label, row, AnnotationSettings(box_jitter_mm=0)).report == one.report
    assert annotate_sample(label, row, plain, scribbles=False).tumors == one.tumors


def test_organs_without_annotated_tumors_have_no_tag() -> None:
    label, row, _ = made_up(0)
    label[label > 2] = organ_id("kidney")
    liver = [tumor for tumor in row["tumors"] if tumor["organ"] == "liver"]
    partly = row | {"tumors": liver, "annotated_classes": [0, 1, 2, 5]}
    found = annotate_sample(label, partly, AnnotationSettings())
    assert found.tags == {"liver": True}
    assert set(found.scribbles) == {1, 2, 5}


# -- whose voxels are whose -------------------------------------------------------------------------------------------


def test_the_generators_own_tumors_are_found_again(abdomens: Bank) -> None:
    seen = 0
    for organ in ("liver", "pancreas", "kidney", "colon"):
        for index in range(6):
            spec = draw_sample(abdomens, config(organ), index)
            case = abdomens.load(spec.case_id)
            rendered = render(case, spec)
            row = {"index": index, "sample_id": "s", **measure_sample(case, spec, rendered)}
            for found, made in zip(tumor_masks(rendered.label, row), rendered.instances, strict=True):
                expected, volume = np.zeros(rendered.label.shape, bool), np.zeros(rendered.label.shape, bool)
                expected[made.box], volume[found.box] = made.mask, found.mask
                assert np.array_equal(expected, volume)
                box = found.facts["bbox_vox"]
                assert [(s.start, s.stop) for s in found.box] == list(zip(box[:3], box[3:], strict=True))
                assert found.facts["volume_mm3"] == pytest.approx(found.mask.sum() * case.spacing_mm**3)
                seen += 1
    assert seen > 20


def boxes(*corners: tuple[int, int, int, int, int, int]) -> Mask:
    mask = np.zeros((24, 20, 12), bool)
    for x0, y0, z0, x1, y1, z1 in corners:
        mask[x0:x1, y0:y1, z0:z1] = True
    return mask


def hollow() -> Mask:
    shell = boxes((2, 2, 2, 18, 18, 10))
    shell[4:16, 4:16, 4:9] = False
    return shell


SHARED = {
    "each in two pieces, their boxes meet": [
        boxes((0, 0, 0, 5, 5, 5), (9, 9, 0, 10, 10, 2)),
        boxes((12, 5, 0, 18, 12, 4), (7, 6, 0, 8, 7, 1)),
    ],
    "one inside the hollow of another": [hollow(), boxes((7, 7, 5, 11, 11, 8))],
    "two inside the hollow of another": [boxes((6, 6, 5, 9, 9, 7)), hollow(), boxes((12, 12, 6, 14, 14, 8))],
    "a crumb that is nearer to the wrong one": [
        boxes((0, 0, 0, 2, 20, 2), (12, 10, 1, 13, 11, 2)),
        boxes((8, 4, 0, 20, 8, 5), (18, 11, 0, 19, 14, 1), (8, 14, 2, 9, 15, 3)),
    ],
}


@pytest.mark.parametrize("masks", SHARED.values(), ids=SHARED)
def test_pieces_go_to_their_tumors(masks: list[Mask]) -> None:
    assert not np.logical_and.reduce(masks).any()
    label = np.where(np.logical_or.reduce(masks), tumor_id("liver"), 1).astype(np.uint8)
    found = tumor_masks(label, row_of(label, [facts(k, mask) for k, mask in enumerate(masks, 1)]))
    for mask, tumor in zip(masks, found, strict=True):
        own = np.zeros(label.shape, bool)
        own[tumor.box] = tumor.mask
        assert np.array_equal(own, mask)


def broken() -> Iterator[tuple[str, Label, dict[str, Any], str]]:
    label, row, masks = made_up(1)
    grown, erased, moved = label.copy(), label.copy(), label.copy()
    grown[np.argwhere(label == 1)[0].tolist()] = 2
    erased[masks[0]] = 1
    moved[tuple(np.argwhere(masks[-1])[0])] = 5
    yield "more tumor than the row says", grown, row, "not that of its manifest row"
    yield "a tumor is gone", erased, row, "not that of its manifest row"
    yield "a voxel is gone", moved, row, "not that of its manifest row"
    yield "another shape", label[:-1], row, "not of one sample"


@pytest.mark.parametrize(("label", "row", "message"), [b[1:] for b in broken()], ids=[b[0] for b in broken()])
def test_a_label_of_another_row_is_refused(label: Label, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        annotate_sample(label, row, AnnotationSettings())
