from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS, label_map
from pipeline.sources import CaseSource, check_ids, find_cases

LABELS = label_map("totalsegmentator")


def touch(folder: Path, *names: str) -> Path:
    """Empty files, since finding opens no image; a name that ends with / is a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.touch()
    return folder


def one(path: Path, labels: Any = None) -> CaseSource:
    found = find_cases(path, None, None, labels)
    assert len(found.cases) == 1
    return found.cases[0]


def test_binary_masks_are_known_by_their_names(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "case-1",
        "ct.nii.gz",
        "liver.nii.gz",
        "kidney_left.nii",
        "segmentations/Colon.nii.gz",
        "heart.nii.gz",
    )
    case = one(folder)
    assert (case.case_id, case.image) == ("case-1", folder / "ct.nii.gz")
    assert {p.relative_to(folder).as_posix(): c for p, c in case.masks.items()} == {
        "liver.nii.gz": CLASS_IDS["liver"],
        "kidney_left.nii": CLASS_IDS["kidney"],
        "segmentations/Colon.nii.gz": CLASS_IDS["colon"],
    }


def test_names_that_nobody_knows_are_noted(tmp_path: Path) -> None:
    folder = touch(tmp_path / "case-1", "ct.nii.gz", "liver.nii.gz", "segmentations/lever.nii.gz", "heart.nii.gz")
    (note,) = find_cases(folder, None, None, None).notes
    assert "case-1" in note
    assert "segmentations/lever.nii.gz" in note
    assert "heart" not in note


@pytest.mark.parametrize(
    "name", ["organs_las.nii.gz", "labels.nii", "Segmentation.nii.gz", "mask.nii.gz", "liver.nii.gz"]
)
def test_a_label_map_is_found_beside_a_dicom_series(tmp_path: Path, name: str) -> None:
    folder = touch(tmp_path / "case-1", "dicom/", name)
    case = one(folder, LABELS)
    assert (case.image, case.label_file, case.masks) == (folder / "dicom", folder / name, {})


def test_a_named_label_map_wins_over_other_files_with_a_note(tmp_path: Path) -> None:
    folder = touch(tmp_path / "case-1", "ct.nii.gz", "organs.nii.gz", "liver.nii.gz")
    found = find_cases(folder, None, None, LABELS)
    assert found.cases[0].label_file == folder / "organs.nii.gz"
    assert "left out liver.nii.gz" in found.notes[0]


def test_of_other_files_the_one_named_after_an_organ_is_the_label_map(tmp_path: Path) -> None:
    folder = touch(tmp_path / "a", "ct.nii.gz", "liver_tumor.nii.gz", "vessels.nii.gz")
    case = one(folder, LABELS)
    assert case.label_file == folder / "liver_tumor.nii.gz"
    assert case.named_class == CLASS_IDS["liver_tumor"]


def test_several_masks_named_after_organs_stay_masks_when_a_label_map_is_given(tmp_path: Path) -> None:
    folder = touch(tmp_path / "a", "ct.nii.gz", "segmentations/liver.nii.gz", "segmentations/spleen.nii.gz")
    case = one(folder, LABELS)
    assert case.label_file is None
    assert sorted(case.masks.values()) == [CLASS_IDS["liver"], CLASS_IDS["spleen"]]


def test_a_folder_of_cases(tmp_path: Path) -> None:
    for name in ("b", "a"):
        touch(tmp_path / name, "ct.nii.gz", "liver.nii.gz")
    touch(tmp_path, "README.md", ".cache/")
    assert [c.case_id for c in find_cases(tmp_path, None, None, None).cases] == ["a", "b"]


def test_the_case_in_the_current_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "case-1", "ct.nii.gz", "liver.nii.gz")
    monkeypatch.chdir(tmp_path / "case-1")
    assert one(Path()).case_id == "case-1"


@pytest.mark.parametrize(
    ("image", "case_id"),
    [("p7.nii.gz", "p7"), ("p7/ct.nii.gz", "p7"), ("p7_0000.nii", "p7_0000"), ("p7/dicom/", "p7")],
)
def test_an_image_and_a_mask(tmp_path: Path, image: str, case_id: str) -> None:
    touch(tmp_path, image, "liver.nii.gz", "x.nii.gz")
    (case,) = find_cases(None, tmp_path / image, tmp_path / "liver.nii.gz", None).cases
    assert (case.case_id, case.masks) == (case_id, {tmp_path / "liver.nii.gz": 1})
    (case,) = find_cases(None, tmp_path / image, tmp_path / "x.nii.gz", LABELS).cases
    assert case.label_file == tmp_path / "x.nii.gz"


def datalist(folder: Path, content: Any) -> Path:
    touch(folder, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    path = folder / "datalist.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"image": f"imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} | more


@pytest.mark.parametrize(
    ("key", "split"),
    [("training", "train"), ("validation", "val"), ("val", "val"), ("test", "test"), ("testing", "test")],
)
def test_a_datalist_gives_files_ids_and_splits(tmp_path: Path, key: str, split: str) -> None:
    path = datalist(tmp_path, {"name": "x", "numTraining": 1, key: [entry("a"), entry("b", case_id="patient-9")]})
    first, second = find_cases(path, None, None, LABELS).cases
    assert (first.case_id, first.split, second.case_id) == ("a", split, "patient-9")
    assert first.image.samefile(tmp_path / "imagesTr/a.nii.gz")
    assert first.label_file is not None
    assert first.label_file.samefile(tmp_path / "labelsTr/a.nii.gz")


def test_unlabelled_test_images_are_noted(tmp_path: Path) -> None:
    path = datalist(tmp_path, {"training": [entry("a")], "test": ["imagesTs/c.nii.gz", "imagesTs/d.nii.gz"]})
    found = find_cases(path, None, None, LABELS)
    assert [c.case_id for c in found.cases] == ["a"]
    assert "left out 2 images without a label" in found.notes[0]


def test_a_datalist_of_training_only_says_so(tmp_path: Path) -> None:
    assert "split train" in find_cases(datalist(tmp_path, {"training": [entry("a")]}), None, None, LABELS).notes[0]


Make = Callable[[Path], Path]
BAD: dict[str, tuple[Make, bool, str]] = {
    "missing": (lambda p: p / "nowhere", False, "no such file or folder"),
    "file": (lambda p: touch(p, "a.nii.gz") / "a.nii.gz", False, "--image FILE --mask FILE"),
    "empty folder": (lambda p: p, False, "neither a case nor a folder of cases: it holds nothing"),
    "no ct": (lambda p: touch(p, "a/liver.nii.gz"), False, "no CT in a; a case is a folder with ct.nii.gz"),
    "one without ct": (lambda p: touch(p, "a/ct.nii.gz", "a/liver.nii.gz", "b/liver.nii.gz"), False, "no CT in b"),
    "two ct": (lambda p: touch(p, "ct.nii.gz", "dicom/", "liver.nii.gz"), False, "ct.nii.gz and dicom are both"),
    "no mask": (lambda p: touch(p, "ct.nii.gz"), False, r"no mask named after an organ .*no other NIfTI file"),
    "label map unread": (lambda p: touch(p, "ct.nii.gz", "organs.nii.gz"), False, r"found: organs.nii.gz.*--labels"),
    "no label map": (lambda p: touch(p, "ct.nii.gz"), True, "one label map per case.*found none"),
    "two label maps": (
        lambda p: touch(p, "ct.nii.gz", "organs.nii.gz", "segmentations/seg.nii.gz"),
        True,
        "found organs.nii.gz, segmentations/seg.nii.gz",
    ),
    "two candidates": (lambda p: touch(p, "ct.nii.gz", "a.nii.gz", "b.nii.gz"), True, "found a.nii.gz, b.nii.gz"),
    "case id": (lambda p: touch(p / "my case", "ct.nii.gz", "liver.nii.gz"), False, "'my case' cannot be a case id"),
    "broken json": (lambda p: datalist(p, "{"), True, "not a readable JSON file"),
    "other json": (lambda p: datalist(p, [1]), True, "not a datalist"),
    "no list": (lambda p: datalist(p, {"training": {}}), True, "not a datalist"),
    "empty list": (lambda p: datalist(p, {"training": []}), True, "not a datalist"),
    "entry": (lambda p: datalist(p, {"training": [{"image": "a"}]}), True, r"training\[0\]: needs one path as image"),
    "modalities": (lambda p: datalist(p, {"val": [{"image": ["a"], "label": "b"}]}), True, r"val\[0\]: needs one path"),
    "no file": (
        lambda p: datalist(p, {"training": [entry("a"), entry("c")]}),
        True,
        r"training\[1\].*c.nii.gz: no such",
    ),
    "unread label": (lambda p: datalist(p, {"training": [entry("a")]}), False, "no organ is called 'a'.*--labels"),
    "id in json": (lambda p: datalist(p, {"training": [entry("a", case_id="../a")]}), True, "cannot be a case id"),
}


@pytest.mark.parametrize("name", BAD)
def test_sources_without_a_case_are_refused(tmp_path: Path, name: str) -> None:
    make, with_labels, words = BAD[name]
    with pytest.raises(InputError, match=words) as caught:
        find_cases(make(tmp_path), None, None, LABELS if with_labels else None)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        ("a.nii.gz", None, "go together"),
        (None, "liver.nii.gz", "go together"),
        ("b.nii.gz", "liver.nii.gz", "b.nii.gz: no such file"),
        ("a.nii.gz", "a.nii.gz", "no organ is called 'a'"),
        ("a.nii.gz", "heart.nii.gz", "no organ is called 'heart'"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, image: str | None, mask: str | None, words: str) -> None:
    touch(tmp_path, "a.nii.gz", "liver.nii.gz", "heart.nii.gz")
    with pytest.raises(InputError, match=words):
        find_cases(None, tmp_path / image if image else None, tmp_path / mask if mask else None, None)


def test_two_cases_of_one_id_are_refused() -> None:
    cases = [CaseSource("a", Path("x/a.nii")), CaseSource("b", Path("x/b.nii")), CaseSource("a", Path("y/a.nii"))]
    with pytest.raises(InputError, match=r"2 cases have the id 'a': x/a.nii, y/a.nii"):
        check_ids(cases)
    check_ids(cases[:2])
