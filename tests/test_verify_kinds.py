"""Verifying every kind of dataset, in a folder and in an object store."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import GenerateConfig
from pipeline.s3 import S3Store
from pipeline.store import Store
from tests.damage import (
    CONFIG,
    KINDS,
    assert_same,
    attempt_folder,
    contents,
    copy_home,
    copy_to_store,
    cut,
    edit_json,
    flip,
    flip_object,
    make_home,
    make_homes,
    part_of,
    rewrite_part,
    shard_object,
)
from workers.findings import few
from workers.generate import generate
from workers.verify import Report, verify

PART, WHOLE = "manifest/000001.parquet", "manifest.parquet"
STORED = ("full", "delta")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_homes(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of banks in the object store."""
    monkeypatch.setenv("PHANTUMOR_CACHE", str(tmp_path / "cache"))


def said(report: Report) -> list[tuple[int | None, str]]:
    return [(finding.shard, f"{finding.file}: {finding.what}") for finding in report.findings]


# ---- every kind, every way of losing bytes ----

LOSSES: dict[str, Callable[[Path], object]] = {"flip": lambda f: flip(f, 200), "cut": cut, "missing": Path.unlink}


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_dataset_has_no_findings(homes: dict[str, Path], kind: str) -> None:
    report = verify(homes[kind] / "data")
    assert (report.findings, report.samples, report.shards) == ([], 10, 3)
    assert len(report.notes) == (kind == "recipe")
    assert "all is well" in report.summary()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("kind", "what"), [*((kind, name) for kind in STORED for name in ("image", "label")), *((k, "part") for k in KINDS)]
)
def test_lost_bytes_are_found_where_they_are_and_made_again(
    homes: dict[str, Path], tmp_path: Path, kind: str, what: str, loss: str
) -> None:
    dataset = copy_home(homes[kind], tmp_path)
    file = dataset / PART if what == "part" else shard_object(dataset, 1, what)
    LOSSES[loss](file)
    report = verify(dataset)
    assert [finding.shard for finding in report.findings] == [1]
    assert report.findings[0].file == file.relative_to(dataset).as_posix()
    repaired = verify(dataset, repair=True)
    assert repaired.ok, repaired.lines()
    assert [repair.note for repair in repaired.repairs] == ["made again, the same bytes as recorded"]
    assert_same(dataset, homes[kind] / "data")


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_names_what_its_kind_keeps(homes: dict[str, Path], tmp_path: Path, kind: str) -> None:
    dataset = copy_home(homes[kind], tmp_path)
    files = () if kind != "recipe" else part_of(homes["full"] / "data", 1).files
    rewrite_part(dataset, 1, files=files)
    expected = "names the files none, not" if kind != "recipe" else "but a recipe has none"
    report = verify(dataset, repair=True)
    assert len(report.findings) == 1
    assert expected in report.findings[0].what
    assert report.ok
    assert_same(dataset, homes[kind] / "data")


def test_a_recipe_has_no_ranges(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["recipe"], tmp_path)
    rewrite_part(dataset, 1, lambda row: row.update(image_range=[0, 9]))
    assert said(verify(dataset)) == [(1, f"{PART}: has rows with ranges of pixels, but a recipe has none")]


@pytest.mark.parametrize("kind", STORED)
def test_a_shard_says_of_which_kind_it_is(homes: dict[str, Path], tmp_path: Path, kind: str) -> None:
    dataset = copy_home(homes[kind], tmp_path)
    other = {} if kind == "delta" else {"phantumor_store": "delta"}
    edit_json(attempt_folder(dataset, 1) / "zarr.json", lambda document: document.update(attributes=other))
    assert [finding.what for finding in verify(dataset).findings] == ["is not the metadata of such a shard"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_another_shape_is_found(homes: dict[str, Path], tmp_path: Path, kind: str) -> None:
    dataset = copy_home(homes[kind], tmp_path)
    rewrite_part(dataset, 1, lambda row: row.update(shape_vox=[16, 16, 15]))
    assert "shape_vox (16, 16, 15), the shape is (16, 16, 16)" in verify(dataset).findings[0].what


def test_a_difference_is_checked_with_its_healthy_patch(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["delta"], tmp_path)
    rewrite_part(dataset, 1, lambda row: row.update(label_crc32c=7) if row["index"] == 5 else None)
    found = verify(dataset).findings
    assert [f.what for f in found] == [
        "sample 5: added to its healthy patch it does not have the crc32c in the manifest"
    ]
    (tmp_path / "bank").unlink()
    report = verify(dataset)
    assert report.findings == []
    assert "pixels were not compared, only what is stored of them" in report.notes[0]
    assert report.lines() == [f"note: {note}" for note in report.notes]
    assert report.to_json()["notes"] == report.notes
    flip(shard_object(dataset, 1), 100)
    assert len(verify(dataset).findings) == 1  # checksums need no bank


def test_a_damaged_bank_is_not_the_fault_of_differences(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["delta"], tmp_path)
    bank = (tmp_path / "bank").resolve()
    (tmp_path / "bank").unlink()
    shutil.copytree(bank, tmp_path / "bank")
    for ct in (tmp_path / "bank").glob("cases/*/ct/c/0/0/0"):
        (np.fromfile(ct, "<i2") + 50).astype("<i2").tofile(ct)
    report = verify(dataset, repair=True)
    assert not report.ok
    assert all("cannot be compared" in f.what and "bytes changed" in f.what for f in report.left)
    assert report.repairs == []


def test_shards_of_whole_cases_are_checked_chunk_by_chunk(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", patch_shape="full", shard_samples=1, samples=2)
    dataset = copy_home(home, tmp_path / "copy")
    assert verify(dataset, replay=1.0).findings == []
    flip(shard_object(dataset, 1), -1000)  # in the last chunk
    assert [f.what for f in verify(dataset).findings] == [
        "sample 1: crc32c differs: the bytes on disk are not the ones that were written"
    ]
    assert verify(dataset, repair=True).ok
    assert_same(dataset, home / "data")


def test_a_dataset_that_grew_is_checked_and_repaired(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["full"], tmp_path)
    larger = GenerateConfig.model_validate(CONFIG.model_dump() | {"samples": 14})
    generate(tmp_path / "bank", dataset, larger, log=lambda _: None)
    reference = Path(shutil.copytree(dataset, tmp_path / "grown"))
    assert (
        verify(dataset, replay=1.0).summary().endswith("14 samples in 4 of 4 shards checked, 14 replayed: all is well")
    )
    for shard in (2, 3):  # the last one before, the first one after
        flip(shard_object(dataset, shard), 100)
    report = verify(dataset, repair=True)
    assert [repair.note for repair in report.repairs] == ["made again, the same bytes as recorded"] * 2
    assert_same(dataset, reference)


def test_while_a_dataset_grows_its_whole_manifest_may_be_behind(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["full"], tmp_path)
    before = (dataset / WHOLE).read_bytes()
    larger = GenerateConfig.model_validate(CONFIG.model_dump() | {"samples": 14})
    generate(tmp_path / "bank", dataset, larger, log=lambda _: None)
    after = (dataset / WHOLE).read_bytes()
    (dataset / WHOLE).write_bytes(before)
    assert verify(dataset).findings == []
    assert verify(dataset, repair=True).ok
    assert (dataset / WHOLE).read_bytes() == after


def test_of_many_findings_of_a_shard_the_first_are_listed(homes: dict[str, Path], tmp_path: Path) -> None:
    found = verify(broken(homes["full"], tmp_path)).findings
    many = few([dataclasses.replace(found[0], what=str(k)) for k in range(50)])
    assert [finding.what for finding in many] == [*map(str, range(8)), "and 42 more findings of this shard"]
    assert len(few(many[:8])) == 8


def broken(home: Path, to: Path) -> Path:
    dataset = copy_home(home, to)
    flip(shard_object(dataset, 1), 100)
    return dataset


# ---- object stores ----


def lose_object(store: Store, key: str) -> None:
    store.remove([key])


def cut_object(store: Store, key: str) -> None:
    store.replace(key, store.read(key)[:-1])


@pytest.mark.parametrize("damage", [flip_object, cut_object, lose_object])
@pytest.mark.parametrize("kind", KINDS)
def test_in_an_object_store_it_is_the_same(
    homes: dict[str, Path], s3_url: str, kind: str, damage: Callable[[Store, str], None]
) -> None:
    store = copy_to_store(homes[kind] / "data", s3_url)
    before = contents(store)
    part = part_of(homes[kind] / "data", 1)
    key = PART if kind == "recipe" else f"shards/000001-{part.attempt}.zarr/image/c/0/0/0/0"
    damage(store, key)
    report = verify(store.url)
    assert [(finding.shard, finding.file) for finding in report.findings] == [(1, key)]
    assert f"`phantumor verify {store.url} --repair` mends it" in report.summary()
    repaired = verify(store.url, repair=True, gc=True, gc_age_minutes=0)
    assert repaired.ok, repaired.lines()
    assert contents(store) == before
    assert verify(store.url, replay=0.3).summary().endswith("3 replayed: all is well")


def test_an_object_store_that_does_not_answer_is_not_called_broken(
    homes: dict[str, Path], s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_to_store(homes["full"] / "data", s3_url)
    read_version = S3Store.read_version

    def unreachable(store: S3Store, key: str, version: str | None, offset: int, length: int) -> bytes:
        if "000001-" in key and "image/c" in key:
            raise OSError(5, "503 Slow Down", key)
        return read_version(store, key, version, offset, length)

    monkeypatch.setattr(S3Store, "read_version", unreachable)
    report = verify(store.url, repair=True)
    assert [finding.what.partition(".")[0] for finding in report.left] == ["cannot be read: 503 Slow Down"]
    assert report.repairs == []
