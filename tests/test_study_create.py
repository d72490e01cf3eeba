"""`study create` on phantoms: real cases as files, a dataset of the generator, one study out of both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.study import design
from pipeline.study.create import Plan, create
from pipeline.study.design import Answers, read_study
from pipeline.study.sources import whole_scan
from tests.cases import SPACING_MM, make_bank, make_case
from tests.command import run
from workers.generate import generate

CENTERS = [(x, y, z) for x in (22, 30, 38) for y in (21, 31) for z in (17, 26)]  # of 4-voxel balls, 12 a case
REALS = 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """REAL: phantoms with a few dark balls each; DATA: tumors of the same size in a bank of other phantoms."""
    folder = tmp_path_factory.mktemp("inputs")
    bank = make_bank(folder / "bank", cases=3)
    config = GenerateConfig(
        samples=96,
        patch_shape=(32, 32, 32),
        shard_samples=32,
        healthy_share=0,
        body_share=0,
        tumors={"liver": {"kinds": {"metastasis": 1.0}, "count": [1, 1], "diameter_mm": [20, 26]}},
    )
    generate(bank.path, folder / "data", config, log=lambda _: None)
    for k in range(REALS):
        save_real(folder / "real" / f"case{k}", k)
    return folder


def save_real(folder: Path, k: int) -> None:
    case = make_case(f"real{k}", seed=50 + k)
    ct, organs = np.array(case.ct), np.array(case.organs)
    for number in range(len(CENTERS) // 2):
        ball = ((np.indices(ct.shape) - np.reshape(CENTERS[2 * number + k % 2], (3, 1, 1, 1))) ** 2).sum(axis=0) <= 13
        ct[ball] -= 50
        organs[ball] = 2
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(ct, case.affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(organs, case.affine), folder / "organs.nii.gz")


def words(inputs: Path, out: Path, *more: object) -> list[object]:
    return [
        "study", "create", "--real", inputs / "real", "--labels", "lits", "--synthetic", inputs / "data", "--out", out,
        "--crop-mm", 25 * SPACING_MM, *more,
    ]  # fmt: skip


def made(inputs: Path, out: Path, capsys: Any, *more: object) -> dict[str, Any]:
    code, printed, error = run(capsys, *words(inputs, out, "--json", *more))
    assert code == 0, error
    document: dict[str, Any] = json.loads(printed)
    return document


@pytest.fixture(scope="module")
def small(inputs: Path) -> Path:
    """A study of four cases and two for practice, which no test changes."""
    plan = Plan(cases=4, practice=2, crop_mm=25 * SPACING_MM)
    create(inputs / "real", inputs / "data", inputs / "small", plan, labels="lits", log=lambda _: None)
    return inputs / "small"


@pytest.mark.parametrize(("mode", "cases", "practice"), [("yes-no", 20, 2), ("2afc", 8, 2)])
def test_a_study_of_matched_lesions_that_nothing_gives_away(
    inputs: Path, tmp_path: Path, capsys: Any, mode: str, cases: int, practice: int
) -> None:
    summary = made(inputs, tmp_path / "s", capsys, "--mode", mode, "--cases", cases, "--practice", practice)
    assert all(finding["passed"] for finding in summary["leak_check"])
    study = read_study(tmp_path / "s")
    truth = Answers.model_validate_json((tmp_path / "s" / design.TRUTH).read_bytes())
    assert (len(study.trials), len(study.practice)) == (cases, practice)
    shown = [number for trial in (*study.practice, *study.trials) for number in trial.cases]
    assert len(set(shown)) == len(shown) == len(truth.cases)
    by_pair: dict[int, list[str]] = {}
    for number, one in truth.cases.items():
        by_pair.setdefault(one.pair, []).append(number)
    for real, synthetic in by_pair.values():
        assert (truth.cases[real].truth, truth.cases[synthetic].truth) == ("real", "synthetic")
        assert study.places_vox[real] == study.places_vox[synthetic]
        assert 1 / 1.25 <= truth.cases[real].diameter_mm / truth.cases[synthetic].diameter_mm <= 1.25
    names = [one.name for one in truth.cases.values() if one.truth == "synthetic"]
    assert len(set(names)) == len(names)
    for trial in study.trials:
        right = truth.trials[trial.id]
        if mode == "2afc":
            assert truth.cases[trial.cases[right == "right"]].truth == "synthetic"
        else:
            assert truth.cases[trial.cases[0]].truth == right


def test_the_truth_is_for_its_owner_only(small: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in small.iterdir()}
    assert modes[design.TRUTH] == modes[design.PRACTICE] == 0o600
    assert modes[design.MASKS] == modes[design.ANSWERS] == 0o700
    assert not any(word in (small / design.INFO).read_text() for word in ("synthetic", "real", "truth"))
    assert len(json.loads((small / design.PRACTICE).read_text())["trials"]) == 2


def test_the_same_seed_makes_the_same_study(inputs: Path, small: Path, tmp_path: Path, capsys: Any) -> None:
    for name, seed in (("b", 0), ("c", 2)):
        made(inputs, tmp_path / name, capsys, "--cases", 4, "--practice", 2, "--seed", seed)
    files = [sorted(folder.rglob("*.*")) for folder in (small, tmp_path / "b", tmp_path / "c")]
    contents = [[path.read_bytes() for path in found if path.suffix in (".json", ".nii")] for found in files]
    assert contents[0] == contents[1] != contents[2]


def test_too_few_pairs_are_said_with_the_study_that_can_be_made(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    code, _, error = run(capsys, *words(inputs, tmp_path / "s", "--cases", 100))
    assert code == 2
    assert "52 matched pairs" in error
    assert "Each lesion is used once" in error
    assert "--practice 0 makes a study" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--cases", 5), "must be even"),
        (("--organ", "spleen"), "spleen"),
        (("--organ", "kidney"), "no lesion of the kidney"),
        (("--practice", 3), "must be even"),
    ],
)
def test_what_cannot_be_made_is_refused(
    inputs: Path, tmp_path: Path, capsys: Any, more: tuple[object, ...], message: str
) -> None:
    code, _, error = run(capsys, *words(inputs, tmp_path / "s", *more))
    assert (code, message in error) == (2, True), error
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_never_written_over(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine").write_text("x")
    code, _, error = run(capsys, *words(inputs, tmp_path / "s"))
    assert (code, "exists already" in error) == (2, True)


@pytest.mark.parametrize(
    ("words", "help_of"),
    [
        (["create", "--real", "x"], "phantumor study create --help"),
        (["report"], "phantumor study report --help"),
        (["invent"], "phantumor study --help"),
    ],
)
def test_wrong_usage_points_to_the_help_of_its_verb(capsys: Any, words: list[str], help_of: str) -> None:
    code, _, error = run(capsys, "study", *words)
    assert (code, f"See `{help_of}`" in error) == (2, True), error


def test_a_study_that_is_stopped_leaves_nothing_and_says_so(
    inputs: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["pipeline.study.create"], "write_cases", stopped)
    code, _, error = run(capsys, *words(inputs, tmp_path / "s", "--cases", 4, "--practice", 0))
    assert (code, "no study was made; the same command begins again" in error) == (1, True), error
    assert "goes on from there" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_leak_stops_the_study(inputs: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(folder: Path, *rest: Any) -> None:
        write(folder, *rest)
        (folder / "cases" / "001.nii").chmod(0o644)

    module = sys.modules["pipeline.study.create"]
    write = module.write_cases
    monkeypatch.setattr(module, "write_cases", leaky)
    code, _, error = run(capsys, *words(inputs, tmp_path / "s", "--cases", 4, "--practice", 0))
    assert (code, "file mode" in error) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_is_put_back_into_its_scan(inputs: Path) -> None:
    dataset = open_dataset(inputs / "data")
    sample = dataset.sample(5)
    case = dataset.case(sample.row)
    scan = whole_scan(sample, case)
    assert scan.image.shape == case.ct.shape
    differs = np.argwhere(scan.image != case.ct)
    low = np.array(sample.row["origin_vox"])
    assert len(differs)
    assert (differs >= low).all()
    assert (differs < low + 32).all()
    assert np.count_nonzero(scan.label == 2) == sample.row["tumor_voxels"]
