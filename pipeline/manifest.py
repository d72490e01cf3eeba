"""The manifest: one row a sample. The one definition of its schema, and of a shard's part file.

A part `manifest/000042.parquet` holds the rows of shard 42 and, in its Parquet metadata, which attempt wrote which
files. It is created last and only once: that it exists means that the shard is committed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.files import create_file
from pipeline.shard import DTYPES, FileDigest, object_path

SCHEMA_VERSION = 2
_PART_KEY = b"phantumor.part"
_PARTS_KEY = b"phantumor.parts"
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
        ("origin_vox", _VOXEL),  # of the patch in the bank case; negative where padded with air
        ("affine", pa.list_(pa.float64(), 16)),  # patch voxel to RAS mm, row by row
        ("n_tumors", pa.int32()),
        ("tumor_voxels", pa.int64()),
        ("image_crc32c", pa.uint32()),  # of the pixels (C order, little endian), not of the encoded chunk
        ("label_crc32c", pa.uint32()),
        ("image_range", _RANGE),  # byte offset and length of the encoded chunk in the shard object
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
OPTIONAL = frozenset({"series_id", "time_days"})  # columns that rows may have no value in
_OBJECTS = tuple(object_path(name) for name in DTYPES)
_ATTEMPT = re.compile(r"[0-9a-f]{8,32}")
SHARD_FOLDER = re.compile(rf"\d{{6,}}-{_ATTEMPT.pattern}\.zarr")


@dataclass(frozen=True)
class Part:
    """What a part file says of its shard beside the rows."""

    shard: int
    attempt: str
    files: tuple[FileDigest, ...]
    config_digest: str
    timings_s: Mapping[str, float]
    host: str
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        if not _ATTEMPT.fullmatch(self.attempt):  # it becomes part of a path
            raise ValueError(f"attempt {self.attempt!r} is not a hexadecimal name")
        outside = [file.path for file in self.files if file.path not in _OBJECTS]
        if outside:
            raise ValueError(f"files {outside} are not shard objects ({', '.join(_OBJECTS)})")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Part:
        fields = dict(document)
        fields["files"] = tuple(FileDigest(**file) for file in fields["files"])
        return Part(**fields)


def sample_id(index: int) -> str:
    """The name of a sample, sortable, e.g. `s000000042`."""
    return f"s{index:09d}"


def shard_name(shard: int, attempt: str) -> str:
    """The folder of one attempt at a shard, relative to the dataset."""
    return f"shards/{shard:06d}-{attempt}.zarr"


def part_name(shard: int) -> str:
    """The part file of a shard, relative to the dataset."""
    return f"manifest/{shard:06d}.parquet"


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)  # a flipped bit must not be silent
    return sink.getvalue()


def commit_part(dataset: Path, part: Part, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Create the part file of a shard: the commit. False when another attempt was first."""
    unknown = sorted(set().union(*rows) - set(SCHEMA.names))
    if unknown:  # Arrow would drop them
        raise ValueError(f"shard {part.shard}: rows with columns that the manifest does not have: {unknown}")
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    table = table.replace_schema_metadata({**SCHEMA.metadata, _PART_KEY: json.dumps(part.to_json()).encode()})
    return create_file(dataset / part_name(part.shard), _parquet_bytes(table))


def committed_shards(dataset: Path) -> list[int]:
    """Numbers of the committed shards, ascending, from the names of the part files alone."""
    names = (path.name for path in (dataset / "manifest").glob("*.parquet"))
    return sorted(int(name.removesuffix(".parquet")) for name in names if re.fullmatch(r"\d{6,}\.parquet", name))


def _read(path: Path, remedy: str) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable manifest file ({error}). {remedy}") from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise InputError(f"{path}: manifest version {version}, this phantumor reads version {SCHEMA_VERSION}. {_OTHER}")
    if not table.schema.equals(SCHEMA):
        raise InputError(f"{path}: its columns are not those of manifest version {SCHEMA_VERSION}. {remedy}")
    return table


_OTHER = "Read it with the phantumor that made it, or `phantumor generate` the dataset again"
_REWRITE = "Remove this file; the next `phantumor generate` with the same settings writes it again from the parts"
_REMAKE = "Remove this file and run the same `phantumor generate` command again to remake its shard"


def _metadata(table: pa.Table, key: bytes, path: Path) -> Any:
    try:
        return json.loads(table.schema.metadata[key])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: its Parquet metadata lacks {key.decode()!r}. {_REMAKE}") from error


def read_part(dataset: Path, shard: int) -> tuple[Part, pa.Table]:
    """Rows and provenance of one committed shard."""
    path = dataset / part_name(shard)
    table = _read(path, _REMAKE)
    part = _parse_part(_metadata(table, _PART_KEY, path), path)
    if part.shard != shard:
        raise InputError(f"{path}: holds the rows of shard {part.shard}. {_REMAKE}")
    return part, table.replace_schema_metadata(SCHEMA.metadata)


def _parse_part(document: Any, path: Path) -> Part:
    try:
        return Part.from_json(document)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: broken shard provenance ({error}). {_REMAKE}") from error


def whole_manifest_bytes(parts: Sequence[tuple[Part, pa.Table]]) -> bytes:
    """The bytes of `manifest.parquet`: all parts in shard order, their provenance in the metadata."""
    table = pa.concat_tables([rows for _, rows in parts]) if parts else SCHEMA.empty_table()
    provenance = json.dumps([part.to_json() for part, _ in parts]).encode()
    return _parquet_bytes(table.replace_schema_metadata({**SCHEMA.metadata, _PARTS_KEY: provenance}))


def read_whole_manifest(path: Path) -> tuple[dict[int, Part], pa.Table]:
    """Provenance by shard, and all rows in the order they were written: by shard, by row."""
    table = _read(path, _REWRITE)
    parts = [_parse_part(document, path) for document in _metadata(table, _PARTS_KEY, path)]
    return {part.shard: part for part in parts}, table.replace_schema_metadata(SCHEMA.metadata)
