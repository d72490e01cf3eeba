"""Finding the CTs that somebody points `predict` at, and reading one: NIfTI files, case folders, DICOM series."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError
from pipeline.image import Volume
from pipeline.sources import DICOM_FOLDER, MASK_FOLDER
from pipeline.sources import ENDINGS as SUFFIXES
from pipeline.volume import Grid, read_grid, read_nifti

LAYOUT = (
    "it must hold .nii.gz or .nii files, case folders with ct.nii.gz or dicom/, or folders with the slices of one "
    "DICOM series"
)


def find_images(images: Path) -> dict[str, Path]:
    """The CT of each case by name, sorted: a NIfTI file, or the folder of a DICOM series.

    `images` is a NIfTI file, a case folder (`ct.nii.gz` or `dicom/`), the folder of one series, or a folder of these.
    InputError when there is no image, or when it is not clear which.
    """
    if not images.exists():
        raise InputError(f"{images}: no such file or folder of images")
    if images.is_file():
        return {_stem(images): _nifti(images)}
    files = _nifti_files(images)
    own = _image_of(images)
    if own and (own.is_dir() or len(files) > 1 or (images / MASK_FOLDER).is_dir()):
        return {images.resolve().name: own}
    folders = sorted(folder for folder in images.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    cases = [(folder.name, image) for folder in folders if (image := _image_of(folder))]
    if not files and not cases:
        raise InputError(f"{images}: no images found; {LAYOUT}")
    return _by_name([*((_stem(file), file) for file in files), *cases], images)


def nifti_by_name(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by name without ending, sorted; InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of NIfTI files")
    files = _nifti_files(folder)
    if not files:
        raise InputError(f"{folder}: holds no .nii.gz or .nii file")
    return _by_name([(_stem(file), file) for file in files], folder)


def read_image(path: Path) -> tuple[Volume, Grid]:
    """A CT in HU and RAS+ order, and the grid that its result belongs on.

    That is the file's grid as stored, axis order included; of a DICOM series, which has none, its voxels in RAS+ order.
    """
    if path.is_dir():
        from pipeline.dicom import read_dicom  # pydicom is of use to few

        volume = read_dicom(path)
        return volume, (volume.shape, volume.affine)
    return read_nifti(path, "CT"), read_grid(path)


def _nifti(file: Path) -> Path:
    if not file.name.lower().endswith(SUFFIXES):
        raise InputError(f"{file}: not a NIfTI file name (.nii.gz, .nii); of a DICOM series, give the folder")
    return file


def _image_of(folder: Path) -> Path | None:
    """The CT of a folder that is a case or a DICOM series."""
    found = [folder / f"ct{end}" for end in SUFFIXES if (folder / f"ct{end}").is_file()]
    found += [folder / DICOM_FOLDER] if (folder / DICOM_FOLDER).is_dir() else []
    found += [folder] if _is_series(folder) else []
    if len(found) > 1:
        names = " and ".join("DICOM slices" if path == folder else path.name for path in found)
        raise InputError(f"{folder}: {names} are both there; leave one CT per case")
    return found[0] if found else None


def _is_series(folder: Path) -> bool:
    from pipeline.dicom import dicom_files

    try:
        return bool(dicom_files(folder))
    except InputError:  # what it says of a folder without slices
        return False


def _nifti_files(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in files if file.name.lower().endswith(SUFFIXES))


def _by_name(found: list[tuple[str, Path]], folder: Path) -> dict[str, Path]:
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{folder}: several images are named {', '.join(twice)}; rename them, results go by name")
    return dict(sorted(found))


def _stem(file: Path) -> str:
    end = next((end for end in SUFFIXES if file.name.lower().endswith(end)), "")
    return file.name[: len(file.name) - len(end)]
