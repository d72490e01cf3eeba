"""Evaluations in the explorer: what is shown of them, label maps, and which folders can be opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.explore.evaluation import ScoredCases
from pipeline.explore.explore import open_collection
from pipeline.explore.routes import explore_routes
from pipeline.explore.scored_images import FromTraining
from pipeline.volume import write_nifti
from tests.command import run
from tests.datasets import make_dataset
from tests.pages import client
from training.evaluate import evaluate_folders
from training.evaluation.label_names import folder_labels


def never(*_: object) -> Any:
    raise AssertionError("nothing here is predicted")


NEVER = FromTraining(never, lambda *given: folder_labels(*given).apply)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("explored") / "data", samples=6)


def write_evaluation(folder: Path, context: dict[str, str], case: str) -> Path:
    """One liver tumor that was found and one false one in one case, as `evaluate` writes them."""
    folder.mkdir(parents=True)
    about = {"case_id": case, "group": case, "class_name": "liver_tumor", "organ": "liver"}
    counts = {"truth_lesions": 1, "found_lesions": 1, "false_positive_lesions": 1}
    score = {**about, **counts, "split": None, "tumor": True, "dice": 0.5, "truth_ml": 1.0}
    center = {f"centroid_{axis}_vox": float(k) for k, axis in enumerate("xyz", 1)}
    lesion = {**about, **center, "volume_mm3": 8.0, "diameter_mm": 2.5}
    lesions = [{**lesion, "source": "truth", "matched": True}, {**lesion, "source": "prediction", "matched": False}]
    pq.write_table(pa.Table.from_pylist([score]), folder / "cases.parquet")
    pq.write_table(pa.Table.from_pylist(lesions), folder / "lesions.parquet")
    (folder / "metrics.json").write_text(json.dumps({"context": context}))
    return folder


def test_predictions_of_a_dataset_stand_beside_the_truth(tmp_path: Path, dataset: Dataset) -> None:
    folder = write_evaluation(tmp_path / "report", {"run": "run", "data": dataset.path}, "s000000003")
    asked = []

    def predict(run: str, of: Dataset, index: int) -> Any:
        asked.append((run, index))
        return of.sample(index).label // 2

    page = client(explore_routes(open_collection(str(folder), FromTraining(predict, never))))
    assert page.get("/api/about").json()["labels"] == {"truth": "truth", "prediction": "prediction"}
    row = page.get("/api/table").json()["rows"][0]
    assert (row["id"], row["dice"], row["found"], row["false_positive_lesions"]) == ("s000000003", 0.5, "found", 1)
    document = page.get("/api/sample/s000000003").json()
    assert document["focus_mm"] == [1.0, 2.0, 3.0]
    for name in ("truth", "prediction"):
        assert page.get(f"/api/sample/s000000003/{name}.nii").status_code == 200
    assert asked == [("run", 3)]


def test_label_maps_without_a_ct_are_shown(tmp_path: Path) -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    label[1:3, 1:3, 1:3] = 2
    for name in ("truth", "predictions"):
        (tmp_path / name).mkdir()
        write_nifti(tmp_path / name / "anna.nii.gz", label, np.eye(4))
    context = {name: str(tmp_path / name) for name in ("truth", "predictions")}
    cases = ScoredCases(write_evaluation(tmp_path / "report", context, "anna"), NEVER)
    layers = cases.layers(0, ["image", "truth", "prediction"])
    assert not layers["image"].data.any()
    np.testing.assert_array_equal(layers["prediction"].data, label)


def test_an_evaluation_that_is_stopped_says_what_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.evaluate.evaluate_folders", stopped)
    code, _, told = run(capsys, "evaluate", "--truth", "a", "--predictions", "b", "--out", tmp_path / "report")
    assert (code, "predicts and scores all cases again" in told) == (1, True), told
    assert "goes on from there" not in told


def test_label_maps_of_other_ids_are_shown_as_they_were_scored(tmp_path: Path) -> None:
    for folder, (organ, tumor), name in (("truth", (6, 7), "anna"), ("predictions", (1, 2), "anna_0000")):
        label = np.zeros((6, 6, 6), np.uint8)
        label[1:5, 1:5, 1:5], label[2, 2, 2] = organ, tumor
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / f"{name}.nii.gz", label, np.eye(4))
    maps = {"labels": "liver=6,liver_tumor=7", "prediction_labels": "lits"}
    folders = tmp_path / "truth", tmp_path / "predictions"
    evaluate_folders(*folders, tmp_path / "report", **maps, log=lambda _: None)
    layers = open_collection(str(tmp_path / "report"), NEVER).layers(0, ["truth", "prediction"])
    assert [np.unique(layers[name].data).tolist() for name in ("truth", "prediction")] == [[0, 1, 2], [0, 1, 2]]
    # A flag says otherwise, and a map that does not know the ids is named with its flag.
    other = open_collection(str(tmp_path / "report"), NEVER, prediction_labels="kidney=1,kidney_tumor=2")
    assert np.unique(other.layers(0, ["prediction"])["prediction"].data).tolist() == [0, 5, 6]
    with pytest.raises(InputError, match=r"anna.nii.gz.*--labels"):
        open_collection(str(tmp_path / "report"), NEVER, labels="lits").layers(0, ["truth"])


@pytest.mark.parametrize(
    ("file", "lost"), [("cases.parquet", "tumor"), ("cases.parquet", "found_lesions"), ("lesions.parquet", "matched")]
)
def test_an_evaluation_of_another_version_is_one_message(tmp_path: Path, file: str, lost: str) -> None:
    folder = write_evaluation(tmp_path / "report", {"data": "data"}, "anna")
    pq.write_table(pq.read_table(folder / file).drop_columns([lost]), folder / file)
    with pytest.raises(InputError, match=rf"{file}: written by another version, it lacks the columns {lost}"):
        open_collection(str(folder), NEVER).facts  # noqa: B018


def test_a_case_may_be_called_anything(tmp_path: Path) -> None:
    name = '\u60a3 "1"#?'
    label = np.zeros((4, 5, 6), np.uint8)
    for folder in ("truth", "predictions"):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / f"{name}.nii.gz", label, np.eye(4))
    context = {folder: str(tmp_path / folder) for folder in ("truth", "predictions")}
    page = client(explore_routes(open_collection(str(write_evaluation(tmp_path / "report", context, name)), NEVER)))
    kept = page.get(f"/api/sample/{quote(name)}/truth.nii.gz")
    assert (kept.status_code, quote(name) in kept.headers["content-disposition"]) == (200, True)


def test_damaged_evaluations_are_named(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "report", {}, "anna")
    with pytest.raises(InputError, match="does not say what was scored"):
        open_collection(str(folder), NEVER).layers(0, ["image"])
    (folder / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match=r"metrics.json.*evaluate"):
        open_collection(str(folder), NEVER)


def test_a_run_is_told_from_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "last.pt").touch()
    with pytest.raises(InputError, match="phantumor evaluate --run"):
        open_collection(str(tmp_path), NEVER)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("notes.txt", "neither dataset.json nor cases.parquet with metrics.json"),
        ("comparison.json", "open the folder of one of them"),
        ("bank.json", "is a bank"),
        ("study.json", "phantumor study serve"),
    ],
)
def test_a_folder_of_something_else_says_what_can_be_opened(tmp_path: Path, file: str, part: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(
        InputError, match=r"a dataset that .* or a folder that `phantumor evaluate --out` wrote.*a run"
    ) as told:
        open_collection(str(tmp_path), NEVER)
    assert part in str(told.value)
