"""The whole loop on real CT, from the command line, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bank import open_bank
from pipeline.cli import main
from pipeline.organs import organ_id


def phantumor(*words: object) -> None:
    """Run a command that must succeed."""
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def bank(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "bank"
    phantumor("prepare", shared_data / "chaos_healthy", "--spacing", 3, "--split", "train", "--out", out)
    labels = ["--labels", "totalsegmentator", "--spacing", 3]
    phantumor("prepare", shared_data / "totalseg_native", *labels, "--split", "test", "--out", out)
    return out


def test_liver_volumes_are_those_of_the_masks(bank: Path) -> None:
    records = {record.case_id: record for record in open_bank(bank).records}
    for case_id, millilitres in (("chaos_healthy", 1417), ("abdomen", 1126), ("upper", 1043)):
        assert records[case_id].stats["liver"].volume_ml == pytest.approx(millilitres, rel=0.01)


def test_dicom_and_a_mask_in_another_orientation_agree(shared_data: Path, tmp_path: Path) -> None:
    labels = ["--labels", "totalsegmentator", "--spacing", 2]
    phantumor("prepare", shared_data / "totalseg_contrast_slab", *labels, "--out", tmp_path / "bank")
    record = open_bank(tmp_path / "bank").records[0]
    assert record.stats["liver"].volume_ml == pytest.approx(699, rel=0.02)
    assert record.stats["liver"].mean_hu == pytest.approx(89, abs=3)
    assert record.phase == "portal_venous"


def test_real_tumors_are_refused_as_healthy(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "ircad_17_tumors"
    pair = ["--image", folder / "ct.nii.gz", "--mask", folder / "liver_tumor.nii.gz", "--labels", "lits"]
    assert main([str(word) for word in ["prepare", *pair, "--spacing", 3, "--out", tmp_path / "bank"]]) == 2
    message = capsys.readouterr().err
    assert "--allow-tumors" in message
    assert not (tmp_path / "bank").exists()


@pytest.mark.slow
def test_from_healthy_scans_to_an_evaluated_model(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, report = tmp_path / "data", tmp_path / "run", tmp_path / "report"
    shape = ["--patch-shape", 48, 48, 32, "--shard-samples", 8, "--split-share.test", 0.4]
    phantumor("generate", "--bank", bank, "--out", data, "--samples", 32, *shape, "--workers", 2)
    capsys.readouterr()
    phantumor("inspect", data, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary["samples"] == 32
    assert set(summary["cases"]) == {"chaos_healthy", "abdomen", "upper"}
    assert summary["tumors"] > 10
    phantumor("train", "--data", data, "--out", run, "--steps", 30, "--log-every", 10)
    phantumor("evaluate", "--run", run, "--data", data, "--out", report)
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["counts"]["samples"] == summary["splits"]["test"]
    assert metrics["classes"]["liver"]["dice"]["n"] > 0
    assert (report / "report.html").stat().st_size > 10_000


def test_tumors_on_real_scans_stay_in_the_liver(bank: Path) -> None:
    import numpy as np

    from pipeline.case import AIR_HU
    from pipeline.config import GenerateConfig
    from pipeline.grid import crop
    from pipeline.spec import draw_sample
    from pipeline.synthesis import render

    opened = open_bank(bank)
    config = GenerateConfig(patch_shape=(48, 48, 32), healthy_share=0, body_share=0, without=("mass_effect",))
    made = 0
    for index in range(20):
        spec = draw_sample(opened, config, index)
        case = opened.load(spec.case_id)
        rendered = render(case, spec)
        changed = rendered.image != crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU)
        organs = crop(case.organs, spec.origin_vox, spec.patch_shape, 0)
        assert np.all(organs[changed] == organ_id("liver"))
        made += len(rendered.instances)
    assert made > 20
