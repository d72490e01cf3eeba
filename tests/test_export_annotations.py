"""Exported annotations: what other tools read is what was annotated, in the right place, in whole folders or none."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from pipeline.annotations.export import export as door
from pipeline.annotations.export.export import KINDS, ExportedKind, export_annotations
from pipeline.annotations.findings import Finding
from pipeline.annotations.records import SampleAnnotation, TumorAnnotation
from pipeline.annotations.settings import AnnotationSettings
from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.files import Replacement
from tests.command import run
from tests.damage import edit_json, rewrite_part
from tests.datasets import make_dataset

SAMPLES = 7  # of the splits train train train val test train train; the last has no tumor
SPLITS = {"train": 5, "val": 1, "test": 1}
TUMORS = 9
SPACING_MM = 0.7
# Turned by 30 degrees about z, 0.7 mm voxels, somewhere in the body.
AFFINE = np.array([[0.606218, -0.35, 0, -120.5], [0.35, 0.606218, 0, 33.25], [0, 0, 0.7, -800], [0, 0, 0, 1]])
NNUNET = "Dataset501_Scribbles"
FILES = {"box": "boxes.json", "recist": "recist.csv", "tag": "tags.csv", "report": "reports.jsonl", "scribble": NNUNET}


class HandMade:
    """Annotations that need no label to be derived from."""

    def __init__(self, dataset: Dataset) -> None:
        self.settings = AnnotationSettings(seed=3)
        self._dataset = dataset

    def of(self, index: int) -> SampleAnnotation:
        row, label = self._dataset.row(index), self._dataset.sample(index).label
        findings = tuple(Finding("liver", "segment 7", 1, (12.0, 8.0), "hypo") for _ in row["tumors"])
        return SampleAnnotation(
            index=index,
            sample_id=row["sample_id"],
            tags={"liver": bool(row["tumors"])} if index != 2 else {},
            tumors=tuple(map(hand_made, row["tumors"])),
            scribbles={number: np.flatnonzero(label == number)[::3].astype(np.int32) for number in (0, 1, 2)},
            findings=findings,
            report=f"Machine-generated.\nLiver: {len(findings)} lesions, 12 × 8 mm.\n",
        )


def hand_made(tumor: dict[str, Any]) -> TumorAnnotation:
    x, y, z, x1, y1, z1 = tumor["bbox_vox"]
    return TumorAnnotation(
        instance=tumor["instance"],
        organ=tumor["organ"],
        class_id=2,
        box_vox=(x, y, z, x1, y1, z1),
        point_vox=(x, y, z),
        long_axis_vox=(x, y, z, x1 - 1, y, z),
        short_axis_vox=(x + 1, y, z, x + 1, y1 - 1, z),
        long_mm=(x1 - x) * SPACING_MM,
        short_mm=(y1 - y) * SPACING_MM,
        height_mm=(z1 - z) * SPACING_MM,
        volume_mm3=tumor["volume_mm3"],
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place = tmp_path_factory.mktemp("annotations") / "data"
    made = make_dataset(place, samples=SAMPLES, patch_shape=(10, 11, 12), shard_samples=4)
    for shard in made.parts:
        rewrite_part(place, shard, lambda row: row.update(affine=affine_of(row["index"]).ravel().tolist()))
    return open_dataset(place)


@pytest.fixture
def annotated(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    """The dataset's annotations, as the export finds them."""
    made = HandMade(dataset)
    monkeypatch.setattr(door, "read_annotations", lambda _: made)
    return made


@pytest.fixture(scope="module")
def exported(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of everything."""
    out = tmp_path_factory.mktemp("exported") / "deep" / "annotations"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "read_annotations", lambda _: HandMade(dataset))
        export_annotations(dataset.path, out, log=quiet)
    return out


def affine_of(index: int) -> np.ndarray[Any, Any]:
    moved = AFFINE.copy()
    moved[0, 3] += index
    return moved


def quiet(_: str) -> None:
    pass


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(file: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    image: Any = nib.load(file)  # type: ignore[attr-defined]
    return np.asarray(image.dataobj), image.affine


def tumors_of(dataset: Dataset) -> list[tuple[int, TumorAnnotation]]:
    return [(index, tumor) for index in range(SAMPLES) for tumor in HandMade(dataset).of(index).tumors]


# ---- boxes ----

NUMBERS = {"type": "array", "items": {"type": "number"}}
INTEGERS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
SIZE = {"type": "integer", "minimum": 1}


def entries(**properties: object) -> dict[str, object]:
    """JSON schema of a list of objects with these keys, all of them, and no others."""
    one = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "array", "items": one}


COCO = {
    "type": "object",
    "required": ["info", "categories", "images", "annotations"],
    "additionalProperties": False,
    "properties": {
        "info": {"type": "object", "required": ["version", "bbox", "axes", "mm"]},
        "categories": entries(id=SIZE, name={"type": "string"}, supercategory={"type": "string"}),
        "images": entries(
            id={"type": "integer"},
            file_name={"type": "string", "pattern": r"^s\d{9}/image\.nii\.gz$"},
            width=SIZE,
            height=SIZE,
            depth=SIZE,
            sample_id={"type": "string"},
            index={"type": "integer"},
            split={"enum": ["train", "val", "test"]},
            case_id={"type": "string"},
            affine={"type": "array", "items": NUMBERS | {"minItems": 4, "maxItems": 4}, "minItems": 4, "maxItems": 4},
            annotated_category_ids=INTEGERS,
        ),
        "annotations": entries(
            id=SIZE,
            image_id={"type": "integer"},
            category_id=SIZE,
            instance=SIZE,
            bbox=INTEGERS | {"minItems": 6, "maxItems": 6},
            center_mm=NUMBERS | {"minItems": 3, "maxItems": 3},
            size_mm=NUMBERS | {"minItems": 3, "maxItems": 3},
            iscrowd={"const": 0},
        ),
    },
}


def test_boxes_are_those_of_the_tumors(dataset: Dataset, exported: Path) -> None:
    document = json.loads((exported / "boxes.json").read_text())
    jsonschema.validate(document, COCO)
    assert document["categories"] == [{"id": 2, "name": "liver_tumor", "supercategory": "liver"}]
    expected = tumors_of(dataset)
    assert [one["id"] for one in document["annotations"]] == list(range(1, TUMORS + 1))
    for one, (index, tumor) in zip(document["annotations"], expected, strict=True):
        assert (one["image_id"], one["category_id"], one["instance"]) == (index, 2, tumor.instance)
        low, extent = np.array(one["bbox"][:3]), np.array(one["bbox"][3:])
        assert (*low.tolist(), *(low + extent).tolist()) == tumor.box_vox


def test_boxes_lie_in_the_patient_where_the_voxels_lie(dataset: Dataset, exported: Path) -> None:
    document = json.loads((exported / "boxes.json").read_text())
    for one in document["annotations"]:
        x, y, z, *extent = one["bbox"]
        voxels = np.argwhere(np.ones(extent)) + np.array([x, y, z])
        centres = voxels @ AFFINE[:3, :3].T + affine_of(one["image_id"])[:3, 3]
        np.testing.assert_allclose(one["center_mm"], centres.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(one["size_mm"], np.array(extent) * SPACING_MM, atol=1e-3)


def test_boxes_know_their_images(dataset: Dataset, exported: Path) -> None:
    images = json.loads((exported / "boxes.json").read_text())["images"]
    assert [image["id"] for image in images] == list(range(SAMPLES))
    assert {(image["width"], image["height"], image["depth"]) for image in images} == {(10, 11, 12)}
    assert images[3]["split"] == "val"
    assert (images[1]["file_name"], images[1]["case_id"]) == ("s000000001/image.nii.gz", "case-b")
    np.testing.assert_array_equal(images[5]["affine"], affine_of(5))
    assert images[6]["annotated_category_ids"] == [2]


# ---- tables ----


def test_recist_diameters_and_their_ends(dataset: Dataset, exported: Path) -> None:
    lines = pyarrow.csv.read_csv(exported / "recist.csv").to_pylist()
    expected = tumors_of(dataset)
    assert len(lines) == TUMORS
    for line, (index, tumor) in zip(lines, expected, strict=True):
        assert (line["index"], line["sample_id"], line["instance"]) == (index, f"s{index:09d}", tumor.instance)
        assert (line["organ"], line["slice_z_vox"]) == ("liver", tumor.long_axis_vox[2])
        np.testing.assert_allclose([line["long_mm"], line["short_mm"]], [tumor.long_mm, tumor.short_mm], atol=1e-3)
        for name, ends in (("long", tumor.long_axis_vox), ("short", tumor.short_axis_vox)):
            for end, voxel in (("start", ends[:3]), ("end", ends[3:])):
                assert [line[f"{name}_{end}_{axis}_vox"] for axis in "xy"] == list(voxel[:2])
                place = [line[f"{name}_{end}_{axis}_mm"] for axis in "ras"]
                np.testing.assert_allclose(place, (affine_of(index) @ [*voxel, 1])[:3], atol=1e-3)


def test_tags_say_present_absent_or_nothing(exported: Path) -> None:
    with (exported / "tags.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["sample_id", "index", "split", "case_id", "liver"]
    assert [line["liver"] for line in lines] == ["1", "1", "", "1", "1", "1", "0"]
    assert pyarrow.csv.read_csv(exported / "tags.csv").schema.field("liver").type == pa.int64()


# ---- reports ----


def test_reports_as_text_and_with_their_structure(dataset: Dataset, exported: Path) -> None:
    lines = [json.loads(line) for line in (exported / "reports.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(SAMPLES))
    for line in lines:
        made = HandMade(dataset).of(line["index"])
        assert line["machine_generated"] is True
        assert line["report"] == made.report
        assert (exported / f"reports/{made.sample_id}.txt").read_text() == made.report
        findings = tuple(
            Finding(**{**found, "diameters_mm": tuple(found["diameters_mm"])}) for found in line["findings"]
        )
        assert findings == made.findings
    assert len(list((exported / "reports").iterdir())) == SAMPLES


# ---- scribbles ----


def test_scribbles_are_a_dataset_of_nnunet_that_ignores_the_rest(dataset: Dataset, exported: Path) -> None:
    folder = exported / NNUNET
    document = json.loads((folder / "dataset.json").read_text())
    assert document["labels"] == {"background": 0, "liver": 1, "liver_tumor": 2, "ignore": 3}
    assert (document["channel_names"], document["file_ending"], document["numTraining"]) == ({"0": "CT"}, ".nii.gz", 6)
    assert json.loads((folder / "label_mapping.json").read_text())["liver_tumor"] == {"phantumor": 2, "nnunet": 2}
    folds = json.loads((folder / "splits_final.json").read_text())
    assert folds == [{"train": [f"s{k:09d}" for k in (0, 1, 2, 5, 6)], "val": ["s000000003"]}]
    for index in range(SAMPLES):
        ending, name = ("Ts" if index == 4 else "Tr"), f"s{index:09d}"
        image, affine = load(folder / f"images{ending}/{name}_0000.nii.gz")
        np.testing.assert_array_equal(image, dataset.sample(index).image)
        np.testing.assert_allclose(affine, affine_of(index), atol=1e-4)
        label, affine = load(folder / f"labels{ending}/{name}.nii.gz")
        np.testing.assert_allclose(affine, affine_of(index), atol=1e-4)
        expected = np.full(label.size, 3, np.uint8)
        for number, voxels in HandMade(dataset).of(index).scribbles.items():
            expected[voxels] = number
        np.testing.assert_array_equal(label, expected.reshape(label.shape))


def test_scribbles_of_any_organ_have_ids_without_gaps(
    annotated: HandMade, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    classes = {"background": 0, "kidney": 5, "kidney_tumor": 6}
    edit_json(data / "dataset.json", lambda document: document.update(classes=classes))
    drawn = {number: np.array([place], np.int32) for place, number in enumerate(classes.values())}
    made = dataclasses.replace(annotated.of(0), scribbles=drawn)
    monkeypatch.setattr(annotated, "of", lambda _: made)
    export_annotations(data, tmp_path / "out", ["scribble"], where="index = 0", log=quiet)
    label, _ = load(tmp_path / "out" / NNUNET / "labelsTr/s000000000.nii.gz")
    assert label.ravel()[:4].tolist() == [0, 1, 2, 3]
    labels = json.loads((tmp_path / "out" / NNUNET / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "kidney": 1, "kidney_tumor": 2, "ignore": 3}


@pytest.mark.parametrize(("number", "voxel"), [(2, 10 * 11 * 12), (2, -1), (4, 0)])
def test_scribbles_that_do_not_fit_are_refused(
    annotated: HandMade, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, voxel: int
) -> None:
    wrong = dataclasses.replace(annotated.of(0), scribbles={number: np.array([voxel], np.int32)})
    monkeypatch.setattr(annotated, "of", lambda _: wrong)
    with pytest.raises(InputError, match=rf"sample 0: its scribbles of class {number} do not fit 10x11x12 voxels"):
        export_annotations(dataset.path, tmp_path / "out", ["scribble"], where="index = 0", log=quiet)
    assert list(tmp_path.iterdir()) == []


# ---- the folder ----


def test_the_same_dataset_gives_the_same_bytes(
    annotated: HandMade, dataset: Dataset, exported: Path, tmp_path: Path
) -> None:
    export_annotations(dataset.path, tmp_path / "again", log=quiet)
    assert files(tmp_path / "again") == files(exported)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_written_alone(annotated: HandMade, dataset: Dataset, tmp_path: Path, kind: ExportedKind) -> None:
    made = export_annotations(dataset.path, tmp_path / "out", [kind], where="instance = 2", log=quiet)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {FILES[kind], "annotations.json"} | ({"reports"} if kind == "report" else set())
    assert (made.samples, made.tumors) == ({"train": 2, "val": 1}, 6)


def test_it_says_what_it_is(dataset: Dataset, exported: Path) -> None:
    about = json.loads((exported / "annotations.json").read_text())
    assert about["files"] == ["boxes.json", "recist.csv", "tags.csv", "reports", "reports.jsonl", NNUNET]
    assert (about["samples"], about["tumors"], about["settings"]["seed"]) == (SPLITS, TUMORS, 3)
    assert about["source"]["config_digest"] == dataset.info.config_digest


def test_an_empty_folder_is_taken(annotated: HandMade, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_annotations(dataset.path, tmp_path / "out", ["tag"], log=quiet)
    assert (tmp_path / "out/tags.csv").exists()


def holds_something(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("precious")


@pytest.mark.parametrize(("prepare", "says"), [(holds_something, "holds something; give"), (Path.touch, "is a file")])
def test_what_is_there_stays(
    annotated: HandMade, dataset: Dataset, tmp_path: Path, prepare: Callable[[Path], None], says: str
) -> None:
    prepare(tmp_path / "out")
    before = files(tmp_path)
    with pytest.raises(InputError, match=says):
        export_annotations(dataset.path, tmp_path / "out", log=quiet)
    assert files(tmp_path) == before


@pytest.mark.parametrize("failure", [InputError("annotations.parquet: broken"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(
    annotated: HandMade,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
) -> None:
    def fails_at_five(index: int, whole: Callable[[int], SampleAnnotation] = annotated.of) -> SampleAnnotation:
        if index == 5:
            raise failure
        return whole(index)

    monkeypatch.setattr(annotated, "of", fails_at_five)
    with pytest.raises(type(failure), match=r"broken|nothing was written to .*out"):
        export_annotations(dataset.path, tmp_path / "out", ["box", "recist", "tag", "report"], log=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_up_is_one_message(
    annotated: HandMade, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: ExportedKind
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Replacement, "write", full)
    with pytest.raises(PhantumorError, match=r"No space left on device\. Free space, or give another --out"):
        export_annotations(dataset.path, tmp_path / "out", [kind], log=quiet)
    assert list(tmp_path.iterdir()) == []


def test_no_sample_is_no_export(annotated: HandMade, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sample to export meets --where 'n_tumors > 7'"):
        export_annotations(dataset.path, tmp_path / "out", where="n_tumors > 7", log=quiet)
    assert list(tmp_path.iterdir()) == []


# ---- the command ----


def test_the_command_exports_what_annotate_derived(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = shutil.copytree(dataset.path, tmp_path / "data"), tmp_path / "out"
    words = ("export-annotations", data, "--out", out, "--where", "index < 3")
    code, _, err = run(capsys, *words)
    assert (code, out.exists()) == (2, False)
    assert "has no annotations.parquet; `phantumor annotate" in err
    assert run(capsys, "annotate", data)[0] == 0
    code, printed, err = run(capsys, *words)
    assert code == 0, err
    assert printed.startswith(f"{out}: 3 samples, 4 tumors; boxes.json, recist.csv, tags.csv")
    boxes = json.loads((out / "boxes.json").read_text())["annotations"]
    found = [[*box["bbox"][:3], *np.add(box["bbox"][:3], box["bbox"][3:]).tolist()] for box in boxes]
    assert found == [tumor["bbox_vox"] for index in range(3) for tumor in dataset.row(index)["tumors"]]
    for index in range(3):
        drawn = load(out / NNUNET / f"labelsTr/s{index:09d}.nii.gz")[0]
        assert set(np.unique(drawn)) == {0, 1, 2, 3}
        np.testing.assert_array_equal(drawn[drawn < 3], dataset.sample(index).label[drawn < 3])


def test_the_command_takes_kinds(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = shutil.copytree(dataset.path, tmp_path / "data"), tmp_path / "out"
    assert run(capsys, "annotate", data)[0] == 0
    code, printed, err = run(capsys, "export-annotations", data, "--kinds", "tag", "box", "--out", out, "--json")
    assert code == 0, err
    made = json.loads(printed)
    assert made == {"out": str(out), "files": ["boxes.json", "tags.csv"], "samples": SPLITS, "tumors": TUMORS}
    code, _, err = run(capsys, "export-annotations", data, "--kinds", "mask", "--out", tmp_path / "other")
    assert code == 2
    assert '"box", "recist", "tag", "report", "scribble"' in err
