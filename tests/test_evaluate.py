"""`phantumor evaluate` as a user types it: what can be scored, how flags change it, how two are compared."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.cli import main
from pipeline.volume import write_nifti
from tests.command import run as command
from tests.datasets import make_dataset
from tests.segmenters import LIVER, make_run, make_segmenter
from training.network import ClassTable
from training.prediction.images import nifti_by_name
from training.report import choose_examples

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seven samples, a real case, runs, and evaluations of a network that calls liver what is above 0 HU and tumor
    what is above 130 HU: it misses nothing."""
    home = tmp_path_factory.mktemp("home")
    make_dataset(home / "data", samples=7)
    write_case(home / "real" / "anna")
    for name, seed in (("run", 1), ("other", 2)):
        make_run(home / name, LIVER, seed=seed)
    segmenter = dataclasses.replace(make_segmenter((16, 16, 16)), classes=ClassTable(LIVER))

    def thresholds(runs: object, **options: Any) -> Any:
        return dataclasses.replace(segmenter, **options)

    def first(scores: Any) -> dict[str, str]:
        """One picture is enough: each takes longer than all else."""
        return dict(list(choose_examples(scores).items())[:1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.scored.choose_examples", first)
        patch.setattr("training.evaluate.load_segmenter", thresholds)
        run = ["evaluate", "--run", home / "run"]
        data = [*run, "--data", home / "data", "--split", "all"]
        assert main([*map(str, data), "--out", str(home / "scored")]) == 0
        rules = [
            "--within-organ-mm",
            "2",
            "--min-tumor-mm3",
            "60",
            "--tolerance-mm",
            "1",
            "--diameter-cuts-mm",
            "4",
            "6",
            "--no-froc",
        ]
        assert main([*map(str, data), *rules, "--limit", "3", "--out", str(home / "ruled")]) == 0
        assert main([*map(str, run), "--data", str(home / "real"), "--out", str(home / "cases")]) == 0
        gone = ["--min-tumor-mm3", "300", "--min-lesion-mm3", "40", "--mirror"]
        assert main([*map(str, run), "--data", str(home / "real"), *gone, "--out", str(home / "gone")]) == 0
    return {path.name: path for path in home.iterdir()}


def write_case(folder: Path) -> None:
    """A liver of 100 HU with tumors of 180 and 220 HU (216 and 18 mm3), and a spot of 220 HU 6 mm away."""
    hu = np.full((30, 30, 15), -1000, np.int16)
    liver = np.zeros(hu.shape, np.uint8)
    liver[4:20, 4:26, 2:13] = 1
    tumor = np.zeros_like(liver)
    tumor[7:13, 7:13, 4:7] = tumor[14:17, 18:21, 9:10] = 1
    hu[liver > 0] = 100
    hu[7:13, 7:13, 4:7], hu[14:17, 18:21, 9:10] = 180, 220
    hu[26:29, 26:29, 2:6] = 220
    folder.mkdir(parents=True)
    for name, array in (("ct", hu), ("liver", liver), ("liver_tumor", tumor)):
        write_nifti(folder / f"{name}.nii.gz", array, np.diag([1.0, 1.0, 2.0, 1.0]))


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def lesions(folder: Path, source: str = "truth") -> list[dict[str, Any]]:
    rows = pq.read_table(folder / "lesions.parquet").to_pylist()
    return [row for row in rows if row["source"] == source]


def most_false(folder: Path) -> float:
    """False candidates per scan at the lowest threshold."""
    return max(float(point["false_per_scan"]) for point in metrics(folder)["all_tumors"]["froc"]["points"])


# ---- what is scored ----


def test_samples_are_scored_with_what_the_manifest_knows(places: dict[str, Path]) -> None:
    figures = metrics(places["scored"])
    tumor = figures["all_tumors"]
    # Samples 0 to 5 have 1, 2, 1, 2, 1, 2 tumors, which all stand out.
    assert (figures["counts"]["samples"], figures["counts"]["tumors"], figures["counts"]["found_tumors"]) == (7, 9, 9)
    assert (tumor["froc"]["scans"], tumor["froc"]["mean"]) == (7, 1.0)
    assert [(row["name"], row["n"]) for row in tumor["strata"]["kind"]] == [("bright", 9)]
    assert {row["kind"] for row in lesions(places["scored"])} == {"bright"}
    contrasts = [row["contrast_hu"] for row in lesions(places["scored"])]
    assert min(contrasts) > 80
    assert all(row["score"] > 0.4 for row in lesions(places["scored"], "prediction"))


def test_real_cases_are_scored_on_their_own_grid_with_measured_contrast(places: dict[str, Path]) -> None:
    figures = metrics(places["cases"])
    assert figures["counts"]["found_tumors"] == figures["counts"]["tumors"] == 2
    assert figures["counts"]["false_tumors"] == 1
    assert figures["all_tumors"]["froc"]["scans"] == 1
    assert sorted(row["contrast_hu"] for row in lesions(places["cases"])) == pytest.approx([80, 120])
    assert "2 to 10 mm" in figures["context"]["contrast of tumors"]
    assert list(nifti_by_name(places["cases"] / "predictions")) == ["anna"]
    assert (places["cases"] / "report.html").is_file()


def test_rules_and_settings_reach_prediction_score_and_froc(places: dict[str, Path]) -> None:
    figures = metrics(places["gone"])
    assert figures["counts"]["tumors"] == 1  # the smaller is below --min-lesion-mm3
    assert figures["counts"]["predicted_tumors"] == 0
    # All of the liver has a tumor probability above the least that counts; the spot beside it is too small.
    assert [most_false(places[name]) for name in ("cases", "gone")] == [1, 0]
    context = figures["context"]
    assert (context["min tumor mm3"], context["windows"]) == ("300", "overlap 0.5, 8 flips averaged")

    figures = metrics(places["ruled"])
    assert figures["all_tumors"]["froc"] is None
    assert figures["settings"]["nsd_tolerance_mm"] == 1
    assert figures["context"]["within organ mm"] == "2"
    assert [row["from_mm"] for row in figures["all_tumors"]["lesions"]["by_diameter"]] == [0, 4, 6]
    assert figures["counts"]["samples"] == 3
    small = [row for row in lesions(places["ruled"]) if row["volume_mm3"] < 60]
    assert small
    assert not any(row["matched"] for row in small)


def test_several_runs_vote_and_are_scored_as_one(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", places["data"], "--limit", 1, "--overlap", 0, "--json"]
    runs = [places["run"], places["other"] / "best.pt"]
    code, out, err = command(capsys, "evaluate", "--run", *runs, *words, "--out", tmp_path / "both")
    assert code == 0, err
    context = json.loads(out)["context"]
    assert context["run"] == ", ".join(map(str, runs))
    assert context["windows"] == "overlap 0"
    assert context["split"] == "test"


def test_predictions_of_nnunet_are_scored_as_they_come(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ids are told by its dataset.json, those of the truth by a flag."""
    kept = nib.load(places["cases"] / "predictions" / "anna.nii.gz")
    ours = np.asarray(kept.dataobj)
    for folder, labels in (("truth", np.where(ours == 2, 7, ours)), ("predicted", ours)):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "anna.nii.gz", labels.astype(np.uint8), kept.affine)
    (tmp_path / "predicted" / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "tumor": 2}}')
    words = ["evaluate", "--truth", tmp_path / "truth", "--predictions", tmp_path / "predicted", "--json"]
    code, out, err = command(capsys, *words, "--labels", "liver=1,liver_tumor=7", "--out", tmp_path / "out")
    assert code == 0, err
    assert f"the ids in {tmp_path / 'predicted'} are those of" in err
    figures = json.loads(out)
    assert figures["classes"]["liver_tumor"]["dice"]["mean"] == 1
    assert figures["all_tumors"]["froc"] is None
    code, out, err = command(capsys, *words, "--prediction-labels", "liver=1", "--out", tmp_path / "out")
    assert code == 2
    assert "predicted/anna.nii.gz: holds the ids [2], label map 'liver=1' knows others only" in err


# ---- two against each other ----


def test_evaluations_are_compared_case_by_case(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--a", places["scored"], "--b", places["scored"], "--out", tmp_path / "out"]
    code, out, err = command(capsys, *words)
    assert code == 0, err
    assert f"note: a and b are both {places['scored']}, so nothing differs" in err
    assert out.splitlines()[0].startswith("No difference shown between a and b in ")
    assert "dice: 0.98 and 0.98, b minus a +0.00 to +0.00, p 1 (n 6)" in out
    assert "tumors found (overlap): 9 and 9 of 9, p 1" in out
    assert out.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").is_file()
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document["context"]["data of b"] == str(places["data"])
    assert {row["difference"]["mean"] for row in document["measures"] if row["measure"] == "dice"} == {0.0}


def test_runs_are_scored_before_they_are_compared(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The case of a run and a folder together; every option goes to the run's evaluation."""
    data = ["--data", places["data"], "--limit", "1", "--tolerance-mm", "1"]
    one = ["evaluate", "--run", places["run"], *data, "--out", tmp_path / "one"]
    assert command(capsys, *one)[0] == 0
    both = ["evaluate", "--a", tmp_path / "one", "--b", places["other"], *data, "--out", tmp_path / "out", "--json"]
    code, out, err = command(capsys, *both)
    assert code == 0, err
    assert json.loads(out)["pairs"]["samples"] == 1
    assert metrics(tmp_path / "out" / "b")["settings"]["nsd_tolerance_mm"] == 1
    assert not (tmp_path / "out" / "a").exists()


def test_evaluations_that_do_not_go_together_are_refused(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("old", "torn", "bare"):
        shutil.copytree(places["scored"], tmp_path / name)
    rows = pq.read_table(places["scored"] / "cases.parquet").drop_columns(["nsd_2mm"])
    pq.write_table(rows, tmp_path / "old" / "cases.parquet")
    (tmp_path / "torn" / "lesions.parquet").write_bytes(b"PAR1")
    (tmp_path / "bare" / "metrics.json").unlink()
    cases = [
        (places["ruled"], "other settings: diameter_cuts_mm [5, 10, 20] and [4.0, 6.0]"),
        (places["cases"], "evaluate both on the same samples"),
        (tmp_path / "old", "its columns differ in nsd_2mm"),
        (tmp_path / "torn", "lesions.parquet: not readable as Parquet"),
        (tmp_path / "bare", "metrics.json: not the metrics of this version"),
        (tmp_path / "nothing", "no such run or folder of an evaluation"),
        (places["run"], "no folder of an evaluation; a run takes --data"),
    ]
    for other, message in cases:
        words = ["evaluate", "--a", places["scored"], "--b", other, "--out", tmp_path / "out"]
        code, out, err = command(capsys, *words)
        assert (code, out, message in err) == (2, "", True), err
    assert not (tmp_path / "out").exists()


# ---- flags ----

_RUN, _FOLDERS, _PAIR = (
    ["--run", "run", "--data", "data"],
    ["--truth", "real", "--predictions", "real"],
    ["--a", "scored"],
)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "evaluate takes --run and --data, or --truth and --predictions, or --a and --b"),
        (["--run", "run"], "found --run"),
        (["--data", "data"], "found --data"),
        ([*_RUN, *_FOLDERS], "found --run and --data and --truth and --predictions"),
        (_PAIR, "found --a"),
        ([*_RUN, *_PAIR, "--b", "scored"], "found --run and --data and --a and --b"),
        ([*_FOLDERS, "--split", "all", "--mirror"], "--split, --mirror cannot go with --truth and --predictions"),
        ([*_FOLDERS, "--froc"], "--froc cannot go with --truth"),
        ([*_FOLDERS, "--min-tumor-mm3", "0"], "--min-tumor-mm3 cannot go with --truth"),
        ([*_RUN, "--prediction-labels", "lits"], "--prediction-labels cannot go with --run and --data"),
        ([*_PAIR, "--b", "scored", "--data", "data"], "--data cannot go with --a and --b that are scored already"),
        ([*_PAIR, "--b", "scored", "--tolerance-mm", "1"], "--tolerance-mm cannot go with --a and --b"),
        ([*_RUN, "--labels", "lits", "--healthy"], "is a dataset, for which --labels, --healthy has no meaning"),
        (["--run", "run", "--data", "real", "--split", "all"], "is a folder of real cases, for which --split"),
        ([*_RUN, "--diameter-cuts-mm", "5", "3"], "diameter_cuts_mm must be positive numbers that rise"),
        ([*_RUN, "--connectivity", "8"], "--connectivity"),
        ([*_RUN, "--overlap", "1"], "--overlap"),
        ([*_FOLDERS, "--labels", "nonsense"], "real: holds no .nii.gz or .nii file"),
        (["--run", "run", "none", "--data", "data"], "none: no such run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_flags_get_one_message(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, out, err = command(capsys, "evaluate", *(places.get(word, word) for word in words), "--out", tmp_path / "out")
    assert (code, out, says in " ".join(err.split())) == (2, "", True), err
    assert not (tmp_path / "out").exists()
