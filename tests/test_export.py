"""Export: what other tools read is what the dataset holds, on the right grid; half an export never looks like one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import pipeline.export
import pipeline.volume
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.export import export
from pipeline.manifest import ManifestFile
from tests.cases import make_bank
from tests.command import run
from tests.damage import edit_json, flip, forge, rewrite_part
from tests.datasets import make_dataset
from workers.generate import generate

SHAPE = (10, 11, 12)
SAMPLES = 10  # of the splits train train train val test, again and again; the seventh has no tumor
# Turned by 30 degrees about z, 0.7 mm voxels, somewhere in the body.
AFFINE = np.array([[0.606218, -0.35, 0, -120.5], [0.35, 0.606218, 0, 33.25], [0, 0, 0.7, -800], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """With an affine of its own for each sample."""
    made = make_dataset(tmp_path_factory.mktemp("export") / "data", samples=SAMPLES, patch_shape=SHAPE, shard_samples=4)
    for shard in made.parts:
        rewrite_part(Path(made.path), shard, lambda row: row.update(affine=affine_of(row["index"]).ravel().tolist()))
    return open_dataset(made.path)


@pytest.fixture
def kidneys(dataset: Dataset, tmp_path: Path) -> Path:
    """The same dataset with the class ids 5 and 6, which nnU-Net would not take."""
    folder = Path(shutil.copytree(dataset.path, tmp_path / "kidneys"))
    classes = {"background": 0, "kidney": 5, "kidney_tumor": 6}
    edit_json(folder / "dataset.json", lambda document: document.update(classes=classes))
    for shard in dataset.parts:
        forge(folder, shard, lambda index, image, label: np.add(label, 4, out=label, where=label > 0))
        rewrite_part(folder, shard, lambda row: row.update(annotated_classes=[0, 5, 6]))
    return folder


def affine_of(index: int) -> np.ndarray[Any, Any]:
    moved = AFFINE.copy()
    moved[0, 3] += index
    return moved


def quiet(_: str) -> None:
    pass


def load(file: Path) -> tuple[np.ndarray[Any, Any], Any]:
    image: Any = nib.load(file)  # type: ignore[attr-defined]
    return np.asarray(image.dataobj), image


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def assert_sample(image_file: Path, label_file: Path, dataset: Dataset, index: int) -> None:
    sample = dataset.sample(index)
    for file, array, dtype in ((image_file, sample.image, np.int16), (label_file, sample.label, np.uint8)):
        data, image = load(file)
        assert (data.dtype, image.header.get_data_dtype()) == (dtype, dtype)
        np.testing.assert_array_equal(data, array)
        np.testing.assert_allclose(image.affine, affine_of(index), atol=1e-4)
        np.testing.assert_allclose(image.header.get_zooms(), [0.7] * 3, rtol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1


# ---- nifti ----


def test_nifti_gives_a_folder_a_sample(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "nifti"
    summary = export(dataset.path, out, "nifti", log=quiet)
    assert summary.to_json() == {
        "out": str(out),
        "format": "nifti",
        "samples": {"train": 6, "val": 2, "test": 2},
    }
    assert summary.line() == f"{out}: 10 samples as nifti (train 6, val 2, test 2)"
    names = [f"s{k:09d}/{what}.nii.gz" for k in range(SAMPLES) for what in ("image", "label")]
    assert files(out) == {*names, "dataset.json"}
    for index in range(SAMPLES):
        assert_sample(out / f"s{index:09d}/image.nii.gz", out / f"s{index:09d}/label.nii.gz", dataset, index)


def test_nifti_says_what_it_is(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset.path, tmp_path / "out", "nifti", where="n_tumors > 0", limit=3, log=quiet)
    document = json.loads((tmp_path / "out/dataset.json").read_text())
    assert document["labels"] == {"background": 0, "liver": 1, "liver_tumor": 2}
    assert [sample["index"] for sample in document["samples"]] == [0, 1, 2]
    assert document["samples"][1] == {"sample_id": "s000000001", "index": 1, "split": "train", "case_id": "case-b"}
    source = document["source"]
    assert (source["where"], source["limit"], source["split"]) == ("n_tumors > 0", 3, "all")
    assert source["config_digest"] == dataset.info.config_digest
    assert (source["dataset"], source["seed"], source["store"]) == (dataset.path, 0, "full")
    assert "sources" not in source


def test_nifti_keeps_our_class_ids(kidneys: Path, tmp_path: Path) -> None:
    export(kidneys, tmp_path / "out", "nifti", limit=1, log=quiet)
    assert set(np.unique(load(tmp_path / "out/s000000000/label.nii.gz")[0])) == {0, 5, 6}


# ---- nnunet ----


def test_nnunet_gives_its_folders(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "Dataset501_Tumors"
    notes: list[str] = []
    export(dataset.path, out, "nnunet", log=notes.append)
    expected = {"dataset.json", "label_mapping.json", "splits_final.json"}
    for index in range(SAMPLES):
        where, name = ("Ts" if index % 5 == 4 else "Tr"), f"s{index:09d}"
        image, label = f"images{where}/{name}_0000.nii.gz", f"labels{where}/{name}.nii.gz"
        expected |= {image, label}
        assert_sample(out / image, out / label, dataset, index)
    assert files(out) == expected
    document = json.loads((out / "dataset.json").read_text())
    assert document["channel_names"] == {"0": "CT"}
    assert document["labels"] == {"background": 0, "liver": 1, "liver_tumor": 2}
    assert document["numTraining"] == len(list((out / "imagesTr").iterdir())) == 8
    assert document["file_ending"] == ".nii.gz"
    assert len(notes) == 1
    assert "splits_final.json" in notes[0]


@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_the_kind_of_store_makes_no_difference(kind: str, tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank")
    for store in ("full", kind):
        config = GenerateConfig(samples=3, patch_shape=(24, 24, 16), shard_samples=2, seed=4, store=store)
        generate(bank.path, tmp_path / store, config, log=quiet)
        export(tmp_path / store, tmp_path / f"{store}-files", "nnunet", log=quiet)
    names = files(tmp_path / "full-files")
    assert names == files(tmp_path / f"{kind}-files")
    for name in names - {"dataset.json"}:
        assert (tmp_path / "full-files" / name).read_bytes() == (tmp_path / f"{kind}-files" / name).read_bytes()


def test_only_the_columns_it_needs_are_read(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    read = ManifestFile.columns
    monkeypatch.setattr(ManifestFile, "columns", lambda self, names: asked.update(names) or read(self, names))
    monkeypatch.setattr(ManifestFile, "row", lambda *_: pytest.fail("a row was read alone"))
    export(dataset.path, tmp_path / "out", "nifti", where="diameter_mm < 99", limit=2, log=quiet)
    assert asked.isdisjoint({"spec", "tumors", "organs"})
    assert {"affine", "image_range", "tumors.diameter_mm"} <= asked


def test_a_row_that_claims_another_shape_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    rewrite_part(folder, 0, lambda row: row.update(shape_vox=[1, 11, 12]))
    with pytest.raises(InputError, match="claims a sample of shape"):
        export(folder, tmp_path / "out", "nifti", log=quiet)


def test_nnunet_s_fold_is_our_split_by_case(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset.path, tmp_path / "out", "nnunet", log=quiet)
    folds = json.loads((tmp_path / "out/splits_final.json").read_text())
    by_split = {s: [f"s{k:09d}" for k in dataset.indices_of(s)] for s in ("train", "val")}
    assert folds == [by_split]
    of_case = dict(zip(dataset.manifest["sample_id"].to_pylist(), dataset.manifest["case_id"].to_pylist(), strict=True))
    assert not {of_case[s] for s in folds[0]["train"]} & {of_case[s] for s in folds[0]["val"]}


def test_nnunet_s_class_ids_have_no_gaps(kidneys: Path, tmp_path: Path) -> None:
    export(kidneys, tmp_path / "out", "nnunet", log=quiet)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["labels"] == {
        "background": 0,
        "kidney": 1,
        "kidney_tumor": 2,
    }
    assert json.loads((tmp_path / "out/label_mapping.json").read_text()) == {
        "background": {"phantumor": 0, "nnunet": 0},
        "kidney": {"phantumor": 5, "nnunet": 1},
        "kidney_tumor": {"phantumor": 6, "nnunet": 2},
    }
    opened = open_dataset(kidneys)
    for index in range(SAMPLES):
        where = "Ts" if index % 5 == 4 else "Tr"
        label = load(tmp_path / f"out/labels{where}/s{index:09d}.nii.gz")[0]
        np.testing.assert_array_equal(label * 5 - (label == 2) * 4, opened.sample(index).label)


@pytest.mark.parametrize(
    ("split", "training", "folders"),
    [("train", 6, ["imagesTr", "labelsTr"]), ("test", 0, ["imagesTr", "imagesTs", "labelsTr", "labelsTs"])],
)
def test_nnunet_of_one_split(dataset: Dataset, tmp_path: Path, split: Any, training: int, folders: list[str]) -> None:
    notes: list[str] = []
    export(dataset.path, tmp_path / "out", "nnunet", split=split, log=notes.append)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["numTraining"] == training
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == folders
    assert not (tmp_path / "out/splits_final.json").exists()
    assert "rename" in notes[0]
    assert "mixes those of one case" in notes[1]


# ---- what is chosen ----


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, list(range(10))),
        ({"split": "train"}, [0, 1, 2, 5, 6, 7]),
        ({"split": "val"}, [3, 8]),
        ({"limit": 4}, [0, 1, 2, 3]),
        ({"limit": 99}, list(range(10))),
        ({"split": "train", "limit": 4}, [0, 1, 2, 5]),
        ({"where": "n_tumors = 0"}, [6]),
        ({"where": "instance = 2"}, [1, 3, 5, 7, 9]),
        ({"where": "instance = 2", "split": "train", "limit": 2}, [1, 5]),
    ],
)
def test_where_split_and_limit(dataset: Dataset, tmp_path: Path, choice: dict[str, Any], expected: list[int]) -> None:
    export(dataset.path, tmp_path / "out", "nifti", **choice, log=quiet)
    assert sorted(int(path.name[1:]) for path in (tmp_path / "out").iterdir() if path.is_dir()) == expected


def test_a_growing_dataset_gives_what_is_committed(dataset: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    (folder / "manifest.parquet").unlink()
    (folder / "manifest/000001.parquet").unlink()
    assert sum(export(folder, tmp_path / "out", "nifti", log=quiet).samples.values()) == 6


def test_cases_without_an_annotation_are_noted(dataset: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    rewrite_part(folder, 1, lambda row: row.update(annotated_classes=[0, 1]))
    notes: list[str] = []
    export(folder, tmp_path / "out", "nifti", log=notes.append)
    assert notes == ["note: 4 samples are from cases without annotation of liver_tumor: there it is background"]


# ---- refusals ----


def full_folder(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("precious")


def half_export(out: Path) -> None:
    (out / "imagesTr").mkdir(parents=True)


def earlier_export(out: Path) -> None:
    out.mkdir()
    (out / "dataset.json").write_text("{}")


def a_file(out: Path) -> None:
    out.write_text("precious")


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (full_folder, "the folder holds something"),
        (half_export, "without dataset.json: perhaps an export that was cut off"),
        (earlier_export, "the folder holds something; give"),
        (a_file, "is a file"),
    ],
)
def test_a_folder_that_is_not_empty_is_refused(dataset: Dataset, tmp_path: Path, prepare: Any, says: str) -> None:
    out = tmp_path / "out"
    prepare(out)
    before = files(out)
    with pytest.raises(InputError, match=says):
        export(dataset.path, out, "nifti", log=quiet)
    assert files(out) == before


def test_an_empty_folder_is_taken(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(dataset.path, tmp_path / "out", "nifti", limit=1, log=quiet)
    assert (tmp_path / "out/dataset.json").exists()


def test_a_broken_shard_leaves_no_dataset_json(dataset: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    flip(next((folder / "shards").glob("000001-*/image/c/0/0/0/0")), 100)
    with pytest.raises(InputError, match="broken shard 000001"):
        export(folder, tmp_path / "out", "nnunet", log=quiet)
    assert not (tmp_path / "out/dataset.json").exists()
    with pytest.raises(InputError, match="cut off"):
        export(folder, tmp_path / "out", "nnunet", log=quiet)


def test_labels_that_are_no_class_are_refused(kidneys: Path, tmp_path: Path) -> None:
    forge(kidneys, 0, lambda index, image, label: label.fill(9), attempt="e0" * 6)
    with pytest.raises(InputError, match=r"sample 0: label ids \[9\] are no classes of the dataset"):
        export(kidneys, tmp_path / "out", "nnunet", log=quiet)


def test_a_disk_that_fills_up_is_one_message(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline.volume, "replace_file", full)
    with pytest.raises(PhantumorError, match=r"No space left on device\. Remove .*out before you run"):
        export(dataset.path, tmp_path / "out", "nifti", log=quiet)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(pipeline.export, "replace_file", full)
    with pytest.raises(PhantumorError, match=r"cannot write to .*No space left on device\..* Remove"):
        export(dataset.path, tmp_path / "out", "nifti", log=quiet)
    assert not (tmp_path / "out/dataset.json").exists()


def test_dataset_json_comes_last(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(pipeline.export, "replace_file", lambda path, data: written.append(path.name))
    export(dataset.path, tmp_path / "out", "nnunet", log=quiet)
    assert sorted(written[:-1]) == ["label_mapping.json", "splits_final.json"]
    assert written[-1] == "dataset.json"


def test_too_small_a_disk_is_refused_before_anything_is_written(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 9_000, 1_000))
    with pytest.raises(PhantumorError, match=r"10 samples need about .*1\.0 kB free.*--limit"):
        export(dataset.path, tmp_path / "out", "nifti", log=quiet)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_no_dataset_json_and_says_so(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.export, "_write_documents", stop)
    with pytest.raises(KeyboardInterrupt, match=r"half an export, it has no dataset\.json\. Remove"):
        export(dataset.path, tmp_path / "out", "nifti", limit=1, log=quiet)
    assert files(tmp_path / "out") == {"s000000000/image.nii.gz", "s000000000/label.nii.gz"}


def test_it_loads_neither_torch_nor_ray(dataset: Dataset, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.export import export\n"
        "export(Path(sys.argv[1]), Path(sys.argv[2]), 'nnunet', limit=2)\n"
        "assert not {'torch', 'ray', 'monai', 'workers'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", script, dataset.path, tmp_path / "out"]
    subprocess.run(command, cwd=root, check=True, timeout=60, stdout=subprocess.DEVNULL)


# ---- the command ----


def test_the_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "export", "--help")
    assert code == 0
    assert "Examples: phantumor export" in out
    for flag in ("--format", "--out", "--where", "--split", "--limit", "--json"):
        assert flag in out


def test_the_command_exports(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "Dataset501_Tumors"
    words = ["export", dataset.path, "--format", "nnunet", "--out", out, "--where", "n_tumors > 0", "--limit", 5]
    code, printed, err = run(capsys, *words)
    assert (code, printed) == (0, f"{out}: 5 samples as nnunet (train 3, val 1, test 1)\n")
    assert "5/5 samples exported" in err
    code, printed, _ = run(capsys, "export", dataset.path, "--format", "nifti", "--out", tmp_path / "n", "--json")
    assert code == 0
    assert json.loads(printed)["samples"] == {"train": 6, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["DATA", "--out", "NEW"], "--format"),
        (["DATA", "--format", "dicom", "--out", "NEW"], "dicom"),
        (["DATA", "--format", "nifti"], "--out"),
        (["NEW", "--format", "nifti", "--out", "NEW"], "not a phantumor dataset"),
        (["DATA", "--format", "nifti", "--out", "DATA"], "the folder holds something"),
        (["DATA", "--format", "nifti", "--out", "NEW", "--limit", "0"], "--limit 0"),
        (["DATA", "--format", "nifti", "--out", "NEW", "--split", "all of it"], "--split"),
        (["DATA", "--format", "nifti", "--out", "NEW", "--where", "size > 3"], "size"),
        (["DATA", "--format", "nifti", "--out", "NEW", "--where", ""], "--where"),
        (["DATA", "--format", "nifti", "--out", "NEW", "--where", "n_tumors > 7"], "no sample to export meets --where"),
        (["DATA", "--format", "nifti", "--out", "NEW", "--where", "n_tumors = 0", "--split", "val"], "and --split val"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_gets_one_message_and_exit_code_2(
    dataset: Dataset, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"DATA": dataset.path, "NEW": tmp_path / "new"}
    code, out, err = run(capsys, "export", *[places.get(word, word) for word in words])
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_an_empty_dataset_has_nothing_to_export(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(Path(dataset.path) / "dataset.json", folder)
    with pytest.raises(InputError, match="no sample to export yet"):
        export(folder, tmp_path / "out", "nifti", log=quiet)
