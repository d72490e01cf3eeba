"""Tiny CT scans and files for tests: a body with a liver and a spleen on a coarse grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int]
SHAPE: Shape = (28, 24, 20)
SPACING_MM = 5.0
AIR, TISSUE, LIVER, SPLEEN = -1000, 20, 110, 120


def ball(shape: Shape, center: tuple[float, float, float], radius: float) -> npt.NDArray[np.bool_]:
    """True within `radius` voxels of `center`."""
    offsets = np.indices(shape) - np.reshape(center, (3, 1, 1, 1))
    return np.asarray((offsets**2).sum(axis=0) <= radius**2, np.bool_)


def liver_ball() -> npt.NDArray[np.bool_]:
    """About 270 ml of liver at `SPACING_MM`, off centre in every axis so that flips show."""
    return ball(SHAPE, (17, 11, 9), 8)


def spleen_ball() -> npt.NDArray[np.bool_]:
    return ball(SHAPE, (6, 13, 12), 3)


def make_ct() -> npt.NDArray[np.int16]:
    """HU of a box of tissue in air that holds both organs."""
    ct = np.full(SHAPE, AIR, np.int16)
    ct[1:27, 2:22] = TISSUE
    ct[liver_ball()] = LIVER
    ct[spleen_ball()] = SPLEEN
    return ct


def make_organs() -> npt.NDArray[np.uint8]:
    """TotalSegmentator ids: 5 liver, 1 spleen."""
    return (5 * liver_ball() + 1 * spleen_ball()).astype(np.uint8)


def make_affine(spacing_mm: float = SPACING_MM, origin: tuple[float, float, float] = (-60, -50, 30)) -> Any:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = origin
    return affine


def save(path: Path, data: npt.NDArray[Any], affine: Any = None, axes: str = "RAS") -> Path:
    """Write a NIfTI; `data` is in RAS+ order and stored with the given axis directions, at the same place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = make_affine() if affine is None else affine
    image = nib.Nifti1Image(data, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(turn), path)
    return path


def save_case(folder: Path, shift_hu: int = 0, masks: tuple[str, ...] = ("liver", "spleen")) -> Path:
    """A case folder with binary masks."""
    save(folder / "ct.nii.gz", make_ct() + np.int16(shift_hu))
    for name, mask in (("liver", liver_ball()), ("spleen", spleen_ball())):
        if name in masks:
            save(folder / f"{name}.nii.gz", mask.astype(np.uint8))
    return folder


def save_label_case(folder: Path, name: str = "organs.nii.gz") -> Path:
    """A case folder with a TotalSegmentator label map."""
    save(folder / "ct.nii.gz", make_ct())
    save(folder / name, make_organs())
    return folder
