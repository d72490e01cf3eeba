"""A dataset as a value: what is committed is read, and everything broken is one message that says what to do."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.bank import create_or_open_bank, open_bank
from pipeline.case import AIR_HU
from pipeline.catalog import Dataset, Home, compact, open_dataset
from pipeline.description import create_info, dataset_classes
from pipeline.errors import InputError
from pipeline.manifest import SCHEMA, part_name
from pipeline.store import open_store
from tests.cases import make_bank, make_case
from tests.datasets import make_dataset, make_sample, object_file, with_manifest

SHAPE = (8, 9, 10)
SAMPLES = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog") / "data"
    make_dataset(folder, samples=SAMPLES, patch_shape=SHAPE, shard_samples=4)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def growing(folder: Path, *missing: int) -> Path:
    """The dataset as it looks before its last shard is committed."""
    (folder / "manifest.parquet").unlink(missing_ok=True)
    for shard in missing:
        (folder / part_name(shard)).unlink()
    return folder


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False], ids=["one manifest file", "parts only"])
def test_every_sample_is_the_one_that_was_written(folder: Path, whole: bool) -> None:
    dataset = open_dataset(folder if whole else growing(folder))
    assert dataset.complete
    assert dataset.manifest["index"].to_pylist() == list(range(SAMPLES))
    for index in range(SAMPLES):
        image, label, tumors = make_sample(0, index, SHAPE)
        sample = dataset.sample(index)
        assert (sample.image.dtype, sample.label.dtype) == (np.int16, np.uint8)
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.label, label)
        assert sample.row == dataset.row(index)
        assert (sample.row["index"], sample.row["shard"], sample.row["row"]) == (index, index // 4, index % 4)
        assert len(sample.row["tumors"]) == sample.row["n_tumors"] == len(tumors)


def test_a_path_may_be_text(made: Path) -> None:
    assert open_dataset(str(made)).manifest.num_rows == SAMPLES


def test_a_growing_dataset_holds_what_is_committed(folder: Path) -> None:
    dataset = open_dataset(growing(folder, 1))
    assert not dataset.complete
    assert dataset.manifest["index"].to_pylist() == [0, 1, 2, 3, 8, 9]
    assert sorted(dataset.parts) == [0, 2]
    np.testing.assert_array_equal(dataset.sample(9).image, make_sample(0, 9, SHAPE)[0])
    with pytest.raises(InputError, match=r"no sample with index 5 \(the dataset holds 6 samples\)"):
        dataset.sample(5)


@pytest.mark.parametrize("emptied", ["parts", "folders"])
def test_a_dataset_without_shards_yet_is_empty(folder: Path, emptied: str) -> None:
    growing(folder, 0, 1, 2)
    if emptied == "folders":
        shutil.rmtree(folder / "manifest")
        shutil.rmtree(folder / "shards")
    dataset = open_dataset(folder)
    assert dataset.manifest.schema.equals(SCHEMA)
    assert (dataset.manifest.num_rows, dataset.complete, dataset.split_counts()) == (0, False, {})
    assert dataset.indices_of("train") == []
    with pytest.raises(InputError, match="no sample with index 0"):
        dataset.row(0)


def test_compacting_changes_nothing_that_is_read(folder: Path) -> None:
    before = open_dataset(growing(folder))
    compact(open_store(folder))
    after = open_dataset(folder)
    assert after.manifest.equals(before.manifest)
    assert after.parts == before.parts


@pytest.mark.parametrize("index", [-1, SAMPLES, 10**12])
def test_an_unknown_index_is_refused(made: Path, index: int) -> None:
    dataset = open_dataset(made)
    for read in (dataset.row, dataset.sample, dataset.healthy):
        with pytest.raises(InputError, match=f"no sample with index {index} .*10 samples") as caught:
            read(index)
        assert str(made) in str(caught.value)


def test_numpy_indices_do(made: Path) -> None:
    assert open_dataset(made).row(np.int64(3))["index"] == 3  # type: ignore[arg-type]


def test_splits_are_counted_and_listed(made: Path) -> None:
    dataset = open_dataset(made)
    assert dataset.split_counts() == {"train": 6, "val": 2, "test": 2}
    assert dataset.indices_of("val") == [3, 8]
    assert dataset.indices_of("all") == list(range(SAMPLES))
    assert dataset.indices_of("none") == []


def test_a_dataset_can_be_moved(folder: Path, tmp_path: Path) -> None:
    before = open_dataset(folder).sample(7)
    folder.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(open_dataset(tmp_path / "elsewhere").sample(7).image, before.image)


@pytest.mark.parametrize(
    ("organs", "expected"),
    [
        (("liver",), {"background": 0, "liver": 1, "liver_tumor": 2}),
        (("colon", "liver"), {"background": 0, "liver": 1, "liver_tumor": 2, "colon": 7, "colon_tumor": 8}),
    ],
)
def test_class_ids_are_the_same_in_every_dataset(organs: tuple[str, ...], expected: dict[str, int]) -> None:
    assert list(dataset_classes(organs).items()) == list(expected.items())


# -- broken shards ----------------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)


def swap_chunks(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[len(data) // 3 :] + data[: len(data) // 3])


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "No such file or directory"),
    "empty": (lambda file: file.write_bytes(b""), "bytes early"),  # type: ignore[dict-item, return-value]
    "cut": (cut, "early|crc32c differs"),
    "flipped": (flip, "crc32c differs"),
    "shifted": (swap_chunks, "crc32c differs"),
}


def failures(dataset: Dataset) -> dict[int, str]:
    """Messages by index of the samples that cannot be read."""
    found = {}
    for index in range(SAMPLES):
        try:
            dataset.sample(index)
        except InputError as error:
            found[index] = str(error)
    return found


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize(("damage", "reason"), BREAKS.values(), ids=BREAKS)
def test_a_broken_shard_is_one_message_that_says_how_to_mend_it(
    folder: Path, damage: Callable[[Path], None], reason: str, name: str
) -> None:
    file = object_file(open_dataset(folder), 1, name)
    damage(file)
    failed = failures(open_dataset(folder))
    for message in failed.values():
        assert re.search(reason, message)
        assert f"broken shard 000001: {file}: " in message
        assert "\n" not in message
        assert f"`phantumor verify {folder} --repair`" in message
    assert failed
    assert set(failed) <= {4, 5, 6, 7}  # the other shards are read as before


def test_a_shard_that_cannot_be_read_now_is_not_called_broken(folder: Path) -> None:
    """A network disk that is away for a while must not make anybody remove a shard that is whole."""
    file = object_file(open_dataset(folder), 1, "image")
    file.unlink()
    file.mkdir()  # reading it fails, for root as well, whom permissions do not stop
    with pytest.raises(
        InputError, match=f"shard 000001 cannot be read: {re.escape(str(file))}: Is a directory"
    ) as caught:
        open_dataset(folder).sample(4)
    assert "broken" not in str(caught.value)
    assert "Remove" not in str(caught.value)


def test_a_whole_missing_shard_is_told_as_well(folder: Path) -> None:
    shard = object_file(open_dataset(folder), 2, "image").parents[5]
    shutil.rmtree(shard)
    with pytest.raises(InputError, match=f"broken shard 000002: {re.escape(str(shard))}"):
        open_dataset(folder).sample(8)


def test_the_remedy_leaves_a_dataset_that_can_be_resumed(folder: Path) -> None:
    flip(object_file(open_dataset(folder), 1, "image"))
    for name in ("manifest/000001.parquet", "manifest.parquet"):
        (folder / name).unlink()
    dataset = open_dataset(folder)
    assert not dataset.complete
    assert all(dataset.sample(index).row["index"] == index for index in dataset.indices_of("all"))


def test_a_part_copied_under_another_name_is_refused(folder: Path) -> None:
    growing(folder)
    shutil.copy(folder / part_name(0), folder / part_name(1))
    with pytest.raises(InputError, match=r"000001\.parquet"):
        open_dataset(folder)


def test_a_row_of_a_shard_that_no_part_commits_is_refused(made: Path) -> None:
    dataset = open_dataset(made)
    orphaned = dataclasses.replace(dataset, parts={0: dataset.parts[0]})
    with pytest.raises(InputError, match="names shard 2, which no part file commits"):
        orphaned.sample(8)


# -- what is no dataset -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "is not a phantumor dataset: no such folder"),
        (lambda path: path.mkdir(), "is not a phantumor dataset: it holds no dataset.json"),
        (lambda path: path.write_text("x"), "is not a phantumor dataset"),
        (lambda path: (path.mkdir(), (path / "bank.json").write_text("{}")), "is not a phantumor dataset"),
    ],
    ids=["missing", "empty folder", "file", "bank"],
)
def test_what_is_no_dataset_is_refused(tmp_path: Path, make: Callable[[Path], Any], expected: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(InputError, match=expected) as caught:
        open_dataset(tmp_path / "data")
    assert str(tmp_path / "data") in str(caught.value)
    assert "`phantumor generate`" in str(caught.value)


def changed(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda document: json.dumps(document | changes)


def without_bank(document: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in document.items() if name != "bank"})


DESCRIPTIONS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "later format": (changed(format_version=3), "dataset format 3, this phantumor reads format 2"),
    "no format": (changed(format_version=None), "dataset format None"),
    "format as text": (changed(format_version="1"), "dataset format 1, this"),
    "unknown key": (changed(added="x"), "added"),
    "missing key": (without_bank, "bank"),
    "bad setting": (changed(config={"samples": -1}), "config.samples"),
    "bad type": (changed(shards="three"), "shards"),
    "no number": (changed(spacing_mm=float("nan")), "spacing_mm"),
    "cut": (lambda document: json.dumps(document)[:-40], "not a readable dataset description"),
    "a list": (lambda document: "[]", "not a readable dataset description"),
    "empty": (lambda document: "", "not a readable dataset description"),
}


@pytest.mark.parametrize(("change", "expected"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_broken_description_is_one_message_with_the_remedy(
    folder: Path, change: Callable[[dict[str, Any]], str], expected: str
) -> None:
    file = folder / "dataset.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(InputError, match=expected) as caught:
        open_dataset(folder)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    assert "http" not in message
    assert re.search(r"[Gg]enerate|[Rr]estore|[Uu]se the phantumor", message)


# -- beginning and resuming -------------------------------------------------------------------------------------------


def test_the_same_settings_again_are_a_resume(folder: Path) -> None:
    before = (folder / "dataset.json").read_bytes()
    create_info(open_store(folder), open_dataset(folder).info)
    assert (folder / "dataset.json").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"seed": 5}, "config.seed: 0 -> 5"),
        ({"samples": 11}, "config.samples: 10 -> 11"),
        ({"split_share": {"val": 0.25}}, "config.split_share.val: 0.1 -> 0.25"),
        ({"tumors": {"liver": {"diameter_mm": [5, 9]}}}, "config.tumors.liver.diameter_mm: None -> [5.0, 9.0]"),
        ({"seed": 5, "samples": 11}, "config.samples: 10 -> 11; config.seed: 0 -> 5"),
    ],
)
def test_other_settings_are_refused_by_name(folder: Path, config: dict[str, Any], expected: str) -> None:
    info = open_dataset(folder).info
    other = type(info.config).model_validate(info.config.model_dump(exclude_unset=True) | config)
    before = (folder / "dataset.json").read_bytes()
    with pytest.raises(InputError, match=re.escape(f"made with other settings: {expected}. ")) as caught:
        create_info(open_store(folder), info.model_copy(update={"config": other, "config_digest": other.digest()}))
    assert str(folder) in str(caught.value)
    assert (folder / "dataset.json").read_bytes() == before


def test_another_bank_is_refused(folder: Path) -> None:
    info = open_dataset(folder).info
    with pytest.raises(InputError, match=r"the bank is another one, or its cases changed \(fingerprint 0000"):
        create_info(open_store(folder), info.model_copy(update={"bank_fingerprint": "1" * 64}))


def test_a_moved_bank_is_no_other_bank(folder: Path) -> None:
    create_info(open_store(folder), open_dataset(folder).info.model_copy(update={"bank": "../moved"}))


# -- the healthy twin -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank", cases=1).path


@pytest.fixture
def banked(folder: Path, bank_folder: Path) -> Dataset:
    """The dataset beside a bank of case `tiny_0`, from which all its samples are."""
    bank = Path(shutil.copytree(bank_folder, folder.parent / "bank"))
    dataset = open_dataset(folder)
    table = dataset.manifest
    origins = [[-3, 20, 40], [10, 20, 30], [0, 0, 0], [500, 0, 0], *[[30, 20, 10]] * (SAMPLES - 4)]
    for name, values in (("case_id", ["tiny_0"] * SAMPLES), ("origin_vox", origins)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, SCHEMA.field(name).type))
    info = dataset.info.model_copy(update={"bank": "../bank", "bank_fingerprint": open_bank(bank).fingerprint})
    return with_manifest(dataclasses.replace(dataset, homes=(Home(dataset.store, info),)), table)


def test_the_healthy_twin_is_the_patch_of_the_case(banked: Dataset) -> None:
    ct = make_case("tiny_0").ct
    assert ct.shape == (60, 52, 44)
    x, y, z = SHAPE
    twin = banked.healthy(1)
    assert (twin.dtype, twin.shape) == (np.int16, SHAPE)
    np.testing.assert_array_equal(twin, ct[10 : 10 + x, 20 : 20 + y, 30 : 30 + z])
    over_the_edge = banked.healthy(0)
    np.testing.assert_array_equal(over_the_edge[3:, :, :4], ct[: x - 3, 20 : 20 + y, 40:44])
    assert (over_the_edge[:3] == AIR_HU).all()
    assert (over_the_edge[:, :, 4:] == AIR_HU).all()
    assert (banked.healthy(3) == AIR_HU).all()


def test_the_healthy_twin_is_a_copy(banked: Dataset) -> None:
    banked.healthy(1)[:] = 0
    assert (banked.healthy(1) != 0).any()


def test_dataset_and_bank_may_move_together(banked: Dataset) -> None:
    expected = banked.healthy(1)
    home = Path(banked.path).parent
    moved = home / "moved"
    moved.mkdir()
    for name in ("data", "bank"):
        (home / name).rename(moved / name)
    away = with_manifest(
        dataclasses.replace(banked, homes=(Home(open_store(moved / "data"), banked.homes[0].info),)), banked.manifest
    )
    np.testing.assert_array_equal(away.healthy(1), expected)


def test_a_missing_bank_is_one_message(banked: Dataset) -> None:
    bank = Path(banked.path).parent / "bank"
    bank.rename(Path(banked.path).parent / "away")
    with pytest.raises(InputError, match=f"{re.escape(str(bank))}: no such bank") as caught:
        banked.healthy(1)
    assert str(caught.value).startswith(str(banked.path))
    assert "If the bank was moved: run the dataset's `phantumor generate` command with --bank" in str(caught.value)
    np.testing.assert_array_equal(banked.sample(1).image, make_sample(0, 1, SHAPE)[0])  # pixels need no bank


def test_a_changed_bank_is_refused(banked: Dataset) -> None:
    with create_or_open_bank(Path(banked.path).parent / "bank", 3.0) as writer:
        writer.add_case(make_case("another", seed=9))
    with pytest.raises(InputError, match=r"another state of the bank .*/bank: fingerprint \w{12} then, \w{12} now"):
        banked.healthy(1)


def test_a_case_that_the_bank_lacks_is_refused(banked: Dataset) -> None:
    name = banked.manifest.schema.get_field_index("case_id")
    table = banked.manifest.set_column(name, "case_id", pa.array(["nobody"] * SAMPLES))
    with pytest.raises(InputError, match="nobody"):
        with_manifest(banked, table).healthy(1)
