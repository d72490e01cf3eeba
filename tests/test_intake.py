from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.intake import read_case, source_digests
from pipeline.organs import label_map
from pipeline.sources import CaseSource, find_cases
from tests.ct_files import (
    LIVER,
    SHAPE,
    SPACING_MM,
    liver_ball,
    make_affine,
    make_ct,
    make_organs,
    save,
    save_case,
    save_label_case,
    spleen_ball,
)

LABELS = label_map("totalsegmentator")


def found(folder: Path, labels: object = None) -> CaseSource:
    return find_cases(folder, None, None, labels).cases[0]  # type: ignore[arg-type]


def test_masks_and_label_maps_give_the_same_arrays(tmp_path: Path) -> None:
    by_masks = read_case(found(save_case(tmp_path / "a")), None, SPACING_MM)
    by_labels = read_case(found(save_label_case(tmp_path / "b"), LABELS), LABELS, SPACING_MM)
    for one, other in zip(by_masks, by_labels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_binary_mask_named_after_an_organ_is_that_organ_under_any_label_map(tmp_path: Path) -> None:
    save(tmp_path / "ct.nii.gz", make_ct())
    save(tmp_path / "liver.nii.gz", liver_ball().astype(np.uint8))
    ct, organs, _ = read_case(found(tmp_path, LABELS), LABELS, SPACING_MM)  # where 1 would be the spleen
    assert set(np.unique(organs)) == {0, 1}
    assert (ct[organs == 1] == LIVER).all()


@pytest.mark.parametrize("axes", ["LAS", "PSR", "ILA"])
def test_masks_are_matched_by_affine_not_by_array_order(tmp_path: Path, axes: str) -> None:
    save(tmp_path / "ct.nii.gz", make_ct(), axes="LPS")
    save(tmp_path / "organs.nii.gz", make_organs(), axes=axes)
    ct, organs, _ = read_case(found(tmp_path, LABELS), LABELS, SPACING_MM)
    assert (ct[organs == 1] == LIVER).all()


def test_the_crop_keeps_every_voxel_in_its_place(tmp_path: Path) -> None:
    ct, organs, affine = read_case(found(save_case(tmp_path / "a")), None, SPACING_MM)
    start = np.rint(np.linalg.inv(make_affine()) @ affine[:, 3])[:3].astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, ct.shape, strict=True))
    np.testing.assert_array_equal(ct, make_ct()[box])
    np.testing.assert_array_equal(organs, (liver_ball() * 1 + spleen_ball() * 9)[box])


def test_where_masks_overlap_tumors_and_tumor_organs_win(tmp_path: Path) -> None:
    save_case(tmp_path)
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[17, 11, 9] = 1
    save(tmp_path / "liver_tumor.nii.gz", tumor)
    save(tmp_path / "stomach.nii.gz", (liver_ball() | spleen_ball()).astype(np.uint8))
    _, organs, _ = read_case(found(tmp_path), None, SPACING_MM, allow_tumors=True)
    sizes = {int(c): int(n) for c, n in zip(*np.unique(organs, return_counts=True), strict=True) if c}
    assert sizes == {1: np.count_nonzero(liver_ball()) - 1, 2: 1, 9: np.count_nonzero(spleen_ball())}


def test_any_single_value_makes_a_binary_mask(tmp_path: Path) -> None:
    save_case(tmp_path, masks=())
    save(tmp_path / "liver.nii.gz", liver_ball().astype(np.uint8) * 255)
    _, organs, _ = read_case(found(tmp_path), None, SPACING_MM)
    assert np.count_nonzero(organs == 1) == np.count_nonzero(liver_ball())


def test_an_empty_mask_adds_nothing(tmp_path: Path) -> None:
    save_case(tmp_path, masks=("liver",))
    save(tmp_path / "liver_tumor.nii.gz", np.zeros(SHAPE, np.uint8))
    _, organs, _ = read_case(found(tmp_path), None, SPACING_MM)
    assert set(np.unique(organs)) == {0, 1}


def test_resampling_reaches_the_spacing(tmp_path: Path) -> None:
    ct, organs, affine = read_case(found(save_case(tmp_path)), None, 4.0)
    assert ct.shape == organs.shape
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), 4)
    assert np.count_nonzero(organs == 1) * 64 == pytest.approx(np.count_nonzero(liver_ball()) * 125, rel=0.05)


def test_an_oblique_scan_stays_oblique_and_in_place(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    affine = turn @ make_affine()
    save(tmp_path / "ct.nii.gz", make_ct(), affine, axes="LPS")
    save(tmp_path / "liver.nii.gz", liver_ball().astype(np.uint8), affine)
    _, organs, grid = read_case(found(tmp_path), None, 3.0)
    np.testing.assert_allclose(grid[:3, :3], 3 * turn[:3, :3], atol=1e-6)
    centre = grid @ (*np.argwhere(organs).mean(axis=0), 1)
    np.testing.assert_allclose(centre, affine @ (*np.argwhere(liver_ball()).mean(axis=0), 1), atol=0.3)


def with_tumor_mask(folder: Path) -> tuple[CaseSource, object]:
    save_case(folder)
    save(folder / "liver_tumor.nii.gz", liver_ball().astype(np.uint8))
    return found(folder), None


def with_tumor_label(folder: Path) -> tuple[CaseSource, object]:
    labels = label_map("lits")
    save(folder / "ct.nii.gz", make_ct())
    save(folder / "seg.nii.gz", liver_ball().astype(np.uint8) * 2)
    return found(folder, labels), labels


def unread_label_map(folder: Path) -> tuple[CaseSource, object]:
    save_case(folder, masks=())
    save(folder / "liver.nii.gz", make_organs())
    return found(folder), None


def wrong_label_map(folder: Path) -> tuple[CaseSource, object]:
    labels = label_map("lits")
    return found(save_label_case(folder), labels), labels


def shifted_mask(folder: Path) -> tuple[CaseSource, object]:
    save(folder / "ct.nii.gz", make_ct())
    save(folder / "liver.nii.gz", liver_ball().astype(np.uint8), make_affine(origin=(-50, -50, 30)))
    return found(folder), None


BAD = {
    "tumor mask": (with_tumor_mask, "healthy cases only.*liver_tumor 2109 voxels.*--allow-tumors keeps it"),
    "tumor label": (with_tumor_label, "healthy cases only.*--allow-tumors"),
    "label map as mask": (unread_label_map, r"not a binary mask: it holds the values 0, 1, 5.*--labels"),
    "wrong label map": (wrong_label_map, r"label map 'lits' does not know the ids \[5\]"),
    "shifted mask": (shifted_mask, r"not on the grid.*differ by up to 10.00 mm.*Resample the mask"),
}


@pytest.mark.parametrize("name", BAD)
def test_cases_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    source, labels = make(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        read_case(source, labels, SPACING_MM)  # type: ignore[arg-type]
    assert str(tmp_path) in str(caught.value)


def test_a_spacing_that_explodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose a larger --spacing"):
        read_case(found(save_case(tmp_path)), None, 0.05)


def test_digests_follow_the_bytes_not_the_place(tmp_path: Path) -> None:
    first, second = (source_digests(found(save_case(tmp_path / name))) for name in "ab")
    assert first == second
    assert set(first) == {"ct.nii.gz", "liver.nii.gz", "spleen.nii.gz"}
    other = source_digests(found(save_case(tmp_path / "c", shift_hu=1)))
    assert [name for name in first if first[name] != other[name]] == ["ct.nii.gz"]


def test_files_of_one_name_in_two_folders_keep_both_digests(tmp_path: Path) -> None:
    image = save(tmp_path / "imagesTr" / "a.nii.gz", make_ct())
    mask = save(tmp_path / "labelsTr" / "a.nii.gz", make_organs())
    source = find_cases(None, image, mask, LABELS).cases[0]
    assert set(source_digests(source)) == {"imagesTr/a.nii.gz", "labelsTr/a.nii.gz"}


def test_a_dicom_series_has_one_digest(shared_data: Path) -> None:
    digests = source_digests(found(shared_data / "totalseg_contrast_slab", LABELS))
    assert set(digests) == {"dicom", "organs_las.nii.gz"}
