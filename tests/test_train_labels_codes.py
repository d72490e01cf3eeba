from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.annotations.derive import annotate_sample
from pipeline.annotations.findings import Finding
from pipeline.annotations.records import SampleAnnotation, TumorAnnotation
from pipeline.annotations.settings import AnnotationSettings
from pipeline.errors import InputError
from pipeline.train_config import AugmentConfig, LabelKind, SupervisionConfig
from tests.blobs import PATCH, SPACING_MM, made_up
from training.augment import augment
from training.network import ClassTable
from training.supervision.ellipsoid import of_circle, of_recist
from training.supervision.encode import CodeBook, WeakCodes, encode_masks
from training.supervision.facts import Facts, facts_of, moved, tag_table
from training.supervision.targets import Box, ReportedTumor

CLASSES = ClassTable({"background": 0, "liver": 1, "liver_tumor": 2, "kidney": 5, "kidney_tumor": 6})
ALL = frozenset(CLASSES.ids)
LIVER_ONLY = frozenset((0, 1, 2))
WEAK: tuple[LabelKind, ...] = ("scribble", "box", "recist", "circle", "point", "tag", "report")
DEFAULTS = SupervisionConfig()
Codes = npt.NDArray[np.uint8]


def possible(book: CodeBook, code: int) -> set[int]:
    """The class ids that a code stands for."""
    if code < len(CLASSES):
        return {CLASSES.ids[code]}
    return {number for number, held in zip(CLASSES.ids, book.sets[code - len(CLASSES)].tolist(), strict=True) if held}


# -- what is not annotated


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [
        (ALL, {0: {0}, 1: {1}, 2: {2}, 5: {5}, 6: {6}}),
        (LIVER_ONLY, {0: {0, 5, 6}, 1: {1}, 2: {2}, 5: {0, 5, 6}}),
        (frozenset((0, 1, 5, 6)), {0: {0, 2}, 1: {1, 2}, 5: {5}, 6: {6}}),  # nobody looked for liver tumors
        (frozenset((0,)), {0: set(CLASSES.ids), 1: set(CLASSES.ids)}),
    ],
)
def test_a_voxel_may_be_what_its_sample_does_not_annotate(
    annotated: frozenset[int], expected: dict[int, set[int]]
) -> None:
    book = CodeBook(CLASSES, (annotated, ALL))
    table = book.table(annotated)
    assert {number: possible(book, table[number]) for number in expected} == expected


def test_where_all_is_annotated_codes_are_channels() -> None:
    label = np.array([0, 1, 2, 5, 6], np.uint8)
    codes = encode_masks(label, CodeBook(CLASSES, (ALL,)).table(ALL), "here")
    assert codes.tolist() == CLASSES.to_channels(torch.from_numpy(label)).tolist()


def test_a_class_that_nobody_lists_is_refused_with_its_place() -> None:
    with pytest.raises(InputError, match=r"here: a label holds the class ids \[7\]"):
        encode_masks(np.array([0, 7], np.uint8), CodeBook(CLASSES, (ALL,)).table(ALL), "here")


def test_organ_offsets_see_organs_where_the_label_holds_codes() -> None:
    label, row, _ = made_up(1)
    book = CodeBook(CLASSES, (ALL,))
    codes = painted(book, "tag", label, annotation_of(label, row))
    image = torch.zeros(1, 1, *PATCH, dtype=torch.int16)
    config = AugmentConfig(organ_shift_hu=50, rotate_share=0, zoom_share=0)
    masks = augment(image, torch.from_numpy(label)[None, None], config, 0, [3], (-100, 100))
    coded = augment(image, torch.from_numpy(codes)[None, None], config, 0, [3], (-100, 100), shown=book.shown)
    assert torch.equal(masks[0], coded[0])
    assert not torch.equal(masks[1], coded[1])


# -- weak labels


def annotation_of(label: Codes, row: dict[str, Any], **settings: Any) -> SampleAnnotation:
    return annotate_sample(label, row, AnnotationSettings(**settings))


def painted(book: CodeBook, kind: LabelKind, label: Codes, annotation: SampleAnnotation) -> Codes:
    codes = encode_masks(label, book.table(ALL), "here")
    WeakCodes(book, kind, DEFAULTS).paint(codes, label, annotation, SPACING_MM)
    return codes


@pytest.mark.parametrize("kind", WEAK)
@pytest.mark.parametrize("index", range(3))
def test_a_weak_label_leaves_organs_as_they_are_and_never_tells_of_tumors_all_there_is(
    kind: LabelKind, index: int
) -> None:
    label, row, _ = made_up(index)
    book = CodeBook(CLASSES, (ALL,))
    codes = painted(book, kind, label, annotation_of(label, row))
    for organ in (1, 5):
        inside = (label == organ) | (label == organ + 1)
        told = {code: possible(book, code) for code in np.unique(codes[inside]).tolist()}
        assert all(ids <= {organ, organ + 1} for ids in told.values())
        unsure = np.isin(codes, [code for code, ids in told.items() if len(ids) == 2])
        assert (unsure & (label == organ + 1)).any()
    assert not (codes == encode_masks(label, book.table(ALL), "here")).all()


@pytest.mark.parametrize("kind", ["scribble", "box", "tag", "report"])
def test_what_is_sure_is_true(kind: LabelKind) -> None:
    label, row, _ = made_up(2)
    codes = painted(CodeBook(CLASSES, (ALL,)), kind, label, annotation_of(label, row))
    sure = codes < len(CLASSES)
    assert (np.array(CLASSES.ids)[codes[sure]] == label[sure]).all()


@pytest.mark.parametrize("kind", WEAK)
def test_an_organ_without_tumors_is_organ_for_sure(kind: LabelKind) -> None:
    label, row, _ = made_up(4)
    label[label == 6] = 5
    row["tumors"] = [tumor for tumor in row["tumors"] if tumor["organ"] == "liver"]
    codes = painted(CodeBook(CLASSES, (ALL,)), kind, label, annotation_of(label, row))
    assert set(codes[label == 5].tolist()) == {CLASSES.ids.index(5)}


def test_organs_whose_tumors_nobody_annotated_are_left_to_what_is_annotated() -> None:
    label, row, _ = made_up(4)
    row["annotated_classes"] = [0, 1, 5, 6]
    label[label == 2] = 1
    row["tumors"] = [tumor for tumor in row["tumors"] if tumor["organ"] == "kidney"]
    annotated = frozenset(row["annotated_classes"])
    book = CodeBook(CLASSES, (annotated,))
    codes = encode_masks(label, book.table(annotated), "here")
    WeakCodes(book, "box", DEFAULTS).paint(codes, label, annotation_of(label, row), SPACING_MM)
    assert possible(book, int(np.unique(codes[label == 1]).item())) == {1, 2}


def tumor(**facts: Any) -> TumorAnnotation:
    """16 x 8 voxels of 2 mm in the slice z = 10, along Y; over the slices 7 to 13."""
    given = {
        "instance": 1,
        "organ": "liver",
        "class_id": 2,
        "box_vox": (8, 4, 7, 16, 20, 14),
        "point_vox": (12, 12, 10),
        "long_axis_vox": (12, 4, 10, 12, 19, 10),
        "short_axis_vox": (8, 12, 10, 15, 12, 10),
        "long_mm": 32.0,
        "short_mm": 16.0,
        "height_mm": 14.0,
        "volume_mm3": 1.0,
    }
    return TumorAnnotation(**(given | facts))


def extent(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Voxels between the first and the last one along each axis."""
    return [int(np.ptp(np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))))) + 1 for axis in range(3)]


@pytest.mark.parametrize(("of", "height"), [(of_recist, 11), (of_circle, 7)])
def test_an_ellipsoid_has_the_measured_axes(of: Any, height: int) -> None:
    box, mask = of(tumor(), 2.0).within(1.0, (24, 24, 24))
    whole = np.zeros((24, 24, 24), bool)
    whole[box] = mask
    assert extent(whole) == [8, 16, height]
    assert whole.sum() == pytest.approx(np.pi / 6 * 8 * 16 * {11: 12, 7: 7}[height], rel=0.06)
    assert np.argwhere(whole).mean(axis=0) == pytest.approx([11.5, 11.5, 10], abs=0.3)


def test_a_tilted_ellipsoid_lies_along_its_long_axis() -> None:
    tilted = tumor(long_axis_vox=(6, 6, 10, 17, 17, 10), short_axis_vox=(9, 14, 10, 14, 9, 10))
    box, mask = of_recist(tilted, 2.0).within(1.0, (24, 24, 24))
    voxels = np.argwhere(mask) + [s.start for s in box]
    spread = np.cov(voxels[:, :2].T)
    assert spread[0, 1] > 0.4 * spread[0, 0]


def test_the_smallest_tumor_has_a_core() -> None:
    _, mask = of_recist(tumor(long_mm=2.0, short_mm=2.0), 2.0).within(0.1, (24, 24, 24))
    assert mask.sum() >= 1


def test_beyond_the_patch_an_ellipsoid_is_cut_off() -> None:
    box, mask = of_recist(tumor(), 2.0).within(1.2, (12, 12, 12))
    assert all(0 <= s.start < s.stop <= 12 for s in box)
    assert np.zeros((12, 12, 12))[box].shape == mask.shape


# -- facts of whole samples


def test_facts_are_those_of_their_kind_alone() -> None:
    label, row, masks = made_up(0)
    annotation = annotation_of(label, row)
    box, tag, report = (facts_of(annotation, kind, CLASSES) for kind in ("box", "tag", "report"))  # type: ignore[arg-type]
    assert len(box.boxes) == len(masks)
    assert (box.tags, box.report) == ((), None)
    for one, mask in zip(box.boxes, masks, strict=True):
        region = tuple(slice(low, high) for low, high in zip(one.low, one.high, strict=True))
        assert mask[region].sum() == mask.sum()
        assert CLASSES.ids[one.channel] == label[mask][0]
    assert dict(tag.tags) == {2: True, 4: True}
    assert (tag.boxes, tag.report) == ((), None)
    assert report.report is not None
    assert len(report.report) == len(masks)
    assert facts_of(annotation, "recist", CLASSES) == Facts()


@pytest.mark.parametrize(("count", "others"), [(1, 0), (3, 2), (0, 1)])
def test_lesions_that_a_report_counts_are_expected(count: int, others: int) -> None:
    finding = Finding("liver", count=count, diameters_mm=(20.0, 10.0))
    label, row, _ = made_up(0)
    annotation = replace(annotation_of(label, row), findings=(finding,))
    expected = (ReportedTumor(2, (20.0, 10.0)), *[ReportedTumor(2, ())] * others)
    assert facts_of(annotation, "report", CLASSES).report == expected


@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
def test_boxes_move_with_flips(flipped: tuple[int, ...]) -> None:
    volume = torch.zeros(7, 8, 9)
    volume[1:3, 2:6, 0:4] = 1
    (box,) = moved([Box(2, (1, 2, 0), (3, 6, 4))], flipped, (7, 8, 9))
    region = tuple(slice(low, high) for low, high in zip(box.low, box.high, strict=True))
    seen = volume.flip(flipped)
    assert seen[region].sum() == seen.sum() == seen[region].numel()


def test_tags_say_nothing_of_other_classes_and_samples() -> None:
    table = tag_table([Facts(tags=((2, True), (4, False))), Facts()], 5)
    assert table is not None
    assert table.tolist() == [[-1, -1, 1, -1, 0], [-1] * 5]
    assert tag_table([Facts()], 5) is None
