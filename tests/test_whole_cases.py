"""Datasets of whole cases instead of patches (`--patch-shape full`), in shards of slabs."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr

from pipeline import shard
from pipeline.bank import Bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.export import export
from pipeline.inspection import describe, summarise
from pipeline.settings import resolve
from tests.cases import make_bank
from training.stream import ShardStream
from workers.generate import generate
from workers.verify import verify

CONFIG = resolve(GenerateConfig, None, {"samples": 4, "patch_shape": "full", "seed": 3, "body_share": 0})


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank", cases=2)


@pytest.fixture(scope="module")
def made(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("whole") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "SLAB", 16)  # several slabs, the last one not full
        generate(bank.path, out, CONFIG, log=lambda _: None)
        patch.undo()
    return open_dataset(out)


@pytest.fixture(autouse=True)
def thin_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "SLAB", 16)


def test_a_sample_is_a_whole_case_with_tumors_in_it(bank: Bank, made: Dataset) -> None:
    found = 0
    for index in range(4):
        image, label, row = made.sample(index)
        case = bank.load(row["case_id"])
        assert image.shape == label.shape == case.ct.shape == tuple(row["shape_vox"])
        assert row["origin_vox"] == [0, 0, 0]
        assert np.array_equal(made.healthy(index), case.ct)
        if row["n_tumors"]:
            assert (image != case.ct).any()
            found += 1
    assert found


def test_one_case_lies_in_a_shard_of_slabs_that_zarr_reads(made: Dataset) -> None:
    assert sorted(made.parts) == list(range(4))
    for index, part in made.parts.items():
        group = zarr.open_group(f"{made.path}/shards/{index:06d}-{part.attempt}.zarr", mode="r")
        sample = made.sample(index)
        for name, array in (("image", sample.image), ("label", sample.label)):
            assert group[name].chunks == (1, 16, *array.shape[1:])
            assert np.array_equal(group[name][0], array)


@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_other_kinds_give_the_same_volumes(bank: Bank, made: Dataset, tmp_path: Path, kind: str) -> None:
    generate(bank.path, tmp_path / "data", CONFIG.model_copy(update={"store": kind}), log=lambda _: None)
    other = open_dataset(tmp_path / "data")
    for index in range(4):
        assert np.array_equal(other.sample(index).image, made.sample(index).image)
        assert np.array_equal(other.sample(index).label, made.sample(index).label)


def test_it_is_verified_replayed_and_repaired(bank: Bank, made: Dataset, tmp_path: Path) -> None:
    assert verify(Path(made.path), replay=1.0).ok
    generate(bank.path, tmp_path / "data", CONFIG, log=lambda _: None)
    broken = next((tmp_path / "data/shards").glob("000002-*/image/c/0/0/0/0"))
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    assert not verify(tmp_path / "data").ok
    assert verify(tmp_path / "data", repair=True).ok
    assert np.array_equal(open_dataset(tmp_path / "data").sample(2).image, made.sample(2).image)


def test_volumes_are_exported_with_the_place_of_their_case(bank: Bank, made: Dataset, tmp_path: Path) -> None:
    export(made.path, tmp_path / "out", "nifti", log=lambda _: None)
    row = made.row(1)
    image = nib.load(tmp_path / f"out/{row['sample_id']}/image.nii.gz")
    assert image.shape == bank.load(row["case_id"]).ct.shape
    assert np.allclose(image.affine, bank.load(row["case_id"]).affine)


def test_inspect_says_that_they_are_whole_cases(made: Dataset) -> None:
    assert "whole cases" in describe(summarise(made))[0]


def test_batches_are_refused_with_the_remedy(made: Dataset) -> None:
    with pytest.raises(InputError, match=r"whole cases.*--patch-shape 96 96 96"):
        ShardStream(made, 2)


def test_several_whole_cases_in_a_shard_are_refused() -> None:
    with pytest.raises(InputError, match="one in a shard"):
        resolve(GenerateConfig, None, {"patch_shape": "full", "shard_samples": 8})


def test_the_settings_say_full_and_are_read_back() -> None:
    assert CONFIG.model_dump(mode="json")["patch_shape"] == "full"
    assert GenerateConfig.model_validate(CONFIG.model_dump(mode="json")) == CONFIG
    assert CONFIG.shard_samples == 1
