"""The manifest: one row a sample. The one definition of its schema, and of a shard's part file.

A part `manifest/000042.parquet` holds the rows of shard 42 and, in its Parquet metadata, which attempt wrote which
files. It is created last and only once: that it exists means that the shard is committed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.parts import ATTEMPT, Part, Parts
from pipeline.store import Store

__all__ = ["Part", "Parts"]  # beside what is defined here

SCHEMA_VERSION = 3
WHOLE = "manifest.parquet"
_PART_KEY = b"phantumor.part"
PARTS_KEY = b"phantumor.parts"
_VERSION_KEY = b"phantumor.manifest_version"
_RANGE = pa.list_(pa.int64(), 2)
_VOXEL = pa.list_(pa.int32(), 3)

TUMOR_TYPE = pa.struct(
    [
        ("instance", pa.int32()),  # 1, 2, ... within the sample
        ("organ", pa.string()),
        ("kind", pa.string()),
        ("requested_diameter_mm", pa.float64()),
        ("requested_contrast_hu", pa.float64()),
        ("center_mm", pa.list_(pa.float64(), 3)),  # centroid, RAS
        ("diameter_mm", pa.float64()),  # of the ball with the measured volume
        ("recist_long_mm", pa.float64()),  # in the axial slice where it is longest
        ("recist_short_mm", pa.float64()),  # perpendicular to it, same slice
        ("volume_mm3", pa.float64()),
        ("mean_hu", pa.float64()),
        ("parenchyma_hu", pa.float64()),  # organ without vessels and tumors, 2 to 10 mm around the tumor
        ("contrast_hu", pa.float64()),  # mean_hu - parenchyma_hu
        ("bbox_vox", pa.list_(pa.int32(), 6)),  # patch voxels: x0 y0 z0 x1 y1 z1, half open
        ("vessel_distance_mm", pa.float64()),  # of the voxel nearest a vessel; null where the case shows none
        ("surface_distance_mm", pa.float64()),  # depth of the centroid under the organ's surface
    ]
)
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("index", pa.int64()),
        ("split", pa.string()),
        ("case_id", pa.string()),
        ("shard", pa.int64()),
        ("row", pa.int32()),  # within the shard
        ("organs", pa.list_(pa.string())),  # labelled organs with voxels in the patch
        ("spacing_mm", pa.float64()),
        ("shape_vox", _VOXEL),  # of the patch
        ("origin_vox", _VOXEL),  # of the patch in the bank case; negative where padded with air
        ("affine", pa.list_(pa.float64(), 16)),  # patch voxel to RAS mm, row by row
        ("n_tumors", pa.int32()),
        ("tumor_voxels", pa.int64()),
        ("image_crc32c", pa.uint32()),  # of the pixels (C order, little endian), not of the encoded chunk
        ("label_crc32c", pa.uint32()),
        ("image_range", _RANGE),  # byte offset and length of the encoded chunk in the shard object; null of a recipe
        ("label_range", _RANGE),
        ("annotated_classes", pa.list_(pa.uint8())),
        ("series_id", pa.int64()),  # samples of one series show the same lesions; null without series
        ("time_days", pa.float64()),  # of the sample in its series
        ("generator", pa.string()),  # version that made it
        ("spec", pa.string()),  # SampleSpec as JSON, exact
        ("tumors", pa.list_(TUMOR_TYPE)),
    ],
    metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
OPTIONAL = frozenset({"series_id", "time_days", "image_range", "label_range"})  # columns that rows may have no value in
# What a file of rows may claim of itself, before any of it is read into memory: it may come from anybody.
MOST_PART_ROWS = 4096  # as the settings allow for a shard
MOST_ROWS = 10**9
_MOST_VALUES = 8192  # of a column, for each row: 1000 lesions of a patient have boxes of 6 numbers each
_MOST_BYTES = 1 << 16  # of a column, for each row: a spec with 20 tumors takes less than half
_T = TypeVar("_T")
SHARD_FOLDER = re.compile(rf"(\d{{6,}})-({ATTEMPT.pattern})\.zarr")


def sample_id(index: int) -> str:
    """The name of a sample, sortable, e.g. `s000000042`."""
    return f"s{index:09d}"


def shard_name(shard: int, attempt: str) -> str:
    """The folder of one attempt at a shard, relative to the dataset."""
    return f"shards/{shard:06d}-{attempt}.zarr"


def running_name(shard: int, attempt: str) -> str:
    """The start record of an attempt, there while it lasts, relative to the dataset."""
    return f"running/{shard:06d}-{attempt}.json"


def part_name(shard: int) -> str:
    """The part file of a shard, relative to the dataset."""
    return f"manifest/{shard:06d}.parquet"


def commit_part(dataset: Store, part: Part, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Create the part file of a shard: the commit. False when another attempt was first."""
    unknown = sorted(set().union(*rows) - set(SCHEMA.names))
    if unknown:  # Arrow would drop them
        raise ValueError(f"shard {part.shard}: rows with columns that the manifest does not have: {unknown}")
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    table = table.replace_schema_metadata({**SCHEMA.metadata, _PART_KEY: json.dumps(part.to_json()).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)  # a flipped bit must not be silent
    return dataset.create(part_name(part.shard), sink.getvalue())


def committed_shards(dataset: Store) -> list[int]:
    """Numbers of the committed shards, ascending, from the names of the part files alone."""
    return sorted(commit_times(dataset))


def commit_times(dataset: Store) -> dict[int, float]:
    """When each committed shard was committed, seconds since 1970."""
    found = ((_PART_NAME.fullmatch(entry.key), entry.modified) for entry in dataset.entries("manifest"))
    return {int(match[1]): modified for match, modified in found if match}


_PART_NAME = re.compile(r"manifest/(\d{6,})\.parquet")
_OTHER = "Read it with the phantumor that made it, or `phantumor generate` the dataset again"
_REWRITE = "Remove this file; the next `phantumor generate` with the same settings writes it again from the parts"
_REVIEW = "Remove the view and make it again: `phantumor select` or `phantumor merge`"
_FOREIGN = "phantumor does not write such files; get the dataset again from where it came from"
_REMAKE = "Remove this file and run the same `phantumor generate` command again to remake its shard"


class ManifestFile:
    """One Parquet file of rows, checked: `columns` reads no more than asked for. Open only while it reads."""

    def __init__(self, dataset: Store, key: str, remedy: str, data: bytes | None = None) -> None:
        """`data`: the bytes of a part, where they were read already."""
        self._store, self._key, self._data = dataset, key, data
        self._where, self._remedy = f"{dataset.url}/{key}", remedy
        self._footer: Any = None  # of the whole manifest, read once
        with _Unreadable(self._where, remedy):
            self._version = dataset.version(key) if key == WHOLE else ""
        with self._opened() as file:
            footer, schema = file.metadata, file.schema_arrow
        self._check_schema(schema)
        self._check_claims(footer, MOST_ROWS if key == WHOLE else MOST_PART_ROWS)
        self.rows = int(footer.num_rows)
        self._said: Mapping[bytes, bytes] = dict(footer.metadata)
        if key == WHOLE:  # there are thousands of parts
            self._footer = footer

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        with _Unreadable(self._where, self._remedy), contextlib.ExitStack() as stack:
            source = stack.enter_context(self._source())
            if self._footer is not None and self._store.version(self._key) != self._version:
                self._go_on_with_new()
                source = stack.enter_context(self._source())
            yield pq.ParquetFile(source, metadata=self._footer, page_checksum_verification=True)

    def _go_on_with_new(self) -> None:
        """The file was written anew since it was opened: fine if it only holds more, which is left out."""
        new = ManifestFile(self._store, self._key, self._remedy)
        if new.rows < self.rows or not new.parts().begin_with(self.parts()):
            raise InputError(f"{self._where}: written anew since the dataset was opened; open it again")
        self._footer, self._version = new._footer, new._version

    def _source(self) -> Any:
        if self._key != WHOLE:
            data = self._store.read(self._key) if self._data is None else self._data
            return io.BytesIO(data)  # a part is small: one request gets it
        folder = self._store.folder
        return self._store.open(self._key) if folder is None else pa.OSFile(str(folder / self._key))

    @property
    def _threads(self) -> bool:
        """Whether Arrow's threads may read: they outlive a read, and a Python file that one of them still holds when
        the interpreter ends aborts the process."""
        return self._key == WHOLE and self._store.folder is not None

    def _check_schema(self, schema: pa.Schema) -> None:
        version = (schema.metadata or {}).get(_VERSION_KEY, b"none").decode(errors="replace")
        if version != str(SCHEMA_VERSION):
            raise InputError(
                f"{self._where}: manifest version {version}, this phantumor reads version {SCHEMA_VERSION}. {_OTHER}"
            )
        if not schema.equals(SCHEMA):
            raise InputError(
                f"{self._where}: its columns are not those of manifest version {SCHEMA_VERSION}. {self._remedy}"
            )

    def _check_claims(self, metadata: pq.FileMetaData, most_rows: int) -> None:
        """Refuse a file whose rows would fill the memory."""
        groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
        if not 0 <= metadata.num_rows <= most_rows or sum(group.num_rows for group in groups) != metadata.num_rows:
            claim = f"{metadata.num_rows} rows, at most {most_rows} make sense"
            raise InputError(f"{self._where}: claims {claim}. {_FOREIGN}")
        for group in groups:
            for column in (group.column(k) for k in range(group.num_columns)):
                values, held = column.num_values, column.total_uncompressed_size
                most = (_MOST_VALUES * group.num_rows, _MOST_BYTES * (group.num_rows + 16))
                if not 0 <= values <= most[0] or not 0 <= held <= most[1]:
                    raise InputError(
                        f"{self._where}: column {column.path_in_schema} claims {values} values in {held} bytes for "
                        f"{group.num_rows} rows, more than {most[0]} in {most[1]} make no sense. {_FOREIGN}"
                    )

    def batches(self, rows: int = 4096) -> Iterator[pa.Table]:
        """All rows with all columns, a few at a time, for a file that is larger than the memory."""
        with self._opened() as file:
            left = self.rows
            for batch in file.iter_batches(rows, use_threads=self._threads):
                if left <= 0:
                    return
                yield pa.Table.from_batches([batch[:left]]).replace_schema_metadata(SCHEMA.metadata)
                left -= batch.num_rows

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """All rows; all columns, or these. A field of `tumors` is named `tumors.kind`."""
        inside = None if names is None else [_leaf(name) for name in names]
        with self._opened() as file:
            table = file.read(inside, use_threads=self._threads)
            return table[: self.rows].replace_schema_metadata(SCHEMA.metadata)

    def row(self, number: int) -> dict[str, Any]:
        """One row, without reading the others' pages beyond its row group."""
        with self._opened() as file:
            for group in range(file.num_row_groups):
                held = file.metadata.row_group(group).num_rows
                if number < held:
                    rows = file.read_row_group(group, use_threads=False)
                    found: dict[str, Any] = rows.slice(number, 1).to_pylist()[0]
                    return found
                number -= held
        raise IndexError(number)

    def part(self) -> Part:
        """What a part file says of its shard."""
        return self._parsed(Part.from_json, self._metadata(_PART_KEY, json.loads))

    def parts(self) -> Parts:
        """What the whole manifest says of its shards, by shard."""
        return self._parsed(Parts.unpack, self._metadata(PARTS_KEY, bytes))

    def _metadata(self, key: bytes, read: Callable[[bytes], Any]) -> Any:
        try:
            return read(self._said[key])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{self._where}: its Parquet metadata lacks {key.decode()!r}. {self._remedy}") from error

    def _parsed(self, parse: Callable[[Any], _T], document: Any) -> _T:
        try:
            return parse(document)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{self._where}: broken shard provenance ({error}). {self._remedy}") from error


def _leaf(name: str) -> str:
    """The Parquet path of a column or of a tumor's field."""
    column, _, field = name.partition(".")
    return f"{column}.list.element.{field}" if field else column


class _Unreadable:
    """One InputError for whatever goes wrong while a manifest file is read."""

    def __init__(self, where: str, remedy: str) -> None:
        self._where, self._remedy = where, remedy

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | ValueError | pa.ArrowException) and not isinstance(error, InputError):
            raise InputError(f"{self._where}: not a readable manifest file ({error}). {self._remedy}") from error


def read_part(dataset: Store, shard: int) -> tuple[Part, pa.Table]:
    """Rows and provenance of one committed shard."""
    with _Unreadable(f"{dataset.url}/{part_name(shard)}", _REMAKE):
        data = dataset.read(part_name(shard))
    file = open_part(dataset, shard, data)
    return file.part(), file.columns()


def open_part(dataset: Store, shard: int, data: bytes | None = None) -> ManifestFile:
    """The part file of a committed shard, known to be of this shard; `data`: its bytes, where they are read."""
    file = ManifestFile(dataset, part_name(shard), _REMAKE, data)
    found = file.part().shard
    if found != shard:
        raise InputError(f"{dataset.url}/{part_name(shard)}: holds the rows of shard {found}. {_REMAKE}")
    return file


def open_whole(dataset: Store, view: bool = False) -> ManifestFile:
    """The whole manifest, of a dataset or of a view: all rows in the order they were written, by shard, by row."""
    return ManifestFile(dataset, WHOLE, _REVIEW if view else _REWRITE)
