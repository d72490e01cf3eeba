from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa
import pytest

from pipeline.catalog import Dataset
from pipeline.description import dataset_classes
from pipeline.errors import InputError
from pipeline.manifest import SCHEMA
from pipeline.train_config import TrainConfig
from tests.datasets import make_dataset, with_manifest
from training.data import TrainingData, open_data
from training.sources import Mixture, Stored


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder = tmp_path_factory.mktemp("data")
    return [make_dataset(folder / "a", samples=20), make_dataset(folder / "b", samples=10, seed=1)]


def with_organs(dataset: Dataset, organs: tuple[str, ...], also_of: int | None = None) -> Dataset:
    """The dataset as if its samples, or the first `also_of`, annotated these organs."""
    classes = dataset_classes(organs)
    info = dataset.info.model_copy(update={"classes": classes})
    rows = dataset.manifest.to_pylist()
    for row in rows[:also_of]:
        row["annotated_classes"] = sorted(classes.values())
    changed = with_manifest(dataset, pa.Table.from_pylist(rows, schema=SCHEMA))
    return dataclasses.replace(changed, info=info)


def data_of(datasets: list[Dataset], **settings: Any) -> TrainingData:
    return open_data(datasets, TrainConfig.model_validate(settings))


def test_one_dataset_is_its_own_source_with_filter_and_weights(two: list[Dataset]) -> None:
    weights = {"n_tumors > 0": 3.0}
    source = data_of(two[:1], where="n_tumors > 0", sample_weights=weights).source
    assert isinstance(source, Stored)
    assert (source.split, source.where, source.weights) == ("train", "n_tumors > 0", weights)


def test_several_datasets_are_mixed_by_their_samples_or_as_asked(two: list[Dataset]) -> None:
    plain, asked = data_of(two).source, data_of(two, mix=(1, 3)).source
    assert isinstance(plain, Mixture)
    assert isinstance(asked, Mixture)
    held = [len(data.indices_of("train")) for data in two]
    some = [data_of(two, where="index < 10").held(data) for data in two]
    assert some == [sum(index < 10 for index in data.indices_of("train")) for data in two]
    assert some[0] < held[0]
    assert [share for _, share in plain.parts] == pytest.approx([n / sum(held) for n in held])
    assert [share for _, share in asked.parts] == pytest.approx([0.25, 0.75])


def test_what_is_not_annotated_everywhere_is_said(two: list[Dataset]) -> None:
    assert data_of(two[:1]).lines() == []
    (line,) = data_of(two, mix=(1, 3)).lines()
    assert "25%" in line
    assert "75%" in line
    other = with_organs(two[1], ("liver", "kidney"))
    marginal = data_of([two[0], other]).lines()[1]
    assert marginal.startswith("taken as unknown")
    assert marginal.endswith(f"not annotated there: kidney, kidney_tumor in {two[0].path}")
    background = data_of([two[0], other], supervision={"partial": "background"}).lines()[1]
    assert background.startswith("CAUTION: trained as background")
    some = with_organs(two[1], ("liver", "kidney"), also_of=4)
    assert data_of([some]).lines()[0].endswith(f"kidney, kidney_tumor in 6 samples of {two[1].path}")


def test_a_dataset_named_twice_is_refused(two: list[Dataset]) -> None:
    with pytest.raises(InputError, match="named twice"):
        data_of([two[0], two[0]])


def test_validation_samples_come_from_all_datasets_in_turns(two: list[Dataset]) -> None:
    counts = [len(data.indices_of("val")) for data in two]
    assert min(counts) >= 1
    assert len(data_of(two).validation) == sum(counts)
    first_two = data_of(two, validate_samples=2).validation
    assert [data.path for data, _ in first_two] == [data.path for data in two]


def test_shares_need_a_dataset_each(two: list[Dataset]) -> None:
    with pytest.raises(InputError, match="mix names 3 shares for 2 datasets"):
        data_of(two, mix=(1, 1, 1))
    with pytest.raises(InputError, match="no dataset"):
        data_of([])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endless": 0.5, "where": "n_tumors > 0"}, "cannot be filtered"),
        ({"endless": 1, "mix": (1, 1)}, "leave mix and sample_weights out"),
        ({"endless": 1, "sample_weights": {"n_tumors > 0": 2}}, "leave mix and sample_weights out"),
    ],
)
def test_nothing_is_asked_of_samples_that_are_not_there(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.model_validate(settings)


def test_all_samples_made_on_the_fly_are_by_one_recipe(two: list[Dataset]) -> None:
    with pytest.raises(InputError, match="name that one alone"):
        data_of(two, endless=1)


def test_the_digest_tells_datasets_apart(two: list[Dataset]) -> None:
    digests = {data_of(some).digest for some in (two, two[:1], two[1:], two[::-1])}
    assert len(digests) == 4
