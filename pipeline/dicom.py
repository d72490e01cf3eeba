"""One DICOM CT series, a folder of slices, as a `Volume` in HU and RAS+ order.

Order and place come from the positions in the headers, never from file names or instance numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from pipeline.case import FloatArray
from pipeline.errors import InputError
from pipeline.image import Volume, check_affine, check_shape, hounsfield, to_ras

STEP_TOLERANCE = 0.05  # of the slice step, and at least STEP_TOLERANCE_MM: positions are written as rounded decimals
STEP_TOLERANCE_MM = 0.1
SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NUMBERS = {  # what every slice must have, and how many values
    "Rows": 1,
    "Columns": 1,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
}

Slice = tuple[Path, Any]  # file and its header, without pixels


def read_dicom(folder: Path) -> Volume:
    """The CT series in `folder` (not below it) as int16 HU (X, Y, Z). Files that are not DICOM are left out.

    Raises InputError for several series, missing or doubled slices, other modalities and undecodable pixels.
    """
    slices = _one_series(_headers(folder), folder)
    for path, header in slices:
        _check_slice(path, header)
    _check_alike(slices, folder)
    slices = sorted(slices, key=_height)
    affine = _affine(slices, folder)
    first = slices[0][1]
    shape = (int(first.Columns), int(first.Rows), len(slices))
    check_shape(shape, str(folder))
    check_affine(affine, str(folder))
    return to_ras(hounsfield(_planes(slices), shape, str(folder)), affine)


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files directly in `folder`, sorted by name: those with the DICM mark or the ending .dcm."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a DICOM source is a folder with the slices of one series")
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and (p.suffix.lower() == ".dcm" or _is_marked(p))]
    files = [p for p in files if p.name.upper() != "DICOMDIR"]
    if not files:
        raise InputError(f"{folder}: no DICOM file in it; put the slices of one CT series there")
    return files


def patient_id(folder: Path) -> str | None:
    """PatientID of the series in `folder`; None where it is empty, as de-identification may leave it."""
    header = pydicom.dcmread(dicom_files(folder)[0], stop_before_pixels=True, specific_tags=["PatientID"])
    return str(header.get("PatientID") or "").strip() or None


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _headers(folder: Path) -> list[Slice]:
    headers = []
    for path in dicom_files(folder):
        try:
            headers.append((path, pydicom.dcmread(path, stop_before_pixels=True)))
        except (InvalidDicomError, EOFError, OSError, ValueError) as error:
            raise InputError(f"{path}: not a DICOM file, or damaged ({error}); copy it again") from error
    return headers


def _one_series(slices: list[Slice], folder: Path) -> list[Slice]:
    series = Counter(
        (str(h.get("SeriesInstanceUID", "")), str(h.get("SeriesDescription", "")) or "unnamed") for _, h in slices
    )
    if len({uid for uid, _ in series}) > 1:
        found = ", ".join(f"{text!r} ({n} files)" for (_, text), n in sorted(series.items()))
        raise InputError(f"{folder}: several series in one folder: {found}; leave one CT series per folder")
    return slices


def _check_slice(path: Path, header: Any) -> None:
    modality = header.get("Modality", "")
    if modality != "CT":
        raise InputError(f"{path}: not a CT: its modality is {modality or 'missing'!r}; give a CT series")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path}: enhanced multi-frame DICOM is not read; convert the series to NIfTI first")
    missing = [name for name in _NUMBERS if header.get(name) is None]
    if missing:
        raise InputError(f"{path}: the DICOM header lacks {', '.join(missing)}; use the original CT slices")
    for name, count in _NUMBERS.items():
        if not _are_numbers(header.get(name), count):
            raise InputError(
                f"{path}: {name} is {header.get(name)!r}, not {count} finite numbers; the header is damaged"
            )


def _are_numbers(value: Any, count: int) -> bool:
    try:
        numbers = np.array(value, np.float64).ravel()
    except (TypeError, ValueError):
        return False
    return len(numbers) == count and bool(np.isfinite(numbers).all())


def _check_alike(slices: Sequence[Slice], folder: Path) -> None:
    """All slices share size, pixel spacing and directions; two of them at least, as one slice has no thickness."""
    if len(slices) < 2:
        raise InputError(f"{folder}: one single DICOM slice; a CT series has at least 2")
    path, first = slices[0]
    for other, header in slices[1:]:
        same_size = (header.Rows, header.Columns) == (first.Rows, first.Columns)
        if not same_size or not np.allclose(_row_spacing(header), _row_spacing(first), rtol=1e-4):
            raise InputError(f"{folder}: {other.name} has another size or pixel spacing than {path.name}")
        if not np.allclose(_directions(header), _directions(first), atol=SAME_DIRECTION):
            raise InputError(
                f"{folder}: {other.name} lies in another direction than {path.name} (a localizer?); leave one series"
            )


def _affine(slices: Sequence[Slice], folder: Path) -> FloatArray:
    """(4, 4) from (column, row, slice) to RAS mm; slices are sorted by height."""
    header = slices[0][1]
    _check_steps(np.array([_height(s) for s in slices]), folder)
    row_direction, column_direction = _directions(header)
    between_rows, between_columns = _row_spacing(header)
    first, last = (np.array(s[1].ImagePositionPatient, np.float64) for s in (slices[0], slices[-1]))
    lps = np.eye(4)
    lps[:3, 0] = row_direction * between_columns
    lps[:3, 1] = column_direction * between_rows
    lps[:3, 2] = (last - first) / (len(slices) - 1)
    lps[:3, 3] = first
    return np.asarray(LPS_TO_RAS @ lps, np.float64)


def _check_steps(heights: FloatArray, folder: Path) -> None:
    steps = np.diff(heights)
    step = float(np.median(steps))
    tolerance = max(STEP_TOLERANCE * step, STEP_TOLERANCE_MM)
    if steps.min() < STEP_TOLERANCE_MM / 2:
        at = heights[int(steps.argmin())]
        raise InputError(
            f"{folder}: two slices at the same position ({at:.2f} mm); the folder holds a slice twice or two series"
        )
    if np.abs(steps - step).max() > tolerance:
        worst = int(np.abs(steps - step).argmax())
        raise InputError(
            f"{folder}: slices are missing or unevenly spaced: steps of {step:.2f} mm, but {steps[worst]:.2f} mm "
            f"between {heights[worst]:.2f} and {heights[worst + 1]:.2f} mm; complete the series"
        )


def _height(item: Slice) -> float:
    """Position along the slice normal, mm."""
    row_direction, column_direction = _directions(item[1])
    return float(np.cross(row_direction, column_direction) @ np.array(item[1].ImagePositionPatient, np.float64))


def _directions(header: Any) -> FloatArray:
    """(2, 3) unit vectors in LPS: along a row (growing column), along a column (growing row)."""
    return np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)


def _row_spacing(header: Any) -> tuple[float, float]:
    """Distance between rows, and between columns, mm."""
    return float(header.PixelSpacing[0]), float(header.PixelSpacing[1])


def _planes(slices: Sequence[Slice]) -> Iterator[npt.NDArray[Any]]:
    """Slices (X, Y) in HU."""
    for path, header in slices:
        try:
            pixels = pydicom.dcmread(path).pixel_array
        except Exception as error:  # each pixel decoder raises its own types
            syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.get("TransferSyntaxUID", "unknown")
            name = getattr(syntax, "name", syntax)
            raise InputError(
                f"{path}: pixels cannot be decoded (transfer syntax {name}): {error}; "
                "the file is damaged, or install pylibjpeg[all], or convert the series to NIfTI"
            ) from error
        if pixels.shape != (header.Rows, header.Columns):
            raise InputError(
                f"{path}: pixels have shape {pixels.shape}, the header says grey {header.Rows}x{header.Columns}"
            )
        yield pixels.T * float(header.RescaleSlope) + float(header.RescaleIntercept)
