"""Repairs that are cut off, as by a kill, at any change that they make: what is left is finished later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.manifest import shard_name
from pipeline.s3 import S3Store
from pipeline.store import FolderStore, Store
from tests.damage import (
    CONFIG,
    KINDS,
    assert_same,
    contents,
    copy_bank,
    copy_data,
    copy_home,
    flip,
    flip_object,
    make_homes,
    rewrite_part,
    shard_object,
)
from workers.generate import generate
from workers.verify import verify

PART = "manifest/000001.parquet"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_homes(tmp_path_factory.mktemp("cut_off"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of banks in the object store."""
    monkeypatch.setenv("PHANTUMOR_CACHE", str(tmp_path / "cache"))


CHANGES = ("create", "replace", "writer", "remove", "remove_group", "settle")


class Killed(BaseException):
    """What no code can hold up."""


def dying(patch: pytest.MonkeyPatch, store: type[Store], after: int) -> list[int]:
    """From the n-th change of a store on, every change fails, as if the process were gone. How many there were."""
    count = [0]

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*given: Any) -> Any:
            count[0] += 1
            if count[0] > after:
                raise Killed
            return original(*given)

        return change

    for name in CHANGES:
        patch.setattr(store, name, wrapped(getattr(store, name)))
    return count


def make_broken(homes: dict[str, Path], kind: str, to: Path) -> tuple[Path, GenerateConfig]:
    dataset = copy_home(homes[kind], to)
    if kind == "recipe":
        rewrite_part(dataset, 1, lambda row: row.update(case_id="nobody"))
    else:
        flip(shard_object(dataset, 1), 200)
    return dataset, GenerateConfig.model_validate(CONFIG.model_dump() | {"store": kind})


def assert_claims_are_held(dataset: Path) -> None:
    """A reader finds the files of every shard that the dataset says it has."""
    opened = open_dataset(dataset)
    for shard, part in opened.parts.items():
        for file in part.files:
            assert (dataset / shard_name(shard, part.attempt) / file.path).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_repair_cut_off_anywhere_is_finished_later(homes: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """By a repair and then, if shards are missing, by `generate`; or by `generate` at once."""
    for after in range(100):
        dataset, config = make_broken(homes, kind, tmp_path / str(after))
        with pytest.MonkeyPatch.context() as patch:
            changes = dying(patch, FolderStore, after)
            with contextlib.suppress(Killed):
                verify(dataset, repair=True)
        finished = changes[0] <= after
        assert_claims_are_held(dataset)
        if after % 2:
            verify(dataset, repair=True)
        generate(dataset.parent / "bank", dataset, config, log=lambda _: None)
        report = verify(dataset, repair=True, gc=True, gc_age_minutes=0)
        assert report.ok, (after, report.lines())
        assert_same(dataset, homes[kind] / "data")
        if finished:
            assert after > 6
            return
    raise AssertionError("a repair takes fewer steps")


def test_a_repair_in_an_object_store_cut_off_anywhere_is_finished_later(homes: dict[str, Path], s3_url: str) -> None:
    config = GenerateConfig.model_validate(CONFIG.model_dump() | {"store": "delta"})
    copy_bank(homes["delta"] / "data", s3_url)
    for after in range(0, 100, 3):
        store = copy_data(homes["delta"] / "data", f"{s3_url}/{after}", f"{s3_url}/bank")
        before = contents(store)
        flip_object(
            store, next(key for key in sorted(e.key for e in store.entries()) if "/000001" in key and "c/0" in key)
        )
        with pytest.MonkeyPatch.context() as patch:
            changes = dying(patch, S3Store, after)
            with contextlib.suppress(Killed):
                verify(store.url, repair=True)
        generate(f"{s3_url}/bank", store.url, config, log=lambda _: None)
        assert verify(store.url, repair=True, gc=True, gc_age_minutes=0).ok, after
        assert contents(store) == before
        if changes[0] <= after:
            assert after > 6
            return
    raise AssertionError("a repair takes fewer steps")
