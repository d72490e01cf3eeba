"""From the files of one case to arrays on the bank's grid: read, bring onto one grid, crop to the body, resample.

In: a `CaseSource`. Out: CT (HU), class ids and affine, isotropic and in RAS+ order.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.body import body_box, cropped_to
from pipeline.case import FloatArray, Int16Array, UInt8Array
from pipeline.errors import InputError
from pipeline.files import sha256_of
from pipeline.image import MAX_VOXELS, Volume, check_same_grid
from pipeline.organs import CLASS_NAMES, LabelMap, is_tumor
from pipeline.resample import isotropic_grid, resample_ct, resample_labels
from pipeline.sources import CaseSource
from pipeline.volume import read_nifti


def read_case(
    source: CaseSource, labels: LabelMap | None, spacing_mm: float, allow_tumors: bool = False
) -> tuple[Int16Array, UInt8Array, FloatArray]:
    """CT (HU), class ids (both X, Y, Z) and affine (4, 4) at `spacing_mm`, cropped to the body's box and a margin.

    Raises InputError for unreadable or mismatched files and, without `allow_tumors`, for cases that hold a tumor.
    """
    image, organs = read_native(source, labels)
    if not allow_tumors:
        _check_healthy(source, organs)
    box = body_box(image, organs)
    image, organs = cropped_to(image, box), organs[box]
    _check_size(image, spacing_mm, source)
    resampled, grid = resample_ct(image.data, image.affine, spacing_mm)
    return resampled, resample_labels(organs, image.affine, spacing_mm)[0], grid


def read_native(source: CaseSource, labels: LabelMap | None) -> tuple[Volume, UInt8Array]:
    """CT (HU) and class ids (X, Y, Z) of a case on the CT's own grid in RAS+ order, tumors included."""
    image = _read_image(source.image)
    return image, _read_organs(source, image, labels)


def tumor_classes(source: CaseSource, labels: LabelMap | None) -> set[int]:
    """The tumor classes that the case's masks are to show, whether it has such tumors or not.

    InputError where the masks name none: then nobody says that the case has no tumor.
    """
    named = labels.classes.values() if source.label_file and labels else source.masks.values()
    found = {class_id for class_id in named if is_tumor(class_id)}
    if not found:
        what = f"the label map {labels.name!r}" if source.label_file and labels else "its masks"
        raise InputError(
            f"{source.image}: --annotated takes cases whose masks show all tumors, but {what} name none; give a mask "
            "such as liver_tumor.nii.gz (all zero where there is no tumor) or a label map such as --labels lits; "
            "prepare healthy cases without --annotated"
        )
    return found


def source_digests(source: CaseSource) -> dict[str, str]:
    """sha256 of each file by its path below their common folder; one digest for all slices of a DICOM series."""
    common = Path(os.path.commonpath([path.parent for path in source.files]))
    digests = {}
    for path in source.files:
        try:
            digest = _series_digest(path) if path.is_dir() else sha256_of(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        digests[path.relative_to(common).as_posix()] = digest
    return digests


def _read_image(path: Path) -> Volume:
    if path.is_dir():
        from pipeline.dicom import read_dicom  # pydicom is of use to few cases

        return read_dicom(path)
    return read_nifti(path, "CT")


def _read_organs(source: CaseSource, image: Volume, labels: LabelMap | None) -> UInt8Array:
    if source.label_file:
        if labels is None:
            raise ValueError(f"{source.case_id}: a label file needs a label map")
        mask = _on_grid(source.label_file, image, source)
        if source.named_class and labels.classes.get(1) != source.named_class and int(mask.data.max()) == 1:
            # liver.nii.gz with 0 and 1 is the liver, whatever --labels says of 1 for the other sources
            return (_binary(mask, source.label_file) * source.named_class).astype(np.uint8)
        return labels.apply(mask.data, str(source.label_file))
    organs = np.zeros(image.shape, np.uint8)
    for path, class_id in sorted(source.masks.items(), key=lambda item: _rank(item[1])):
        organs[_binary(_on_grid(path, image, source), path)] = class_id
    return organs


def _rank(class_id: int) -> tuple[bool, int]:
    """Where masks overlap the last painted wins: tumors over organs, and organs that take tumors over others."""
    return is_tumor(class_id), -class_id


def _on_grid(path: Path, image: Volume, source: CaseSource) -> Volume:
    mask = read_nifti(path, "mask")
    check_same_grid(image, mask, str(source.image), str(path))
    return mask


def _binary(mask: Volume, path: Path) -> npt.NDArray[np.bool_]:
    low, high = int(mask.data.min()), int(mask.data.max())
    inside = mask.data == high
    if low < 0 or not (inside | (mask.data == 0)).all():
        values = np.unique(mask.data)
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise InputError(
            f"{path}: not a binary mask: it holds the values {shown}; if it is a label map, name its ids with "
            "--labels: lits, totalsegmentator, or pairs such as liver=1,liver_tumor=2"
        )
    return inside if high > 0 else np.zeros_like(inside)


def _check_healthy(source: CaseSource, organs: UInt8Array) -> None:
    counts = np.bincount(organs.reshape(-1), minlength=256)
    tumors = [f"{CLASS_NAMES[c]} {counts[c]} voxels" for c in CLASS_NAMES if is_tumor(c) and counts[c]]
    if tumors:
        raise InputError(
            f"{source.image}: healthy cases only, as tumors are put in by us, but this case holds {', '.join(tumors)}; "
            "--allow-tumors keeps it: its tumor voxels stay labelled as tumor and no synthetic tumor is put there. "
            "--annotated makes a dataset of the tumors that it has"
        )


def _check_size(image: Volume, spacing_mm: float, source: CaseSource) -> None:
    shape, _ = isotropic_grid(image.shape, image.affine, spacing_mm)
    if math.prod(shape) > MAX_VOXELS:
        raise InputError(
            f"{source.image}: at {spacing_mm:g} mm this CT would have {'x'.join(map(str, shape))} voxels, more than "
            f"{MAX_VOXELS:,}; choose a larger --spacing"
        )


def _series_digest(folder: Path) -> str:
    from pipeline.dicom import dicom_files

    digests = sorted(sha256_of(path) for path in dicom_files(folder))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
