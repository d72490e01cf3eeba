"""Folders of label maps of any origin: which ids mean what, and which files belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.volume import write_nifti
from training.evaluation.folders import LabelFolders
from training.evaluation.label_names import folder_labels

ONE_MM = np.eye(4)


def classes_of(tmp_path: Path, document: Any) -> dict[int, int]:
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    found = folder_labels(tmp_path, None, "--prediction-labels")
    assert found.said_by == tmp_path / "dataset.json"
    return dict(found.map.classes)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "liver": 1, "tumor": 2}, {0: 0, 1: 1, 2: 2}),
        ({"background": 0, "pancreas": 1, "cancer": 2}, {0: 0, 1: 3, 2: 4}),
        ({"background": 0, "Liver": 1, "Liver lesion": 2, "Spleen": 3}, {0: 0, 1: 1, 2: 2, 3: 9}),
        (
            {"background": 0, "liver": 1, "liver_tumor": 2, "kidney": 3, "kidney_tumor": 4},
            {0: 0, 1: 1, 2: 2, 3: 5, 4: 6},
        ),
        ({"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}, {0: 0, 1: 5, 2: 6, 3: 5}),
        ({"0": "background", "1": "colon cancer primaries"}, {0: 0, 1: 8}),
        (
            {"0": "background", "1": "kidney_left", "2": "vertebrae_L1", "3": "urinary_bladder"},
            {0: 0, 1: 5, 2: 25, 3: 0},
        ),
        ({"background": 0, "liver": 1, "tumor": 2, "ignore": 3}, {0: 0, 1: 1, 2: 2}),
    ],
)
def test_the_names_of_a_dataset_json_become_our_classes(
    tmp_path: Path, labels: dict[str, Any], classes: dict[int, int]
) -> None:
    assert classes_of(tmp_path, {"labels": labels, "file_ending": ".nii.gz"}) == classes


def test_regions_are_told_by_the_id_that_stands_for_them(tmp_path: Path) -> None:
    document = {"labels": {"background": 0, "kidney": [1, 2], "tumor": [2]}, "regions_class_order": [1, 2]}
    assert classes_of(tmp_path, document) == {0: 0, 1: 5, 2: 6}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"labels": {"background": 0, "tumor": 1}}, r"its label 'tumor' \(1\) is none of our classes.*--prediction"),
        ({"labels": {"background": 0, "liver": 1, "pancreas": 2, "lesion": 3}}, r"its label 'lesion' \(3\)"),
        ({"labels": {"background": 0, "kidney": 1, "masses": 2}}, "its label 'masses'.*--prediction-labels kits"),
        ({"labels": {"background": 0, "kidney": [1, 2]}}, "does not name ids as nnU-Net does"),
        ({"labels": {"background": 0, "kidney": [1, 2]}, "regions_class_order": [1, 2]}, "1 regions, .* has 2"),
    ],
)
def test_names_that_say_too_little_are_refused(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classes_of(tmp_path, document)


def test_a_dataset_json_is_found_where_nnunet_leaves_it(tmp_path: Path) -> None:
    document = json.dumps({"labels": {"background": 0, "kidney": 1, "tumor": 2}})
    folds = tmp_path / "trainer"
    for folder in (folds / "fold_0" / "validation", tmp_path / "raw" / "labelsTr", tmp_path / "predicted"):
        folder.mkdir(parents=True)
    for place in (folds, tmp_path / "raw", tmp_path / "predicted"):
        (place / "dataset.json").write_text(document)
    for name in ("trainer/fold_0/validation", "raw/labelsTr", "predicted"):
        assert folder_labels(tmp_path / name, None, "--labels").classes == {0, 5, 6}
    given = folder_labels(tmp_path / "predicted", "lits", "--labels")
    assert (given.classes, given.said_by) == ({0, 1, 2}, None)
    (tmp_path / "predicted" / "dataset.json").write_text('{"classes": {"liver": 1}}')  # a dataset of ours
    assert folder_labels(tmp_path / "predicted", None, "--labels").classes is None
    (tmp_path / "predicted" / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json: not a readable JSON file"):
        folder_labels(tmp_path / "predicted", None, "--labels")


# ---- files ----


def label_map_of(liver: int, tumor: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:10, 2:10, 2:10] = liver
    labels[4:6, 4:6, 4:6] = tumor
    return labels


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir()
    for name, labels in files.items():
        write_nifti(folder / f"{name}.nii.gz", labels, ONE_MM)
    return folder


def folders(
    truth: Path, predictions: Path, log: list[str], labels: str | None = None, prediction_labels: str | None = None
) -> LabelFolders:
    return LabelFolders(truth, predictions, labels, prediction_labels, None, log.append)


def test_both_sides_come_with_label_maps_of_their_own(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", la_003=label_map_of(7, 9))
    predictions = write(tmp_path / "predictions", la_003_0000=label_map_of(1, 2), la_004=label_map_of(1, 2))
    log: list[str] = []
    scored = folders(truth, predictions, log, "liver=7,liver_tumor=9", "lits")
    (pair,) = scored.pairs()
    assert (len(scored), pair.case_id) == (1, "la_003")
    assert np.array_equal(pair.truth, label_map_of(1, 2))
    assert np.array_equal(pair.truth, pair.prediction)
    assert pair.classes == {"liver": 1, "liver_tumor": 2}
    assert log == ["note: predictions without a truth are left out: la_004"]


def test_nnunet_folders_need_no_flag(tmp_path: Path) -> None:
    """Kidney and tumor are 1 and 2 there, 5 and 6 here; what the truth cannot hold is not held against anybody."""
    truth = write(tmp_path / "labelsTs", a=label_map_of(1, 2))
    predictions = write(tmp_path / "predicted", a=label_map_of(1, 2))
    extra = label_map_of(1, 2)
    extra[11, 11, 11] = 3
    write_nifti(predictions / "a.nii.gz", extra, ONE_MM)
    for place, labels in ((tmp_path, {}), (predictions, {"spleen": 3})):
        document = {"labels": {"background": 0, "kidney": 1, "tumor": 2, **labels}}
        (place / "dataset.json").write_text(json.dumps(document))
    log: list[str] = []
    (pair,) = folders(truth, predictions, log).pairs()
    assert np.array_equal(pair.truth, label_map_of(5, 6))
    assert pair.prediction[11, 11, 11] == 9
    assert pair.classes == {"kidney": 5, "kidney_tumor": 6}
    assert [line.split(": ", 1)[1].rsplit(" (", 1)[1] for line in log] == [
        "--labels says otherwise)",
        "--prediction-labels says otherwise)",
    ]


def test_folders_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", a=label_map_of(1, 2), b=label_map_of(1, 2))
    predictions = write(tmp_path / "predictions", a=label_map_of(1, 99), b=label_map_of(1, 2))
    empty = write(tmp_path / "empty", a=label_map_of(0, 0), b=label_map_of(0, 0))
    other = write(tmp_path / "other", c=label_map_of(1, 2))
    with pytest.raises(InputError, match=r"no prediction for a, b; .*_0000 \(it holds c\)"):
        folders(truth, other, [])
    with pytest.raises(InputError, match=r"predictions/a.nii.gz: holds the ids \[99\], .*--prediction-labels lits"):
        list(folders(truth, predictions, []).pairs())
    with pytest.raises(InputError, match=r"predictions/a.nii.gz: holds the ids \[99\]"):
        list(folders(predictions, predictions, [], "liver=1,liver_tumor=2,spleen=99").pairs())
    with pytest.raises(InputError, match="no label map holds anything to score"):
        list(folders(empty, empty, []).pairs())
    (truth / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    with pytest.raises(InputError, match=r"a.nii.gz: holds the ids \[2\], .*dataset.json explains .*--labels lits"):
        list(folders(truth, empty, []).pairs())
