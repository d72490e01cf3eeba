"""What is told of each committed shard beside its rows: which attempt wrote which files, from which settings, where.

A part file says it of its shard; the whole manifest says it of all, as a Parquet table within its metadata: at a
million samples that is 15,625 shards, of which most readers need one, or the sum of their bytes.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.shard import DTYPES, FileDigest, object_path

ATTEMPT = re.compile(r"[0-9a-f]{8,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OBJECTS = tuple(object_path(name) for name in DTYPES)
_FILE = pa.struct([("path", pa.string()), ("size", pa.int64()), ("sha256", pa.string())])
_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("attempt", pa.string()),
        ("files", pa.list_(_FILE)),
        ("config_digest", pa.string()),
        ("timings_s", pa.map_(pa.string(), pa.float64())),
        ("host", pa.string()),
        ("versions", pa.map_(pa.string(), pa.string())),
    ]
)


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
        """ValueError for what no part can be: it may come from anybody's file."""
        _check_types(self)
        if not ATTEMPT.fullmatch(self.attempt):  # it becomes part of a path
            raise ValueError(f"attempt {self.attempt!r} is not a hexadecimal name")
        outside = [file.path for file in self.files if file.path not in _OBJECTS]
        if outside:
            raise ValueError(f"files {outside} are not shard objects ({', '.join(_OBJECTS)})")
        if self.shard < 0 or any(file.size < 0 or not _SHA256.fullmatch(file.sha256) for file in self.files):
            raise ValueError(f"shard {self.shard}, files {self.files}: a number below 0, or no sha256")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Part:
        fields = dict(document)
        fields["files"] = tuple(FileDigest(**file) for file in fields["files"])
        return Part(**fields)


def _check_types(part: Part) -> None:
    """JSON has types of its own, which annotations do not hold off."""
    right = {
        "shard": type(part.shard) is int and part.shard >= 0,
        "attempt": isinstance(part.attempt, str),
        "config_digest": isinstance(part.config_digest, str),
        "host": isinstance(part.host, str),
        "timings_s": _is_table(part.timings_s, (int, float)),
        "versions": _is_table(part.versions, (str,)),
        "files": all(type(f.size) is int and f.size >= 0 and isinstance(f.sha256, str) for f in part.files),
    }
    wrong = [name for name, fine in right.items() if not fine]
    if wrong:
        raise ValueError(f"{wrong[0]} {str(getattr(part, wrong[0]))[:80]}")


def _is_table(found: object, kinds: tuple[type, ...]) -> bool:
    """Whether it has texts as names and values of some kind."""
    return isinstance(found, Mapping) and all(isinstance(k, str) and isinstance(v, kinds) for k, v in found.items())


class Parts(Mapping[int, Part]):
    """Parts by shard, in a table; each becomes a `Part` when it is asked for. ValueError when one is broken."""

    def __init__(self, table: pa.Table) -> None:
        if not table.schema.equals(_SCHEMA):
            raise ValueError(f"columns {', '.join(table.column_names)}")
        if any(table[name].null_count for name in ("shard", "attempt", "files")):
            raise ValueError("a shard without number, attempt or files")
        _check_all(table["attempt"], pc.match_substring_regex, f"^{ATTEMPT.pattern}$", "not a hexadecimal name")
        path, size, sha256 = (pc.struct_field(pc.list_flatten(table["files"]), field.name) for field in _FILE)
        _check_all(path, pc.is_in, pa.array(_OBJECTS), "not a shard object")
        _check_all(sha256, pc.match_substring_regex, f"^{_SHA256.pattern}$", "no sha256")
        for numbers in (table["shard"], size):
            _check_all(numbers, pc.greater_equal, 0, "below 0")
        self._table = table
        self._place = {shard: k for k, shard in enumerate(table["shard"].to_pylist())}
        if len(self._place) != table.num_rows:
            raise ValueError("a shard is named twice")

    @staticmethod
    def of(parts: Iterable[Part]) -> Parts:
        """Parts that are there one by one."""
        rows = [part.to_json() for part in parts]
        for row in rows:
            row |= {name: list(row[name].items()) for name in ("timings_s", "versions")}
        return Parts(pa.Table.from_pylist(rows, schema=_SCHEMA))

    @staticmethod
    def joined(several: Iterable[Parts]) -> Parts:
        """The parts of several, which have no shard in common."""
        return Parts(pa.concat_tables([_SCHEMA.empty_table(), *(parts._table for parts in several)]))

    def __getitem__(self, shard: int) -> Part:
        row = self._table.slice(self._place[shard], 1).to_pylist()[0]
        return Part.from_json(row | {name: dict(row[name] or ()) for name in ("timings_s", "versions")})

    def __contains__(self, shard: object) -> bool:
        return shard in self._place

    def __iter__(self) -> Iterator[int]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def begin_with(self, others: Parts) -> bool:
        """Whether the first of these are the others, attempt by attempt."""
        return bool(self._table[: len(others)].equals(others._table))

    @cached_property
    def file_bytes(self) -> int:
        """Bytes of all files."""
        sizes = pc.struct_field(pc.list_flatten(self._table["files"]), "size")
        return int(pc.sum(sizes).as_py() or 0)

    def only(self, shards: np.ndarray[Any, np.dtype[np.int64]], shift: int = 0) -> Parts:
        """The parts of these shards, their numbers increased by `shift`."""
        table = self._table.filter(pc.is_in(self._table["shard"], pa.array(shards)))
        return Parts(table.set_column(0, _SCHEMA.field(0), pc.add(table["shard"], shift)))

    def pack(self) -> bytes:
        """As text for the metadata of a Parquet file."""
        sink = io.BytesIO()
        pq.write_table(self._table, sink, compression="zstd", write_page_checksum=True)
        return base64.b64encode(sink.getvalue())

    @staticmethod
    def unpack(text: bytes) -> Parts:
        """From `pack`; ValueError when it is broken."""
        try:
            data = base64.b64decode(text, validate=True)
            file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
            check_claims(file.metadata, len(data))
            return Parts(file.read().replace_schema_metadata(None))
        except (binascii.Error, OSError, pa.ArrowException) as error:
            raise ValueError(str(error)) from error


def _check_all(values: pa.ChunkedArray, test: Any, argument: Any, rule: str) -> None:
    """ValueError when a value does not pass, a missing one included."""
    wrong = pc.filter(values, pc.invert(pc.fill_null(test(values, argument), False)))
    if len(wrong):
        raise ValueError(f"{wrong[0].as_py()!r} is {rule}")


def check_claims(metadata: pq.FileMetaData, size: int) -> None:
    """ValueError when a Parquet file of `size` bytes claims more rows than bytes.

    Every row of ours holds checksums or names that no encoding makes smaller than that; what claims more is there to
    fill the memory.
    """
    if metadata.num_rows > size:
        raise ValueError(f"claims {metadata.num_rows} rows in {size} bytes")
