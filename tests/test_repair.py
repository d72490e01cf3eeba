"""Repair keeps pixels: metadata alone is written again, and other software replaces nothing by what it makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workers.repair
from pipeline.catalog import open_dataset
from pipeline.manifest import part_name
from tests.damage import (
    KINDS,
    assert_same,
    attempt_folder,
    copy_home,
    cut,
    edit_json,
    flip,
    forge,
    make_homes,
    part_of,
    rewrite_part,
    shard_object,
)
from workers.verify import verify

PART, WHOLE = part_name(1), "manifest.parquet"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_homes(tmp_path_factory.mktemp("repair"))


@pytest.fixture(params=["full", "delta"])
def dataset(homes: dict[str, Path], request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return copy_home(homes[request.param], tmp_path)


def contents(dataset: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}


def of_other_software(dataset: Path, **versions: str) -> None:
    """The part of shard 1 says that another numpy made it."""
    rewrite_part(dataset, 1, versions={**part_of(dataset, 1).versions, "numpy": "0.1", **versions})


# ---- metadata ----

METADATA: dict[str, Callable[[Path], object]] = {
    "missing": lambda group: (group / "image/zarr.json").unlink(),
    "cut": lambda group: cut(group / "zarr.json"),
    "edited": lambda group: edit_json(group / "label/zarr.json", lambda j: j.update(fill_value=1)),
}


@pytest.mark.parametrize("damage", METADATA)
@pytest.mark.parametrize("other", [False, True])
def test_wrong_metadata_is_written_again_and_nothing_else(
    dataset: Path, tmp_path: Path, damage: str, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other:
        of_other_software(dataset)
    before = contents(dataset)
    METADATA[damage](attempt_folder(dataset, 1))
    (tmp_path / "bank").unlink()  # it is not needed
    monkeypatch.delattr(workers.repair, "make_shard")
    report = verify(dataset, repair=True)
    assert report.ok, report.lines()
    assert [(one.shard, one.done) for one in report.repairs] == [(1, True)]
    assert "Zarr metadata was written again" in report.repairs[0].note
    assert contents(dataset) == before


def test_metadata_is_not_written_from_settings_in_doubt(dataset: Path) -> None:
    edit_json(dataset / "dataset.json", lambda j: j["config"].update(seed=6))
    METADATA["missing"](attempt_folder(dataset, 1))
    before = contents(dataset)
    report = verify(dataset, repair=True)
    assert not report.ok
    assert contents(dataset) == before


def test_metadata_that_cannot_be_written_is_left(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    METADATA["missing"](attempt_folder(dataset, 1))
    monkeypatch.setattr(workers.repair, "rewrite_metadata", full)
    report = verify(dataset, repair=True)
    assert [(one.done, "No space left" in one.note) for one in report.repairs] == [(False, True)]
    assert [finding.remedy for finding in report.left] == ["metadata"]


# ---- other software ----


def brighter(index: int, image: Any, label: Any) -> None:
    image[3, 4, 5] += 1


@pytest.mark.parametrize("kind", KINDS)
def test_other_software_does_not_replace_pixels(homes: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Those of shard 1 are as another numpy would make them, but for one that is damaged."""
    dataset = copy_home(homes[kind], tmp_path)
    forge(dataset, 1, brighter)
    of_other_software(dataset)
    if kind == "recipe":
        (dataset / PART).unlink()
    else:
        flip(shard_object(dataset, 1), 100)
    before = contents(dataset)
    report = verify(dataset, repair=True)
    assert not report.ok
    assert [one.done for one in report.repairs] == [False]
    for what in ("numpy 0.1 made it, here is", "sample 4 has not the crc32c on record", f"remove {WHOLE} and {PART}"):
        assert what in report.repairs[0].note
    assert contents(dataset) == before


def test_other_software_that_comes_to_the_same_pixels_repairs(homes: dict[str, Path], dataset: Path) -> None:
    of_other_software(dataset)
    flip(shard_object(dataset, 1), 100)
    report = verify(dataset, repair=True)
    assert report.ok, report.lines()
    assert_same(dataset, homes[open_dataset(dataset).info.config.store] / "data")


def test_a_whole_manifest_that_fits_is_enough(dataset: Path) -> None:
    """The checksums of the part are wrong, those of the whole manifest are right."""
    of_other_software(dataset)
    whole = (dataset / WHOLE).read_bytes()
    rewrite_part(dataset, 1, lambda row: row.update(image_crc32c=7), whole=False)
    assert (dataset / WHOLE).read_bytes() == whole
    report = verify(dataset, repair=True)
    assert [one.done for one in report.repairs] == [True]
    assert report.ok


def test_other_software_that_fails_removes_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_other_software(dataset)
    flip(shard_object(dataset, 1), 100)
    before = contents(dataset)

    def failing(*_: object) -> None:
        raise ZeroDivisionError("in the generator")

    monkeypatch.setattr(workers.repair, "render", failing)
    report = verify(dataset, repair=True)
    assert "sample 4 cannot be made by the software here: in the generator" in report.repairs[0].note
    assert contents(dataset) == before


def test_a_shard_without_any_record_is_made_and_told(homes: dict[str, Path], dataset: Path) -> None:
    (dataset / WHOLE).unlink()
    flip(dataset / PART, 200)
    group = next((dataset / "shards").glob("000001-*"))
    shutil.rmtree(group)
    report = verify(dataset, repair=True)
    assert report.ok
    assert "nothing tells which pixels it had and which software made them" in report.repairs[0].note
    assert_same(dataset, homes[open_dataset(dataset).info.config.store] / "data")
