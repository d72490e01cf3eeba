from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import prepare as module
from pipeline.bank import Bank, open_bank
from pipeline.errors import InputError, PhantumorError
from pipeline.prepare import prepare
from tests.ct_files import SPACING_MM, liver_ball, make_ct, make_organs, save, save_case, save_label_case


def run(sources: list[Path], out: Path, **settings: Any) -> tuple[Bank, list[str]]:
    lines: list[str] = []
    bank = prepare(sources, out, **({"spacing_mm": SPACING_MM, "progress": lines.append} | settings))
    return bank, lines


def splits(bank: Bank) -> dict[str, str]:
    return {record.case_id: record.split for record in bank.records}


def test_a_folder_of_cases_becomes_a_bank(tmp_path: Path) -> None:
    for name in "abc":
        save_case(tmp_path / "in" / name, shift_hu=ord(name))
    bank, lines = run([tmp_path / "in"], tmp_path / "bank")
    assert splits(bank) == {"a": "train", "b": "test", "c": "val"}
    assert len(lines) == 3
    assert lines[0].startswith("1/3 a: ")
    assert "liver 264 ml 207 HU" in lines[0]
    assert "left" in lines[0]
    assert "left" not in lines[2]
    case = bank.load("b")
    assert set(case.sources) == {"ct.nii.gz", "liver.nii.gz", "spleen.nii.gz"}
    assert len(case.voxels["liver"]) == np.count_nonzero(liver_ball())


def test_several_sources_and_a_pair_fill_one_bank(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "p.nii.gz", make_ct()), save(tmp_path / "m.nii.gz", make_organs())
    sources = [save_label_case(tmp_path / "a"), save_label_case(tmp_path / "b")]
    bank, _ = run(sources, tmp_path / "bank", image=image, mask=mask, labels="totalsegmentator")
    assert set(splits(bank)) == {"a", "b", "p"}


def test_running_again_makes_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        save_case(tmp_path / "in" / name)
    first, _ = run([tmp_path / "in"], tmp_path / "bank")
    monkeypatch.setattr(module, "read_case", None)
    again, lines = run([tmp_path / "in"], tmp_path / "bank")
    assert again.fingerprint == first.fingerprint
    assert lines == ["1/2 a: already in the bank", "2/2 b: already in the bank"]


def test_the_same_files_give_the_same_bank(tmp_path: Path) -> None:
    for name in "ab":
        save_case(tmp_path / "in" / name)
    one, _ = run([tmp_path / "in"], tmp_path / "one")
    run([tmp_path / "in" / "a"], tmp_path / "two")
    piecewise, _ = run([tmp_path / "in" / "b"], tmp_path / "two")
    assert piecewise.fingerprint == one.fingerprint


def test_later_cases_leave_the_splits_of_earlier_ones(tmp_path: Path) -> None:
    for name in "abcdefgh":
        save_case(tmp_path / "in" / name)
    first, _ = run([tmp_path / "in" / name for name in "ah"], tmp_path / "bank")
    later, lines = run([tmp_path / "in"], tmp_path / "bank")
    assert {name: splits(later)[name] for name in "ah"} == splits(first) == {"a": "train", "h": "test"}
    assert set(splits(later).values()) == {"train", "val", "test"}
    assert "b: " in lines[1]
    assert ", val; " in lines[1]  # the printed split is final


@pytest.mark.parametrize("kind", [InputError, KeyboardInterrupt])
def test_a_run_that_stops_keeps_its_whole_cases_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    for name in "abc":
        save_case(tmp_path / "in" / name)
    read = module.read_case

    def stop_at_b(source: Any, *settings: Any) -> Any:
        if source.case_id == "b":
            raise kind("stop")
        return read(source, *settings)

    monkeypatch.setattr(module, "read_case", stop_at_b)
    with pytest.raises(kind, match="stop"):
        run([tmp_path / "in"], tmp_path / "bank")
    assert set(splits(open_bank(tmp_path / "bank"))) == {"a"}
    assert [p.name for p in (tmp_path / "bank" / "cases").iterdir()] == ["a.zarr"]
    monkeypatch.undo()
    resumed, _ = run([tmp_path / "in"], tmp_path / "bank")
    assert resumed.fingerprint == run([tmp_path / "in"], tmp_path / "other")[0].fingerprint


def test_a_first_case_that_fails_leaves_no_bank(tmp_path: Path) -> None:
    save_case(tmp_path / "a")
    save(tmp_path / "a" / "liver.nii.gz", np.zeros(make_ct().shape, np.uint8))
    with pytest.raises(InputError, match=r"a: empty organ.*liver: 0 voxels"):
        run([tmp_path / "a"], tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("change", ["ct", "labels", "allow_tumors"])
def test_an_id_with_other_content_is_refused(tmp_path: Path, change: str) -> None:
    save_label_case(tmp_path / "a")
    run([tmp_path / "a"], tmp_path / "bank", labels="totalsegmentator")
    settings: dict[str, Any] = {"labels": "totalsegmentator"}
    if change == "ct":
        save(tmp_path / "a" / "ct.nii.gz", make_ct() + np.int16(1))
    else:
        settings |= {"labels": "liver=5,stomach=1"} if change == "labels" else {"allow_tumors": True}
    with pytest.raises(InputError, match="'a' that was made from other files or settings"):
        run([tmp_path / "a"], tmp_path / "bank", **settings)


def test_a_split_can_be_given_now_or_later(tmp_path: Path) -> None:
    for name in "abc":
        save_case(tmp_path / "in" / name)
    bank, _ = run([tmp_path / "in"], tmp_path / "bank", split="test")
    assert set(splits(bank).values()) == {"test"}
    bank, _ = run([tmp_path / "in" / "b"], tmp_path / "bank", split="val")
    assert splits(bank) == {"a": "test", "b": "val", "c": "test"}
    bank, _ = run([tmp_path / "in"], tmp_path / "bank")
    assert splits(bank) == {"a": "test", "b": "val", "c": "test"}


def test_a_datalist_decides_the_splits_unless_one_is_given(tmp_path: Path) -> None:
    for name in "abc":
        save_label_case(tmp_path / name)
    entries = {n: {"image": f"{n}/ct.nii.gz", "label": f"{n}/organs.nii.gz"} for n in "abc"}
    content = {"training": [entries["a"]], "validation": [entries["b"]], "test": [entries["c"]]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    bank, _ = run([tmp_path / "list.json"], tmp_path / "bank", labels="totalsegmentator")
    assert splits(bank) == {"a": "train", "b": "val", "c": "test"}
    bank, _ = run([tmp_path / "list.json"], tmp_path / "other", labels="totalsegmentator", split="train")
    assert set(splits(bank).values()) == {"train"}


def test_notes_reach_the_user(tmp_path: Path) -> None:
    save(save_case(tmp_path / "a") / "lever.nii.gz", make_organs())
    _, lines = run([tmp_path / "a"], tmp_path / "bank")
    assert lines[0] == "note: a: left out lever.nii.gz: no organ has that name"


def test_tumor_cases_need_to_be_allowed(tmp_path: Path) -> None:
    save(save_case(tmp_path / "a") / "liver_tumor.nii.gz", np.eye(28, 24)[..., None].repeat(20, 2).astype(np.uint8))
    with pytest.raises(InputError, match="healthy cases only"):
        run([tmp_path / "a"], tmp_path / "bank")
    bank, _ = run([tmp_path / "a"], tmp_path / "bank", allow_tumors=True)
    case = bank.load("a")
    assert (case.organs == 2).any()
    assert (case.organs.ravel()[case.voxels["liver"]] == 1).all()


def test_implausible_cases_need_to_be_allowed(tmp_path: Path) -> None:
    folder = save_case(tmp_path / "a", shift_hu=400)
    save(folder / "ct.nii.gz", np.where(make_ct() < 0, make_ct(), make_ct() + 400).astype(np.int16))
    with pytest.raises(InputError, match=r"liver has a mean of 510 HU.*--allow-implausible"):
        run([folder], tmp_path / "bank")
    assert run([folder], tmp_path / "bank", allow_implausible=True)[0].records


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sources": []}, "nothing to prepare"),
        ({"split": "dev"}, "--split dev: choose from auto, train, val, test"),
        ({"labels": "lever=1"}, "unknown structure"),
        ({"spacing_mm": 50.0}, "--spacing 50.0: must be"),
        ({"mask": Path("liver.nii.gz")}, "go together"),
        ({"sources": ["a", "a"]}, "2 cases have the id 'a'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    save_case(tmp_path / "a")
    sources = [tmp_path / name for name in settings.pop("sources", ["a"])]
    with pytest.raises(InputError, match=words):
        run(sources, tmp_path / "bank", **settings)
    assert not (tmp_path / "bank").exists()


def test_a_bank_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    save_case(tmp_path / "a")
    (tmp_path / "file").touch()
    with pytest.raises(PhantumorError, match=r"cannot write to .*file/bank"):
        run([tmp_path / "a"], tmp_path / "file" / "bank")


# Volumes and HU below: the README beside the data. Coarse voxels lose partial-volume edges, hence the tolerances.


def test_real_native_cases_with_a_label_map(tmp_path: Path, shared_data: Path) -> None:
    bank, _ = run([shared_data / "totalseg_native"], tmp_path / "bank", labels="totalsegmentator", spacing_mm=3.0)
    abdomen, upper = (bank.load(name) for name in ("abdomen", "upper"))
    assert abdomen.stats["liver"].volume_ml == pytest.approx(1126, abs=1)
    assert upper.stats["liver"].volume_ml == pytest.approx(1043, abs=1)
    assert upper.stats["liver"].mean_hu == pytest.approx(45, abs=2)
    assert abdomen.stats["kidney"].volume_ml == pytest.approx(193 + 137, abs=1)
    assert set(abdomen.voxels) == {"liver", "pancreas", "kidney", "colon"}
    assert {abdomen.phase, upper.phase} == {"native"}
    assert not abdomen.vessels.any()
    assert not upper.vessels.any()


def test_a_real_portal_venous_case_with_a_binary_mask(tmp_path: Path, shared_data: Path) -> None:
    bank, _ = run([shared_data / "chaos_healthy"], tmp_path / "bank", spacing_mm=3.0)
    case = bank.load("chaos_healthy")
    assert case.stats["liver"].volume_ml == pytest.approx(1417, rel=0.01)
    assert case.stats["liver"].mean_hu == pytest.approx(141, abs=5)
    assert case.phase == "portal_venous"
    assert 0.01 < np.count_nonzero(case.vessels) / len(case.voxels["liver"]) < 0.08


def test_a_real_dicom_slab_with_a_mask_in_another_axis_order(tmp_path: Path, shared_data: Path) -> None:
    bank, _ = run(
        [shared_data / "totalseg_contrast_slab"], tmp_path / "bank", labels="totalsegmentator", spacing_mm=3.0
    )
    case = bank.load("totalseg_contrast_slab")
    assert case.stats["liver"].volume_ml == pytest.approx(699, rel=0.03)  # 40 mm are 13 voxels of 3 mm
    assert case.stats["liver"].mean_hu == pytest.approx(89, abs=2)
    assert case.phase == "portal_venous"
    assert set(case.voxels) == {"liver"}
    assert set(case.sources) == {"dicom", "organs_las.nii.gz"}


def test_real_tumors_are_refused(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "ircad_17_tumors"
    files = {"image": folder / "ct.nii.gz", "mask": folder / "liver_tumor.nii.gz"}
    with pytest.raises(InputError, match="healthy cases only"):
        run([], tmp_path / "bank", **files, labels="lits")
