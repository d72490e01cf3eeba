"""The files of the cases: crops that are alike in everything but what they show, and their masks apart.

A case is written uncompressed, so its size is 352 bytes of header and two for each voxel whatever it shows; the size
of a compressed file would tell smooth lesions from grainy ones.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline.case import Int16Array, UInt8Array
from pipeline.errors import InputError
from pipeline.files import replace_file
from pipeline.study.design import CASES, MASKS
from pipeline.study.lesions import Crop

WIDEST_HU = (-160, 240)  # abdominal window (level 40, width 400); nothing beyond it is shown
NARROWEST_HU = (-45, 150)  # a liver window must fit in what is left
WRITTEN_AT = 946684800  # the time of every case file: 2000-01-01 UTC


def common_range(cases: Sequence[Crop]) -> tuple[int, int]:
    """The widest range within `WIDEST_HU` that every crop fills from end to end: clipped to it, all have its extremes.

    InputError where a crop has hardly any contrast, so that no useful range is left.
    """
    low = max(WIDEST_HU[0], *(int(one.image.min()) for one in cases))
    high = min(WIDEST_HU[1], *(int(one.image.max()) for one in cases))
    if low > NARROWEST_HU[0] or high < NARROWEST_HU[1]:
        raise InputError(
            f"the crops have only {low} to {high} HU in common, and a liver window needs {NARROWEST_HU[0]} to "
            f"{NARROWEST_HU[1]}: values beyond the common range would tell cases apart. Give a larger --crop-mm, so "
            "that every crop holds fat and bone or vessels"
        )
    return low, high


def write_cases(folder: Path, cases: dict[str, Crop], spacing_mm: float, range_hu: tuple[int, int]) -> None:
    """Write crops and masks by case number, in the order of numbers."""
    (folder / CASES).mkdir()
    (folder / MASKS).mkdir(mode=0o700)
    for number in sorted(cases):
        path = folder / CASES / f"{number}.nii"
        replace_file(path, nifti_bytes(np.clip(cases[number].image, *range_hu).astype(np.int16), spacing_mm, range_hu))
        path.chmod(0o600)
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
        mask = io.BytesIO()
        np.save(mask, cases[number].label)
        replace_file(folder / MASKS / f"{number}.npy", mask.getvalue())


def nifti_bytes(image: Int16Array, spacing_mm: float, range_hu: tuple[int, int]) -> bytes:
    """An uncompressed NIfTI-1 file of HU (X, Y, Z); its origin lies in the middle, so it does not tell the place."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -spacing_mm * (np.array(image.shape) - 1) / 2
    file = nib.Nifti1Image(image, affine)
    file.header.set_xyzt_units("mm")
    file.header["cal_min"], file.header["cal_max"] = range_hu
    content: bytes = file.to_bytes()
    return content


def read_crop(folder: Path, number: str) -> tuple[Int16Array, UInt8Array]:
    """Image (HU) and label (see `design`) of a case, both (X, Y, Z)."""
    image = np.asarray(nib.Nifti1Image.from_filename(folder / CASES / f"{number}.nii").dataobj)
    return image.astype(np.int16), np.load(folder / MASKS / f"{number}.npy", allow_pickle=False)
