"""What the tests of the stream share."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from pipeline.catalog import Dataset
from tests.datasets import object_file
from training.stream import ShardStream

SHAPE = (8, 9, 10)
# In flight, in the consumer's hands, and for a moment in those of two threads that have just finished.
FEW_BUFFERS = 4 + 1 + 2


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("shard-stream")]


def indices(batches: Any, count: int | None = None) -> list[list[int]]:
    """The indices of each batch, of the first `count` ones."""
    return [batch["index"].tolist() for batch in itertools.islice(batches, count)]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def collect(stream: ShardStream, into: list[list[int]], look: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Read to the end; the indices of what was delivered are in `into`, also after an error."""
    for batch in stream:
        look(batch)
        into.append(batch["index"].tolist())


def assert_is_stored(dataset: Dataset, batch: dict[str, torch.Tensor]) -> None:
    """Image and label of each sample of the batch are those that the dataset holds under its index."""
    for k, index in enumerate(batch["index"].tolist()):
        sample = dataset.sample(index)
        np.testing.assert_array_equal(batch["image"][k, 0].numpy(), sample.image)
        np.testing.assert_array_equal(batch["label"][k, 0].numpy(), sample.label)


def cut_object(dataset: Dataset, shard: int, name: str) -> None:
    file = object_file(dataset, shard, name)
    os.truncate(file, dataset.manifest[f"{name}_range"].to_pylist()[4 * shard + 3][0] + 10)


def flip_a_byte(dataset: Dataset, shard: int, name: str) -> None:
    file = object_file(dataset, shard, name)
    data = bytearray(file.read_bytes())
    offset, length = dataset.manifest[f"{name}_range"].to_pylist()[4 * shard + 3]
    data[offset + length // 2] ^= 1
    file.write_bytes(data)


def remove_shard(dataset: Dataset, shard: int, name: str) -> None:
    shutil.rmtree(object_file(dataset, shard, name).parents[5])
