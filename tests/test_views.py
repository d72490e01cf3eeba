"""Views: samples of other datasets under one roof, without a copied pixel, and for every reader like any dataset."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import views
from pipeline.bank import Bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import dataset_classes, read_info
from pipeline.errors import InputError, PhantumorError
from pipeline.export import export
from pipeline.inspection import summarise
from pipeline.manifest import SCHEMA, part_name, read_part, sample_id
from pipeline.store import open_store
from pipeline.views import merge, select
from pipeline.whole_manifest import write_whole_manifest
from tests.cases import make_bank
from tests.command import run
from tests.damage import edit_json, rewrite_part
from tests.datasets import make_dataset
from training.stream import ShardStream
from workers.generate import generate

A_SAMPLES, B_SAMPLES = 10, 7
SMALL = GenerateConfig(samples=4, patch_shape=(24, 24, 16), shard_samples=2, seed=3, organs=("liver",))
KINDS = ("full", "delta", "recipe")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `a` (10 samples in 3 shards) and `b` (7 in 2)."""
    folder = tmp_path_factory.mktemp("views")
    make_dataset(folder / "a", samples=A_SAMPLES)
    make_dataset(folder / "b", samples=B_SAMPLES, seed=1)
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of both, to break and to make views beside."""
    return Path(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("views-bank") / "bank")


@pytest.fixture(scope="module")
def kinds(bank: Bank) -> Path:
    """Two datasets of other seeds in each kind of store, beside their bank: `full-3`, `full-4`, `delta-3`, ..."""
    folder = Path(bank.path).parent
    for kind in KINDS:
        for seed in (3, 4):
            config = SMALL.model_copy(update={"store": kind, "seed": seed})
            generate(bank.path, folder / f"{kind}-{seed}", config, log=lambda _: None)
    return folder


def quiet(_: str) -> None:
    """Where no note is looked at."""


def assert_same_sample(view: Dataset, index: int, source: Dataset, there: int, shard: int) -> None:
    sample, wanted = view.sample(index), source.sample(there)
    np.testing.assert_array_equal(sample.image, wanted.image)
    np.testing.assert_array_equal(sample.label, wanted.label)
    moved = {"index": index, "sample_id": sample_id(index), "shard": wanted.row["shard"] + shard}
    assert sample.row == wanted.row | moved


# -- select -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected", "shards"),
    [
        ({}, list(range(10)), [0, 1, 2]),
        ({"where": "n_tumors = 2"}, [1, 3, 5, 7, 9], [0, 1, 2]),
        ({"where": "n_tumors = 0"}, [6], [1]),
        ({"split": "test"}, [4, 9], [1, 2]),
        ({"split": "train", "limit": 3}, [0, 1, 2], [0]),
        ({"where": "instance = 2", "split": "train", "limit": 2}, [1, 5], [0, 1]),
    ],
)
def test_select_keeps_numbers_and_names_the_shards_it_needs(
    home: Path, choice: dict[str, Any], expected: list[int], shards: list[int]
) -> None:
    summary = select(home / "a", home / "view", **choice)
    source, view = open_dataset(home / "a"), open_dataset(home / "view")
    assert view.columns(["index"])["index"].to_pylist() == expected
    assert list(view.parts) == shards
    assert view.complete
    assert (summary.samples, summary.shards, summary.sources) == (len(expected), len(shards), (source.path,))
    assert all(view.parts[shard] == source.parts[shard] for shard in shards)
    for index in expected:
        assert_same_sample(view, index, source, index, 0)
    with pytest.raises(InputError, match="no sample with index 99"):
        view.sample(99)


def test_a_view_is_two_files_and_no_pixel(home: Path) -> None:
    select(home / "a", home / "view")
    assert sorted(path.name for path in (home / "view").rglob("*")) == ["dataset.json", "manifest.parquet"]
    assert pq.read_schema(home / "view" / "manifest.parquet").equals(SCHEMA)


def test_a_selection_of_nothing_is_refused(home: Path) -> None:
    with pytest.raises(InputError, match="no sample of split all meets 'n_tumors > 9'"):
        select(home / "a", home / "view", where="n_tumors > 9")
    assert not (home / "view").exists()


# -- merge ------------------------------------------------------------------------------------------------------------


def test_merge_numbers_on(home: Path) -> None:
    summary = merge([home / "a", home / "b"], home / "both", log=quiet)
    a, b, both = (open_dataset(home / name) for name in ("a", "b", "both"))
    assert both.columns(["index"])["index"].to_pylist() == list(range(A_SAMPLES + B_SAMPLES))
    assert (both.rows, both.complete, list(both.parts)) == (17, True, [0, 1, 2, 3, 4])
    assert (summary.samples, summary.shards, summary.sources) == (17, 5, (a.path, b.path))
    for index in range(A_SAMPLES):
        assert_same_sample(both, index, a, index, 0)
    for index in range(B_SAMPLES):
        assert_same_sample(both, A_SAMPLES + index, b, index, 3)


def test_a_view_says_what_it_is(home: Path) -> None:
    merge([home / "b", home / "a"], home / "both", log=quiet)
    b, info = read_info(open_store(home / "b")), read_info(open_store(home / "both"))
    assert info.config == b.config.model_copy(update={"samples": 17})
    assert (info.shards, info.grown, info.bank_fingerprint) == (5, (), b.bank_fingerprint)
    assert [(s.place, s.first_index, s.first_shard) for s in info.sources] == [("../b", 0, 0), ("../a", 7, 2)]
    assert info.classes == b.classes
    assert info.config_digest not in (b.config_digest, open_dataset(home / "a").info.config_digest)


def test_other_selections_have_other_digests(home: Path) -> None:
    digests = set()
    for number, choice in enumerate([{}, {"limit": 5}, {"split": "val"}, {"where": "index in (1, 2)"}]):
        select(home / "a", home / f"view-{number}", **choice)  # type: ignore[arg-type]
        digests.add(open_dataset(home / f"view-{number}").info.config_digest)
    assert len(digests) == 4


def test_a_view_of_views_names_the_first_sources(home: Path) -> None:
    select(home / "a", home / "some", where="index > 3")
    merge([home / "b", home / "some"], home / "both", log=quiet)
    select(home / "both", home / "end", where="index > 5")
    shutil.rmtree(home / "some")
    shutil.rmtree(home / "both")
    end, a, b = (open_dataset(home / name) for name in ("end", "a", "b"))
    assert [Path(h.store.url).name for h in end.homes] == ["b", "a"]
    assert end.columns(["index"])["index"].to_pylist() == [6, *range(11, 17)]
    assert_same_sample(end, 6, b, 6, 0)
    assert_same_sample(end, 16, a, 9, 2)
    select(home / "end", home / "only-a", where="index > 6")
    assert [Path(h.store.url).name for h in open_dataset(home / "only-a").homes] == ["a"]
    assert_same_sample(open_dataset(home / "only-a"), 11, a, 4, 2)


def test_views_move_with_their_sources(home: Path, tmp_path: Path) -> None:
    merge([home / "a", home / "b"], home / "both", log=quiet)
    home.rename(tmp_path / "elsewhere")
    moved = open_dataset(tmp_path / "elsewhere" / "both")
    assert_same_sample(moved, 12, open_dataset(tmp_path / "elsewhere" / "b"), 2, 3)


def test_parts_of_one_dataset_that_are_apart_can_be_merged(home: Path) -> None:
    select(home / "a", home / "train", split="train", limit=4)
    select(home / "a", home / "test", split="test")
    merge([home / "test", home / "train"], home / "both", log=quiet)
    both, a = open_dataset(home / "both"), open_dataset(home / "a")
    assert both.rows == 6
    assert both.split_counts() == {"test": 2, "train": 4}
    for position, there in enumerate([4, 9, 0, 1, 2, 5]):
        index = int(both.columns(["index"])["index"][position].as_py())
        np.testing.assert_array_equal(both.sample(index).image, a.sample(there).image)


def test_classes_are_those_of_all(home: Path) -> None:
    edit_json(home / "b" / "dataset.json", lambda document: document["config"].update(organs=["kidney", "liver"]))
    merge([home / "a", home / "b"], home / "both", log=quiet)
    info = open_dataset(home / "both").info
    assert info.config.organs == ("liver", "kidney")
    assert info.classes == dataset_classes(info.config.organs) == dataset_classes(("liver", "kidney"))


def test_a_growing_dataset_gives_what_is_committed(home: Path) -> None:
    (home / "a" / "manifest.parquet").unlink()
    kept = (home / "a" / part_name(1)).read_bytes()
    (home / "a" / part_name(1)).unlink()
    merge([home / "a", home / "b"], home / "both", log=quiet)
    (home / "a" / part_name(1)).write_bytes(kept)
    both = open_dataset(home / "both")
    assert both.complete
    assert both.columns(["index"])["index"].to_pylist() == [0, 1, 2, 3, 8, 9, *range(10, 17)]
    assert list(both.parts) == [0, 2, 3, 4]


def test_a_case_in_two_splits_is_noted(home: Path) -> None:
    notes: list[str] = []
    merge([home / "a", home / "b"], home / "quiet", log=notes.append)
    assert notes == []
    rewrite_part(home / "b", 0, lambda row: row.update(split="test"))
    merge([home / "a", home / "b"], home / "both", log=notes.append)
    assert len(notes) == 1
    assert "case-a, case-b, case-c" in notes[0]


# -- refusals ---------------------------------------------------------------------------------------------------------


def other_settings(path: Path, **changes: Any) -> None:
    config = GenerateConfig(samples=4, patch_shape=(16, 16, 16), shard_samples=4, seed=8)
    make_dataset(path, samples=4, seed=8)
    spacing = changes.pop("spacing_mm", 1.0)
    changed = config.model_copy(update=changes).model_dump(mode="json")
    edit_json(path / "dataset.json", lambda document: document.update(config=changed, spacing_mm=spacing))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spacing_mm": 2.0}, r"its spacing is 2 mm, there it is 1 mm"),
        ({"patch_shape": (16, 16, 24)}, r"its patch shape is 16x16x24, there it is 16x16x16"),
        ({"store": "delta"}, r"its store is delta, there it is full"),
    ],
)
def test_datasets_that_are_not_alike_are_refused(home: Path, changes: dict[str, Any], says: str) -> None:
    other_settings(home / "other", **changes)
    with pytest.raises(InputError, match=says):
        merge([home / "a", home / "other"], home / "both", log=quiet)
    assert not (home / "both").exists()


def test_samples_that_come_twice_are_refused(home: Path) -> None:
    select(home / "a", home / "some", where="index > 7")
    shutil.copytree(home / "a", home / "copy")
    for twice, common in (("a", 10), ("some", 2), ("copy", 10)):
        with pytest.raises(InputError, match=f"have {common} samples in common"):
            merge([home / "a", home / "b", home / twice], home / "both", log=quiet)


def test_the_same_samples_of_other_settings_are_found_by_their_pixels(home: Path) -> None:
    make_dataset(home / "sharded", samples=A_SAMPLES, shard_samples=5)  # another digest, the same samples
    with pytest.raises(InputError, match="have 9 samples in common"):  # of the tenth there is no tumor to tell it by
        merge([home / "a", home / "sharded"], home / "both", log=quiet)


@pytest.mark.parametrize("names", [[], ["a"]])
def test_merge_takes_two_or_more(home: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match="two datasets or more"):
        merge([home / name for name in names], home / "both")


def test_an_empty_dataset_is_refused(home: Path) -> None:
    (home / "empty").mkdir()
    shutil.copy(home / "b" / "dataset.json", home / "empty")
    with pytest.raises(InputError, match="no sample is committed yet"):
        merge([home / "a", home / "empty"], home / "both", log=quiet)


def test_what_lies_there_is_kept(home: Path) -> None:
    for out in ("a", "b/dataset.json"):
        with pytest.raises(InputError, match="something lies there"):
            select(home / "a", home / out)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_view_that_was_cut_off_is_made_by_the_same_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(views, "create_info", stopped)
        with pytest.raises((KeyboardInterrupt, PhantumorError)):
            select(home / "a", home / "view")
    assert [path.name for path in (home / "view").iterdir()] == ["manifest.parquet"]
    (home / "view/.dataset.json.0a1b2c3d.tmp").touch()  # as a power cut leaves it
    merge([home / "a", home / "b"], home / "view", log=quiet)
    assert open_dataset(home / "view").rows == A_SAMPLES + B_SAMPLES


@pytest.mark.parametrize("beside", [None, "notes.txt"])
def test_another_manifest_is_not_taken_for_a_view_that_was_cut_off(home: Path, beside: str | None) -> None:
    (home / "view").mkdir()
    if beside:
        shutil.copy(home / "a/manifest.parquet", home / "view")
        (home / "view" / beside).touch()
    else:
        pq.write_table(pa.table({"mine": [1]}), home / "view/manifest.parquet")
    before = (home / "view/manifest.parquet").read_bytes()
    with pytest.raises(InputError, match="something lies there"):
        select(home / "a", home / "view")
    assert (home / "view/manifest.parquet").read_bytes() == before


def test_numbers_go_on_behind_the_largest_one(home: Path) -> None:
    """Rows need not come in the order of index, as in a manifest that something else wrote."""
    store = open_store(home / "a")
    write_whole_manifest(store, [read_part(store, shard) for shard in (0, 2, 1)])
    assert open_dataset(home / "a").columns(["index"])["index"].to_pylist()[-1] == 7
    merge([home / "a", home / "b"], home / "both", log=quiet)
    index = open_dataset(home / "both").columns(["index"])["index"].to_pylist()
    assert sorted(index) == list(range(A_SAMPLES + B_SAMPLES))


def without_manifest(view: Path) -> None:
    (view / "manifest.parquet").unlink()


def fewer_rows(view: Path) -> None:
    table = pq.ParquetFile(view / "manifest.parquet").read()
    fewer = table.slice(1).replace_schema_metadata(table.schema.metadata)
    pq.write_table(fewer, view / "manifest.parquet", write_page_checksum=True)


def without_provenance(view: Path) -> None:
    table = pq.read_table(view / "manifest.parquet").replace_schema_metadata(SCHEMA.metadata)
    pq.write_table(table, view / "manifest.parquet", write_page_checksum=True)


def other_source(view: Path) -> None:
    edit_json(view / "dataset.json", lambda document: document["sources"][0].update(config_digest="0" * 64))


def other_bank(view: Path) -> None:
    edit_json(view.parent / "a" / "dataset.json", lambda document: document.update(bank_fingerprint="1" * 64))


def source_is_a_view(view: Path) -> None:
    source = json.loads((view / "dataset.json").read_text())["sources"]
    edit_json(view.parent / "a" / "dataset.json", lambda document: document.update(sources=source))


def unordered(view: Path) -> None:
    edit_json(view / "dataset.json", lambda document: document.update(sources=document["sources"] * 2))


def gone(view: Path) -> None:
    shutil.rmtree(view.parent / "a")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without_manifest, "a view needs its manifest.parquet, it has none"),
        (fewer_rows, "9 rows instead of 10"),
        (without_provenance, r"lacks 'phantumor\.parts'\. Remove the view and make it again"),
        (other_source, "a dataset of other settings"),
        (other_bank, "another state of its bank"),
        (source_is_a_view, "make the view again"),
        (unordered, "not in the order of first_shard"),
        (gone, "no such folder"),
    ],
)
def test_a_broken_view_is_one_message(home: Path, damage: Any, says: str) -> None:
    select(home / "a", home / "view")
    damage(home / "view")
    with pytest.raises(InputError, match=says) as caught:
        open_dataset(home / "view")
    assert "\n" not in str(caught.value)


def test_a_row_before_the_first_source_is_refused(home: Path) -> None:
    select(home / "a", home / "view")
    edit_json(home / "view" / "dataset.json", lambda document: document["sources"][0].update(first_shard=1))
    with pytest.raises(InputError, match="shard 0, which lies in none of its sources"):
        open_dataset(home / "view").sample(0)


# -- readers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_store_reads_through_a_view(kinds: Path, tmp_path: Path, kind: str) -> None:
    merge([kinds / f"{kind}-4", kinds / f"{kind}-3"], tmp_path / "both", log=quiet)
    select(tmp_path / "both", tmp_path / "view", where="index != 5")
    view, full = open_dataset(tmp_path / "view"), [open_dataset(kinds / f"full-{seed}") for seed in (4, 3)]
    assert (view.info.config.store, view.rows) == (kind, 7)
    for index in (0, 3, 4, 7):
        source, there = full[index // 4], index % 4
        sample = view.sample(index)
        np.testing.assert_array_equal(sample.image, source.sample(there).image)
        np.testing.assert_array_equal(sample.label, source.sample(there).label)
        np.testing.assert_array_equal(view.healthy(index), source.healthy(there))
    assert view.bank.fingerprint == view.info.bank_fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_over_a_view_gives_every_sample_once_an_epoch(kinds: Path, tmp_path: Path, kind: str) -> None:
    merge([kinds / f"{kind}-4", kinds / f"{kind}-3"], tmp_path / "both", log=quiet)
    view = open_dataset(tmp_path / "both")
    seen: Counter[int] = Counter()
    with ShardStream(view, batch_size=3, split="all", epochs=2, seed=1) as stream:
        for batch in stream:
            for image, label, index in zip(batch["image"], batch["label"], batch["index"].tolist(), strict=True):
                seen[index] += 1
                sample = view.sample(index)
                np.testing.assert_array_equal(image[0].numpy(), sample.image)
                np.testing.assert_array_equal(label[0].numpy(), sample.label)
    assert seen == Counter(dict.fromkeys(range(8), 2))


def test_export_reads_views_and_tells_their_sources(home: Path) -> None:
    merge([home / "a", home / "b"], home / "both", log=quiet)
    export(home / "both", home / "out", "nifti", where="index >= 8 and index < 12", log=quiet)
    names = sorted(path.name for path in (home / "out").iterdir() if path.is_dir())
    assert names == ["s000000008", "s000000009", "s000000010", "s000000011"]
    source = json.loads((home / "out" / "dataset.json").read_text())["source"]
    assert [(Path(s["dataset"]).name, s["seed"], s["first_index"]) for s in source["sources"]] == [
        ("a", 0, 0),
        ("b", 1, 10),
    ]


def test_a_view_is_inspected(home: Path) -> None:
    merge([home / "a", home / "b"], home / "both", log=quiet)
    summary = summarise(open_dataset(home / "both"))
    a, b = (summarise(open_dataset(home / name)) for name in ("a", "b"))
    assert summary["sources"] == [a["path"], b["path"]]
    assert summary["disk_bytes"] == a["disk_bytes"] + b["disk_bytes"]
    assert summary["tumors"] == a["tumors"] + b["tumors"]


def test_banks_of_several_sources(home: Path, kinds: Path, tmp_path: Path) -> None:
    edit_json(home / "b" / "dataset.json", lambda document: document.update(bank_fingerprint="1" * 64))
    merge([home / "a", home / "b"], home / "both", log=quiet)
    both = open_dataset(home / "both")
    assert both.info.bank == ""
    with pytest.raises(InputError, match="a view of 2 datasets, each of which has its bank"):
        both.bank.load("case-a")
    merge([kinds / "full-3", kinds / "full-4"], tmp_path / "same-bank", log=quiet)
    assert open_dataset(tmp_path / "same-bank").bank.records


def test_views_in_an_object_store(s3_url: str) -> None:
    a = make_dataset(f"{s3_url}/a", samples=4)
    make_dataset(f"{s3_url}/b", samples=3, seed=1)
    merge([f"{s3_url}/a", f"{s3_url}/b"], f"{s3_url}/both", log=quiet)
    both = open_dataset(f"{s3_url}/both")
    np.testing.assert_array_equal(both.sample(2).image, a.sample(2).image)
    assert both.rows == 7
    with pytest.raises(InputError, match="something lies there"):
        select(f"{s3_url}/a", f"{s3_url}/both")


# -- the commands -----------------------------------------------------------------------------------------------------


def test_the_commands_make_views(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--where", "n_tumors = 2", "--split", "train", "--limit", "2", "--out", home / "view"]
    code, out, _ = run(capsys, "select", home / "a", *words)
    assert (code, out) == (0, f"{home / 'view'}: 2 samples in 2 shards of {home / 'a'}\n")
    code, out, _ = run(capsys, "merge", home / "view", home / "b", "--out", home / "both", "--json")
    assert code == 0
    document = json.loads(out)
    assert document == {
        "out": str(home / "both"),
        "samples": 9,
        "shards": 4,
        "sources": [str(home / "a"), str(home / "b")],
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["select", "a"], "--out"),
        (["select", "a", "--out", "b"], "something lies there"),
        (["select", "a", "--out", "new", "--where", "size > 3"], "size"),
        (["select", "a", "--out", "new", "--limit", "0"], "--limit 0"),
        (["select", "nothing", "--out", "new"], "not a phantumor dataset"),
        (["merge", "a", "--out", "new"], "two datasets or more"),
        (["merge", "a", "b"], "--out"),
        (["merge", "a", "a", "--out", "new"], "10 samples in common"),
    ],
    ids=" ".join,
)
def test_bad_input_gets_one_message_and_exit_code_2(
    home: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err
    assert not (home / "new").exists()
