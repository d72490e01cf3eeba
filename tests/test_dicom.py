from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pipeline.dicom import dicom_files, read_dicom
from pipeline.errors import InputError
from pipeline.image import check_same_grid
from pipeline.organs import label_map
from pipeline.volume import read_nifti

SERIES = generate_uid(entropy_srcs=["series"])
ROWS, COLUMNS, SLICES = 5, 4, 6
AXIAL = [1, 0, 0, 0, 1, 0]


def hu_at(column: int, row: int, number: int) -> int:
    return -1000 if column == 0 else 10 * column + 100 * row + 7 * number


def make_slice(number: int, **changes: Any) -> FileDataset:
    """An axial slice with pixels `hu_at`, 0.8 mm between rows, 0.7 mm between columns, 2.5 mm between slices."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesDescription = "CT", SERIES, "abdomen"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = ROWS, COLUMNS, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelSpacing, ds.ImageOrientationPatient = [0.8, 0.7], AXIAL
    ds.ImagePositionPatient = [-10, -20, 2.5 * number]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    hu = np.array([[hu_at(c, r, number) for c in range(COLUMNS)] for r in range(ROWS)])
    ds.PixelData = (hu + 1024).astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def save_slices(folder: Path, slices: list[FileDataset]) -> Path:
    """File names follow a shuffled order, as archives write them."""
    folder.mkdir(exist_ok=True)
    for name, ds in zip(np.random.default_rng(0).permutation(len(slices)), slices, strict=True):
        ds.save_as(folder / f"IM{name:04d}", enforce_file_format=True)
    return folder


def series(**changes: Any) -> list[FileDataset]:
    return [make_slice(k, **changes) for k in range(SLICES)]


def test_slices_are_ordered_and_placed_by_their_positions(tmp_path: Path) -> None:
    volume = read_dicom(save_slices(tmp_path / "dicom", series()))
    assert volume.shape == (COLUMNS, ROWS, SLICES)
    assert volume.spacing_mm == pytest.approx((0.7, 0.8, 2.5))
    # LPS columns run to the left and rows to the back, so RAS order flips both.
    for column, row, number in np.ndindex(COLUMNS, ROWS, SLICES):
        value = volume.data[COLUMNS - 1 - column, ROWS - 1 - row, number]
        assert value == hu_at(column, row, number)
    corner = volume.affine @ (COLUMNS - 1, ROWS - 1, 0, 1)
    np.testing.assert_allclose(corner[:3], (10, 20, 0))


def test_a_coronal_series_is_turned_to_ras(tmp_path: Path) -> None:
    slices = series(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    for number, ds in enumerate(slices):
        ds.ImagePositionPatient = [0, 2.5 * number, 0]
    volume = read_dicom(save_slices(tmp_path / "dicom", slices))
    assert volume.spacing_mm == pytest.approx((0.7, 2.5, 0.8))
    assert volume.data[COLUMNS - 1 - 2, SLICES - 1 - 3, ROWS - 1 - 1] == hu_at(2, 1, 3)


def test_each_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    slices = series()
    stored = np.frombuffer(slices[2].PixelData, "<u2")
    slices[2].PixelData = ((stored - 24) // 2 * 2 // 2).astype("<u2").tobytes()
    slices[2].RescaleSlope, slices[2].RescaleIntercept = 2, -1000
    volume = read_dicom(save_slices(tmp_path / "dicom", slices))
    assert volume.data[COLUMNS - 1 - 1, ROWS - 1 - 1, 2] == hu_at(1, 1, 2)


def test_other_files_are_left_out(tmp_path: Path) -> None:
    folder = save_slices(tmp_path / "dicom", series())
    (folder / "README.txt").write_text("scanned on a Monday")
    (folder / "DICOMDIR").write_bytes((folder / "IM0000").read_bytes())
    (folder / "more").mkdir()
    assert len(dicom_files(folder)) == SLICES
    assert read_dicom(folder).shape[2] == SLICES


def changed(number: int, **changes: Any) -> list[FileDataset]:
    slices = series()
    slices[number] = make_slice(number, **changes)
    return slices


def two_series() -> list[FileDataset]:
    return [*series(), make_slice(9, SeriesInstanceUID=generate_uid(), SeriesDescription="arterial")]


def tilted() -> list[FileDataset]:
    slices = series()
    for number, ds in enumerate(slices):
        ds.ImagePositionPatient = [-10, -20 + 0.8 * number, 2.5 * number]
    return slices


BAD_SERIES: dict[str, tuple[Callable[[], list[FileDataset]], str]] = {
    "nothing": (lambda: [], "no DICOM file"),
    "two series": (two_series, r"several series in one folder: .*'abdomen' \(6 files\)"),
    "missing slice": (
        lambda: [ds for k, ds in enumerate(series()) if k != 3],
        "missing or unevenly spaced: .* 5.00 mm",
    ),
    "doubled slice": (lambda: [*series(), make_slice(2)], "two slices at the same position"),
    "magnetic resonance": (lambda: series(Modality="MR"), "not a CT: its modality is 'MR'"),
    "no modality": (lambda: series(Modality=None), "not a CT: its modality is 'missing'"),
    "multi-frame": (lambda: series(NumberOfFrames=3), "multi-frame"),
    "no position": (lambda: changed(1, ImagePositionPatient=None), "lacks ImagePositionPatient"),
    "no rescale": (lambda: series(RescaleSlope=None), "lacks RescaleSlope"),
    "no size": (lambda: series(Rows=None), "lacks Rows"),
    "short position": (
        lambda: changed(1, ImagePositionPatient=[1, 2]),
        r"ImagePositionPatient is \[1.0, 2.0\], not 3 finite numbers",
    ),
    "one slice": (lambda: series()[:1], "one single DICOM slice"),
    "localizer": (lambda: changed(0, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "another direction"),
    "other spacing": (lambda: changed(4, PixelSpacing=[0.8, 0.75]), "another size or pixel spacing"),
    "tilted gantry": (tilted, "right angles.*gantry"),
    "absurd spacing": (lambda: series(PixelSpacing=[0.001, 0.001]), "absurd spacing"),
    "pixels cut off": (lambda: changed(3, PixelData=b"\0\0"), "pixels cannot be decoded"),
    "no pixels": (lambda: changed(3, PixelData=None), "pixels cannot be decoded"),
    "not HU": (lambda: series(RescaleIntercept=0), r"offset by \+1024|clipped to a window"),
}


@pytest.mark.parametrize("name", BAD_SERIES)
def test_bad_series_are_refused(tmp_path: Path, name: str) -> None:
    make, words = BAD_SERIES[name]
    folder = save_slices(tmp_path / "dicom", make())
    with pytest.raises(InputError, match=words) as caught:
        read_dicom(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_dicom(tmp_path / "dicom")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = save_slices(tmp_path / "dicom", series())
    (folder / "broken.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken.dcm: not a DICOM file"):
        read_dicom(folder)


def test_a_real_series_matches_its_mask_by_affine(shared_data: Path) -> None:
    folder = shared_data / "totalseg_contrast_slab"
    ct, mask = read_dicom(folder / "dicom"), read_nifti(folder / "organs_las.nii.gz", "mask")
    check_same_grid(ct, mask, "dicom", "organs_las.nii.gz")
    organs = label_map("totalsegmentator").apply(mask.data, "organs_las.nii.gz")
    found = {class_id: ct.data[organs == class_id].mean() for class_id in (1, 19, 23)}
    assert found == pytest.approx({1: 89, 19: 177, 23: 131}, abs=1)  # liver, aorta, portal vein: the data's README
    assert pydicom.dcmread(dicom_files(folder / "dicom")[0]).Modality == "CT"
