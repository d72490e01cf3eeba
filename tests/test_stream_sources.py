"""What a stream draws from: filtered and weighted samples, samples made on the fly, mixtures of them."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bank import Bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig, SplitShare
from pipeline.errors import InputError
from tests.cases import make_bank
from tests.datasets import make_dataset
from training.order import MIX_BLOCK, epoch_permutation, part_seed
from training.sources import Drawn, Endless, Mixture, Source, Stored, StoredPart, open_source
from training.stream import ShardStream
from workers.generate import generate

SHAPE = (24, 24, 16)
CONFIG = GenerateConfig(samples=6, patch_shape=SHAPE, shard_samples=3, seed=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("sources") / "bank")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """20 samples, 12 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("sources") / "dataset", samples=20, patch_shape=(8, 8, 8))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """35 other samples, 21 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("sources") / "other", samples=35, patch_shape=(8, 8, 8), seed=1)


def opened(source: Source, seed: int = 0) -> Drawn:
    return open_source(source, seed, "full")


def drawn_indices(drawn: Drawn, start: int, stop: int) -> list[tuple[int, int]]:
    """Source and index of the samples at these positions."""
    found = []
    for number, place in zip(*(array.tolist() for array in drawn.find(np.arange(start, stop))), strict=True):
        part = drawn.parts[number]
        found.append((number, int(part.rows.index[place]) if isinstance(part, StoredPart) else place))
    return found


# -- stored -----------------------------------------------------------------------------------------------------------


def test_an_epoch_with_weights_has_as_many_draws_as_samples(dataset: Dataset) -> None:
    wanted = np.array([4.0 if dataset.row(index)["n_tumors"] == 2 else 1.0 for index in dataset.indices_of("train")])
    share = 12 * wanted / wanted.sum()
    drawn = opened(Stored(dataset, weights={"n_tumors = 2": 4.0}))
    assert drawn.samples == 12
    for epoch in range(5):
        times = Counter(index for _, index in drawn_indices(drawn, 12 * epoch, 12 * epoch + 12))
        for index, expected in zip(dataset.indices_of("train"), share.tolist(), strict=True):
            assert np.floor(expected) <= times[index] <= np.ceil(expected)


# -- mixed ------------------------------------------------------------------------------------------------------------


def test_a_mixture_holds_the_shares_and_each_source_keeps_its_own_order(dataset: Dataset, other: Dataset) -> None:
    drawn = opened(Mixture([(Stored(dataset), 1), (Stored(other, "all"), 3)]), seed=5)
    found = drawn_indices(drawn, MIX_BLOCK, 2 * MIX_BLOCK)
    assert Counter(number for number, _ in found) == {0: MIX_BLOCK // 4, 1: 3 * MIX_BLOCK // 4}
    for number, (data, split) in enumerate(((dataset, "train"), (other, "all"))):
        held, came = data.indices_of(split), [index for n, index in found if n == number]
        first = MIX_BLOCK * (1 + 2 * number) // 4
        wanted = [
            held[epoch_permutation(len(held), part_seed(5, number), p // len(held))[p % len(held)]]
            for p in range(first, first + len(came))
        ]
        assert came == wanted


@pytest.mark.parametrize("given", ["dataset", "str", "path"])
def test_a_part_may_be_a_dataset_or_its_place(dataset: Dataset, other: Dataset, given: str) -> None:
    kinds = {"dataset": dataset, "str": str(dataset.path), "path": Path(dataset.path)}
    same = opened(Mixture([(Stored(dataset), 1), (Stored(other), 2)]))
    plain = opened(Mixture([(kinds[given], 1), (Stored(other), 2)]))
    assert drawn_indices(plain, 0, 50) == drawn_indices(same, 0, 50)
    assert plain.identity == same.identity


def test_the_objects_that_come_next_are_at_most_an_epoch_ahead(dataset: Dataset, tmp_path: Path) -> None:
    few = make_dataset(tmp_path / "few", samples=8, patch_shape=(8, 8, 8), shard_samples=4)
    assert open_source(Stored(few, "all"), 0, "shard").window == 8
    many = make_dataset(tmp_path / "many", samples=20, patch_shape=(8, 8, 8), shard_samples=2)
    assert open_source(Stored(many, "all"), 0, "shard").window == 14
    mixture = Mixture([(Stored(few, "all"), 1), (Stored(dataset), 1)])
    assert open_source(mixture, 0, "shard").window == 16  # every second position is of the first part


def test_an_epoch_of_a_mixture_is_as_long_as_what_it_stores(dataset: Dataset, other: Dataset, bank: Bank) -> None:
    assert opened(Mixture([(Stored(dataset), 9), (Stored(other), 1)])).samples == 12 + 21
    assert opened(Mixture([(Endless(bank, CONFIG), 1)])).samples is None


def test_classes_are_united(bank: Bank, tmp_path: Path) -> None:
    small = CONFIG.model_copy(update={"organs": ("liver",), "patch_shape": (8, 8, 8)})
    drawn = opened(Mixture([(Endless(bank, small), 1), (Endless(bank, small, first_index=5), 1)]))
    assert drawn.classes == {"background": 0, "liver": 1, "liver_tumor": 2}
    assert (drawn.patch_shape, drawn.spacing_mm) == ((8, 8, 8), bank.spacing_mm)


def test_a_stream_of_a_mixture_names_the_source_of_each_sample(dataset: Dataset, other: Dataset) -> None:
    data = (dataset, other)
    seen: Counter[int] = Counter()
    with ShardStream(Mixture([(Stored(dataset), 0.5), (Stored(other, "all"), 0.5)]), 5, epochs=2) as stream:
        for batch in stream:
            for k, (number, index) in enumerate(zip(batch["source"].tolist(), batch["index"].tolist(), strict=True)):
                np.testing.assert_array_equal(batch["image"][k, 0].numpy(), data[number].sample(index).image)
                seen[number] += 1
    assert seen.total() == 2 * (12 + 35)
    assert set(seen) == {0, 1}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([], "one or more sources"),
        ([1.0, 0.0], "each with a share above 0"),
        ([1.0, float("nan")], "each with a share above 0"),
        ([1.0, 1e-5], "less than 1/4096 of all"),
    ],
)
def test_shares_that_make_no_sense_are_refused(dataset: Dataset, shares: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(Mixture([(Stored(dataset), share) for share in shares]))


def test_sources_that_do_not_fit_into_one_batch_are_refused(dataset: Dataset, bank: Bank, tmp_path: Path) -> None:
    large = make_dataset(tmp_path / "large", samples=5, patch_shape=(9, 8, 8))
    with pytest.raises(InputError, match=r"patches 8x8x8 of 1 mm and .*9x8x8 of 1 mm: .*same patch shape and spacing"):
        opened(Mixture([(Stored(dataset), 1), (Stored(large), 1)]))
    same_shape = Endless(bank, CONFIG.model_copy(update={"patch_shape": (8, 8, 8)}))
    with pytest.raises(InputError, match=r"8x8x8 of 1 mm and .*8x8x8 of 3 mm"):
        opened(Mixture([(Stored(dataset), 1), (same_shape, 1)]))
    with pytest.raises(InputError, match="a part is a Mixture"):
        opened(Mixture([(Mixture([(Stored(dataset), 1)]), 1)]))
    with pytest.raises(InputError, match="a part is a int; parts are datasets, Stored or Endless"):
        opened(Mixture([(7, 1)]))  # type: ignore[list-item]


# -- made on the fly --------------------------------------------------------------------------------------------------


def test_samples_made_on_the_fly_are_those_that_generate_stores(bank: Bank, tmp_path: Path) -> None:
    alone = CONFIG.model_copy(update={"split_share": SplitShare(train=0, val=0, test=1)})
    generate(bank.path, tmp_path / "stored", alone, log=lambda _: None)
    stored = open_dataset(tmp_path / "stored")
    assert stored.split_counts() == {"test": 6}
    with ShardStream(Endless(bank, CONFIG, "test", first_index=1), 2) as stream:
        batches = [{name: tensor.clone() for name, tensor in batch.items()} for batch in islice(stream, 2)]
    assert [batch["index"].tolist() for batch in batches] == [[1, 2], [3, 4]]
    for batch in batches:
        for k, index in enumerate(batch["index"].tolist()):
            np.testing.assert_array_equal(batch["image"][k, 0].numpy(), stored.sample(index).image)
            np.testing.assert_array_equal(batch["label"][k, 0].numpy(), stored.sample(index).label)


def test_stored_samples_and_samples_made_on_the_fly_come_mixed_with_their_healthy_twins(
    bank: Bank, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"store": "delta"})
    generate(bank.path, tmp_path / "stored", config, log=lambda _: None)
    stored = open_dataset(tmp_path / "stored")
    source = Mixture([(Stored(stored, "all"), 0.5), (Endless(str(bank.path), config, first_index=6), 0.5)])
    seen = []
    with ShardStream(source, 3, epochs=2, healthy=True) as stream:
        for batch in stream:
            changed = (batch["image"] != batch["healthy"]).flatten(1).any(1)
            for k, index in enumerate(batch["index"].tolist()):
                seen.append((int(batch["source"][k]), index))
                assert bool(changed[k]) or not (batch["label"][k] == 2).any()
                if batch["source"][k] == 0:
                    np.testing.assert_array_equal(batch["healthy"][k, 0].numpy(), stored.healthy(index))
    fresh = [index for number, index in seen if number == 1]
    assert fresh == list(range(6, 6 + len(fresh)))
    assert 0 < len(fresh) < len(seen) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "holdout"}, "split 'holdout': must be one of train, val, test"),
        ({"first_index": -1}, "first_index must be at least 0"),
        ({"config": CONFIG.model_copy(update={"patch_shape": (0, 0, 0)})}, "batches need a patch shape"),
    ],
)
def test_what_cannot_be_made_is_refused(bank: Bank, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"bank": bank, "config": CONFIG} | changes
    with pytest.raises(InputError, match=message):
        opened(Endless(**given))


def test_a_bank_without_cases_of_the_split_is_refused(tmp_path: Path) -> None:
    one = make_bank(tmp_path / "bank", cases=1)
    with pytest.raises(InputError, match="no case is of split 'val'"):
        opened(Endless(one, CONFIG, "val"))


# -- what a position depends on ---------------------------------------------------------------------------------------


def test_a_state_knows_filter_weights_and_shares(dataset: Dataset, other: Dataset) -> None:
    def mixture(where: str | None, factor: float, share: float) -> Mixture:
        first = Stored(dataset, where=where, weights={"n_tumors = 2": factor})
        return Mixture([(first, share), (Stored(other), 1 - share)])

    state = ShardStream(mixture("index > 0", 2, 0.5), 4).state_dict()
    ShardStream(mixture("index > 0", 2, 0.5), 3).load_state_dict(state)
    for changed, named in (
        (mixture("index > 1", 2, 0.5), "mixture.0.where: index > 0 -> index > 1"),
        (mixture("index > 0", 3, 0.5), "mixture.0.weights: "),
        (mixture("index > 0", 2, 0.4), r"shares_of_4096: \[2048, 2048\] -> \[1638, 2458\]"),
    ):
        with pytest.raises(InputError, match=named):
            ShardStream(changed, 4).load_state_dict(state)


def test_samples_made_on_the_fly_have_no_epochs(bank: Bank) -> None:
    with pytest.raises(InputError, match="samples made on the fly have no epochs"):
        ShardStream(Endless(bank, CONFIG), 2, epochs=1)


@pytest.mark.parametrize("given", [{"split": "val"}, {"where": "index > 3"}, {"weights": {"index > 3": 2.0}}])
def test_a_source_says_itself_what_is_drawn(dataset: Dataset, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="of a Stored stand within it"):
        ShardStream(Stored(dataset), 2, **given)
