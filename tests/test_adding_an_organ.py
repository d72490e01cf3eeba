"""docs/adding-an-organ.md, followed to the letter in a copy of the packages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.organs import CLASS_IDS
from pipeline.volume import write_nifti

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding-an-organ.md"


def block(comment: str) -> str:
    """The Python block that follows an HTML comment of the page."""
    found = re.search(rf"<!-- {re.escape(comment)} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, f"the page has no block for {comment!r}"
    return found.group(1)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with the page's changes made."""
    copy = tmp_path_factory.mktemp("checkout")
    for package in ("pipeline", "workers"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    organs = copy / "pipeline" / "organs.py"
    last_line = '    TumorOrgan("colon", volume_ml=(30, 5000), mean_hu=(-60, 250), hollow=True),\n'
    text = organs.read_text()
    assert last_line in text
    organs.write_text(
        text.replace(last_line, f"{last_line}    {block('add to TUMOR_ORGAN_TABLE in pipeline/organs.py')}")
    )
    (copy / "pipeline" / "presets" / "spleen.py").write_text(block("pipeline/presets/spleen.py"))
    (copy / "pipeline" / "synthesis" / "engines" / "box.py").write_text(block("pipeline/synthesis/engines/box.py"))
    return copy


def phantumor(checkout: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def bank(checkout: Path) -> Path:
    """One patient with a spleen, prepared in the copy."""
    shape = (48, 48, 40)
    rng = np.random.default_rng(np.random.SeedSequence((1, 2)))
    at = np.stack(np.indices(shape), axis=-1) - np.array(shape) / 2
    spleen = (at**2).sum(axis=-1) < 14**2
    body = (at**2).sum(axis=-1) < 22**2
    ct = np.where(spleen, 120, np.where(body, -90, -1000)) + rng.normal(0, 10, shape)
    case = checkout / "cases" / "patient"
    case.mkdir(parents=True)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    write_nifti(case / "ct.nii.gz", np.rint(ct).astype(np.int16), affine)
    write_nifti(case / "spleen.nii.gz", spleen.astype(np.uint8), affine)

    phantumor(checkout, "prepare", "cases", "--out", "bank", "--spacing", "3", "--split", "train")
    return checkout / "bank"


@pytest.mark.usefixtures("bank")
def test_the_page_makes_spleen_tumors(checkout: Path) -> None:
    wanted = ["--organ", "spleen", "--kind", "metastasis", "--diameter-mm", "20"]
    phantumor(checkout, "preview", "bank", *wanted, "--out", "spleen.png")
    assert (checkout / "spleen.png").stat().st_size > 1000
    made = ["--organs", "spleen", "--samples", "8", "--patch-shape", "32", "32", "32", "--body-share", "0"]
    phantumor(checkout, "generate", "--bank", "bank", "--out", "data", "--healthy-share", "0", *made)
    summary = json.loads(phantumor(checkout, "inspect", "data", "--json"))
    assert summary["organs"] == {"spleen": summary["tumors"]}
    assert summary["tumors"] >= 8
    assert set(summary["kinds"]) <= {"metastasis", "cyst"}
    sample = json.loads(phantumor(checkout, "inspect", "data", "--sample", "0", "--json"))
    assert CLASS_IDS["spleen_tumor"] in sample["annotated_classes"]


@pytest.mark.usefixtures("bank")
def test_the_page_makes_an_engine(checkout: Path) -> None:
    wanted = ["--organ", "spleen", "--kind", "metastasis", "--diameter-mm", "20", "--engine", "box"]
    phantumor(checkout, "preview", "bank", *wanted, "--out", "box.png")
    assert (checkout / "box.png").stat().st_size > 1000
    assert "box, ellipsoid, growth" in " ".join(phantumor(checkout, "preview", "--help").replace("│", " ").split())
    settings = ["--organs", "spleen", "--samples", "6", "--patch-shape", "32", "32", "32", "--body-share", "0"]
    phantumor(
        checkout, "generate", "--bank", "bank", "--out", "boxes", "--healthy-share", "0", "--engine", "box", *settings
    )
    sample = json.loads(phantumor(checkout, "inspect", "boxes", "--sample", "0", "--json"))
    assert "box" in json.dumps(sample["spec"])
    (checkout / "volume.py").write_text(VOLUME)
    ran = subprocess.run([sys.executable, "volume.py"], cwd=checkout, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


# A box has the volume of the ball that it stands for, and nothing of it or its soft edge lies beyond what it says.
VOLUME = """
import numpy as np, torch
from pipeline.presets import Ellipsoidal, Uniform
from pipeline.spec.records import TumorSpec
from pipeline.synthesis.engines import registry
from pipeline.synthesis.window import Window
from pipeline.bank import open_bank
from pathlib import Path
case = open_bank(Path("bank")).load("patient")
box = registry.SOLID_ENGINES["box"]
look = Ellipsoidal(Uniform(0.6, 1.4), Uniform(0, 0), Uniform(0, 0))
for seed in range(5):
    form = box.draw_form(np.random.default_rng(seed), look, 40.0, frozenset())
    tumor = TumorSpec(instance=1, organ="spleen", kind="metastasis", center_vox=(30.2, 31.7, 29.5), diameter_mm=40.0,
                      form=form, edge_mm=4.0, contrast_hu=-40.0, key=1)
    assert TumorSpec.model_validate_json(tumor.model_dump_json()) == tumor
    window = Window((case,), np.zeros((1, 3), np.int64), (60, 60, 60), torch.device("cpu"))
    depth = box.depth_mm([tumor], window)[0].numpy()
    ball = np.pi / 6 * 40.0**3
    assert abs((depth > 0).sum() * case.spacing_mm**3 / ball - 1) < 0.04
    away = np.abs((np.argwhere(depth > -2) - tumor.center_vox) * case.spacing_mm)
    assert (away.max(axis=0) <= box.extent_mm(tumor)).all()
    assert np.sqrt((away**2).sum(axis=1)).max() <= box.reach_mm(tumor)
"""


def test_an_organ_without_presets_says_what_is_missing(checkout: Path) -> None:
    (checkout / "pipeline" / "presets" / "spleen.py").rename(checkout / "hidden.py")
    try:
        code = "from pipeline.presets import preset_of; preset_of('spleen')"
        ran = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False)
    finally:
        (checkout / "hidden.py").rename(checkout / "pipeline" / "presets" / "spleen.py")
    assert "add pipeline/presets/spleen.py" in ran.stderr
