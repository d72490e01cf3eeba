"""Folders of public datasets, found by the names of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS, label_map
from pipeline.sources import find_cases
from tests.test_sources import touch

LITS = label_map("lits")
TRAINING = ("imagesTr/", "labelsTr/")

LAYOUTS: dict[str, tuple[str, ...]] = {
    "MSD": ("dataset.json", "imagesTs/b.nii.gz", "imagesTr/a.nii.gz", "imagesTr/._a.nii.gz", "labelsTr/a.nii.gz"),
    "nnU-Net": ("dataset.json", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"),
    "uncompressed": ("imagesTr/a_0000.nii", "labelsTr/a.nii"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_cases_of_a_benchmark_folder(tmp_path: Path, layout: str) -> None:
    folder = touch(tmp_path, *LAYOUTS[layout])
    (case,) = find_cases(folder, None, None, LITS).cases
    assert case.case_id == "a"
    assert case.image.parent.name == "imagesTr"
    assert case.label_file is not None
    assert case.label_file.parent.name == "labelsTr"
    assert case.split is None  # spread over the splits, or put where --split says


def test_volumes_of_lits(tmp_path: Path) -> None:
    folder = touch(
        tmp_path, *(f"{kind}-{k}.nii" for kind in ("volume", "segmentation") for k in (0, 12)), "volume-3.nii"
    )
    found = find_cases(folder, None, None, LITS).cases
    assert [(c.case_id, c.image.name, c.label_file and c.label_file.name) for c in found] == [
        ("volume-0", "volume-0.nii", "segmentation-0.nii"),
        ("volume-12", "volume-12.nii", "segmentation-12.nii"),
    ]


def test_cases_of_kits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"case_0000{k}/{name}.nii.gz" for k in (0, 1) for name in ("imaging", "segmentation")))
    found = find_cases(tmp_path, None, None, label_map("kits")).cases
    assert [(c.case_id, c.image.name, c.label_file and c.label_file.name) for c in found] == [
        (f"case_0000{k}", "imaging.nii.gz", "segmentation.nii.gz") for k in (0, 1)
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((*TRAINING, "imagesTr/a.nii.gz"), "labelsTr: holds no NIfTI file"),
        (
            (*TRAINING, "imagesTr/b.nii.gz", "labelsTr/a.nii.gz"),
            r"no image a.nii.gz or a_0000.nii.gz lies in .*imagesTr",
        ),
        (("imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"), "'a' has several channels"),
        (("volume-0.nii", "segmentation-1.nii"), "neither a case nor a folder of cases"),
    ],
)
def test_what_does_not_fit_together_is_named(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_cases(touch(tmp_path, *files), None, None, LITS)


def test_label_maps_must_be_named(tmp_path: Path) -> None:
    folder = touch(tmp_path, *LAYOUTS["MSD"])
    with pytest.raises(InputError, match="no organ is called 'a'; if it is a label map, name its ids with --labels"):
        find_cases(folder, None, None, None)


@pytest.mark.parametrize(
    ("name", "classes"),
    [("kits", ["kidney", "kidney_tumor", "kidney"]), ("msd-pancreas", ["pancreas", "pancreas_tumor"])],
)
def test_their_label_maps(name: str, classes: list[str]) -> None:
    ids = np.arange(len(classes) + 1, dtype=np.uint8)
    assert label_map(name).apply(ids, "labels").tolist() == [0, *(CLASS_IDS[c] for c in classes)]
