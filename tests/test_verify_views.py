"""Verifying views: their own rows, and the shards of their sources that they use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.catalog import open_dataset
from pipeline.errors import InputError
from pipeline.views import merge, select
from tests.command import run
from tests.damage import (
    contents,
    copy_home,
    copy_to_store,
    cut,
    edit_json,
    flip,
    make_home,
    make_homes,
    rewrite_whole,
    shard_object,
    with_value,
)
from workers.verify import verify

WHOLE, PART = "manifest.parquet", "manifest/000001.parquet"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_homes(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of other samples, 7 in 2 shards."""
    return make_home(tmp_path_factory.mktemp("other") / "home", seed=6, samples=7)


class Places:
    """Two datasets to break and a view of both."""

    def __init__(self, first: Path, second: Path, folder: Path) -> None:
        self.first, self.second = copy_home(first, folder / "a"), copy_home(second, folder / "b")
        self.view = folder / "view"
        merge([self.first, self.second], self.view, log=lambda _: None)


@pytest.fixture
def places(homes: dict[str, Path], other: Path, tmp_path: Path) -> Places:
    return Places(homes["full"], other, tmp_path)


def test_a_merged_view_is_whole(places: Places) -> None:
    report = verify(places.view, replay=1.0)
    assert (report.findings, report.samples, report.shards, report.replayed) == ([], 17, 5, 17)
    assert report.summary() == f"{places.view}: 17 samples in 5 of 5 shards checked, 17 replayed: all is well"


@pytest.mark.parametrize("kind", ["full", "delta", "recipe"])
def test_of_a_selection_only_its_own_shards_are_checked(homes: dict[str, Path], tmp_path: Path, kind: str) -> None:
    source, view = copy_home(homes[kind], tmp_path), tmp_path / "view"
    select(source, view, limit=3)
    (source / PART).write_bytes(b"")
    report = verify(view, replay=1.0)
    assert (report.findings, report.samples, report.shards, report.replayed) == ([], 3, 1, 3)


def test_damage_in_a_source_is_found_there(places: Places) -> None:
    flip(shard_object(places.second, 1), 100)
    report = verify(places.view, replay=1.0)
    assert [(f.shard, f.place) for f in report.findings] == [(1, str(places.second))]
    assert report.lines()[0].startswith(f"shard 1: {places.second}/shards/000001-")
    assert f"`phantumor verify {places.second} --repair` may mend it" in report.summary()
    assert report.replayed == 14  # all but those of the broken shard


def test_a_part_of_a_source_that_is_broken_is_found_there(places: Places) -> None:
    cut(places.first / PART, 40)
    report = verify(places.view)
    assert [finding.where for finding in report.findings] == [f"{places.first}/{PART}"]


def test_a_row_that_is_not_the_source_s_is_found(places: Places) -> None:
    rewrite_whole(places.view, with_value("split", 12, "nowhere"))
    found = verify(places.view).findings
    assert [(f.shard, f.file, f.place) for f in found] == [(3, WHOLE, "")]
    assert found[0].what == f"sample 12: not the split in {places.second}/manifest/000000.parquet"


@pytest.mark.parametrize(("column", "value"), [("index", 5), ("row", 3), ("row", -1), ("row", 10**6), ("shard", 9)])
def test_a_row_with_other_numbers_is_found(places: Places, column: str, value: int) -> None:
    rewrite_whole(places.view, with_value(column, 16, value))
    found = verify(places.view).findings
    assert found
    assert {finding.file for finding in found} == {WHOLE}


def test_a_source_that_was_repaired_since_wants_the_view_to_be_made_again(places: Places) -> None:
    flip(shard_object(places.first, 1), 100)
    assert verify(places.first, repair=True).ok
    report = verify(places.view)
    assert [(f.shard, f.file) for f in report.findings] == [(1, WHOLE)]
    assert "made again since; make the view again" in report.findings[0].what
    shutil.rmtree(places.view)
    merge([places.first, places.second], places.view, log=lambda _: None)
    assert verify(places.view).ok


def test_reading_a_view_of_a_source_that_was_repaired_says_to_make_it_again(places: Places) -> None:
    flip(shard_object(places.second, 1), 100)
    with pytest.raises(InputError, match=rf"`phantumor verify {places.second} --repair`"):
        open_dataset(places.view).sample(14)
    assert verify(places.second, repair=True).ok
    with pytest.raises(InputError) as caught:
        open_dataset(places.view).sample(14)
    assert str(caught.value) == (
        f"shard 1 of {places.second} was made again since the view {places.view} was made; make the view again"
    )


@pytest.mark.parametrize("damage", [lambda f: cut(f, 9), Path.unlink])
def test_a_broken_manifest_of_a_view_is_found(places: Places, damage: object) -> None:
    damage(places.view / WHOLE)  # type: ignore[operator]
    found = verify(places.view, replay=0.5).findings
    assert [(f.shard, f.file) for f in found] == [(None, WHOLE)]


def test_a_flipped_bit_anywhere_in_a_view_s_manifest_is_found_or_without_effect(places: Places) -> None:
    original, rows = (places.view / WHOLE).read_bytes(), open_dataset(places.view).manifest
    found = 0
    for position in range(4, len(original), len(original) // 25):
        flip(places.view / WHOLE, position)
        if verify(places.view).ok:
            assert open_dataset(places.view).manifest.equals(rows), position
        else:
            found += 1
        (places.view / WHOLE).write_bytes(original)
    assert found > 8


def test_a_source_that_is_gone_is_found(places: Places) -> None:
    shutil.rmtree(places.second)
    report = verify(places.view)
    assert [finding.file for finding in report.findings] == ["dataset.json"]
    assert "no such folder" in report.findings[0].what
    edit_json(places.view / "dataset.json", lambda d: d["sources"][1].update(place="view"))
    assert not verify(places.view).ok


def test_a_view_is_not_repaired(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    before = (places.view / WHOLE).read_bytes()
    code, out, err = run(capsys, "verify", places.view, "--repair")
    assert (code, out) == (2, "")
    for source in (places.first, places.second):
        assert f"`phantumor verify {source} --repair`" in err
    (places.view / WHOLE).unlink()
    with pytest.raises(InputError, match="is a view"):
        verify(places.view, repair=True)
    (places.view / WHOLE).write_bytes(before)
    assert verify(places.view, gc=True, gc_age_minutes=0).ok


def test_differences_in_a_view_are_compared_with_the_bank_of_their_source(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    source, view = copy_home(homes["delta"], tmp_path), tmp_path / "view"
    select(source, view)
    assert verify(view).notes == []
    (tmp_path / "bank").unlink()
    report = verify(view)
    assert report.findings == []
    assert "pixels were not compared" in report.notes[0]
    with pytest.raises(InputError, match="its bank is needed here"):
        verify(view, replay=0.5)


def test_a_view_of_an_object_store(homes: dict[str, Path], s3_url: str, tmp_path: Path) -> None:
    source = copy_to_store(homes["full"] / "data", s3_url)
    select(source.url, f"{s3_url}/view", limit=5)
    assert verify(f"{s3_url}/view").summary().endswith("5 samples in 2 of 2 shards checked: all is well")
    source.remove([next(key for key in (e.key for e in source.entries()) if "/000001-" in key and "label/c" in key)])
    assert len(contents(source)) == 14
    found = verify(f"{s3_url}/view").findings
    assert [(f.shard, f.what, f.place) for f in found] == [(1, "is missing", source.url)]
