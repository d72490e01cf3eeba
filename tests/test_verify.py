"""Verifying: every kind of damage is found where it is, nothing else is; repair gives the same bytes again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import workers.repair
from pipeline.errors import InputError
from pipeline.manifest import SCHEMA, part_name, read_part
from pipeline.shard import FileDigest
from pipeline.store import open_store
from tests.command import run
from tests.damage import (
    CONFIG,
    SHARDS,
    assert_same,
    attempt_folder,
    copy_home,
    cut,
    edit_json,
    edit_part,
    flip,
    make_home,
    part_of,
    rewrite_part,
    rewrite_whole,
    shard_object,
    with_value,
)
from workers.findings import Finding
from workers.verify import verify

Damage = Callable[[Path], object]
IMAGE, LABEL = r"shards/000001-\w+\.zarr/image/c/0/0/0/0", r"shards/000001-\w+\.zarr/label/c/0/0/0/0"
PART, WHOLE, INFO = "manifest/000001.parquet", "manifest.parquet", "dataset.json"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def dataset(home: Path, tmp_path: Path) -> Path:
    return copy_home(home, tmp_path)


def of_part(**fields: object) -> Damage:
    return lambda d: rewrite_part(d, 1, **fields)  # type: ignore[arg-type]


def of_row(column: str, value: object) -> Damage:
    """The column of sample 5 changed in its part and in the whole manifest, both with valid checksums."""
    return lambda d: rewrite_part(d, 1, lambda row: row.update({column: value}) if row["index"] == 5 else None)


def edit_spec(row: dict[str, object]) -> None:
    row["spec"] = str(row["spec"]).replace('"seed":5', '"seed":6')


def forget_label_file(d: Path) -> None:
    rewrite_part(d, 1, files=part_of(d, 1).files[:1])


def other_sha256(d: Path) -> None:
    rewrite_part(d, 1, files=tuple(FileDigest(f.path, f.size, "0" * 64) for f in part_of(d, 1).files))


def lose_row(d: Path) -> None:
    edit_part(d, 1, lambda table: table.slice(1))


def garble_case_id(d: Path) -> None:
    """Bytes that are no text, as another program might write them."""
    garbled = pa.array([b"\xff\xfe"] * 4, pa.binary()).view(pa.string())
    edit_part(d, 1, lambda table: table.set_column(SCHEMA.get_field_index("case_id"), "case_id", garbled))


def lose_growing_part(d: Path) -> None:
    (d / WHOLE).unlink()
    flip(d / PART, 200)


# What is done; where it is found; what is said of it.
DAMAGES: dict[str, tuple[Damage, list[tuple[int | None, str, str]]]] = {
    "bit in an image": (lambda d: flip(shard_object(d, 1), 100), [(1, IMAGE, "sample 4: crc32c differs")]),
    "bit in a label": (lambda d: flip(shard_object(d, 1, "label"), 5), [(1, LABEL, "sample 4: crc32c differs")]),
    "bits in two": (
        lambda d: (flip(shard_object(d, 1), 100), flip(shard_object(d, 1), -80)),
        [(1, IMAGE, "sample 4: crc32c differs"), (1, IMAGE, "sample 7: crc32c differs")],
    ),
    "bit in an index": (lambda d: flip(shard_object(d, 1), -10), [(1, IMAGE, "index at its end fails its checksum")]),
    "bit in an index checksum": (lambda d: flip(shard_object(d, 1), -1), [(1, IMAGE, "index at its end fails")]),
    "cut image": (lambda d: cut(shard_object(d, 1)), [(1, IMAGE, r"holds [\d,]+ bytes, [\d,]+ were written")]),
    "empty label": (lambda d: os.truncate(shard_object(d, 1, "label"), 0), [(1, LABEL, "holds 0 bytes")]),
    "longer image": (lambda d: shard_object(d, 1).open("ab").write(b"x"), [(1, IMAGE, "holds")]),
    "missing image": (lambda d: shard_object(d, 1).unlink(), [(1, IMAGE, "is missing")]),
    "missing shard": (
        lambda d: shutil.rmtree(attempt_folder(d, 1)),
        [(1, r"shards/\S+zarr\.json", "is missing")] * 3 + [(1, IMAGE, "is missing"), (1, LABEL, "is missing")],
    ),
    "image of another shard": (
        lambda d: shutil.copy(shard_object(d, 0), shard_object(d, 1)),
        [(1, IMAGE, "bytes")],
    ),
    "missing metadata": (
        lambda d: (attempt_folder(d, 1) / "image/zarr.json").unlink(),
        [(1, r"shards/\S+/image/zarr\.json", "is missing")],
    ),
    "broken metadata": (
        lambda d: cut(attempt_folder(d, 1) / "zarr.json"),
        [(1, r"shards/[^/]+/zarr\.json", "is damaged")],
    ),
    "other metadata": (
        lambda d: edit_json(attempt_folder(d, 1) / "label/zarr.json", lambda j: j.update(fill_value=1)),
        [(1, r"shards/\S+/label/zarr\.json", "not the metadata")],
    ),
    "bit in a part": (lambda d: flip(d / PART, 200), [(1, PART, "is damaged")]),
    "bit in the part of a growing dataset": (lose_growing_part, [(1, PART, "is damaged")]),
    "cut part": (lambda d: cut(d / PART, 40), [(1, PART, "is damaged")]),
    "missing part": (lambda d: (d / PART).unlink(), [(1, PART, "is missing, though manifest.parquet knows")]),
    "part of another shard": (lambda d: shutil.copy(d / part_name(0), d / PART), [(1, PART, "rows of shard 0")]),
    "part of another config": (of_part(config_digest="ab" * 32), [(1, PART, "config digest abababababab, the")]),
    "part with one file": (forget_label_file, [(1, PART, "names the files image/c/0/0/0/0, not image and label")]),
    "part with other digests": (other_sha256, [(1, IMAGE, "sha256"), (1, LABEL, "sha256")]),
    "row of another sample": (of_row("index", 6), [(1, PART, r"row 1 is not of sample 5: index 6 \(not 5\)"),
                                                   (1, PART, r"sample 5: its spec is not that of its row")]),
    "row of another case": (of_row("case_id", "nobody"), [(1, PART, "sample 5: its spec is not that of its row")]),
    "part without a row": (lose_row, [(1, PART, "holds 3 rows, the shard has 4 samples")]),
    "part with garbled text": (garble_case_id, [(1, PART, "holds invalid values")]),
    "row without a split": (of_row("split", None), [(1, PART, "without a value for split")]),
    "row with other checksum": (of_row("image_crc32c", 7), [(1, IMAGE, "sample 5: its pixels do not have the crc32c")]),
    "row with other range": (of_row("label_range", [0, 9]), [(1, LABEL, "the ranges in the manifest are not")]),
    "spec of another seed": (
        lambda d: rewrite_part(d, 1, edit_spec),
        [(1, PART, rf"sample {k}: its spec is not that of its row: seed 6 \(not 5\)") for k in range(4, 8)],
    ),
    "spec that is none": (of_row("spec", "[]"), [(1, PART, "sample 5: .*no JSON object")]),
    "bit in the whole manifest": (lambda d: flip(d / WHOLE, 200), [(None, WHOLE, "is damaged")]),
    "cut whole manifest": (lambda d: cut(d / WHOLE, 9), [(None, WHOLE, "is damaged")]),
    "changed row": (
        lambda d: rewrite_whole(d, with_value("split", 5, "nowhere")),
        [(1, WHOLE, "sample 5: not the split in manifest/000001.parquet")],
    ),
    "lost row": (
        lambda d: rewrite_whole(d, lambda t: t.filter(pc.field("index") != 5)),
        [(1, WHOLE, "3 rows of this shard, 4 in manifest/000001.parquet")],
    ),
    "mixed rows": (
        lambda d: rewrite_whole(d, lambda t: t.take(list(range(9, -1, -1)))),
        [(None, WHOLE, "not in the order of shards")],
    ),
    "old provenance": (
        lambda d: rewrite_part(d, 1, whole=False, host="elsewhere"),
        [(1, WHOLE, "not the provenance in manifest/000001.parquet")],
    ),
}  # fmt: skip
LASTING: dict[str, tuple[Damage, list[tuple[int | None, str, str]]]] = {
    "another seed in dataset.json": (
        lambda d: edit_json(d / INFO, lambda j: j["config"].update(seed=6)),
        [(None, INFO, "its config does not have its config_digest")]
        + [(k // 4, f"manifest/00000{k // 4}.parquet", f"sample {k}: its spec is not that") for k in range(10)],
    ),
    "other classes": (
        lambda d: edit_json(d / INFO, lambda j: j["classes"].update(liver=3)),
        [(None, INFO, "its classes are not those of its organs")],
    ),
    "other number of shards": (
        lambda d: edit_json(d / INFO, lambda j: j.update(shards=2)),
        [(None, INFO, "it plans 2 shards, its config makes 3")],
    ),
    "a shard too many": (
        lambda d: shutil.copy(d / part_name(2), d / part_name(9)),
        [(9, part_name(9), "no such shard, the last is 2")],
    ),
}


def grow_unseen(dataset: Path, text: str) -> None:
    """`dataset.json` of before a growth, beside a shard of after it."""
    shutil.copy(dataset / part_name(2), dataset / part_name(3))
    (dataset / "growth").mkdir()
    (dataset / "growth/000001.json").write_text(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"samples": 13}', r"^dataset.json is behind growth/000001.json: run .* with --samples 13$"),
        ("{", "growth/000001.json cannot be read"),
        ('{"samples": 10}', "the dataset has no such shard, the last is 2; remove this file"),
    ],
)
def test_a_shard_of_a_growth_that_dataset_json_does_not_know_is_not_to_be_removed(
    dataset: Path, text: str, says: str
) -> None:
    grow_unseen(dataset, text)
    found = verify(dataset).findings
    assert_found(list(found), [(3, part_name(3), says)])
    assert ("remove" in found[0].what) == ("remove" in says)


def assert_found(found: list[Finding], expected: list[tuple[int | None, str, str]]) -> None:
    assert len(found) == len(expected), [finding.line() for finding in found]
    for finding, (shard, file, what) in zip(found, expected, strict=True):
        assert finding.shard == shard
        assert re.fullmatch(file, finding.file), finding
        assert re.search(what, finding.what), finding


# ---- checks ----


def test_a_whole_dataset_has_no_findings(dataset: Path) -> None:
    report = verify(dataset)
    assert report.ok
    assert (report.shards, report.planned_shards, report.samples, report.replayed) == (3, 3, 10, 0)
    assert report.lines() == []
    assert report.summary() == f"{dataset}: 10 samples in 3 of 3 shards checked: all is well"


def test_a_growing_dataset_is_checked_as_far_as_it_goes(dataset: Path) -> None:
    for name in (WHOLE, part_name(2)):
        (dataset / name).unlink()
    report = verify(dataset, repair=True)
    assert (report.ok, report.shards, report.samples) == (True, 2, 8)
    assert not (dataset / WHOLE).exists()


@pytest.mark.parametrize("kind", [*DAMAGES, *LASTING])
def test_damage_is_found_where_it_is(dataset: Path, kind: str) -> None:
    damage, expected = (DAMAGES | LASTING)[kind]
    damage(dataset)
    report = verify(dataset)
    assert not report.ok
    assert_found(list(report.findings), expected)
    assert len(report.lines()) == len(expected)
    assert (f"`phantumor verify {dataset} --repair`" in report.summary()) == (kind in DAMAGES)


def test_a_flipped_bit_anywhere_in_a_part_is_found_or_without_effect(dataset: Path) -> None:
    """The footer of a Parquet file has no checksum, so here it is the whole manifest that tells."""
    original = (dataset / PART).read_bytes()
    part, rows = read_part(open_store(dataset), 1)
    found = 0
    for position in range(7, len(original), len(original) // 50):
        flip(dataset / PART, position)
        if verify(dataset).ok:
            assert read_part(open_store(dataset), 1)[0] == part, position
            assert read_part(open_store(dataset), 1)[1].equals(rows), position
        else:
            found += 1
        (dataset / PART).write_bytes(original)
    assert found > 25


def test_a_file_out_of_reach_is_not_called_broken(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, opened = shard_object(dataset, 1), Path.open

    def refused(path: Path, *arguments: object, **named: object) -> object:
        if path == image:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refused)
    report = verify(dataset, repair=True)
    assert_found(list(report.left), [(1, IMAGE, "cannot be read: Permission denied. It may be whole")])
    assert report.repairs == []
    assert image.exists()


def test_no_dataset_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a phantumor dataset"):
        verify(tmp_path)


def test_ctrl_c_keeps_what_was_found(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(shard_object(dataset, 0), 100)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers.repair, "make_shard", stop)
    with pytest.raises(KeyboardInterrupt, match=r"1 finding so far\nshard 0: .*crc32c differs.*\n.*phantumor generate"):
        verify(dataset, repair=True)


def test_checking_loads_neither_torch_nor_ray(dataset: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from workers.verify import verify\n"
        "assert verify(Path(sys.argv[1])).ok\n"
        "assert not {'torch', 'ray', 'monai'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", script, dataset], cwd=root, check=True, timeout=60)


# ---- repair ----


@pytest.mark.parametrize("kind", DAMAGES)
def test_repair_gives_the_same_bytes_again(home: Path, dataset: Path, kind: str) -> None:
    growing = "growing" in kind
    DAMAGES[kind][0](dataset)
    report = verify(dataset, repair=True, gc=growing, gc_age_minutes=0)  # what the old part named is not known there
    assert report.findings
    assert report.ok, report.lines()
    assert verify(dataset).findings == []
    assert_same(dataset, home / "data")


def test_repair_says_what_it_did(dataset: Path) -> None:
    flip(shard_object(dataset, 0), 100)
    flip(shard_object(dataset, 2), 100)
    report = verify(dataset, repair=True)
    assert [repair.line() for repair in report.repairs] == [
        f"shard {k}: made again, the same bytes as recorded" for k in (0, 2)
    ]
    assert report.summary().endswith("2 findings, repaired: all is well now")


def test_repair_of_a_whole_dataset_changes_nothing(dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert verify(dataset, repair=True).ok
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_repair_writes_a_whole_manifest_that_is_missing(home: Path, dataset: Path) -> None:
    (dataset / WHOLE).unlink()
    report = verify(dataset, repair=True)
    assert (report.ok, report.findings) == (True, [])
    assert (dataset / WHOLE).read_bytes() == (home / "data" / WHOLE).read_bytes()


@pytest.mark.parametrize("kind", LASTING)
def test_what_repair_cannot_mend_is_left_as_it_is(dataset: Path, kind: str) -> None:
    LASTING[kind][0](dataset)
    flip(dataset / WHOLE, 200)
    before = contents(dataset)
    report = verify(dataset, repair=True)
    assert not report.ok
    if kind == "a shard too many":
        assert_found(list(report.left), [*LASTING[kind][1], (None, WHOLE, "is damaged")])
    if kind in ("a shard too many", "another seed in dataset.json"):
        assert contents(dataset) == before


def contents(dataset: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}


def test_a_shard_that_is_broken_again_is_left(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = workers.repair.make_shard

    def make_and_break(job: Any) -> None:
        make(job)
        cut(shard_object(dataset, 1))

    flip(shard_object(dataset, 1), 100)
    monkeypatch.setattr(workers.repair, "make_shard", make_and_break)
    report = verify(dataset, repair=True)
    assert_found(list(report.left), [(1, IMAGE, "holds")])
    assert len(report.lines()) == 3  # found, made again, found again


@pytest.mark.parametrize("what", ["gone", "changed", "damaged"])
def test_nothing_is_removed_when_the_bank_cannot_remake_it(dataset: Path, what: str, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    home_bank = bank.resolve()
    bank.unlink()
    if what != "gone":
        shutil.copytree(home_bank, bank)
    if what == "changed":
        from pipeline.bank import create_or_open_bank
        from tests.cases import SPACING_MM

        with create_or_open_bank(bank, SPACING_MM) as writer:
            writer.set_split("tiny_0", "test")
    if what == "damaged":
        for ct in bank.glob("cases/*/ct/c/0/0/0"):
            flip(ct, 1000)
    rewrite_part(dataset, 1, lambda row: row.update(case_id="nobody"), whole=False)  # now only the whole one is right
    before = contents(dataset)
    report = verify(dataset, repair=True)
    assert not report.ok
    assert not report.repairs[0].done
    says = {"gone": "no such bank", "changed": "another state of the bank", "damaged": "its bytes changed"}[what]
    assert says in report.repairs[0].note
    assert "8 findings left after the repair" in report.summary()
    assert contents(dataset) == before


def test_a_disk_that_fills_up_stops_the_repair(
    home: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for shard in range(SHARDS):
        flip(shard_object(dataset, shard), 100)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(workers.repair, "make_shard", full)
        report = verify(dataset, repair=True)
    assert [(repair.shard, repair.done) for repair in report.repairs] == [(0, False)]
    assert re.search(r"No space left.*phantumor generate", report.repairs[0].note)
    assert not report.ok
    assert [(dataset / part_name(shard)).exists() for shard in range(SHARDS)] == [False, True, True]
    workers.generate.generate(tmp_path / "bank", dataset, CONFIG, log=lambda _: None)
    assert verify(dataset, repair=True, gc=True, gc_age_minutes=0).ok
    assert_same(dataset, home / "data")


def test_repair_says_when_the_bytes_are_others(dataset: Path) -> None:
    """Facts that were changed in part and whole manifest alike: only what is made again tells."""
    rewrite_part(dataset, 1, lambda row: row.update(tumor_voxels=row["tumor_voxels"] + 1))
    flip(shard_object(dataset, 1), 100)
    report = verify(dataset, repair=True)
    assert report.ok
    assert [repair.note for repair in report.repairs] == ["made again, other than what was recorded"]


# ---- the command ----


def test_the_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", "--help")
    assert code == 0
    assert "Example: phantumor verify" in out
    for flag in ("--replay", "--repair", "--gc", "--gc-age-minutes", "--json"):
        assert flag in out


def test_the_command_says_that_all_is_well(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "verify", dataset, "--replay", 0.3)
    assert (code, out) == (0, f"{dataset}: 10 samples in 3 of 3 shards checked, 3 replayed: all is well\n")
    assert "10/10 samples checked" in err
    assert "3/3 samples replayed" in err


def test_the_command_lists_what_is_wrong_and_fails(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(shard_object(dataset, 1), 100)
    cut(shard_object(dataset, 2))
    code, out, err = run(capsys, "verify", dataset)
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == ["shard 1", "shard 2"]
    assert f"phantumor: {dataset}: 10 samples in 3 of 3 shards checked: 2 findings. `phantumor" in err
    assert run(capsys, "verify", dataset, "--repair")[0] == 0
    assert run(capsys, "verify", dataset)[0] == 0


def test_the_command_gives_json_before_it_fails(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(shard_object(dataset, 1), 100)
    code, out, _ = run(capsys, "verify", dataset, "--json")
    document = json.loads(out)
    assert code == 1
    assert document["ok"] is False
    assert [set(finding) for finding in document["findings"]] == [{"shard", "what", "file"}]
    code, out, _ = run(capsys, "verify", dataset, "--json", "--repair", "--gc", "--replay", 1)
    document = json.loads(out)
    assert code == 0
    assert (document["ok"], document["left"], len(document["findings"])) == (True, [], 1)
    assert document["repairs"] == [{"shard": 1, "done": True, "note": "made again, the same bytes as recorded"}]
    assert document["replayed"] == 6  # of the whole shards


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["BANK"], "not a phantumor dataset"),
        (["NEW"], "no such folder"),
        (["DATA", "--replay", "0"], "--replay 0"),
        (["DATA", "--replay", "1.5"], "--replay 1.5"),
        (["DATA", "--replay", "nan"], "--replay nan"),
        (["DATA", "--replay", "many"], "many"),
        (["DATA", "--gc", "--gc-age-minutes", "-1"], "--gc-age-minutes -1"),
        (["DATA", "--unknown"], "--unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_gets_one_message_and_exit_code_2(
    dataset: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"DATA": dataset, "BANK": tmp_path / "bank", "NEW": tmp_path / "new"}
    code, out, err = run(capsys, "verify", *[places.get(word, word) for word in words])
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_a_replay_without_bank_is_bad_input(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bank").unlink()
    code, _, err = run(capsys, "verify", dataset, "--replay", 0.5)
    assert code == 2
    assert "its bank is needed here" in err
    assert run(capsys, "verify", dataset)[0] == 0
