"""A broken shard is one clear error, or is left out, and never a wrong byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import reader
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from tests.datasets import object_file
from tests.stream.helpers import (
    assert_is_stored,
    collect,
    cut_object,
    flat,
    flip_a_byte,
    indices,
    reading_threads,
    remove_shard,
)
from training.stream import ShardStream

FAULTS = [
    (cut_object, "ends .* bytes early"),
    (flip_a_byte, "crc32c differs"),
    (remove_shard, "No such file"),
]


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize(("damage", "reason"), FAULTS)
def test_a_broken_shard_is_one_error_that_names_it(
    own_dataset: Dataset, damage: Callable[[Dataset, int, str], None], reason: str, name: str
) -> None:
    stream = ShardStream(own_dataset, 2, split="all", epochs=1, shuffle=False, threads=2, prefetch=2)
    delivered: list[list[int]] = []

    def damage_in_mid_epoch(batch: dict[str, torch.Tensor]) -> None:
        if not delivered:
            damage(own_dataset, 5, name)
        assert_is_stored(own_dataset, batch)

    with pytest.raises(InputError, match=rf"broken shard 000005.*{reason}.*verify .* --repair") as error:
        collect(stream, delivered, damage_in_mid_epoch)
    assert reading_threads() == []
    assert str(error.value).count("broken shard") == 1
    first_bad = 20 if damage is remove_shard else 22
    assert delivered == [[k, k + 1] for k in range(0, first_bad, 2)]
    assert stream.state_dict()["position"] == first_bad


def test_a_repaired_shard_is_read_where_the_stream_failed(own_dataset: Dataset) -> None:
    file = object_file(own_dataset, 3, "image")
    data = file.read_bytes()
    file.unlink()
    stream = ShardStream(own_dataset, 4, split="all", epochs=1, shuffle=False)
    before: list[list[int]] = []
    with pytest.raises(InputError, match="broken shard 000003"):
        collect(stream, before, lambda batch: None)
    file.write_bytes(data)
    assert flat(before + indices(stream)) == list(range(40))


@pytest.mark.parametrize("threads", [1, 4])
def test_errors_in_every_worker_reach_the_consumer_once(own_dataset: Dataset, threads: int) -> None:
    shutil.rmtree(Path(own_dataset.path) / "shards")
    with pytest.raises(InputError, match="broken shard"):
        next(iter(ShardStream(own_dataset, 4, threads=threads, prefetch=8)))


def test_an_unforeseen_error_in_a_worker_is_not_swallowed(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(reader, "decode_sample", out_of_memory)
    with pytest.raises(MemoryError, match="no room"):
        next(iter(ShardStream(dataset, 4)))


def test_broken_samples_are_left_out_where_that_is_asked_for(own_dataset: Dataset) -> None:
    remove_shard(own_dataset, 9, "image")
    stream = ShardStream(own_dataset, 16, split="all", epochs=1, shuffle=False, tail="pad", on_broken="skip")
    with pytest.warns(UserWarning, match="broken shard 000009"):
        found = [(batch["index"].tolist(), stream.positions.tolist()) for batch in stream]
    assert found == [(list(kept), list(kept)) for kept in (range(16), range(16, 32), range(32, 36))]
    assert stream.skipped == 4 + 8  # and the copies of the last one, which was to fill up the batch
    assert stream.position == 40
