"""The command line as a user types it: what it prints, where it writes, how it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline import __version__
from pipeline.cli import main
from pipeline.organs import tumor_id
from pipeline.volume import write_nifti
from tests.cases import make_bank, make_case
from tests.command import run

SMALL = ["--samples", "14", "--patch-shape", "24", "24", "16", "--shard-samples", "5"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank, a dataset and a run, each made by its command."""
    home = tmp_path_factory.mktemp("home")
    make_bank(home / "bank")
    assert main(["generate", "--bank", str(home / "bank"), "--out", str(home / "data"), *SMALL]) == 0
    steps = ["--steps", "12", "--log-every", "4", "--validate-every", "6", "--network.channels", "4", "8", "16"]
    train = ["train", "--data", str(home / "data"), "--out", str(home / "run"), *steps, "--network.strides", "2", "2"]
    assert main([*train, "--threads", "1"]) == 0
    write_case(home / "ct" / "anna")
    return home


def write_case(folder: Path, seed: int = 0) -> Path:
    """A tiny case as files: ct.nii.gz and liver.nii.gz."""
    case = make_case(folder.name, seed)
    folder.mkdir(parents=True)
    write_nifti(folder / "ct.nii.gz", case.ct, case.affine)
    write_nifti(folder / "liver.nii.gz", (case.organs == 1).astype(np.uint8), case.affine)
    return folder


def test_a_run_resumes_with_its_own_settings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", home / "data", "--out", home / "run", "--resume"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert out.startswith("resuming at step 12 of 12 steps")
    assert run(capsys, *words, "--lr", "0.5")[0] == 2


# ---- help ----


@pytest.mark.parametrize(
    "verb",
    "demo prepare preview gallery generate status inspect verify export realism train predict evaluate".split(),
)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"phantumor {verb}" in out
    assert "Example" in out


@pytest.mark.parametrize("verb", ["preview", "generate"])
def test_help_lists_the_engines(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, verb, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert "[choices: ellipsoid, growth]" in text


def test_version_and_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[1].strip() == __version__
    overview = run(capsys, "--help")[1]
    assert "not for clinical use" in overview


# ---- verbs ----


def test_prepare_fills_a_bank_source_by_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [write_case(tmp_path / "cases" / name, seed) for seed, name in enumerate(["anna", "bert"])]
    code, out, _ = run(capsys, "prepare", *sources, "--spacing", 3, "--out", tmp_path / "bank")
    assert (code, out) == (0, f"{tmp_path / 'bank'}: 2 cases at 3 mm\n")
    more = write_case(tmp_path / "carl", 2)
    assert run(capsys, "prepare", more, "--spacing", 3, "--out", tmp_path / "bank")[1].endswith("3 cases at 3 mm\n")


@pytest.mark.parametrize("name", ["look.png", "look.nii.gz"])
def test_preview_writes_what_the_name_says(
    home: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "preview", home / "bank", "--out", tmp_path / name, "--diameter-mm", 24)
    assert code == 0, err
    files = [Path(line) for line in out.splitlines()]
    assert all(file.stat().st_size > 1000 for file in files)
    if name.endswith(".nii.gz"):
        image, healthy, label = (np.asarray(nib.load(file).dataobj) for file in files)  # type: ignore[attr-defined]
        assert (image != healthy).any()
        changed, tumor = np.argwhere(image != healthy), np.argwhere(label == tumor_id("liver"))
        apart_mm = 3 * np.linalg.norm(changed - tumor.mean(axis=0), axis=1)
        assert 12 < apart_mm.max() < 36  # the tumor's radius, and what it pushes aside


def test_inspect_prints_and_gives_json(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", home / "data", "--figures", tmp_path / "figures")
    assert code == 0
    assert "14 samples of 24x24x16 voxels at 3 mm, complete" in out
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["contrast.png", "diameter.png", "samples.png"]
    document = json.loads(run(capsys, "inspect", home / "data", "--json")[1])
    assert document["samples"] == 14
    some = json.loads(run(capsys, "inspect", home / "data", "--json", "--where", "n_tumors > 0")[1])
    assert some["samples"] == 14 - document["healthy_samples"]


def test_inspect_shows_one_sample(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_index = json.loads(run(capsys, "inspect", home / "data", "--sample", 3, "--json")[1])
    by_id = json.loads(run(capsys, "inspect", home / "data", "--sample", "s000000003", "--json")[1])
    assert by_index == by_id
    assert by_index["spec"]["index"] == 3


def test_status_of_a_finished_dataset(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "14 of 14 samples, 3 of 3 shards, complete" in run(capsys, "status", home / "data")[1]
    assert json.loads(run(capsys, "status", home / "data", "--json")[1])["complete"] is True


def test_generate_reads_yaml_and_flags_go_before_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "g.yaml").write_text(
        "samples: 6\npatch_shape: [16, 16, 16]\nseed: 4\ntumors:\n  liver: {diameter_mm: [8, 12], kinds: {hcc: 1}}\n"
    )
    words = ["generate", "--bank", home / "bank", "--out", tmp_path / "data", "--config", tmp_path / "g.yaml"]
    code, out, err = run(capsys, *words, "--samples", 4, "--json")
    assert code == 0, err
    assert json.loads(out)["made"] == 4
    info = json.loads((tmp_path / "data/dataset.json").read_text())["config"]
    assert (info["samples"], info["seed"], info["patch_shape"]) == (4, 4, [16, 16, 16])
    assert info["tumors"]["liver"] == {
        "kinds": {"hcc": 1.0},
        "count": None,
        "diameter_mm": [8.0, 12.0],
        "contrast_hu": None,
    }


def test_predict_writes_the_inputs_grid(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = write_case(tmp_path / "ct" / "anna")
    code, _, err = run(capsys, "predict", home / "run", "--images", tmp_path / "ct", "--out", tmp_path / "out")
    assert code == 0, err
    made, given = nib.load(tmp_path / "out/anna.nii.gz"), nib.load(case / "ct.nii.gz")  # type: ignore[attr-defined]
    assert made.shape == given.shape
    assert np.allclose(made.affine, given.affine)


def test_evaluate_a_run_on_a_dataset(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--run", home / "run", "--data", home / "data", "--split", "all", "--out", tmp_path / "report"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert len(out.splitlines()) == 5
    assert {"report.html", "metrics.json"} <= {path.name for path in (tmp_path / "report").iterdir()}
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["counts"]["samples"] == 14


def test_evaluate_a_run_on_real_cases(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path / "cases" / "anna")
    words = ["evaluate", "--run", home / "run", "--data", tmp_path / "cases", "--out", tmp_path / "report", "--json"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert set(json.loads(out)["classes"]) == {"liver"}  # nobody looked for tumors in anna
    assert "anna" in err
    assert "--healthy" in err
    metrics = json.loads(run(capsys, *words, "--healthy")[1])
    assert metrics["counts"]["healthy_samples"] == 1
    assert set(metrics["classes"]) == {"liver", "liver_tumor"}
    assert (tmp_path / "report/predictions/anna.nii.gz").exists()


def test_evaluate_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[4:16, 4:16, 4:16] = 1
    truth[8:12, 8:12, 8:12] = 2
    guess = np.where(truth == 2, 1, truth).astype(np.uint8)
    guess[8:12, 8:12, 8:10] = 2
    for folder, labels in (("truth", truth), ("predictions", guess)):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "a.nii.gz", labels, np.diag([2.0, 2.0, 2.0, 1.0]))
    folders = ["--truth", tmp_path / "truth", "--predictions", tmp_path / "predictions"]
    code, out, err = run(capsys, "evaluate", *folders, "--out", tmp_path / "report", "--json")
    assert code == 0, err
    classes = json.loads(out)["classes"]
    assert classes["liver_tumor"]["dice"]["mean"] == pytest.approx(2 / 3)
    assert classes["liver"]["dice"]["mean"] == pytest.approx(1)


# ---- refusals ----


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "--bank", "BANK", "--out", "NEW", "--samples", "0"], ["samples", "greater than or equal to 1"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--sampels", "3"], ["--sampels", "--samples"]),
        (["export", "DATA", "--format", "nifti", "--out", "s3://bucket/x"], ["s3://bucket/x", "on a disk"]),
        (["train", "--data", "DATA", "--out", "s3://bucket/x"], ["s3://bucket/x", "on a disk"]),
        (["inspect", "DATA", "--figures", "s3://bucket/x"], ["s3://bucket/x", "on a disk"]),
        (["inspect", "s3:/bucket/x"], ["two slashes"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--patch-shape", "24", "24"], ["patch_shape", "three"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--patch-shape", "4", "24", "24"], ["patch_shape.0", "8"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--organs", "brain"], ["brain", "liver"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--organs", "kidney"], ["no case has a usable kidney", "BANK"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--workers", "0"], ["--workers", "1"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--device", "tpu"], ["--device", "tpu"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--engine", "cube"], ["cube", "ellipsoid", "growth"]),
        (["generate", "--bank", "BANK", "--out", "NEW", "--config", "missing.yaml"], ["missing.yaml", "No such file"]),
        (
            ["generate", "--bank", "BANK", "--out", "NEW", *SMALL, "--ray", "127.0.0.1:9"],
            ["--ray 127.0.0.1:9", "local"],
        ),
        (["generate", "--bank", "NEW", "--out", "NEW2"], ["NEW", "no such bank", "phantumor prepare"]),
        (["generate", "--bank", "BANK", "--out", "DATA", *SMALL, "--seed", "9"], ["config.seed: 0 -> 9", "--out"]),
        (["generate", "--bank", "BANK"], ["--out"]),
        (["generate", "stray", "--bank", "BANK", "--out", "NEW"], ["stray"]),
        (["genrate"], ["genrate", "generate"]),
        (["preview", "BANK", "--out", "NEW/a.jpg"], ["a.jpg", ".png"]),
        (["preview", "BANK", "--out", "NEW/a.png", "--kind", "glioma"], ["glioma", "metastasis"]),
        (["preview", "BANK", "--out", "NEW/a.png", "--engine", "cube"], ["cube", "ellipsoid", "growth"]),
        (["preview", "BANK", "--out", "NEW/a.png", "--engine", "wall"], ["wall", "ellipsoid", "growth"]),
        (["preview", "BANK", "--out", "NEW/a.png", "--diameter-mm", "-3"], ["--diameter-mm"]),
        (["preview", "BANK", "--out", "NEW/a.png", "--diameter-mm", "300"], ["300", "holds", "patch"]),
        (["preview", "BANK", "--out", "NEW/a.png", "--organ", "toe"], ["toe", "liver"]),
        (["inspect", "NEW"], ["NEW", "not a phantumor dataset"]),
        (["inspect", "DATA", "--where", "size > 3"], ["size", "diameter_mm"]),
        (["inspect", "DATA", "--sample", "99"], ["99", "14 samples"]),
        (["inspect", "DATA", "--sample", "first"], ["first", "index"]),
        (["status", "BANK"], ["not a phantumor dataset"]),
        (["train", "--data", "DATA", "--out", "RUN"], ["RUN", "--resume"]),
        (["train", "--data", "DATA", "--out", "NEW", "--resume"], ["NEW", "checkpoint"]),
        (["train", "--data", "BANK", "--out", "NEW"], ["not a phantumor dataset"]),
        (["train", "--data", "DATA", "--out", "NEW", "--crop-shape", "17", "24", "16"], ["17", "16"]),
        (["predict", "NEW", "--images", "CT", "--out", "NEW2"], ["NEW"]),
        (["predict", "RUN", "--images", "NEW", "--out", "NEW2"], ["NEW", "images"]),
        (["evaluate", "--run", "RUN", "--out", "NEW"], ["--data", "--truth"]),
        (["evaluate", "--run", "RUN", "--data", "NEW", "--out", "NEW2"], ["NEW"]),
        (["evaluate", "--truth", "NEW", "--predictions", "NEW", "--out", "NEW2"], ["NEW"]),
        (["prepare", "NEW", "--out", "NEW2"], ["NEW"]),
        (["prepare", "--out", "NEW2"], ["SOURCE"]),
        (["prepare", "BANK", "--out", "NEW2", "--labels", "nonsense"], ["nonsense", "totalsegmentator"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_bad_input_gets_one_message_and_exit_code_2(
    home: Path, tmp_path: Path, words: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"BANK": home / "bank", "DATA": home / "data", "RUN": home / "run", "CT": home / "ct"}
    new = {
        "NEW": tmp_path / "new",
        "NEW2": tmp_path / "new2",
        "NEW/a.png": tmp_path / "a.png",
        "NEW/a.jpg": tmp_path / "a.jpg",
    }
    places |= new
    code, out, err = run(capsys, *[places.get(word, word) for word in words])
    assert code == 2, (code, out, err)
    assert "Traceback" not in err
    text = " ".join(err.split())
    for word in says:
        assert str(places.get(word, word)) in text
    assert not any(path.exists() for path in new.values())


def test_no_write_permission_is_one_message(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(capsys, "generate", "--bank", home / "bank", "--out", tmp_path / "file" / "data", *SMALL)
    assert code in (1, 2)
    assert "Traceback" not in err
    assert str(tmp_path / "file") in err


def test_a_truncated_shard_stops_training_with_its_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["generate", "--bank", str(home / "bank"), "--out", str(tmp_path / "data"), *SMALL])
    for part in (tmp_path / "data/shards").glob("*/image/c/0/0/0/0"):
        os.truncate(part, 100)
    code, _, err = run(capsys, "train", "--data", tmp_path / "data", "--out", tmp_path / "run", "--steps", 4)
    assert code == 2
    assert "broken shard 00000" in err
    assert "phantumor verify" in err


def test_a_wrong_checkpoint_is_named(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/best.pt").write_bytes(b"not a checkpoint")
    words = ["evaluate", "--run", tmp_path / "run", "--data", home / "data", "--out", tmp_path / "report"]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "best.pt" in err


def test_a_stranger_package_of_our_name_is_noticed(home: Path, tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers/__init__.py").write_text("")
    command = [sys.executable, "-c", "from pipeline.cli import main; import sys; sys.exit(main())"]
    words = ["generate", "--bank", str(home / "bank"), "--out", str(tmp_path / "data"), *SMALL]
    done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "another package" in done.stderr


def test_the_installed_command_runs() -> None:
    script = Path(sys.executable).with_name("phantumor")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == __version__
