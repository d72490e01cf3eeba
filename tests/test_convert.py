"""Converting: the same rows, pixels and shard bytes as a dataset that was generated in that way; clear refusals."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import workers.convert as converting
from pipeline.bank import Bank
from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import INFO, info_bytes, read_info
from pipeline.errors import InputError, PhantumorError
from pipeline.manifest import WHOLE, committed_shards, part_name
from pipeline.shard import object_path
from pipeline.store import open_store
from tests.cases import make_bank
from tests.command import run
from workers import attempt as attempts
from workers.attempt import ShardReport
from workers.convert import ConvertJob, Kind, convert, convert_shard
from workers.execution import How
from workers.generate import generate

KINDS: tuple[Kind, ...] = ("full", "delta", "recipe")
CONFIG = GenerateConfig(samples=10, patch_shape=(24, 24, 16), shard_samples=4, seed=3)
WAYS = list(permutations(KINDS, 2))


def quiet(_: str) -> None:
    pass


def as_kind(kind: Kind, **changes: object) -> GenerateConfig:
    return CONFIG.model_copy(update={"store": kind, **changes})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture(scope="module")
def made(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """The dataset in every kind; they grew, so that shard 1 is a short one."""
    folder = tmp_path_factory.mktemp("made")
    for kind in KINDS:
        generate(bank.path, folder / kind, as_kind(kind, samples=6), log=quiet)
        generate(bank.path, folder / kind, as_kind(kind), log=quiet)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
def source(made: dict[Kind, Path], tmp_path: Path) -> Path:
    """A copy of the full one, to be damaged."""
    shutil.copytree(made["full"], tmp_path / "source")
    info = read_info(open_store(made["full"]))
    bank = (made["full"] / info.bank).resolve()
    moved = info.model_copy(update={"bank": str(bank)})
    (tmp_path / "source" / INFO).write_bytes(info_bytes(moved))
    return tmp_path / "source"


def assert_same(found: Dataset, expected: Dataset) -> None:
    """Identical rows, shard files and description, but for where the bank lies."""
    assert found.complete
    assert found.manifest.equals(expected.manifest)
    assert {shard: part.files for shard, part in found.parts.items()} == {
        shard: part.files for shard, part in expected.parts.items()
    }
    for shard, part in found.parts.items():
        assert part.config_digest == expected.parts[shard].config_digest
        assert part.versions["device"] == expected.parts[shard].versions["device"]
        for file in part.files:
            name = file.path.partition("/")[0]
            (a, key_a), (b, key_b) = (dataset.object_key(shard, name) for dataset in (found, expected))
            assert a.read(key_a) == b.read(key_b)
    neutral = {"bank": ""}
    assert found.info.model_copy(update=neutral) == expected.info.model_copy(update=neutral)
    assert len(found.store.groups("shards")) == (len(found.parts) if found.info.config.store != "recipe" else 0)
    assert list(found.store.entries("running")) == []


# -- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_a_converted_dataset_is_the_one_that_would_have_been_generated(
    made: dict[Kind, Path], tmp_path: Path, before: Kind, after: Kind
) -> None:
    summary = convert(made[before], tmp_path / "new", after, log=quiet)
    assert (summary.samples, summary.made, summary.complete) == (10, 10, True)
    assert_same(open_dataset(tmp_path / "new"), open_dataset(made[after]))


def test_its_samples_are_the_same_pixels(made: dict[Kind, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "new", "delta", log=quiet)
    before, after = open_dataset(made["full"]), open_dataset(tmp_path / "new")
    for index in range(10):
        assert np.array_equal(before.sample(index).image, after.sample(index).image)
        assert np.array_equal(before.sample(index).label, after.sample(index).label)


def test_processes_give_the_same(made: dict[Kind, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "new", "delta", how=How(workers=2), log=quiet)
    assert_same(open_dataset(tmp_path / "new"), open_dataset(made["delta"]))


def test_there_and_back_again(made: dict[Kind, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "small", "recipe", log=quiet)
    convert(tmp_path / "small", tmp_path / "back", "full", log=quiet)
    assert_same(open_dataset(tmp_path / "back"), open_dataset(made["full"]))


def test_a_converted_dataset_grows_as_any_other(bank: Bank, made: dict[Kind, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "new", "delta", log=quiet)
    generate(bank.path, tmp_path / "new", as_kind("delta", samples=13), log=quiet)
    assert open_dataset(tmp_path / "new").info.grown == (6, 10)
    assert open_dataset(tmp_path / "new").sample(12).row["index"] == 12


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_a_conversion_resumes(made: dict[Kind, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, commit, calls = tmp_path / "new", attempts.commit_part, []

    def full_at_the_second(*given: object) -> bool:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return commit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "commit_part", full_at_the_second)
    with pytest.raises(PhantumorError, match=r"No space left.*run the same command again"):
        convert(made["full"], out, "delta", log=quiet)
    monkeypatch.setattr(attempts, "commit_part", commit)
    assert committed_shards(open_store(out)) == [0]
    assert len(list((out / "shards").iterdir())) == 1
    assert convert(made["full"], out, "delta", log=quiet).made == 6
    assert_same(open_dataset(out), open_dataset(made["delta"]))


def test_converting_again_makes_nothing(made: dict[Kind, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "new", "recipe", log=quiet)
    before = (tmp_path / "new" / WHOLE).read_bytes()
    assert convert(made["full"], tmp_path / "new", "recipe", log=quiet).made == 0
    assert (tmp_path / "new" / WHOLE).read_bytes() == before


def test_a_source_that_is_being_made_gives_what_it_has(source: Path, tmp_path: Path, made: dict[Kind, Path]) -> None:
    part = source / part_name(1)
    held = part.read_bytes()
    part.unlink()
    (source / WHOLE).unlink()
    lines: list[str] = []
    summary = convert(source, tmp_path / "new", "delta", log=lines.append)
    assert (summary.made, summary.complete) == (8, False)
    assert "holds 2 of its 3 shards" in lines[-1]
    assert not (tmp_path / "new" / WHOLE).exists()
    part.write_bytes(held)
    assert convert(source, tmp_path / "new", "delta", log=quiet).complete
    assert_same(open_dataset(tmp_path / "new"), open_dataset(made["delta"]))


def test_a_conversion_follows_a_source_that_grew(bank: Bank, tmp_path: Path) -> None:
    for samples, shards in ((3, 1), (9, 3)):
        generate(bank.path, tmp_path / "full", as_kind("full", samples=samples), log=quiet)
        convert(tmp_path / "full", tmp_path / "new", "delta", log=quiet)
        assert sorted(open_dataset(tmp_path / "new").parts) == list(range(shards))
    generate(bank.path, tmp_path / "delta", as_kind("delta", samples=3), log=quiet)
    generate(bank.path, tmp_path / "delta", as_kind("delta", samples=9), log=quiet)
    assert_same(open_dataset(tmp_path / "new"), open_dataset(tmp_path / "delta"))


def test_one_that_grew_otherwise_is_refused(bank: Bank, tmp_path: Path) -> None:
    for samples in (3, 6, 9):
        generate(bank.path, tmp_path / "full", as_kind("full", samples=samples), log=quiet)
    for samples in (3, 5):
        generate(bank.path, tmp_path / "delta", as_kind("delta", samples=samples), log=quiet)
    with pytest.raises(InputError, match=r"grew in another way \(3 -> 5 samples\).*\(3 -> 6 -> 9\)"):
        convert(tmp_path / "full", tmp_path / "delta", "delta", log=quiet)


# -- one shard --------------------------------------------------------------------------------------------------------


def job_of(made: dict[Kind, Path], bank: Bank, out: Path, shard: int = 0) -> ConvertJob:
    info = read_info(open_store(made["full"]))
    place, fingerprint = str(bank.path), bank.fingerprint
    return ConvertJob(str(out), place, fingerprint, as_kind("delta"), shard, grown=info.grown, source=str(made["full"]))


def test_a_task_is_stateless_and_harmless_twice(made: dict[Kind, Path], bank: Bank, tmp_path: Path) -> None:
    job = job_of(made, bank, tmp_path / "new", 1)
    assert convert_shard(job).status == "committed"
    assert convert_shard(job) == ShardReport(1, "already", 2, 0, 0.0)


def test_the_loser_of_a_race_takes_its_files_away(
    made: dict[Kind, Path], bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, commit = job_of(made, bank, tmp_path / "new"), attempts.commit_part

    def slower(*given: object) -> bool:
        monkeypatch.setattr(attempts, "commit_part", commit)
        assert convert_shard(job).status == "committed"
        return commit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "commit_part", slower)
    assert convert_shard(job).status == "lost"
    assert len(list((tmp_path / "new/shards").iterdir())) == 1


def test_a_source_that_was_replaced_is_refused(made: dict[Kind, Path], bank: Bank, tmp_path: Path) -> None:
    job = dataclasses.replace(job_of(made, bank, tmp_path / "new"), config=as_kind("delta", seed=4))
    with pytest.raises(InputError, match="was replaced while it was being converted"):
        convert_shard(job)
    assert list((tmp_path / "new").rglob("*.parquet")) == []


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "removed"])
@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_a_damaged_shard_is_refused_with_its_remedy(source: Path, tmp_path: Path, damage: str, kind: Kind) -> None:
    file = next((source / "shards").glob("000001-*")) / object_path("label")
    data = bytearray(file.read_bytes())
    data[30] ^= 4
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flipped bit" else data[:20])
    with pytest.raises(InputError, match=r"shard 000001.*verify .*source --repair"):
        convert(source, tmp_path / "new", kind, log=quiet)
    assert committed_shards(open_store(tmp_path / "new")) == [0]
    assert len(list((tmp_path / "new").glob("shards/*"))) == (kind == "delta")


def test_pixels_that_are_not_those_of_the_row_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every checksum within the shard fits, as when the files of two shards were exchanged."""
    first, last = (next((source / "shards").glob(f"{shard:06d}-*")) for shard in (0, 2))
    for name in ("image", "label"):
        (last / object_path(name)).write_bytes((first / object_path(name)).read_bytes())
    (source / WHOLE).unlink()
    with pytest.raises(InputError, match=r"verify .*--repair"):
        convert(source, tmp_path / "new", "delta", log=quiet)
    assert committed_shards(open_store(tmp_path / "new")) == [0, 1]


def test_recipes_that_do_not_give_their_samples_are_refused(
    made: dict[Kind, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the generator, say: once the pixels are gone, nothing could bring them back."""
    import pipeline.synthesis as synthesis

    synthesise = synthesis.synthesise
    monkeypatch.setattr(synthesis, "synthesise", lambda *given: (synthesise(*given)[0] + 1, synthesise(*given)[1]))
    with pytest.raises(InputError, match="no recipe of this dataset can be kept"):
        convert(made["full"], tmp_path / "new", "recipe", log=quiet)
    assert committed_shards(open_store(tmp_path / "new")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_that_it_is_already_is_refused(made: dict[Kind, Path], tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(InputError, match=f"of the kind `store: {kind}` already"):
        convert(made[kind], tmp_path / "new", kind, log=quiet)
    assert not (tmp_path / "new").exists()


def test_a_place_that_holds_something_else_is_refused(made: dict[Kind, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not a dataset"):
        convert(made["full"], tmp_path, "delta", log=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_dataset_is_not_written_into(made: dict[Kind, Path]) -> None:
    with pytest.raises(InputError, match=r"config\.store"):
        convert(made["full"], made["recipe"], "delta", log=quiet)
    with pytest.raises(InputError, match=r"config\.store"):
        convert(made["full"], made["full"], "delta", log=quiet)


def test_without_its_bank_nothing_can_be_converted(source: Path, tmp_path: Path) -> None:
    info = read_info(open_store(source))
    (source / INFO).write_bytes(info_bytes(info.model_copy(update={"bank": str(tmp_path / "gone")})))
    with pytest.raises(InputError, match="its bank is needed"):
        convert(source, tmp_path / "new", "delta", log=quiet)
    assert not (tmp_path / "new").exists()


def test_a_bank_in_another_state_is_refused(source: Path, tmp_path: Path) -> None:
    info = read_info(open_store(source))
    (source / INFO).write_bytes(info_bytes(info.model_copy(update={"bank_fingerprint": "0" * 64})))
    with pytest.raises(InputError, match="another state of the bank"):
        convert(source, tmp_path / "new", "delta", log=quiet)


def test_a_view_is_refused_with_its_sources(made: dict[Kind, Path], tmp_path: Path) -> None:
    info = read_info(open_store(made["full"]))
    source = {"place": "../full", "config_digest": info.config_digest, "first_index": 0, "first_shard": 0}
    source["bank_fingerprint"] = info.bank_fingerprint
    view = type(info).model_validate(info.model_dump(mode="json") | {"sources": [source]})
    open_store(tmp_path / "view").replace(INFO, info_bytes(view))
    with pytest.raises(InputError, match=r"is a view.*convert the datasets that it was made from \(\.\./full\)"):
        convert(tmp_path / "view", tmp_path / "new", "delta", log=quiet)


def test_a_source_without_any_shard_is_refused(source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source / "manifest")
    with pytest.raises(InputError, match="holds no committed shard yet"):
        convert(source, tmp_path / "new", "delta", log=quiet)


def test_a_shard_that_was_put_aside_is_told_and_tried_again_on_request(
    made: dict[Kind, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, out = converting._write, tmp_path / "new"

    def stumbles(attempt: converting.Attempt, source: converting._SourceShard) -> object:
        if attempt.job.shard == 1:
            raise ZeroDivisionError("a fault of the code")
        return write(attempt, source)

    monkeypatch.setattr(converting, "_write", stumbles)
    for _ in range(2):  # the second run does not even try
        with pytest.raises(PhantumorError, match=r"1 shard \(1\) could not be made.*--retry-failed"):
            convert(made["full"], out, "delta", log=quiet)
    monkeypatch.setattr(converting, "_write", write)
    assert committed_shards(open_store(out)) == [0, 2]
    assert convert(made["full"], out, "delta", how=How(retry_failed=True), log=quiet).complete
    assert_same(open_dataset(out), open_dataset(made["delta"]))


# -- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb(made: dict[Kind, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, said = run(capsys, "convert", made["full"], "--store", "delta", "--out", tmp_path / "new")
    assert (code, out) == (0, f"{tmp_path / 'new'}: 10 samples converted in this run\n")
    assert "10 samples to make" in said
    assert run(capsys, "convert", made["full"], "--store", "full", "--out", tmp_path / "x")[0] == 2


def test_the_whole_manifest_can_be_made_again_from_the_parts(made: dict[Kind, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "new", "delta", log=quiet)
    rows = open_dataset(tmp_path / "new").manifest
    (tmp_path / "new" / WHOLE).unlink()
    compact(open_store(tmp_path / "new"))
    assert open_dataset(tmp_path / "new").manifest.equals(rows)


def test_to_an_object_store_and_back(made: dict[Kind, Path], bank: Bank, s3_url: str, tmp_path: Path) -> None:
    convert(made["full"], s3_url, "delta", log=quiet)
    assert_same(open_dataset(s3_url), open_dataset(made["delta"]))
    convert(s3_url, tmp_path / "back", "full", log=quiet)
    assert_same(open_dataset(tmp_path / "back"), open_dataset(made["full"]))
