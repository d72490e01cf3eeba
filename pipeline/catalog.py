"""A dataset as a value: `open_dataset(path_or_url)`. Reads only what the manifest says is committed.

A dataset of its own has shards and a manifest. A *view* (`phantumor merge`, `phantumor select`) has a manifest only:
its rows name samples that lie in other datasets.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.delta import healthy_image, no_twin
from pipeline.description import INFO, MOST_VOXELS, DatasetInfo, Source, read_info, recipe_digest
from pipeline.errors import InputError, PhantumorError
from pipeline.grid import Index3, index3
from pipeline.manifest import (
    SCHEMA,
    WHOLE,
    ManifestFile,
    Parts,
    committed_shards,
    open_part,
    open_whole,
    read_part,
    shard_name,
)
from pipeline.shard import object_path
from pipeline.store import Location, Store, open_store, store_at
from pipeline.threads import in_threads
from pipeline.whole_manifest import write_whole_manifest

if TYPE_CHECKING:
    from pipeline.bank import Bank
    from pipeline.case import Case


class Sample(NamedTuple):
    """One stored sample: image int16 HU and label uint8, both (X, Y, Z), and its manifest row."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    row: dict[str, Any]


@dataclass(frozen=True)
class Home:
    """Where the samples of a dataset, or of one source of a view, lie and come from."""

    store: Store
    info: DatasetInfo
    first_index: int = 0
    first_shard: int = 0

    @cached_property
    def bank(self) -> Bank:
        """The bank that the dataset was made from; an InputError when it is gone or was changed."""
        return bank_of(self.store, self.info)


@dataclass(frozen=True)
class Dataset:
    """Committed samples: `manifest` (one row each, by index) and where their shards lie."""

    store: Store
    info: DatasetInfo
    homes: tuple[Home, ...]
    _files: Sequence[ManifestFile]  # that hold the rows, in order
    parts: Parts = field(repr=False)

    @property
    def path(self) -> str:
        """The dataset's place, as a user may type it."""
        return self.store.url

    @cached_property
    def manifest(self) -> pa.Table:
        """All rows with all columns. `columns` is for those who need a few of a million rows."""
        return self.columns(None)

    def columns(self, names: Sequence[str] | None) -> pa.Table:
        """All rows, these columns; a field of `tumors` is named `tumors.kind`."""
        if "manifest" in self.__dict__ and (names is None or not any("." in name for name in names)):
            return self.manifest if names is None else self.manifest.select(names)
        tables = list(in_threads(lambda file: file.columns(names), self._files))
        return pa.concat_tables(tables) if tables else _empty(names)

    def batches(self) -> Iterator[pa.Table]:
        """All rows with all columns, some thousands at a time."""
        for file in self._files:
            yield from file.batches()

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return sum(file.rows for file in self._files)

    def home(self, shard: int) -> Home:
        """Where a shard lies."""
        number = bisect_right([home.first_shard for home in self.homes], shard) - 1
        if number < 0:
            raise InputError(f"{self.path}: a manifest row names shard {shard}, which lies in none of its sources")
        return self.homes[number]

    def object_key(self, shard: int, name: str) -> tuple[Store, str]:
        """The store and key of a shard's object of array `name` (`image` or `label`)."""
        if shard not in self.parts:
            raise InputError(f"{self.path}: a manifest row names shard {shard}, which no part file commits")
        home = self.home(shard)
        group = shard_name(shard - home.first_shard, self.parts[shard].attempt)
        return home.store, f"{group}/{object_path(name)}"

    @cached_property
    def _indices(self) -> npt.NDArray[np.int64]:
        column = self.columns(["index"])["index"]
        if column.null_count or (np.diff(column.to_numpy()) <= 0).any():
            raise InputError(f"{self.path}: the manifest's rows are not in the order of index. See `phantumor verify`")
        indices: npt.NDArray[np.int64] = column.to_numpy()
        return indices

    def position(self, index: int) -> int:
        """Which row of the manifest is that of a sample; InputError when there is none."""
        number = int(np.searchsorted(self._indices, index))
        if number == self.rows or self._indices[number] != index:
            held = f"{self.rows} samples" if self.rows else "no sample"
            raise InputError(f"{self.path}: no sample with index {index} (the dataset holds {held})")
        return number

    def row(self, index: int) -> dict[str, Any]:
        """The manifest row of a sample, with `tumors` as a list of dicts."""
        number = self.position(index)
        for file in self._files:
            if number < file.rows:
                return file.row(number)
            number -= file.rows
        raise AssertionError("positions are counted from these very files")

    def sample(self, index: int) -> Sample:
        """Image, label and manifest row of a sample, checksums verified."""
        from pipeline.reader import SampleReader, located  # it reads what this module describes

        row = self.row(index)
        rows = located(self, pa.Table.from_pylist([row], schema=SCHEMA))
        shape = self.checked_shape(row["shard"], rows.shape_of(0))
        image, label = np.empty(shape, np.int16), np.empty(shape, np.uint8)
        with contextlib.closing(SampleReader(self, rows)) as reader:
            reader.read(0, image, label)
        return Sample(image, label, row)

    def healthy(self, index: int) -> npt.NDArray[np.int16]:
        """The healthy twin: the same patch of the bank case without the tumors, (X, Y, Z) int16 HU.

        InputError for a sample of an annotated case, which has none.
        """
        row = self.row(index)
        shape = self.checked_shape(row["shard"], index3(row["shape_vox"]))
        case = self.case(row)
        if case.annotated:
            raise no_twin(f"{self.path}: sample {index}", [case.case_id])
        return healthy_image(case, tuple(row["origin_vox"]), shape)

    def checked_shape(self, shard: int, shape: Index3) -> Index3:
        """The shape (X, Y, Z) that a row of a shard claims; InputError unless samples there can have it."""
        config = self.home(shard).info.config
        allowed = min(shape) >= 1 and math.prod(shape) <= MOST_VOXELS
        if not allowed or (not config.whole_cases and shape != config.patch_shape):
            wanted = f"{MOST_VOXELS} voxels at most" if config.whole_cases else f"patches of {config.patch_shape}"
            raise InputError(
                f"{self.path}: a manifest row of shard {shard} claims a sample of shape {shape}, this dataset holds "
                f"{wanted}. See `phantumor verify`"
            )
        return shape

    def case(self, row: Mapping[str, Any]) -> Case:
        """The bank case of a manifest row."""
        return self.home(row["shard"]).bank.load(row["case_id"])

    @property
    def bank(self) -> Bank:
        """The bank that the dataset was made from; an InputError when it is gone or was changed."""
        if len({home.info.bank_fingerprint for home in self.homes}) > 1:
            raise InputError(f"{self.path}: a view of {len(self.homes)} datasets, each of which has its bank")
        return self.homes[0].bank

    @property
    def complete(self) -> bool:
        return len(self.parts) == self.info.shards

    def split_counts(self) -> dict[str, int]:
        """Samples by split."""
        counts = self.columns(["split"])["split"].value_counts().to_pylist()
        return {entry["values"]: entry["counts"] for entry in counts}

    def indices_of(self, split: str) -> list[int]:
        """Indices of the samples of a split (`all` for every sample), ascending."""
        table = self.columns(["index", "split"])
        if split != "all":
            table = table.filter(pc.equal(table["split"], split))
        return [int(index) for index in table["index"].to_pylist()]


def _empty(names: Sequence[str] | None) -> pa.Table:
    table = SCHEMA.empty_table()
    return table if names is None else table.select(list(dict.fromkeys(name.partition(".")[0] for name in names)))


def bank_of(store: Store, info: DatasetInfo) -> Bank:
    """The bank that a dataset was made from; an InputError when it is gone or was changed."""
    from pipeline.bank import open_bank  # most uses of a dataset need no bank

    place = store_at(info.bank, store)
    try:
        bank = open_bank(place)
    except InputError as error:
        raise InputError(f"{store.url}: its bank is needed here, but: {error}. {_NEW_PLACE}") from error
    if bank.fingerprint != info.bank_fingerprint:
        raise InputError(
            f"{store.url} was made from another state of the bank {place.url}: fingerprint "
            f"{info.bank_fingerprint[:12]} then, {bank.fingerprint[:12]} now: its cases changed, or another bank lies "
            f"there. Restore the cases of then. {_NEW_PLACE}"
        )
    return bank


_NEW_PLACE = (
    "If the bank was moved: run the dataset's `phantumor generate` command with --bank NEWPLACE, or write the new "
    f"place into `bank` of {INFO}"
)


def has_bank(store: Store, info: DatasetInfo) -> bool:
    """Whether a dataset with this description finds its bank, in the state it was made from."""
    try:
        bank_of(store, info)
    except (PhantumorError, OSError):
        return False
    return True


def open_dataset(place: Location | Store) -> Dataset:
    """Open a dataset, complete or still growing: a folder, a `file://` URL, or `s3://bucket/prefix`."""
    store = open_store(place)
    info = read_info(store)
    whole = open_whole(store, view=bool(info.sources)) if store.exists(WHOLE) else None
    parts = whole.parts() if whole else Parts.of([])
    if info.sources:
        _check_view(store, info, whole)
    elif whole and max(parts, default=-1) >= len(parts):  # not the first shards, so rows would be out of order
        whole, parts = None, Parts.of([])
    files = [whole] if whole else []
    if not info.sources and len(parts) < info.shards:
        later = [shard for shard in committed_shards(store) if shard not in parts and shard < info.shards]
        opened = list(in_threads(lambda shard: open_part(store, shard), later))
        files += opened
        parts = Parts.joined([parts, Parts.of(file.part() for file in opened)]) if opened else parts
    return Dataset(store, info, _homes(store, info), files, parts)


def _check_view(store: Store, info: DatasetInfo, whole: ManifestFile | None) -> None:
    """A view is written once, in one go: one that is not whole is broken."""
    if whole is None or whole.rows != info.config.samples:
        held = f"{whole.rows} rows instead of {info.config.samples}" if whole else "none"
        raise InputError(
            f"{store.url}: a view needs its {WHOLE}, it has {held}. Remove the folder, make the view again"
        )


def _homes(store: Store, info: DatasetInfo) -> tuple[Home, ...]:
    if not info.sources:
        return (Home(store, info),)
    return tuple(_source_home(store, source) for source in info.sources)


def _source_home(view: Store, source: Source) -> Home:
    store = store_at(source.place, view)
    info = read_info(store)
    now = (recipe_digest(info.config), info.bank_fingerprint)
    if info.sources or now != (source.config_digest, source.bank_fingerprint):
        raise InputError(
            f"{view.url}: made from {store.url} when that was a dataset of other settings, or of another state of its "
            "bank; make the view again"
        )
    return Home(store, info, source.first_index, source.first_shard)


def compact(store: Store, shards: Iterable[int] | None = None) -> None:
    """Write the whole manifest into one file: of these shards, ascending, or of all that are committed."""
    wanted = committed_shards(store) if shards is None else shards
    write_whole_manifest(store, in_threads(lambda shard: read_part(store, shard), wanted))
