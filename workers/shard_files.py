"""Whether the files of a shard are the ones that its part describes: every byte is read, nothing is changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.grid import Index3
from pipeline.manifest import Part, shard_name
from pipeline.shard import (
    CRC_BYTES,
    DTYPES,
    ChunkError,
    array_crc32c,
    array_metadata,
    crc32c,
    decode_chunk,
    object_path,
)
from workers.findings import Finding, unreadable


def check_files(folder: Path, part: Part, rows: pa.Table, patch_shape: Index3) -> list[Finding]:
    """What is wrong with the files of a shard; `rows` are those of its part, one a sample."""
    found = _metadata_findings(folder, part, (rows.num_rows, *patch_shape))
    for name in DTYPES:
        found += _object_findings(folder, part, rows, name, patch_shape)
    return found


def _metadata_findings(folder: Path, part: Part, shape: tuple[int, ...]) -> list[Finding]:
    """The Zarr metadata, which our own reader does without and every other reader needs."""
    expected = {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {}}}
    expected |= {f"{name}/zarr.json": array_metadata(name, shape) for name in DTYPES}
    found = []
    for name, document in expected.items():
        file = f"{shard_name(part.shard, part.attempt)}/{name}"
        try:
            if json.loads((folder / file).read_bytes()) != document:
                found.append(Finding(part.shard, "is not the metadata of such a shard", file))
        except OSError as error:
            found.append(unreadable(part.shard, file, error))
        except ValueError as error:
            found.append(Finding(part.shard, f"is damaged: {error}", file))
    return found


def _object_findings(folder: Path, part: Part, rows: pa.Table, name: str, patch_shape: Index3) -> list[Finding]:
    """One shard object: its size, every chunk, its index, its digest."""
    file = f"{shard_name(part.shard, part.attempt)}/{object_path(name)}"
    recorded = next(digest for digest in part.files if digest.path == object_path(name))
    try:
        with (folder / file).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != recorded.size:
                wrong = [f"holds {size:,} bytes, {recorded.size:,} were written"]
            else:
                wrong = _content_faults(stream, rows, name, np.empty(patch_shape, DTYPES[name]), recorded.sha256)
    except OSError as error:
        return [unreadable(part.shard, file, error)]
    return [Finding(part.shard, what, file) for what in wrong]


def _content_faults(stream: BinaryIO, rows: pa.Table, name: str, out: npt.NDArray[Any], sha256: str) -> list[str]:
    """Read a shard object once, from its first byte to its last; `out` is where its samples are decoded to."""
    ranges = np.array(rows[f"{name}_range"].to_pylist(), np.int64)
    index_bytes = ranges.nbytes + CRC_BYTES
    if not _covers(ranges, os.fstat(stream.fileno()).st_size - index_bytes):
        return ["the ranges in the manifest are not those of samples one after the other that fill it"]
    digest, wrong = hashlib.sha256(), []
    for length, row in zip(ranges[:, 1].tolist(), rows.select(["index", f"{name}_crc32c"]).to_pylist(), strict=True):
        data = stream.read(length)
        digest.update(data)
        fault = _chunk_fault(data, out, row[f"{name}_crc32c"])
        if fault:
            wrong.append(f"sample {row['index']}: {fault}")
    data = stream.read(index_bytes)
    digest.update(data)
    wrong += _index_faults(data, ranges)
    if not wrong and digest.hexdigest() != sha256:
        wrong.append("its sha256 is not the one in the part, though every checksum inside it fits")
    return wrong


def _covers(ranges: npt.NDArray[np.int64], size: int) -> bool:
    """Whether (offset, length) pairs lie one after the other, without gaps, from 0 to `size`."""
    ends = ranges.sum(axis=1)
    return bool((ranges[:, 1] > 0).all() and (ranges[:, 0] == [0, *ends[:-1]]).all() and ends[-1] == size)


def _chunk_fault(data: bytes, out: npt.NDArray[Any], pixel_crc32c: int) -> str:
    try:
        decode_chunk(data, out)
    except ChunkError as error:
        return str(error)
    return "" if array_crc32c(out) == pixel_crc32c else "its pixels do not have the crc32c in the manifest"


def _index_faults(data: bytes, ranges: npt.NDArray[np.int64]) -> list[str]:
    """The index at the end of a shard object: what other Zarr readers find the samples by."""
    body = data[:-CRC_BYTES]
    if crc32c(body) != int.from_bytes(data[-CRC_BYTES:], "little"):
        return ["the index at its end fails its checksum"]
    same = (np.frombuffer(body, "<u8").reshape(-1, 2) == ranges.astype("<u8")).all(axis=1)
    return [f"row {k}: the index at its end has another range than the manifest" for k in np.flatnonzero(~same)]
