from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.image import check_same_grid
from pipeline.volume import read_nifti
from tests.ct_files import make_affine, make_ct, save
from tests.test_dicom import save_slices, series
from training.prediction.images import find_images, nifti_by_name, read_image


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["x.nii.gz"], {"x": "x.nii.gz"}),
        (["ct.nii.gz"], {"ct": "ct.nii.gz"}),
        (["ct.nii.gz", "liver.nii.gz"], {"images": "ct.nii.gz"}),
        (["ct.nii.gz", "segmentations/liver.nii.gz"], {"images": "ct.nii.gz"}),
        (["b/ct.nii.gz", "a/ct.nii", "a/liver.nii.gz"], {"a": "a/ct.nii", "b": "b/ct.nii.gz"}),
        (["S.NII.GZ", ".hidden.nii.gz", ".cache/ct.nii.gz"], {"S": "S.NII.GZ"}),
        (["1.dcm", "2.dcm", "notes.txt"], {"images": "."}),
        (["dicom/1.dcm", "liver.nii.gz"], {"images": "dicom"}),
        (["a/1.dcm", "b/dicom/1.dcm", "c.nii", "d/notes.txt"], {"a": "a", "b": "b/dicom", "c": "c.nii"}),
    ],
)
def test_images_are_found_by_case(tmp_path: Path, files: list[str], found: dict[str, str]) -> None:
    images = touch(tmp_path / "images", *files)
    assert find_images(images) == {name: images / path for name, path in found.items()}
    assert list(find_images(images)) == sorted(found)


def test_slices_without_an_ending_are_a_series_by_their_mark(tmp_path: Path) -> None:
    save_slices(tmp_path / "scan", series())
    touch(tmp_path, "not_a_scan/IM0001")
    assert find_images(tmp_path) == {"scan": tmp_path / "scan"}


def test_one_file_is_a_list_of_one(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").touch()
    assert find_images(tmp_path / "x.nii.gz") == {"x": tmp_path / "x.nii.gz"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images found; it must hold .*dicom/"),
        (["notes.txt", "empty/notes.txt"], "no images found"),
        (["a.nii", "a.nii.gz"], "several images are named a"),
        (["a.nii", "a/ct.nii.gz"], "several images are named a"),
        (["a.nii", "a/1.dcm"], "several images are named a"),
        (["a/ct.nii.gz", "a/dicom/1.dcm"], r"ct\.nii\.gz and dicom are both there"),
        (["ct.nii", "1.dcm"], r"ct\.nii and DICOM slices are both there"),
    ],
)
def test_folders_without_clear_images_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=message):
        find_images(touch(tmp_path / "images", *files))


def test_other_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").touch()
    with pytest.raises(InputError, match="of a DICOM series, give the folder"):
        find_images(tmp_path / "1.dcm")
    with pytest.raises(InputError, match="no such file or folder of images"):
        find_images(tmp_path / "none")


def test_label_maps_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        nifti_by_name(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no \.nii\.gz"):
        nifti_by_name(tmp_path)
    touch(tmp_path, "b.nii", "a.nii.gz")
    assert nifti_by_name(tmp_path) == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii"}
    (tmp_path / "a.nii").touch()
    with pytest.raises(InputError, match="several images are named a"):
        nifti_by_name(tmp_path)


def test_a_file_is_read_in_ras_and_keeps_the_grid_it_is_stored_on(tmp_path: Path) -> None:
    file = save(tmp_path / "ct.nii.gz", make_ct(), axes="PIL")
    volume, (shape, affine) = read_image(file)
    assert np.array_equal(volume.data, make_ct())
    assert np.allclose(volume.affine, make_affine())
    x, y, z = make_ct().shape
    assert shape == (y, z, x)
    assert not np.allclose(affine, volume.affine)


def test_a_real_series_lies_where_its_mask_lies(shared_data: Path) -> None:
    folder = shared_data / "totalseg_contrast_slab"
    volume, (shape, affine) = read_image(find_images(folder)["totalseg_contrast_slab"])
    assert (volume.shape, shape) == ((512, 512, 20), (512, 512, 20))
    assert np.array_equal(affine, volume.affine)
    mask = read_nifti(folder / "organs_las.nii.gz", "mask")
    check_same_grid(volume, mask, "series", "mask")
    assert 80 < volume.data[mask.data == 5].mean() < 100  # the liver
