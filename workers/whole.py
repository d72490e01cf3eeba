"""`manifest.parquet` read beside the parts that it was made from, a few rows at a time: all of them may not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.manifest import MOST_PART_ROWS, SCHEMA, WHOLE, ManifestFile, Part, open_whole
from pipeline.store import Store
from workers.findings import Finding, Remedy, unreadable


class Said(NamedTuple):
    """What the whole manifest says of a shard; `rows` is how many, of which `table` holds the first ones."""

    part: Part | None
    rows: int
    table: pa.Table


class Whole:
    """`manifest.parquet` of a dataset or a view, opened; InputError when it cannot be, or is none of `samples` rows."""

    def __init__(self, store: Store, samples: int, remedy: Remedy = "compact") -> None:
        self._file: ManifestFile = open_whole(store)
        self._remedy: Remedy = remedy
        if self._file.rows > samples:
            raise InputError(f"{WHOLE}: it holds {self._file.rows} rows, the dataset has {samples} samples")
        self.parts: Mapping[int, Part] = self._file.parts()
        column = self._file.columns(["shard"])["shard"]
        if column.null_count or (np.diff(column.to_numpy()) < 0).any():
            raise InputError(f"{WHOLE}: its rows are not in the order of shards")
        self._shards: npt.NDArray[np.int64] = column.to_numpy()
        self.fault: Finding | None = None  # what went wrong later, when its rows were read

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return len(self._shards)

    @property
    def shards(self) -> list[int]:
        """Every shard that it knows of, ascending."""
        return sorted({*self.parts, *np.unique(self._shards).tolist()})

    def indices(self) -> npt.NDArray[np.int64]:
        """The column `index`."""
        values: npt.NDArray[np.int64] = self._file.columns(["index"])["index"].to_numpy()
        return values

    def said(self, shards: Iterable[int]) -> Iterator[tuple[int, Said | None]]:
        """What it says of each of these shards, which ascend; None where it says nothing, or turns out unreadable."""
        cursor = _Cursor(self._file)
        for shard in shards:
            yield shard, self._said_of(shard, cursor)

    def _said_of(self, shard: int, cursor: _Cursor) -> Said | None:
        first, last = np.searchsorted(self._shards, [shard, shard + 1]).tolist()
        if self.fault is not None or (first == last and shard not in self.parts):
            return None
        try:
            table = cursor.rows(first, min(last, first + MOST_PART_ROWS))
        except InputError as error:
            self.fault = unreadable(None, WHOLE, error, self._remedy)
            return None
        return Said(self._part(shard), last - first, table)

    def _part(self, shard: int) -> Part | None:
        try:
            return self.parts.get(shard)
        except (TypeError, ValueError, KeyError):  # broken, which is as good as none
            return None


class _Cursor:
    """Goes once through the rows of a file."""

    def __init__(self, file: ManifestFile) -> None:
        self._batches = file.batches()
        self._held = SCHEMA.empty_table()
        self._first = 0  # number of the first row that is held

    def rows(self, first: int, last: int) -> pa.Table:
        """Rows `first` to `last` (excluded), none of them before the last call's."""
        while self._first + self._held.num_rows < last:
            passed = min(max(0, first - self._first), self._held.num_rows)
            batch = next(self._batches, None)
            if batch is None:
                raise InputError(f"{WHOLE}: it ends before its row {last}")
            self._held = pa.concat_tables([self._held.slice(passed), batch])
            self._first += passed
        return self._held.slice(first - self._first, last - first)


def open_if_sound(store: Store, samples: int, remedy: Remedy = "compact") -> Whole | Finding:
    """The whole manifest, or what is wrong with it."""
    try:
        return Whole(store, samples, remedy)
    except InputError as error:
        return unreadable(None, WHOLE, error, remedy)


def row_differences(mine: pa.Table, rows: pa.Table, where: str) -> list[str]:
    """One line for each row that differs. As text, because a value that is not a number equals nothing."""
    if mine.equals(rows):
        return []
    try:
        mine.validate(full=True)
    except pa.ArrowInvalid as error:
        return [f"holds invalid values: {error}"]
    wrong = []
    for a, b in zip(mine.to_pylist(), rows.to_pylist(), strict=True):
        columns = [name for name in SCHEMA.names if json.dumps(a[name]) != json.dumps(b[name])]
        if columns:
            wrong.append(f"sample {b['index']}: not the {', '.join(columns)} in {where}")
    return wrong


def uncommitted(whole: Whole, committed: Sequence[int]) -> list[int]:
    """Shards that it knows and that no part file commits."""
    return sorted(set(whole.shards) - set(committed))
