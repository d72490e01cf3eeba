"""A dataset as a value: `open_dataset(path_or_url)`. Reads only what the manifest says is committed.

A dataset of its own has shards and a manifest. A *view* (`phantumor merge`, `phantumor select`) has a manifest only:
its rows name samples that lie in other datasets.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError, model_validator

from pipeline.config import GenerateConfig, Settings, differences, explain
from pipeline.delta import healthy_image
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
    write_whole_manifest,
)
from pipeline.organs import CLASS_IDS
from pipeline.plan import Plan
from pipeline.shard import object_path
from pipeline.store import Location, Store, open_store
from pipeline.threads import in_threads

if TYPE_CHECKING:
    from pipeline.bank import Bank
    from pipeline.case import Case

FORMAT_VERSION = 2
INFO = "dataset.json"
# A description may come from anybody; beyond these a dataset would fill the memory of whoever opens it.
MOST_SAMPLES = 10**9  # sample ids have nine digits
MOST_VOXELS = 2**30  # of a sample: a whole body at 1 mm takes half of it
_NotNegative = Annotated[int, Field(ge=0)]


class Source(Settings):
    """A dataset that a view takes samples from."""

    place: str  # folder relative to the view where both lie on disks, else absolute; or a URL
    config_digest: str
    bank_fingerprint: str
    first_index: _NotNegative  # of its samples in the view: index there + this one
    first_shard: _NotNegative


class DatasetInfo(Settings):
    """`dataset.json`: what was planned, from which bank, with which software."""

    format_version: int = FORMAT_VERSION
    config: GenerateConfig
    config_digest: str
    bank: str  # folder of the bank, relative to the dataset where both move together, else absolute; or a URL
    bank_fingerprint: str
    spacing_mm: Annotated[float, Field(gt=0)]
    classes: dict[str, Annotated[int, Field(ge=0, le=255)]]
    shards: _NotNegative
    grown: tuple[int, ...] = ()  # how many samples it held when it was made, and each time before it grew
    sources: tuple[Source, ...] = ()  # of a view
    software: dict[str, str]

    @model_validator(mode="after")
    def _size_makes_sense(self) -> Self:
        samples, voxels = self.config.samples, math.prod(self.config.patch_shape)
        if samples > MOST_SAMPLES:
            raise ValueError(f"samples: {samples} are more than {MOST_SAMPLES}, the most of a dataset")
        if voxels > MOST_VOXELS:
            raise ValueError(f"patch_shape: {voxels} voxels are more than {MOST_VOXELS}, the most of a sample")
        if any(a >= b for a, b in pairwise((0, *self.grown, samples))):
            raise ValueError(f"grown: a dataset only grows, {(*self.grown, samples)} does not")
        if any(a.first_shard >= b.first_shard for a, b in pairwise(self.sources)):
            raise ValueError("sources: not in the order of first_shard")
        return self

    @property
    def plan(self) -> Plan:
        """Which samples each shard holds."""
        return Plan(self.config.samples, self.config.shard_samples, self.grown)

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Of every sample; InputError where samples are whole cases, each of its own shape."""
        if self.config.whole_cases:
            raise InputError(
                "this dataset holds whole cases (patch_shape full), which differ in shape; batches and training need "
                "patches: generate with --patch-shape 96 96 96"
            )
        return self.config.patch_shape


class Sample(NamedTuple):
    """One stored sample: image int16 HU and label uint8, both (X, Y, Z), and its manifest row."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    row: dict[str, Any]


def dataset_classes(organs: tuple[str, ...]) -> dict[str, int]:
    """Names and ids of the classes in labels of these organs, background first."""
    names = ["background", *(name for organ in organs for name in (organ, f"{organ}_tumor"))]
    return {name: CLASS_IDS[name] for name in sorted(names, key=lambda name: CLASS_IDS[name])}


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
        """The healthy twin: the same patch of the bank case without the tumors, (X, Y, Z) int16 HU."""
        row = self.row(index)
        shape = self.checked_shape(row["shard"], index3(row["shape_vox"]))
        return healthy_image(self.case(row), tuple(row["origin_vox"]), shape)

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
            table = table.filter(pc.field("split") == split)
        return [int(index) for index in table["index"].to_pylist()]


def _empty(names: Sequence[str] | None) -> pa.Table:
    table = SCHEMA.empty_table()
    return table if names is None else table.select(list(dict.fromkeys(name.partition(".")[0] for name in names)))


def bank_of(store: Store, info: DatasetInfo) -> Bank:
    """The bank that a dataset was made from; an InputError when it is gone or was changed."""
    from pipeline.bank import open_bank  # most uses of a dataset need no bank

    place = info.bank if "://" in info.bank or store.folder is None else str((store.folder / info.bank).resolve())
    try:
        bank = open_bank(place)
    except InputError as error:
        raise InputError(f"{store.url}: its bank is needed here, but: {error}") from error
    if bank.fingerprint != info.bank_fingerprint:
        raise InputError(
            f"{store.url} was made from another state of the bank {place}: fingerprint "
            f"{info.bank_fingerprint[:12]} then, {bank.fingerprint[:12]} now. Restore the bank's cases"
        )
    return bank


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
    relative = view.folder is not None and "://" not in source.place
    store = open_store((view.folder / source.place).resolve() if relative and view.folder else source.place)
    info = read_info(store)
    now = (recipe_digest(info.config), info.bank_fingerprint)
    if info.sources or now != (source.config_digest, source.bank_fingerprint):
        raise InputError(
            f"{view.url}: made from {store.url} when that was a dataset of other settings, or of another state of its "
            "bank; make the view again"
        )
    return Home(store, info, source.first_index, source.first_shard)


def recipe_digest(config: GenerateConfig) -> str:
    """sha256 of what decides the bytes of each sample: the settings but for how many samples there are."""
    return config.model_copy(update={"samples": 1}).digest()


def read_info(store: Store) -> DatasetInfo:
    """Read and check `dataset.json`."""
    where = f"{store.url}/{INFO}"
    try:
        document = json.loads(store.read(INFO))
        version = document.get("format_version")
        if version == FORMAT_VERSION:
            return DatasetInfo.model_validate(document)
    except (FileNotFoundError, NotADirectoryError) as error:
        there = store.folder is None or store.folder.exists()
        what = f"it holds no {INFO}" if there else "no such folder"
        raise InputError(f"{store.url} is not a phantumor dataset: {what}. `phantumor generate` makes one") from error
    except OSError as error:
        raise PhantumorError(f"{where}: cannot be read: {error.strerror or error}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        reason = explain(error, DatasetInfo) if isinstance(error, ValidationError) else error
        raise InputError(
            f"{where}: not a readable dataset description: {reason}. Restore the file from a copy, or generate the "
            "dataset again into a new folder"
        ) from error
    raise InputError(
        f"{where}: dataset format {version}, this phantumor reads format {FORMAT_VERSION}. "
        "Use the phantumor that made it, or generate the dataset again"
    )


def info_bytes(info: DatasetInfo) -> bytes:
    """The bytes of `dataset.json`."""
    return json.dumps(info.model_dump(mode="json"), indent=2).encode()


def create_info(store: Store, info: DatasetInfo) -> None:
    """Write `dataset.json` once; the same dataset again is a resume, another one is refused."""
    if not store.create(INFO, info_bytes(info)):
        check_same(store, read_info(store), info)


def check_same(store: Store, old: DatasetInfo, info: DatasetInfo) -> None:
    """InputError when the dataset there was made with other settings or another bank than `info`."""
    compared = ("config", "bank_fingerprint")
    before, now = ({k: d.model_dump(mode="json")[k] for k in compared} for d in (old, info))
    changed = differences(before, now)
    if changed:
        raise InputError(
            f"{store.url} already holds a dataset made with other settings: {'; '.join(changed)}. "
            "Use the old settings to resume it, or another --out"
        )


def compact(store: Store, shards: Iterable[int] | None = None) -> None:
    """Write the whole manifest into one file: of these shards, ascending, or of all that are committed."""
    wanted = committed_shards(store) if shards is None else shards
    write_whole_manifest(store, in_threads(lambda shard: read_part(store, shard), wanted))


def relative_place(of: Store, seen_from: Store) -> str:
    """How one place is written down in a file of another: relative between folders, so that both can move together."""
    if of.folder is None or seen_from.folder is None:
        return of.url if of.folder is None else str(of.folder.resolve())
    return os.path.relpath(of.folder.resolve(), seen_from.folder.resolve())
