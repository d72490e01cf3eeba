"""Samples of a dataset to pick from by number, for samplers and per-sample transforms.

They travel to other processes as a place and row numbers: files are opened by the process that reads.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset as MapDataset

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from pipeline.reader import SampleReader, column_names, located
from pipeline.shard import DTYPES
from pipeline.store import Location
from pipeline.where import Positions, chosen
from training.portable import place_of


class ShardSamples(MapDataset[dict[str, Any]]):
    """Samples of a dataset by number, for samplers and per-sample transforms.

    `samples[i]` is `{"image": int16 HU (1, X, Y, Z), "label": uint8 (1, X, Y, Z), "index": int}`, the i-th sample of
    the split that fulfils `where`, by ascending index. MONAI's dictionary transforms take it as it is:
    `monai.data.Dataset(ShardSamples("DATASET"), RandFlipd(["image", "label"]))`. Whole batches come faster out of a
    `ShardStream`.
    """

    def __init__(self, dataset: Dataset | Location, split: str = "train", where: str | None = None) -> None:
        opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        self._place, self._numbers = place_of(opened), chosen(opened, where, split)
        if not len(self._numbers):
            asked = f"split {split!r}" if where is None else f"split {split!r} where {where}"
            counts = ", ".join(f"{name} {count}" for name, count in sorted(opened.split_counts().items())) or "none"
            raise InputError(
                f"{opened.path}: no sample of {asked} (samples: {counts}). Name another split or condition"
            )
        self._indices = opened.columns(["index"])["index"].to_numpy()[self._numbers]
        self._opened: tuple[int, _Opened] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One sample, checksums verified; InputError when it is broken."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        return self._here().sample(range(len(self))[number])

    def _here(self) -> _Opened:
        """The open files of this very process: a forked one must not use its parent's."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _Opened(self._place, self._numbers, self._indices)
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}


class _Opened:
    """A dataset that this process has opened, and the rows of the chosen samples."""

    def __init__(self, place: str, numbers: Positions, indices: npt.NDArray[np.int64]) -> None:
        self._dataset = open_dataset(place)
        table = self._dataset.columns(column_names(self._dataset))
        if numbers[-1] < table.num_rows:
            self._rows = located(self._dataset, table.take(numbers))
        if numbers[-1] >= table.num_rows or not np.array_equal(self._rows.index, indices):
            raise InputError(f"{place}: the dataset was changed since it was opened; make the ShardSamples anew")
        self._reader = SampleReader(self._dataset, self._rows)

    def sample(self, k: int) -> dict[str, Any]:
        """Image, label and index of the k-th chosen sample."""
        shape = self._dataset.checked_shape(int(self._rows.shard[k]), self._rows.shape_of(k))
        arrays = {name: np.empty((1, *shape), dtype) for name, dtype in DTYPES.items()}
        self._reader.read(k, arrays["image"][0], arrays["label"][0])
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"index": int(self._rows.index[k])}
