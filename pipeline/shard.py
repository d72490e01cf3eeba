"""One shard: a Zarr v3 group with `image` (n, X, Y, Z) int16 and `label` (n, X, Y, Z) uint8.

Each array is one sharding-codec object `<name>/c/0/0/0/0`: the encoded samples one after another, then the index of
(offset, length) pairs and its crc32c. A chunk is one sample: blosc (lz4, level 5, bitshuffle), then crc32c. Written
whole, in one go, by one writer; any Zarr v3 reader opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from pipeline.files import sync_folder

DTYPES: dict[str, np.dtype[Any]] = {"image": np.dtype("<i2"), "label": np.dtype("u1")}
CRC_BYTES = 4
# Decoding happens in our own threads: blosc's global pool would only make them wait for each other.
blosc.use_threads = False


class ChunkError(ValueError):
    """An encoded sample fails its checksum or does not decode to the expected size."""


class ByteRange(NamedTuple):
    """Where an encoded sample lies in its shard object, checksum included."""

    offset: int
    length: int


@dataclass(frozen=True)
class FileDigest:
    """One finished file of a shard, its path relative to the shard's folder."""

    path: str
    size: int
    sha256: str


def crc32c(data: bytes) -> int:
    """Castagnoli checksum of bytes, as in the Zarr crc32c codec."""
    return int(google_crc32c.value(data))


def array_crc32c(array: npt.NDArray[Any]) -> int:
    """crc32c of an array's little-endian C-order bytes: the same whatever the array is stored in."""
    return crc32c(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())


def encode_chunk(array: npt.NDArray[Any]) -> bytes:
    """Encode one sample: blosc lz4 level 5 bitshuffle, then crc32c."""
    body: bytes = blosc.compress(np.ascontiguousarray(array), b"lz4", 5, blosc.BITSHUFFLE, 0)
    return body + crc32c(body).to_bytes(CRC_BYTES, "little")


def decode_chunk(data: bytes, out: npt.NDArray[Any]) -> None:
    """Decode one encoded sample into the C-contiguous array `out`, checking its crc32c.

    Raises ChunkError when the bytes were changed or do not hold an array of `out`'s size.
    """
    body = data[:-CRC_BYTES]
    if len(data) <= CRC_BYTES + 16 or crc32c(body) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise ChunkError("crc32c differs: the bytes on disk are not the ones that were written")
    held = int.from_bytes(body[4:8], "little")  # blosc header: uncompressed size
    if held != out.nbytes:
        raise ChunkError(f"holds {held} bytes, expected {out.nbytes}")
    try:
        blosc.decompress(body, out)
    except RuntimeError as error:
        raise ChunkError(str(error)) from error


def array_metadata(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """The zarr.json of array `name` (`image` or `label`) with shape (n, X, Y, Z)."""
    dtype = DTYPES[name]
    data_type = {"<i2": "int16", "|u1": "uint8"}[dtype.str]
    bytes_codec: dict[str, Any] = {"name": "bytes"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    if dtype.itemsize > 1:
        bytes_codec = little
    compressor = {"typesize": dtype.itemsize, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    sharding = {
        "chunk_shape": [1, *shape[1:]],
        "codecs": [bytes_codec, {"name": "blosc", "configuration": compressor}, {"name": "crc32c"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "storage_transformers": [],
        "dimension_names": ["sample", "x", "y", "z"],
    }


def object_path(name: str) -> str:
    """The shard object of array `name`, relative to the shard's folder."""
    return f"{name}/c/0/0/0/0"


class _ObjectWriter:
    """Appends encoded samples to one shard object, then its index."""

    def __init__(self, folder: Path, name: str, samples: int) -> None:
        self.path = folder / object_path(name)
        self.path.parent.mkdir(parents=True)
        self._file = self.path.open("wb")
        self._digest = hashlib.sha256()
        self._ranges: list[ByteRange] = []
        self._offset = 0
        self._samples = samples

    def append(self, chunk: bytes) -> ByteRange:
        where = ByteRange(self._offset, len(chunk))
        self._write(chunk)
        self._ranges.append(where)
        return where

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)

    def finish(self, root: Path) -> FileDigest:
        if len(self._ranges) != self._samples:
            raise ValueError(f"{self.path}: {len(self._ranges)} of {self._samples} samples were written")
        index = np.array(self._ranges, "<u8").tobytes()
        self._write(index + crc32c(index).to_bytes(CRC_BYTES, "little"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileDigest(self.path.relative_to(root).as_posix(), self._offset, self._digest.hexdigest())

    def abandon(self) -> None:
        self._file.close()


class ShardWriter:
    """Writes the Zarr group `folder` sample by sample; `finish` makes it whole and durable."""

    def __init__(self, folder: Path, samples: int, patch_shape: tuple[int, int, int]) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._patch_shape = patch_shape
        self._samples = samples
        self._writers = {name: _ObjectWriter(folder, name, samples) for name in DTYPES}

    def append(self, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, ByteRange]:
        """Append one sample's `image` and `label`, both of the patch shape; where each landed."""
        for name, dtype in DTYPES.items():
            array = arrays[name]
            if array.shape != self._patch_shape or array.dtype != dtype:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, expected {dtype} {self._patch_shape}")
        return {name: self._writers[name].append(encode_chunk(arrays[name])) for name in DTYPES}

    def finish(self) -> list[FileDigest]:
        """Write indexes and metadata, flush everything to disk; the digests of the data objects."""
        digests = [writer.finish(self._folder) for writer in self._writers.values()]
        for name in DTYPES:
            self._write_json(f"{name}/zarr.json", array_metadata(name, (self._samples, *self._patch_shape)))
        self._write_json("zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
        for folder in [self._folder, *(p for p in self._folder.rglob("*") if p.is_dir()), self._folder.parent]:
            sync_folder(folder)
        return digests

    def _write_json(self, name: str, document: dict[str, Any]) -> None:
        with (self._folder / name).open("w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.abandon()
