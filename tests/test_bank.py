from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bank import RECENT_CASES, Bank, case_folder, create_or_open_bank, next_split, open_bank
from pipeline.bank_format import arrays_of, chunk_file
from pipeline.case import Case, build_case
from pipeline.errors import InputError, PhantumorError
from tests.cases import make_abdomen
from tests.ct_files import SPACING_MM, liver_ball, make_affine, make_ct, spleen_ball

VOLUMES = ("ct", "organs", "vessels", "surface_distance_mm", "vessel_distance_mm", "noise")


@pytest.fixture(scope="module")
def case() -> Case:
    organs = (liver_ball() * 1 + spleen_ball() * 9).astype(np.uint8)
    return build_case("case-7", make_ct(), organs, make_affine(), SPACING_MM, split="val", sources={"ct.nii.gz": "ab"})


def filled(path: Path, *cases: Case, **add: Any) -> Bank:
    with create_or_open_bank(path, SPACING_MM) as bank:
        for case in cases:
            bank.add_case(case, **add)
    return open_bank(path)


def named(case: Case, *case_ids: str) -> list[Case]:
    return [replace(case, case_id=case_id) for case_id in case_ids]


def test_what_was_put_in_comes_out(tmp_path: Path, case: Case) -> None:
    bank = filled(tmp_path / "bank", case)
    loaded = bank.load("case-7")
    for name in VOLUMES:
        stored, given_ = getattr(loaded, name), getattr(case, name)
        np.testing.assert_array_equal(stored, given_)
        assert stored.dtype == given_.dtype
        assert not stored.flags.writeable
    for name in ("voxels", "parenchyma", "along"):
        stored, given_ = getattr(loaded, name), getattr(case, name)
        assert list(stored) == list(given_)
        for organ in given_:
            np.testing.assert_array_equal(stored[organ], given_[organ])
            assert stored[organ].dtype == given_[organ].dtype
    np.testing.assert_array_equal(loaded.affine, case.affine)
    for name in ("case_id", "stats", "spacing_mm", "phase", "split", "sources"):
        assert getattr(loaded, name) == getattr(case, name)


def test_every_tumor_organ_has_its_arrays(tmp_path: Path) -> None:
    case = make_abdomen()
    with create_or_open_bank(tmp_path / "bank", case.spacing_mm) as writer:
        writer.add_case(case)
    loaded = open_bank(tmp_path / "bank").load("abdomen")
    assert list(loaded.voxels) == list(loaded.parenchyma) == ["liver", "pancreas", "kidney", "colon"]
    assert list(loaded.along) == ["pancreas"]
    np.testing.assert_array_equal(loaded.along["pancreas"], case.along["pancreas"])
    group = zarr.open_group(case_folder(tmp_path / "bank", "abdomen"), mode="r")
    np.testing.assert_array_equal(group["parenchyma/colon"][...], case.parenchyma["colon"])
    np.testing.assert_array_equal(group["along/pancreas"][...], case.along["pancreas"])


def test_a_case_is_opened_once_and_the_last_ones_are_kept(tmp_path: Path, case: Case) -> None:
    ids = [f"c{k}" for k in range(RECENT_CASES + 1)]
    bank = filled(tmp_path / "bank", *named(case, *ids))
    first = bank.load("c0")
    assert bank.load("c0") is first
    for case_id in ids:
        bank.load(case_id)
    assert bank.load(ids[-1]) is bank.load(ids[-1])
    assert bank.load("c0") is not first
    assert open_bank(tmp_path / "bank").load("c1") is not bank.load("c1")


def test_a_bank_travels_without_the_cases_it_opened(tmp_path: Path, case: Case) -> None:
    bank = filled(tmp_path / "bank", case)
    bank.load("case-7")
    sent = pickle.dumps(bank)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).load("case-7").ct, case.ct)


def test_records_describe_cases_without_opening_them(tmp_path: Path, case: Case) -> None:
    bank = filled(tmp_path / "bank", *named(case, "b", "a"), recipe="r")
    shutil.rmtree(tmp_path / "bank" / "cases")
    bank = open_bank(tmp_path / "bank")
    assert [record.case_id for record in bank.records] == ["a", "b"]
    record = bank.records[0]
    assert (record.shape, record.split, record.recipe, record.phase) == (case.ct.shape, "val", "r", case.phase)
    assert record.usable_organs == ("liver",)
    assert record.stats == case.stats
    assert (bank.path, bank.spacing_mm) == (tmp_path / "bank", SPACING_MM)


def test_the_table_reads_without_us(tmp_path: Path, case: Case) -> None:
    filled(tmp_path / "bank", case)
    (row,) = pq.read_table(tmp_path / "bank" / "cases.parquet").to_pylist()
    assert row["case_id"] == "case-7"
    assert row["sources"] == [{"name": "ct.nii.gz", "sha256": "ab"}]
    assert row["organs"][0]["organ"] == "liver"
    assert row["organs"][0]["volume_ml"] == case.stats["liver"].volume_ml
    assert np.array(row["affine"]).reshape(4, 4).tolist() == case.affine.tolist()


def test_zarr_python_and_tensorstore_read_the_same_bytes(tmp_path: Path, case: Case) -> None:
    filled(tmp_path / "bank", case)
    folder = case_folder(tmp_path / "bank", "case-7")
    group = zarr.open_group(folder, mode="r")
    assert group.attrs["case_id"] == "case-7"
    for name, expected in arrays_of(case).items():
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / name)}}
        foreign = (group[name][...], tensorstore.open(spec, open=True).result().read().result())
        for found in foreign:
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    assert {"ct", "voxels"} <= set(group)


def test_the_fingerprint_follows_every_byte_and_split(tmp_path: Path, case: Case) -> None:
    a, b = named(case, "a", "b")
    brighter = replace(a, ct=a.ct + np.int16(1))
    moved = replace(a, split="test")
    prints = {
        name: filled(tmp_path / name, *cases).fingerprint
        for name, cases in {
            "ab": (a, b),
            "ba": (b, a),
            "a": (a,),
            "brighter": (brighter, b),
            "moved": (moved, b),
        }.items()
    }
    assert prints["ab"] == prints["ba"]
    assert len(set(prints.values())) == 4
    assert len(prints["ab"]) == 64


def test_a_bank_is_usable_as_a_key(tmp_path: Path, case: Case) -> None:
    """Drawing keeps per-bank tables in a cache."""
    bank = filled(tmp_path / "bank", case)
    assert {bank: 1}[bank] == 1


def test_adding_to_a_bank_keeps_what_is_there(tmp_path: Path, case: Case) -> None:
    a, b = named(case, "a", "b")
    filled(tmp_path / "bank", a)
    assert [r.case_id for r in filled(tmp_path / "bank", b).records] == ["a", "b"]


def truncate(bank: Path) -> None:
    file = chunk_file(case_folder(bank, "case-7"), "ct", 3)
    os.truncate(file, file.stat().st_size - 2)


def remove_array(bank: Path) -> None:
    chunk_file(case_folder(bank, "case-7"), "voxels/liver", 1).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, r"ct/c/0/0/0: holds 26,\d+ bytes instead of 26,\d+"),
        (remove_array, "voxels/liver/c/0: cannot be read"),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
def test_damaged_arrays_are_noticed_when_loading(
    tmp_path: Path, case: Case, damage: Callable[[Path], None], words: str, opened: bool
) -> None:
    bank = filled(tmp_path / "bank", case)
    if opened:
        bank.load("case-7")
    damage(tmp_path / "bank")
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            bank.load("case-7")


def test_flipped_bits_are_found_by_a_check(tmp_path: Path, case: Case) -> None:
    bank = filled(tmp_path / "bank", case)
    bank.check("case-7")
    file = chunk_file(case_folder(tmp_path / "bank", "case-7"), "organs", 3)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"organs/c/0/0/0: its bytes changed"):
        bank.check("case-7")


def test_an_unknown_case_is_named_with_those_that_exist(tmp_path: Path, case: Case) -> None:
    with pytest.raises(InputError, match=r"no case 'x' in this bank; it holds 1: case-7"):
        filled(tmp_path / "bank", case).load("x")


def rewrite_info(**changes: Any) -> Callable[[Path], None]:
    def rewrite(bank: Path) -> None:
        content = json.loads((bank / "bank.json").read_text()) | changes
        (bank / "bank.json").write_text(json.dumps(content))

    return rewrite


def rewrite_table(**changes: Any) -> Callable[[Path], None]:
    def rewrite(bank: Path) -> None:
        table = pq.read_table(bank / "cases.parquet")
        rows = [row | changes for row in table.to_pylist()]
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), bank / "cases.parquet")

    return rewrite


BAD_BANKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, "no such bank; make one with `phantumor prepare"),
    "no info": (lambda bank: (bank / "bank.json").unlink(), "not a bank: it has no bank.json"),
    "broken info": (lambda bank: (bank / "bank.json").write_text("{"), "no readable bank.json"),
    "other json": (lambda bank: (bank / "bank.json").write_text("[]"), "no readable bank.json"),
    "something else": (rewrite_info(format="else"), "not a bank: its bank.json is of something else"),
    "newer": (rewrite_info(format_version=99), "format version 99, this phantumor reads version 2"),
    "version 1": (rewrite_info(format_version=1), "format version 1, this phantumor reads version 2; prepare the bank"),
    "no cases": (lambda bank: (bank / "cases.parquet").unlink(), "holds no case yet"),
    "broken table": (lambda bank: (bank / "cases.parquet").write_bytes(b"PAR1"), "not a readable Parquet file"),
    "other table": (
        lambda bank: pq.write_table(pq.read_table(bank / "cases.parquet").select(["split"]), bank / "cases.parquet"),
        "damaged",
    ),
    "forged id": (rewrite_table(case_id="../../etc"), r"'../../etc' is no case id"),
    "short affine": (rewrite_table(affine=[1.0]), "damaged"),
    "missing array": (rewrite_table(arrays=[]), "the arrays of 'case-7' do not fit"),
    "other shape": (rewrite_table(shape=[1, 2, 3]), "the arrays of 'case-7' do not fit"),
}


@pytest.mark.parametrize("name", BAD_BANKS)
def test_what_is_not_a_bank_is_refused(tmp_path: Path, case: Case, name: str) -> None:
    damage, words = BAD_BANKS[name]
    filled(tmp_path / "bank", case)
    damage(tmp_path / "bank")
    with pytest.raises(InputError, match=words) as caught:
        open_bank(tmp_path / "bank")
    assert str(tmp_path / "bank") in str(caught.value)


@pytest.mark.parametrize(
    ("spacing_mm", "words"),
    [(4.0, "this bank has a spacing of 5 mm, not 4 mm"), (0.0, "must be 0.2 to 10.0 mm"), (float("nan"), "must be")],
)
def test_spacings_that_do_not_fit_are_refused(tmp_path: Path, case: Case, spacing_mm: float, words: str) -> None:
    filled(tmp_path / "bank", case)
    with pytest.raises(InputError, match=words):
        create_or_open_bank(tmp_path / "bank", spacing_mm)


def test_a_folder_with_other_things_is_not_made_a_bank(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match="exists and is not a bank"):
            create_or_open_bank(path, SPACING_MM)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("case_id", ["", "a b", "../a", ".a", "a/b", "x" * 101])
def test_case_ids_that_name_no_file_are_refused(tmp_path: Path, case: Case, case_id: str) -> None:
    with create_or_open_bank(tmp_path / "bank", SPACING_MM) as bank, pytest.raises(InputError, match="case id"):
        bank.add_case(replace(case, case_id=case_id))


def test_an_id_is_given_once(tmp_path: Path, case: Case) -> None:
    with create_or_open_bank(tmp_path / "bank", SPACING_MM) as bank:
        bank.add_case(case)
        with pytest.raises(InputError, match="holds a case 'case-7' already"):
            bank.add_case(case)


def test_one_writer_at_a_time(tmp_path: Path, case: Case) -> None:
    with create_or_open_bank(tmp_path / "bank", SPACING_MM) as bank:
        bank.add_case(case)
        with pytest.raises(InputError, match="another process is adding cases"):
            create_or_open_bank(tmp_path / "bank", SPACING_MM)
        assert open_bank(tmp_path / "bank").records
    create_or_open_bank(tmp_path / "bank", SPACING_MM).__exit__(None, None, None)


def test_a_bank_that_got_no_case_is_taken_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), create_or_open_bank(tmp_path / "new" / "bank", SPACING_MM):
        raise KeyboardInterrupt
    assert not (tmp_path / "new" / "bank").exists()


def test_what_a_killed_run_left_over_does_no_harm(tmp_path: Path, case: Case) -> None:
    a, b = named(case, "a", "b")
    filled(tmp_path / "bank", a)
    (case_folder(tmp_path / "bank", "b") / "ct").mkdir(parents=True)  # renamed, but without a row
    (tmp_path / "bank" / "cases" / ".c.123.tmp").mkdir()
    bank = filled(tmp_path / "bank", b)
    bank.check("b")
    assert sorted(p.name for p in (tmp_path / "bank" / "cases").iterdir()) == ["a.zarr", "b.zarr"]


def test_a_failing_write_leaves_nothing_of_the_case(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = named(case, "a", "b")
    filled(tmp_path / "bank", a)

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(PhantumorError, match=rf"{tmp_path / 'bank'}: No space left") as caught:
        filled(tmp_path / "bank", b)
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "bank" / "cases").iterdir()] == ["a.zarr"]
    assert [r.case_id for r in open_bank(tmp_path / "bank").records] == ["a"]


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(PhantumorError, match="the disk has 0 MB free"):
        filled(tmp_path / "bank", case)
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (10, (7, 2, 1)), (100, (70, 15, 15))],
)
def test_new_cases_are_spread_over_the_splits(count: int, expected: tuple[int, int, int]) -> None:
    splits: list[str] = []
    for _ in range(count):
        splits.append(next_split(splits))
    assert tuple(splits.count(s) for s in ("train", "val", "test")) == expected


@given(st.lists(st.sampled_from(["train", "val", "test"]), max_size=40))
def test_a_missing_split_is_filled_first(taken: list[str]) -> None:
    missing = [split for split in ("train", "test", "val") if split not in taken]
    assert next_split(taken) == missing[0] if missing else next_split(taken) in ("train", "test", "val")


def test_a_case_that_is_in_keeps_its_split(tmp_path: Path, case: Case) -> None:
    filled(tmp_path / "bank", *named(case, "a", "b"))
    filled(tmp_path / "bank", *(replace(c, split="train") for c in named(case, *(f"c{k}" for k in range(9)))))
    splits = {record.case_id: record.split for record in open_bank(tmp_path / "bank").records}
    assert (splits["a"], splits["b"]) == (case.split, case.split)


def test_what_a_killed_start_left_does_not_block_the_folder(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank/.bank.json.0123abcd.tmp").write_text("{")
    with create_or_open_bank(tmp_path / "bank", 1.0) as bank:
        assert bank.records == {}
