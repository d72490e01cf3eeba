"""One reader for every way a sample can be kept: in full, as a difference from its healthy patch, or as a recipe.

In: a dataset and some of its manifest rows, or a bank and a config. Out: image, label and healthy twin in arrays of the
caller. Any number of threads may use one reader; reading and decoding run without the interpreter's lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.case import AIR_HU
from pipeline.catalog import Dataset, Home
from pipeline.delta import Tissue, add_healthy, no_twin
from pipeline.errors import InputError, PhantumorError
from pipeline.grid import Index3, index3, overlap
from pipeline.object_cache import ObjectCache
from pipeline.shard import DTYPES, Data, array_crc32c, chunk_edge, decode_sample
from pipeline.shard_objects import BrokenSampleError, Objects

if TYPE_CHECKING:
    from pipeline.bank import Bank
    from pipeline.config import GenerateConfig
    from pipeline.spec import SampleSpec

OPEN_CASES = 100  # of each reader; two mapped files each, beside those of the banks
IntArray = npt.NDArray[np.int64]
# What the reader needs of a manifest row; recipes have no ranges.
COLUMNS = ("index", "shard", "case_id", "shape_vox", "origin_vox")


@dataclass(frozen=True)
class Located:
    """What reading needs of n manifest rows, as compact arrays: under 100 bytes a row."""

    index: IntArray  # (n,)
    shard: npt.NDArray[np.int32]  # (n,)
    case_id: pa.DictionaryArray  # (n,)
    shape: npt.NDArray[np.int32]  # (n, 3)
    origin: npt.NDArray[np.int32]  # (n, 3), of the patch in its case
    ranges: dict[str, IntArray]  # by array name: byte offset and length, (n, 2); empty of recipes
    crc32c: dict[str, npt.NDArray[np.uint32]]  # by array name: of the pixels, (n,)

    def shape_of(self, k: int) -> Index3:
        return index3(self.shape[k])


def located(dataset: Dataset, table: pa.Table) -> Located:
    """Take what reading needs out of manifest rows; InputError when a row lacks a value."""
    names = list(DTYPES) if _stored(dataset) else []
    return Located(
        index=column(dataset, table, "index"),
        shard=column(dataset, table, "shard").astype(np.int32),
        case_id=table["case_id"].dictionary_encode().combine_chunks(),
        shape=column(dataset, table, "shape_vox").reshape(-1, 3),
        origin=column(dataset, table, "origin_vox").reshape(-1, 3),
        ranges={name: column(dataset, table, f"{name}_range").reshape(-1, 2) for name in names},
        crc32c={name: column(dataset, table, f"{name}_crc32c") for name in DTYPES},
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


def check_twins(dataset: Dataset, rows: Located) -> None:
    """InputError when some of these samples are of annotated cases, whose healthy twins nobody knows."""
    firsts = np.array([home.first_shard for home in dataset.homes])
    homes = np.searchsorted(firsts, rows.shard, side="right") - 1
    for number, home in enumerate(dataset.homes):
        named = rows.case_id.filter(pa.array(homes == number)).unique().to_pylist()
        refuse_annotated(home.store.url, home.bank, named)


def refuse_annotated(where: str, bank: Bank, case_ids: Iterable[str]) -> None:
    """InputError when one of these cases is annotated, so that its samples have no healthy twins."""
    found = {record.case_id for record in bank.records if record.annotated} & set(case_ids)
    if found:
        raise no_twin(where, found)


class SampleReader:
    """Reads samples of a dataset by their place among `rows`.

    With `checksums` what is read is compared with the crc32c of its encoded bytes, and what is put together from a bank
    with the crc32c of the pixels. Without, changed bytes go unnoticed. `cache` and `whole_objects`: see `Objects`.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: Located,
        checksums: bool = True,
        cache: ObjectCache | None = None,
        whole_objects: bool = False,
    ) -> None:
        self.rows = rows
        self._dataset, self._checksums = dataset, checksums
        self._objects = Objects(dataset, cache, whole_objects)
        self._tissue = lru_cache(maxsize=OPEN_CASES)(partial(_open_tissue, dataset))

    def expect(self, places: IntArray) -> None:
        """Begin to fetch these samples, which are read soon, where that is worth while."""
        if self._objects.by_object:
            for shard in np.unique(self.rows.shard[places]).tolist():
                for name in self.rows.ranges:
                    self._objects.expect_object(shard, name)
        elif self._objects.far:
            for k in places.tolist():
                for name, ranges in self.rows.ranges.items():
                    self._objects.expect_chunk(int(self.rows.shard[k]), name, *ranges[k].tolist())

    def read(
        self,
        k: int,
        image: npt.NDArray[np.int16],
        label: npt.NDArray[np.uint8],
        healthy: npt.NDArray[np.int16] | None = None,
    ) -> int:
        """Fill `image` (int16 HU) and `label` (uint8), C-contiguous, of the sample's shape; the sample's index.

        `healthy`: to be filled with the same patch of the case without tumors, for which the bank is needed; see
        `check_twins`.
        BrokenSampleError when the sample is not the one that was made, InputError where the bank is gone,
        PhantumorError where the object store of shards or bank cannot be reached.
        """
        home = self._dataset.home(int(self.rows.shard[k]))
        if home.info.config.store == "recipe":
            self._read_recipe(home, k, image, label)
        else:
            self._read_stored(home, k, image, label)
        if healthy is not None:
            _fill_healthy(self._tissue_of(home, k), index3(self.rows.origin[k]), healthy)
        return int(self.rows.index[k])

    def close(self) -> None:
        """Close the files."""
        self._objects.close()
        self._tissue.cache_clear()

    def _tissue_of(self, home: Home, k: int) -> Tissue:
        return self._tissue(home.first_shard, self.rows.case_id[k].as_py())

    def _read_stored(self, home: Home, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        shard, edge = int(self.rows.shard[k]), chunk_edge(image.shape, home.info.config.whole_cases)
        out = {"image": cast(npt.NDArray[Any], image), "label": cast(npt.NDArray[Any], label)}

        def decode(name: str, data: Data) -> None:
            decode_sample(data, out[name], edge, self._checksums)

        ranges = {name: (int(of[k, 0]), int(of[k, 1])) for name, of in self.rows.ranges.items()}
        self._objects.decode_chunks(shard, ranges, decode)
        if home.info.config.store == "delta":
            origin = index3(self.rows.origin[k])
            add_healthy(self._tissue_of(home, k), origin, home.info.config.organs, image, label)
            self._check(home, k, image, label)

    def _read_recipe(self, home: Home, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        with _bank_at(home.info.bank):
            made = make_sample(home.bank, home.info.config, int(self.rows.index[k]) - home.first_index)
        image[...], label[...], _ = made
        self._check(home, k, image, label)

    def _check(self, home: Home, k: int, image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]) -> None:
        """What was put together must be what was made, whatever became of bank and software since."""
        if not self._checksums:
            return
        for name, array in (("image", image), ("label", label)):
            if array_crc32c(cast(npt.NDArray[Any], array)) != self.rows.crc32c[name][k]:
                raise BrokenSampleError(
                    f"{home.store.url} {int(self.rows.shard[k]) - home.first_shard}",
                    f"{home.store.url}: sample {int(self.rows.index[k]) - home.first_index}: the {name} put together "
                    f"from the bank is not the one that was made ({home.info.config.store} store): bank or software "
                    f"changed. `phantumor verify {home.store.url} --replay 0.01` tells more",
                )


class EndlessReader:
    """Makes samples of a bank by their index; the same interface as `SampleReader`, nothing is stored anywhere."""

    def __init__(self, bank: Bank, config: GenerateConfig) -> None:
        self._bank, self._config = bank, config

    def expect(self, places: IntArray) -> None:
        """Nothing lies far away."""

    def read(
        self,
        k: int,
        image: npt.NDArray[np.int16],
        label: npt.NDArray[np.uint8],
        healthy: npt.NDArray[np.int16] | None = None,
    ) -> int:
        """Fill the arrays, all of the config's patch shape, with the sample of index `k`; that index."""
        with _bank_at(self._bank.place):
            image[...], label[...], spec = make_sample(self._bank, self._config, k)
            if healthy is not None:
                _fill_healthy(self._bank.load(spec.case_id), spec.origin_vox, healthy)
        return k

    def close(self) -> None:
        """Nothing is open that is not the bank's."""


def make_sample(
    bank: Bank, config: GenerateConfig, index: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], SampleSpec]:
    """Draw a sample and make it: image int16 HU and label uint8, both (X, Y, Z), and its spec."""
    from pipeline.spec import draw_sample  # stored samples need no torch
    from pipeline.synthesis import synthesise

    spec = draw_sample(bank, config, index)
    return *synthesise(bank.load(spec.case_id), spec), spec


@dataclass(frozen=True)
class _Tissue:
    """The two arrays of a case that differences are added to, mapped. The other ones are let go of."""

    ct: npt.NDArray[np.int16]
    organs: npt.NDArray[np.uint8]


def _open_tissue(dataset: Dataset, shard: int, case_id: str) -> _Tissue:
    """From the bank, which looks at a case's files each time it is asked: once is enough, what was read is checked."""
    home = dataset.home(shard)
    with _bank_at(home.info.bank):
        case = home.bank.load(case_id)
    return _Tissue(case.ct, case.organs)


@contextlib.contextmanager
def _bank_at(place: str) -> Iterator[None]:
    """Name the bank where it cannot be read. `Bank.load` does not, as workers try again after its OSError."""
    try:
        yield
    except OSError as error:
        raise PhantumorError(
            f"the bank {place} cannot be read: {error.filename or place}: {error.strerror or error}. See that this "
            "machine reaches it, and run again"
        ) from error


def _fill_healthy(case: Tissue, origin: Index3, out: npt.NDArray[np.int16]) -> None:
    """The patch of the case as it is, air beyond it."""
    of_case, of_patch = overlap(origin, out.shape, case.ct.shape)
    if out[of_patch].size < out.size:
        out[...] = AIR_HU
    out[of_patch] = case.ct[of_case]
