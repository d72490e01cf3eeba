"""Which classes each sample of a dataset annotates: what the manifest says, and of a bank what all its cases have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.bank import Bank
from pipeline.catalog import Dataset
from pipeline.organs import BACKGROUND, organ_id, tumor_id

IntArray = npt.NDArray[np.int64]
Ids = frozenset[int]


@dataclass(frozen=True)
class Annotated:
    """Which classes each sample of a dataset annotates, by the manifest."""

    index: IntArray  # (n,) ascending
    number: IntArray  # (n,) of the selection
    selections: tuple[Ids, ...]
    counts: tuple[int, ...]  # samples of each selection

    @classmethod
    def of(cls, dataset: Dataset) -> Annotated:
        table = dataset.columns(["index", "annotated_classes"])
        column = table["annotated_classes"].combine_chunks()
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        ids, place = np.unique(column.flatten().to_numpy(), return_inverse=True)
        held = np.zeros((len(lengths), len(ids)), bool)
        held[np.repeat(np.arange(len(lengths)), lengths), place] = True
        rows, number, counts = np.unique(np.packbits(held, axis=1), axis=0, return_inverse=True, return_counts=True)
        bits = np.unpackbits(rows, axis=1, count=len(ids)).astype(bool)
        selections = tuple(frozenset(ids[row].tolist()) for row in bits)
        return cls(table["index"].to_numpy(), number.reshape(-1), selections, tuple(counts.tolist()))

    @property
    def ids(self) -> Ids:
        """The class ids that some sample annotates."""
        return frozenset().union(*self.selections)

    def lacking(self, classes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Classes, by name, that not all samples annotate, and how many of them do not."""
        for name, number in sorted(classes.items(), key=lambda item: item[1]):
            without = sum(n for ids, n in zip(self.selections, self.counts, strict=True) if number not in ids)
            if without:
                yield name, without

    @classmethod
    def everywhere(cls, annotated: Ids) -> Annotated:
        """Of samples without a manifest, which all annotate the same."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), (annotated,), (0,))

    def selection(self, index: int) -> Ids:
        """The class ids that a sample annotates."""
        if len(self.selections) == 1:
            return self.selections[0]
        return self.selections[int(self.number[np.searchsorted(self.index, index)])]


def annotated_by_all(bank: Bank, organs: tuple[str, ...], split: str) -> Ids:
    """The class ids that samples annotate whatever case of the split they are made from."""
    cases = [record for record in bank.records if record.split == split]
    with_organ = {organ for organ in organs if all(organ in record.stats for record in cases)}
    ids = {organ_id(organ) for organ in with_organ}
    ids |= {
        tumor_id(organ)
        for organ in with_organ
        if all(not record.annotated or tumor_id(organ) in record.annotated for record in cases)
    }
    return frozenset((BACKGROUND, *ids))
