"""The leak check passes a clean study and finds every way in which we make it leak."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.study.cases import WRITTEN_AT, common_range
from pipeline.study.design import TRUTH, Answers
from pipeline.study.leaks import leaks, separation
from pipeline.study.lesions import Crop
from tests.studies import make_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", trials=8, practice=0)


def failed(study: Path) -> list[str]:
    truth = Answers.model_validate_json((study / TRUTH).read_bytes())
    return [one.name for one in leaks(study, {n: c.truth for n, c in truth.cases.items()}) if not one.passed]


def rewritten(path: Path, image: nib.Nifti1Image) -> None:
    path.write_bytes(image.to_bytes())
    os.utime(path, (WRITTEN_AT, WRITTEN_AT))


def other_header(path: Path) -> None:
    image = nib.Nifti1Image.from_filename(path)
    image.header["descrip"] = b"phantumor"
    rewritten(path, image)


def other_dtype(path: Path) -> None:
    image = nib.Nifti1Image.from_filename(path)
    rewritten(path, nib.Nifti1Image(np.asarray(image.dataobj).astype(np.int32), image.affine))


def other_shape(path: Path) -> None:
    image = nib.Nifti1Image.from_filename(path)
    rewritten(path, nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine))


def other_range(path: Path) -> None:
    image = nib.Nifti1Image.from_filename(path)
    rewritten(path, nib.Nifti1Image(np.asarray(image.dataobj).clip(-50, None), image.affine, image.header))


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, (WRITTEN_AT, WRITTEN_AT))


def later(path: Path) -> None:
    os.utime(path, (WRITTEN_AT + 1, WRITTEN_AT + 1))


def moved(path: Path) -> None:
    mask = path.parents[1] / "masks" / f"{path.stem}.npy"
    np.save(mask, np.roll(np.load(mask), 2, axis=0))


def test_a_clean_study_passes(study: Path) -> None:
    assert failed(study) == []


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (other_header, "header"),
        (other_dtype, "dtype"),
        (other_shape, "shape"),
        (other_range, "value range"),
        (longer, "file size"),
        (later, "modification time"),
        (lambda path: path.chmod(0o644), "file mode"),
        (moved, "place of the lesion"),
    ],
)
def test_a_single_file_that_differs_is_found(study: Path, spoil: Callable[[Path], None], name: str) -> None:
    spoil(study / "cases" / "003.nii")
    assert name in failed(study)


def test_numbers_that_tell_the_truth_are_found() -> None:
    synthetic = [k >= 6 for k in range(12)]
    assert not separation("case number", "drawn", list(range(12)), synthetic).passed
    assert not separation("case number", "drawn", list(range(12))[::-1], synthetic).passed
    assert separation("case number", "drawn", [k // 2 + 6 * (k % 2) for k in range(12)], synthetic).passed
    assert separation("case number", "drawn", [1] * 12, synthetic).passed


def test_the_common_range_is_filled_by_every_crop() -> None:
    def crop(low: int, high: int) -> Crop:
        return Crop(np.array([[[low, high]]], np.int16), np.zeros((1, 1, 2), np.uint8), (0, 0, 0))

    crops = [crop(-1000, 900), crop(-120, 300), crop(-150, 220)]
    assert common_range(crops) == (-120, 220)
    with pytest.raises(Exception, match=r"20 to 220 HU in common.*--crop-mm"):
        common_range([*crops, crop(20, 900)])
