"""One reader for every way a sample can be kept: in full, as a difference from its healthy patch, or as a recipe.

In: a dataset and some of its manifest rows. Out: image and label in arrays of the caller. Any number of threads may use
one reader; reading and decoding run without the interpreter's lock.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset, Home
from pipeline.delta import add_healthy
from pipeline.errors import InputError
from pipeline.grid import Index3, index3
from pipeline.manifest import open_part
from pipeline.shard import DTYPES, ChunkError, array_crc32c, chunk_edge, decode_sample
from pipeline.store import Store

OPEN_FILES = 256  # of each reader; a quarter of the usual limit of a process
OPEN_CASES = 100  # of each reader; two mapped files each, beside those of the banks
IntArray = npt.NDArray[np.int64]
# What the reader needs of a manifest row; recipes have no ranges.
COLUMNS = ("index", "shard", "case_id", "shape_vox", "origin_vox")


@dataclass(frozen=True)
class Located:
    """What reading needs of n manifest rows, as arrays."""

    index: IntArray  # (n,)
    shard: IntArray  # (n,)
    case_id: pa.ChunkedArray  # (n,)
    shape: IntArray  # (n, 3)
    origin: IntArray  # (n, 3), of the patch in its case
    ranges: dict[str, IntArray]  # by array name: byte offset and length, (n, 2); empty of recipes
    crc32c: dict[str, IntArray]  # by array name: of the pixels, (n,)

    def shape_of(self, k: int) -> Index3:
        return index3(self.shape[k])


def located(dataset: Dataset, table: pa.Table) -> Located:
    """Take what reading needs out of manifest rows; InputError when a row lacks a value."""
    names = list(DTYPES) if _stored(dataset) else []
    return Located(
        index=column(dataset, table, "index"),
        shard=column(dataset, table, "shard"),
        case_id=table["case_id"],
        shape=column(dataset, table, "shape_vox").reshape(-1, 3).astype(np.int64),
        origin=column(dataset, table, "origin_vox").reshape(-1, 3).astype(np.int64),
        ranges={name: column(dataset, table, f"{name}_range").reshape(-1, 2) for name in names},
        crc32c={name: column(dataset, table, f"{name}_crc32c").astype(np.int64) for name in DTYPES},
    )


def _stored(dataset: Dataset) -> bool:
    """Whether the samples lie in shards; those of a view are all of one kind."""
    return any(home.info.config.store != "recipe" for home in dataset.homes)


def column_names(dataset: Dataset) -> list[str]:
    """The manifest columns that `located` takes."""
    names = [*COLUMNS, *(f"{name}_crc32c" for name in DTYPES)]
    return names + [f"{name}_range" for name in DTYPES] if _stored(dataset) else names


def column(dataset: Dataset, table: pa.Table, name: str) -> npt.NDArray[Any]:
    """A manifest column as an array, list items one after another; an InputError when a row lacks its value."""
    values = table[name]
    nulls = values.null_count
    if pa.types.is_fixed_size_list(values.type):
        values = pc.list_flatten(values)
    if nulls or values.null_count:
        raise InputError(f"{dataset.path}: the manifest has rows without {name}. `phantumor verify` finds such shards")
    array: npt.NDArray[Any] = values.to_numpy()
    return array


class SampleReader:
    """Reads samples of a dataset by their place among `rows`."""

    def __init__(self, dataset: Dataset, rows: Located) -> None:
        self.rows = rows
        self._dataset = dataset
        self._objects = Objects(dataset)
        self._tissue = lru_cache(maxsize=OPEN_CASES)(partial(_open_tissue, dataset))

    def read(self, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        """Fill `image` (int16 HU) and `label` (uint8), C-contiguous, of the sample's shape; InputError when broken."""
        home = self._dataset.home(int(self.rows.shard[k]))
        if home.info.config.store == "full":
            self._read_full(k, image, label)
        elif home.info.config.store == "delta":
            self._read_delta(home, k, image, label)
        else:
            self._read_recipe(home, k, image, label)

    def close(self) -> None:
        """Close the files."""
        self._objects.close()
        self._tissue.cache_clear()

    def _read_full(self, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        shard = int(self.rows.shard[k])
        for name, out in (("label", label), ("image", image)):
            offset, length = self.rows.ranges[name][k].tolist()
            self._objects.read_chunk(shard, name, offset, length, cast(npt.NDArray[Any], out))

    def _read_delta(self, home: Home, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        self._read_full(k, image, label)
        tissue = self._tissue(home.first_shard, self.rows.case_id[k].as_py())
        add_healthy(tissue, index3(self.rows.origin[k]), home.info.config.organs, image, label)
        self._check(home, k, image, label)

    def _read_recipe(self, home: Home, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        from pipeline.spec import draw_sample  # other kinds need no torch
        from pipeline.synthesis import synthesise

        spec = draw_sample(home.bank, home.info.config, int(self.rows.index[k]) - home.first_index)
        image[...], label[...] = synthesise(home.bank.load(spec.case_id), spec)
        self._check(home, k, image, label)

    def _check(self, home: Home, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        """What was put together must be what was made, whatever became of bank and software since."""
        for name, array in (("image", image), ("label", label)):
            if array_crc32c(cast(npt.NDArray[Any], array)) != self.rows.crc32c[name][k]:
                raise InputError(
                    f"{home.store.url}: sample {int(self.rows.index[k]) - home.first_index}: the {name} put together "
                    f"from the bank is not the one that was made ({home.info.config.store} store): bank or software "
                    f"changed. `phantumor verify {home.store.url} --replay 0.01` tells more"
                )


@dataclass(frozen=True)
class _Tissue:
    """The two arrays of a case that differences are added to, mapped. The other ones are let go of."""

    ct: npt.NDArray[np.int16]
    organs: npt.NDArray[np.uint8]


def _open_tissue(dataset: Dataset, shard: int, case_id: str) -> _Tissue:
    """From the bank, which looks at a case's files each time it is asked: once is enough, what was read is checked."""
    case = dataset.home(shard).bank.load(case_id)
    return _Tissue(case.ct, case.organs)


class Objects:
    """Shard objects of a dataset: files that stay open, or ranges of an object store."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._open = lru_cache(maxsize=OPEN_FILES)(partial(_open_object, dataset))

    def read_chunk(self, shard: int, name: str, offset: int, length: int, out: npt.NDArray[Any]) -> None:
        """Read one encoded sample into `out`; one clear InputError when it is broken."""
        home = self._dataset.home(shard)
        try:
            data = self._open(shard, name).read(offset, length)
            if len(data) != length:
                raise ChunkError(f"ends {length - len(data)} bytes early")
            decode_sample(data, out, chunk_edge(out.shape, home.info.config.whole_cases))
        except (OSError, ChunkError) as error:
            raise self._fault(home, shard, name, error) from error

    def _fault(self, home: Home, shard: int, name: str, error: Exception) -> InputError:
        """What is wrong with a shard; of a view it may be that its source was repaired since."""
        own = shard - home.first_shard
        if self._dataset.info.sources and _attempt(home.store, own) not in ("", self._dataset.parts[shard].attempt):
            return InputError(
                f"shard {own} of {home.store.url} was made again since the view {self._dataset.path} was made; "
                "make the view again"
            )
        return broken_shard(home.store, own, self._dataset.object_key(shard, name)[1], error)

    def close(self) -> None:
        """Close the files."""
        self._open.cache_clear()


class _Object(Protocol):
    def read(self, offset: int, length: int) -> bytes: ...


class _OpenFile:
    """An open shard object, closed when the cache and the last thread that reads it have dropped it."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._handle, length, offset)


@dataclass(frozen=True)
class _RemoteObject:
    store: Store
    key: str

    def read(self, offset: int, length: int) -> bytes:
        return self.store.read_range(self.key, offset, length)


def _open_object(dataset: Dataset, shard: int, name: str) -> _Object:
    store, key = dataset.object_key(shard, name)
    return _RemoteObject(store, key) if store.folder is None else _OpenFile(store.folder / key)


def _attempt(store: Store, shard: int) -> str:
    """The attempt that a part names now; empty when the part cannot be read."""
    try:
        return open_part(store, shard).part().attempt
    except InputError:
        return ""


def broken_shard(store: Store, shard: int, key: str, error: Exception) -> InputError:
    """The message for a shard object that is missing, cut or changed."""
    where = f"{store.url}/{key}"
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"shard {shard:06d} cannot be read: {where}: {reason}. The shard itself may be whole")
    return InputError(
        f"broken shard {shard:06d}: {where}: {reason}. `phantumor verify {store.url} --repair` makes it again from the "
        "bank"
    )
