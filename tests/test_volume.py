from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.errors import InputError, PhantumorError
from pipeline.volume import read_grid, read_nifti, write_nifti
from tests.ct_files import make_affine, make_ct, make_organs, save


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SRP", "ASR"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_stored_axis_order_does_not_matter(tmp_path: Path, axes: str, ending: str) -> None:
    volume = read_nifti(save(tmp_path / f"ct{ending}", make_ct(), axes=axes), "CT")
    assert volume.data.dtype == np.int16
    assert volume.data.flags.c_contiguous
    np.testing.assert_array_equal(volume.data, make_ct())
    np.testing.assert_allclose(volume.affine, make_affine())


def test_stored_grid_is_reported_as_stored(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii.gz", make_ct(), axes="SLP")
    shape, affine = read_grid(path)
    assert shape == nib.load(path).shape
    np.testing.assert_array_equal(affine, nib.load(path).affine)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", "<f8", ">f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_types_byte_orders_and_versions(tmp_path: Path, dtype: str, kind: type) -> None:
    image = kind(make_ct().astype(dtype), make_affine())
    header = image.header.as_byteswapped(">") if dtype[0] == ">" else image.header
    kind(image.dataobj, make_affine(), header).to_filename(tmp_path / "ct.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "ct.nii", "CT").data, make_ct())


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = with_header(save(tmp_path / "ct.nii", (make_ct() // 2 + 512).astype(np.int16)), scl_slope=2, scl_inter=-1024)
    np.testing.assert_array_equal(read_nifti(path, "CT").data, make_ct() // 2 * 2)


def test_slope_zero_means_unscaled(tmp_path: Path) -> None:
    path = with_header(save(tmp_path / "ct.nii", make_ct()), scl_slope=0, scl_inter=7)
    np.testing.assert_array_equal(read_nifti(path, "CT").data, make_ct())


def test_a_fourth_dimension_of_one_is_no_dimension(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(make_ct()[..., None], make_affine()), tmp_path / "ct.nii.gz")
    assert read_nifti(tmp_path / "ct.nii.gz", "CT").data.shape == make_ct().shape


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (make_organs(), np.uint8),
        (make_organs().astype(np.float32), np.uint8),
        (make_organs().astype(np.int32) * 100, np.int32),
    ],
)
def test_masks_become_whole_numbers(tmp_path: Path, data: np.ndarray, dtype: type) -> None:
    volume = read_nifti(save(tmp_path / "mask.nii.gz", data), "mask")
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, data)


def with_header(path: Path, **fields: object) -> Path:
    """Overwrite header fields of an uncompressed NIfTI-1 file, unchecked."""
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(bytes(header.binaryblock) + content[348:])
    return path


def plain(tmp_path: Path) -> Path:
    return save(tmp_path / "ct.nii", make_ct())


def header_case(**fields: object) -> Callable[[Path], Path]:
    return lambda tmp_path: with_header(plain(tmp_path), **fields)


def truncated_gzip(tmp_path: Path) -> Path:
    path = save(tmp_path / "ct.nii.gz", make_ct())
    path.write_bytes(path.read_bytes()[:-200])
    return path


def flipped_bit(tmp_path: Path) -> Path:
    """Valid deflate data whose content does not match the checksum."""
    path = save(tmp_path / "ct.nii.gz", make_ct())
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), 0))
    content[5000] ^= 1
    path.write_bytes(bytes(content))
    return path


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(tmp_path: Path) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def cut_off(tmp_path: Path) -> Path:
    path = plain(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def colour(tmp_path: Path) -> Path:
    pixels = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), tmp_path / "ct.nii")
    return tmp_path / "ct.nii"


SINGULAR = {"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0], "srow_z": [0, 0, 0, 0]}
BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda tmp_path: tmp_path / "ct.nii.gz", "no such file"),
    "folder": (lambda tmp_path: (tmp_path / "ct.nii").mkdir() or tmp_path / "ct.nii", "is a folder"),
    "name": (written("ct.mha", b""), "not a NIfTI file name"),
    "empty": (written("ct.nii", b""), "not an image"),
    "text": (written("ct.nii", b"hello " * 200), "not an image"),
    "text as gzip": (written("ct.nii.gz", b"hello " * 200), "not an image, or damaged"),
    "short header": (written("ct.nii", struct.pack("<i", 348) + bytes(99)), "not an image"),
    "gzip cut off": (truncated_gzip, "corrupt or cut off"),
    "gzip checksum": (flipped_bit, "corrupt or cut off"),
    "pixels cut off": (cut_off, r"cut off: 26,879 of 26,880 bytes"),
    "pair": (header_case(magic=b"ni1"), "single-file"),
    "2-D": (header_case(dim=[2, 28, 24, 1, 1, 1, 1, 1]), "3 dimensions, this image has 2"),
    "4-D": (header_case(dim=[4, 28, 24, 10, 2, 1, 1, 1]), "3 dimensions, this image has 4"),
    "no dimensions": (header_case(dim=[0] * 8), "counts 0 dimensions"),
    "huge": (header_case(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "30000x30000x30000"),
    "many voxels": (header_case(dim=[3, 2048, 2048, 2048, 1, 1, 1, 1]), "1,500,000,000 voxels"),
    "negative": (header_case(dim=[3, -5, 24, 20, 1, 1, 1, 1]), "-5x24x20"),
    "nan affine": (header_case(srow_x=[np.nan, 0, 0, 0]), "NaN or infinity"),
    "singular affine": (header_case(**SINGULAR), "singular"),
    "invalid quaternion": (header_case(sform_code=0, qform_code=1, quatern_b=3), "affine is not valid"),
    "absurd spacing": (header_case(srow_x=[900, 0, 0, 0]), "absurd spacing 900"),
    "nan slope": (header_case(scl_slope=np.nan), "scaling is not finite"),
    "infinite intercept": (header_case(scl_slope=1, scl_inter=np.inf), "scaling is not finite"),
    "unknown type": (header_case(datatype=9999), "unknown data type code 9999"),
    "complex": (header_case(datatype=32), "complex64"),
    "colour": (colour, "colour"),
    "pixels far away": (header_case(vox_offset=1e12), "puts the pixels at byte"),
    "pixels nowhere": (header_case(vox_offset=np.nan), "puts the pixels at byte"),
    "pixels in the header": (header_case(vox_offset=-400), "puts the pixels at byte"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    make, words = BAD_FILES[name]
    path = make(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        read_nifti(path, "CT")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.full((3, 3, 3), 0.37, np.float32), "whole numbers, this one holds 0.37.*probabilities"),
        (np.full((3, 3, 3), np.nan, np.float32), "NaN or infinite"),
        (np.full((3, 3, 3), 1e12), "goes to 1e"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path: Path, data: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_nifti(save(tmp_path / "liver.nii.gz", data), "mask")


def test_a_header_bomb_is_refused_without_reading_pixels(tmp_path: Path) -> None:
    path = header_case(dim=[3, 2000, 2000, 2000, 1, 1, 1, 1])(tmp_path)
    with pytest.raises(InputError, match="voxels"):
        read_grid(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_writing_keeps_data_and_affine_and_leaves_nothing_else(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    for _ in range(2):
        write_nifti(path, make_organs(), make_affine())
    image = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), make_organs())
    np.testing.assert_array_equal(image.affine, make_affine())
    np.testing.assert_allclose(image.get_qform(), make_affine(), atol=1e-4)
    assert image.get_data_dtype() == np.uint8
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_same_array_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, make_organs(), make_affine())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PhantumorError, match=r"nowhere/out.nii.gz: cannot be written"):
        write_nifti(tmp_path / "nowhere" / "out.nii.gz", make_organs(), make_affine())
