"""NIfTI files in and out.

A header is judged before any pixel is read, because a file of 1 MB can claim, or unpack to, hundreds of GB.
`pipeline.dicom` reads DICOM series into the same `Volume`.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from pipeline.case import FloatArray
from pipeline.errors import InputError, PhantumorError
from pipeline.files import replace_file
from pipeline.image import Volume, check_affine, check_shape, hounsfield, to_ras, whole_numbers

MAX_EXTENSION_BYTES = 2**26  # between header and pixels, e.g. DICOM headers kept by a converter
GZIP_LEVEL = 4  # higher levels take twice the time for the last few percent

HEADER_KINDS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by the size that the first 4 bytes of a file state

Grid = tuple[tuple[int, int, int], FloatArray]  # shape and (4, 4) affine to RAS mm


def read_nifti(path: Path, what: Literal["CT", "mask"]) -> Volume:
    """Read an image in RAS+ order.

    A CT comes as int16 HU clipped to `HU_RANGE`, a mask or label map as uint8, or int32 beyond 0..255. Raises
    InputError, naming the file, for everything that is not such an image.
    """
    with _opened(path) as stream:
        header = _checked_header(stream, path)
        raw = _pixels(stream, header, path)
    slices = _slices(raw, *_scaling(header, path))
    to_array = hounsfield if what == "CT" else whole_numbers
    return to_ras(to_array(slices, raw.shape, str(path)), _affine(header, path))


def read_grid(path: Path) -> Grid:
    """Shape and affine of a NIfTI file as stored, without its pixels and without turning it to RAS+ order."""
    with _opened(path) as stream:
        header = _checked_header(stream, path)
    return _shape(header), _affine(header, path)


def write_nifti(path: Path, data: npt.NDArray[Any], affine: FloatArray) -> None:
    """Write `data` (X, Y, Z) to `.nii` or `.nii.gz`, whole or not at all; the same array gives the same bytes."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)
    try:
        replace_file(path, content)
    except OSError as error:
        raise PhantumorError(f"{path}: cannot be written: {error.strerror or error}") from error


def _opened(path: Path) -> BufferedIOBase:
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: not a NIfTI file name; images are .nii.gz or .nii")
    try:
        return gzip.open(path) if name.endswith(".gz") else path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not an image; a DICOM series goes into a folder named dicom") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _read(stream: BufferedIOBase, size: int, path: Path) -> bytes:
    try:
        return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: not an image, or damaged: the gzip data is corrupt or cut off ({error}); copy the file again"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _checked_header(stream: BufferedIOBase, path: Path) -> Any:
    """The NIfTI-1 or -2 header, after everything in it that could hurt has been judged."""
    first = _read(stream, 4, path)
    size = next((n for n in HEADER_KINDS if first in (n.to_bytes(4, "little"), n.to_bytes(4, "big"))), 0)
    block = first + _read(stream, max(size - 4, 0), path)
    if not size or len(block) < size:
        raise InputError(f"{path}: not an image: no NIfTI header in it")
    header = HEADER_KINDS[size](block, check=False)
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: not a single-file NIfTI image; convert .hdr/.img pairs to .nii.gz")
    if not 1 <= int(header["dim"][0]) <= 7:
        raise InputError(f"{path}: not an image: its header counts {int(header['dim'][0])} dimensions")
    check_shape(_shape(header), str(path))
    check_affine(_affine(header, path), str(path))
    _scaling(header, path)
    _dtype(header, path)
    return header


def _slices(raw: npt.NDArray[Any], slope: float, intercept: float) -> Iterator[npt.NDArray[Any]]:
    """Scaled slices (X, Y), one by one; integers stay integers where nothing is scaled."""
    plain = (slope, intercept) == (1, 0)
    return (raw[..., k] if plain else raw[..., k] * slope + intercept for k in range(raw.shape[2]))


def _shape(header: Any) -> tuple[Any, ...]:
    shape = tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _affine(header: Any, path: Path) -> FloatArray:
    try:
        return np.asarray(header.get_best_affine(), np.float64)
    except (ValueError, HeaderDataError) as error:
        raise InputError(f"{path}: the affine is not valid ({error}); write the image again") from error


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:
        return 1.0, 0.0  # the NIfTI standard's way to say that values are not scaled
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(
            f"{path}: the header's scaling is not finite (scl_slope {slope}, scl_inter {intercept}); "
            "write the image again with scl_slope 1"
        )
    return slope, intercept


def _dtype(header: Any, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise InputError(f"{path}: not an image: unknown data type code {int(header['datatype'])}") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(
            f"{path}: pixels are {dtype}, a CT or mask has integers or real numbers (is it a colour image?)"
        )
    return dtype


def _pixels(stream: BufferedIOBase, header: Any, path: Path) -> npt.NDArray[Any]:
    """Stored values (X, Y, Z), unscaled, in Fortran order as the file has them."""
    shape, dtype = _shape(header), _dtype(header, path)
    start = float(header["vox_offset"]) or header.single_vox_offset  # 0 is written for the smallest offset
    gap = start - int(header["sizeof_hdr"])
    if not 0 <= gap <= MAX_EXTENSION_BYTES:
        raise InputError(f"{path}: not an image: its header puts the pixels at byte {header['vox_offset']}")
    _read(stream, int(gap), path)
    size = math.prod(shape) * dtype.itemsize
    data = _read(stream, size, path)
    if len(data) < size:
        raise InputError(f"{path}: cut off: {len(data):,} of {size:,} bytes of pixels are there; copy the file again")
    _read(stream, 2**20, path)  # reaching the end makes gzip compare its checksum
    return np.frombuffer(data, dtype).reshape(shape, order="F")
