"""`annotations.parquet` of a dataset: one row a sample, by index, beside the manifest, which stays as it is.

Its Parquet metadata says with which settings, and from which dataset, the rows were derived.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.annotations.records import SampleAnnotation
from pipeline.annotations.rows import SCHEMA, SCHEMA_VERSION, VERSION_KEY, annotation_of
from pipeline.annotations.settings import AnnotationSettings
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.manifest import MOST_ROWS
from pipeline.settings import Settings, explain
from pipeline.store import Store
from pipeline.whole_manifest import Sink

ANNOTATIONS = "annotations.parquet"
GROUP_ROWS = 64  # of a row group: all are read where one is asked for, some hundred kB
_ORIGIN_KEY = b"phantumor.annotations"
_OPEN_GROUPS = 16
# What a file may claim of a row group, before it is read into memory: it may come from anybody.
_MOST_GROUP_BYTES, _MOST_GROUP_VALUES = 1 << 30, 1 << 28
_AGAIN = "Remove the file, and run `phantumor annotate` again"


class Origin(Settings):
    """What rows were derived from, and how."""

    settings: AnnotationSettings
    config_digest: str  # of the dataset
    bank_fingerprint: str
    with_cases: bool  # whether the bank's cases were at hand, so that reports name regions and phase


@dataclass(frozen=True)
class Samples:
    """What samples there are: by index, and the label of each."""

    index: npt.NDArray[np.int64]
    label_crc32c: npt.NDArray[np.uint32]

    def missing_in(self, other: Samples) -> npt.NDArray[np.bool_]:
        """Whether each of these samples is not among the others, with the same label."""
        at = np.searchsorted(other.index, self.index)
        held = at < len(other.index)
        held[held] = other.index[at[held]] == self.index[held]
        held[held] = other.label_crc32c[at[held]] == self.label_crc32c[held]
        return ~held


class Annotations:
    """The annotations of a dataset, read as they are asked for. Any number of threads may ask."""

    def __init__(self, store: Store) -> None:
        self._store, self.where = store, f"{store.url}/{ANNOTATIONS}"
        with _readable(self.where):
            self._version = store.version(ANNOTATIONS)
            with self._opened() as file:
                self._footer: pq.FileMetaData = file.metadata
                self.origin = _checked_origin(self.where, file)
                self.samples = _samples(file.read(["index", "label_crc32c"], use_threads=False))
        if (np.diff(self.samples.index) <= 0).any():
            raise InputError(f"{self.where}: its rows are not in the order of index. {_AGAIN}")
        groups = [self._footer.row_group(k).num_rows for k in range(self._footer.num_row_groups)]
        self._starts = np.cumsum([0, *groups])
        self._group = lru_cache(_OPEN_GROUPS)(self._read_group)

    @property
    def settings(self) -> AnnotationSettings:
        """How they were derived."""
        return self.origin.settings

    def of(self, index: int) -> SampleAnnotation:
        """The annotations of a sample; InputError when there are none."""
        with _readable(self.where):
            return annotation_of(self.rows([index]).to_pylist()[0])

    def rows(self, indices: Iterable[int]) -> pa.Table:
        """The rows of some samples, as they are stored."""
        return pa.concat_tables([SCHEMA.empty_table(), *map(self._row, indices)])

    def _row(self, index: int) -> pa.Table:
        position = int(np.searchsorted(self.samples.index, index))
        if position == len(self.samples.index) or self.samples.index[position] != index:
            raise InputError(f"{self.where}: no annotations of a sample {index}. Run `phantumor annotate` again")
        group = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self._group(group).slice(position - self._starts[group], 1)

    def _read_group(self, group: int) -> pa.Table:
        with _readable(self.where), self._opened() as file:
            if self._store.version(ANNOTATIONS) != self._version:
                raise InputError(f"{self.where}: written anew since it was opened; open it again")
            return file.read_row_group(group, use_threads=False).replace_schema_metadata(SCHEMA.metadata)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with self._store.open(ANNOTATIONS) as source:
            yield pq.ParquetFile(source, metadata=getattr(self, "_footer", None), page_checksum_verification=True)


def has_annotations(dataset: Dataset) -> bool:
    """Whether `phantumor annotate` has been at a dataset."""
    return dataset.store.exists(ANNOTATIONS)


def read_annotations(dataset: Dataset) -> Annotations:
    """The annotations of all samples of a dataset; InputError where some are missing, or of another dataset."""
    if not has_annotations(dataset):
        raise InputError(f"{dataset.path} has no {ANNOTATIONS}; `phantumor annotate {dataset.path}` derives it")
    found = stored_annotations(dataset)
    missing = int(samples_of(dataset).missing_in(found.samples).sum())
    if missing:
        raise InputError(
            f"{found.where}: lacks {missing} of the dataset's {dataset.rows} samples, as it has grown or was mended "
            f"since; `phantumor annotate {dataset.path}` adds them"
        )
    return found


def stored_annotations(dataset: Dataset) -> Annotations:
    """The annotations that were derived of a dataset so far; InputError where they are of another dataset."""
    found = Annotations(dataset.store)
    now = (dataset.info.config_digest, dataset.info.bank_fingerprint)
    if (found.origin.config_digest, found.origin.bank_fingerprint) != now:
        raise InputError(f"{found.where}: derived from another dataset than the one that lies there. {_AGAIN}")
    return found


def samples_of(dataset: Dataset) -> Samples:
    """The samples of a dataset, ascending."""
    return _samples(dataset.columns(["index", "label_crc32c"]))


def _samples(table: pa.Table) -> Samples:
    index, label = (table[name].to_numpy() for name in ("index", "label_crc32c"))
    return Samples(index.astype(np.int64), label.astype(np.uint32))


def write_annotations(store: Store, origin: Origin, tables: Iterable[pa.Table]) -> None:
    """Write all rows, in the order of index, in place of what is there; each table becomes a row group."""
    file = store.replacement(ANNOTATIONS)
    try:
        with pq.ParquetWriter(Sink(file), SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            for rows in tables:
                writer.write_table(rows, row_group_size=max(1, rows.num_rows))
            writer.add_key_value_metadata({_ORIGIN_KEY.decode(): json.dumps(origin.model_dump(mode="json"))})
        file.finish()
    finally:
        file.abandon()


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    """One InputError for whatever goes wrong while a file of annotations is read."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise InputError(f"{where}: not a readable file of annotations ({error}). {_AGAIN}") from error


def _checked_origin(where: str, file: pq.ParquetFile) -> Origin:
    """What the file says of itself; InputError unless it is one that this phantumor writes."""
    schema, footer = file.schema_arrow, file.metadata
    version = (schema.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION) or not schema.equals(SCHEMA):
        raise InputError(
            f"{where}: annotations of version {version}, this phantumor reads version {SCHEMA_VERSION}. {_AGAIN}"
        )
    groups = [footer.row_group(k) for k in range(footer.num_row_groups)]
    columns = [group.column(k) for group in groups for k in range(group.num_columns)]
    most = max((max(c.total_uncompressed_size, 0) for c in columns), default=0)
    values = max((c.num_values for c in columns), default=0)
    if footer.num_rows > MOST_ROWS or most > _MOST_GROUP_BYTES or values > _MOST_GROUP_VALUES:
        raise InputError(f"{where}: claims more than phantumor writes. {_AGAIN}")
    try:
        return Origin.model_validate(_origin_document(footer))
    except ValidationError as error:
        raise InputError(f"{where}: does not say what it was derived from ({explain(error)}). {_AGAIN}") from error


def _origin_document(footer: pq.FileMetaData) -> Any:
    return json.loads((footer.metadata or {}).get(_ORIGIN_KEY, b"{}"))
