"""Scans of one patient in different splits: what tells of them, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import patients
from pipeline.dicom import patient_id
from pipeline.patients import note_on_patients
from pipeline.prepare import prepare
from pipeline.sources import CaseSource
from tests.ct_files import SPACING_MM, save_case
from tests.test_dicom import make_slice, save_slices


def scan(folder: Path, patient: str | None) -> CaseSource:
    save_slices(folder, [make_slice(k, **({} if patient is None else {"PatientID": patient})) for k in range(2)])
    return CaseSource(folder.name, folder)


@pytest.mark.parametrize(("written", "told"), [("P 1 ", "P 1"), ("", None), (None, None)])
def test_a_series_tells_its_patient_or_nothing(tmp_path: Path, written: str | None, told: str | None) -> None:
    assert patient_id(scan(tmp_path / "a", written).image) == told


def test_scans_of_one_patient_in_different_splits_are_named(tmp_path: Path) -> None:
    cases = [
        scan(tmp_path / name, patient) for name, patient in zip("abcde", ["P1", "P2", "P1", "P2", ""], strict=True)
    ]
    cases += [CaseSource("f", tmp_path / "f.nii.gz"), CaseSource("g", tmp_path / "g.nii.gz")]
    apart = dict.fromkeys("abcde", "train") | {"c": "test", "e": "val", "f": "val", "g": "test"}
    note = note_on_patients(cases, apart)
    assert note is not None
    assert "a (train), c (test). If" in note
    assert note_on_patients(cases, apart | {"c": "train"}) is None


def test_prepare_says_so_where_it_chose_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patients, "_patient_of", lambda case: "P1")
    for name in "ab":
        save_case(tmp_path / "in" / name, shift_hu=ord(name))
    for split, notes in (("auto", 1), ("train", 0)):
        lines: list[str] = []
        prepare([tmp_path / "in"], tmp_path / split, spacing_mm=SPACING_MM, split=split, progress=lines.append)
        assert sum("a (train), b (test)" in line for line in lines if line.startswith("note: ")) == notes
