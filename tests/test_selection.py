"""Which samples are streamed and how often: split, filter and weights."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from tests.datasets import make_dataset, with_manifest
from training.order import weighted_draws
from training.selection import sample_weights, split_samples

# fmt: off
CONDITIONS = [
    ("n_tumors = 2", lambda row: row["n_tumors"] == 2),
    ("diameter_mm < 2.1 and kind = 'bright'", lambda row: any(t["diameter_mm"] < 2.1 for t in row["tumors"])),
    ("index >= 5 and not case_id = 'case-a'", lambda row: row["index"] >= 5 and row["case_id"] != "case-a"),
]
# fmt: on


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """20 samples, 12 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("selection") / "dataset", samples=20, patch_shape=(8, 8, 8))


def nulled(table: pa.Table, name: str) -> pa.Table:
    """The table with the first value of a column missing."""
    field = table.schema.field(name)
    values = pa.array([None, *table[name].to_pylist()[1:]], field.type)
    return table.set_column(table.schema.get_field_index(name), field, values)


# -- split ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_a_split_is_its_samples_by_index(dataset: Dataset, split: str) -> None:
    held = split_samples(dataset, split)
    assert held.rows.index.tolist() == dataset.indices_of(split)
    rows = [dataset.row(index) for index in held.rows.index.tolist()]
    assert held.rows.shard.tolist() == [row["shard"] for row in rows]
    for name in ("image", "label"):
        assert held.rows.ranges[name].tolist() == [row[f"{name}_range"] for row in rows]


def test_the_split_does_not_depend_on_how_the_manifest_is_laid_out(dataset: Dataset) -> None:
    shuffled = dataset.manifest.take(np.random.Generator(np.random.PCG64(1)).permutation(len(dataset.manifest)))
    chunked = with_manifest(dataset, pa.concat_tables([shuffled.slice(0, 7), shuffled.slice(7, 1), shuffled.slice(8)]))
    before, after = split_samples(dataset, "train"), split_samples(chunked, "train")
    assert before.digest == after.digest
    assert before.rows.index.tolist() == after.rows.index.tolist()
    assert before.rows.ranges["label"].tolist() == after.rows.ranges["label"].tolist()
    factors = {"n_tumors = 2": 5.0}
    found = [sample_weights(data, held, factors) for data, held in ((dataset, before), (chunked, after))]
    np.testing.assert_array_equal(*found)


def test_other_pixels_have_another_digest(dataset: Dataset, tmp_path: Any) -> None:
    other = make_dataset(tmp_path / "other", samples=20, patch_shape=(8, 8, 8), seed=1)
    assert split_samples(other, "train").rows.index.tolist() == split_samples(dataset, "train").rows.index.tolist()
    assert split_samples(other, "train").digest != split_samples(dataset, "train").digest


@pytest.mark.parametrize("split", ["training", ""])
def test_an_empty_split_is_refused_with_the_splits_there_are(dataset: Dataset, split: str) -> None:
    with pytest.raises(InputError, match=r"split '.*' holds no sample .*test 4, train 12, val 4.*Name another split"):
        split_samples(dataset, split)


def test_a_dataset_without_samples_says_so(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="no sample at all"):
        split_samples(with_manifest(dataset, dataset.manifest.slice(0, 0)), "train")


@pytest.mark.parametrize("name", ["image_range", "label_range", "shard", "split", "image_crc32c"])
def test_a_manifest_row_without_a_needed_value_is_refused(dataset: Dataset, name: str) -> None:
    with pytest.raises(InputError, match=f"rows without {name}"):
        split_samples(with_manifest(dataset, nulled(dataset.manifest, name)), "train")


# -- filter -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "all"])
@pytest.mark.parametrize(("condition", "fulfils"), CONDITIONS)
def test_a_filter_leaves_the_samples_of_the_split_that_fulfil_it(
    dataset: Dataset, split: str, condition: str, fulfils: Any
) -> None:
    wanted = [index for index in dataset.indices_of(split) if fulfils(dataset.row(index))]
    assert 0 < len(wanted) < len(dataset.indices_of(split))
    assert split_samples(dataset, split, condition).rows.index.tolist() == wanted


def test_a_filter_that_leaves_nothing_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"no sample of split 'val' fulfils 'diameter_mm > 500'.*inspect"):
        split_samples(dataset, "val", "diameter_mm > 500")


# -- weights ----------------------------------------------------------------------------------------------------------


def test_a_weight_is_the_product_of_the_factors_that_apply(dataset: Dataset) -> None:
    held = split_samples(dataset, "train")
    factors = dict(zip((condition for condition, _ in CONDITIONS), (4.0, 0.5, 3.0), strict=True))
    wanted = []
    for index in held.rows.index.tolist():
        row = dataset.row(index)
        applying = [f for (_, fulfils), f in zip(CONDITIONS, factors.values(), strict=True) if fulfils(row)]
        wanted.append(float(np.prod(applying)))
    assert len(set(wanted)) > 3
    found = sample_weights(dataset, held, factors)
    assert found is not None
    np.testing.assert_allclose(found / found.max(), np.array(wanted) / max(wanted))


def test_weights_may_be_given_sample_by_sample(dataset: Dataset) -> None:
    held = split_samples(dataset, "val")
    found = sample_weights(dataset, held, [2.0, 0.0, 1.0, 1.0])
    assert found is not None
    assert np.bincount(weighted_draws(found, 0, 0), minlength=4).tolist() == [2, 0, 1, 1]


def test_equal_weights_are_none(dataset: Dataset) -> None:
    held = split_samples(dataset, "train")
    assert sample_weights(dataset, held, None) is None
    assert sample_weights(dataset, held, {"n_tumors >= 0": 3.0}) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"weights of shape \(2,\); give one for each of the 4 samples"),
        ([1.0, 2.0, -1.0, 1.0], "0 or more, finite"),
        ([1.0, 2.0, float("nan"), 1.0], "0 or more, finite"),
        ({"index >= 0": 0.0}, "not all 0"),
        ({"size > 3": 2.0}, "unknown column size"),
    ],
)
def test_what_is_no_weight_is_refused(dataset: Dataset, weights: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_weights(dataset, split_samples(dataset, "val"), weights)


def test_a_condition_that_nothing_fulfils_is_said(dataset: Dataset) -> None:
    held = split_samples(dataset, "val")
    with pytest.warns(UserWarning, match=r"none of the 4 samples fulfils \"kind = 'hcc'\": its weight has no effect"):
        sample_weights(dataset, held, {"kind = 'hcc'": 4.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_weights(dataset, held, {"kind = 'bright'": 4.0})
