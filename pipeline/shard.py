"""One shard: a Zarr v3 group with `image` (n, X, Y, Z) int16 and `label` (n, X, Y, Z) uint8.

Each array is one sharding-codec object `<name>/c/0/0/0/0`: the encoded samples one after another, then the index of
(offset, length) pairs and its crc32c. A chunk is one sample (of a whole case, a slab of it): blosc, then crc32c.
Written whole, in one go, by one writer; any Zarr v3 reader opens it. A group of kind `delta` holds differences instead
of samples, see `pipeline.delta`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from pipeline.store import Store

Data = bytes | npt.NDArray[np.uint8]  # (bytes,); an array is a view, where bytes would be a copy
StoredKind = Literal["full", "delta"]  # what lies in a shard's arrays; a dataset of recipes has no shards
DTYPES: dict[str, np.dtype[Any]] = {"image": np.dtype("<i2"), "label": np.dtype("u1")}
CRC_BYTES = 4
# (codec, level, shuffle) of blosc, by bytes of a voxel. Of pixels the fastest that reads at memory speed: to turn the
# bits of single bytes back takes twice the time of all the rest (0.54 against 0.18 ms a label of 96^3) and would keep
# 15 of a sample's 1007 kB. Differences are nearly all zeros: zstd would keep a third of the bytes of lz4 (9 of 25 kB at
# 96^3, of 1 MB in full), but take 1.05 instead of 0.6 ms to read and 1.7 instead of 0.35 to write.
_BLOSC = {
    "full": {2: ("lz4", 5, blosc.BITSHUFFLE), 1: ("lz4", 5, blosc.NOSHUFFLE)},
    "delta": {2: ("lz4", 5, blosc.NOSHUFFLE), 1: ("lz4", 5, blosc.NOSHUFFLE)},
}
_SHUFFLE_NAMES = {blosc.BITSHUFFLE: "bitshuffle", blosc.NOSHUFFLE: "noshuffle"}
# Decoding happens in our own threads: blosc's global pool would only make them wait for each other.
blosc.use_threads = False


SLAB = 32  # sagittal planes in a chunk of a whole case: read in place, and any part of a case without all of it


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


def crc32c(data: Data) -> int:
    """Castagnoli checksum of bytes, as in the Zarr crc32c codec."""
    return int(google_crc32c.value(data))


def array_crc32c(array: npt.NDArray[Any]) -> int:
    """crc32c of an array's little-endian C-order bytes: the same whatever the array is stored in."""
    return crc32c(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).reshape(-1).view(np.uint8))


def chunk_edge(shape: tuple[int, ...], whole_cases: bool) -> int:
    """Planes along X in one chunk of a sample of `shape` (X, Y, Z)."""
    return min(SLAB, shape[0]) if whole_cases else shape[0]


def encode_sample(array: npt.NDArray[Any], kind: StoredKind = "full", edge: int | None = None) -> list[bytes]:
    """Encode a sample as its chunks, `edge` planes along X in each; the last one is filled up with zeros."""
    edge = array.shape[0] if edge is None else edge
    missing = -array.shape[0] % edge
    if missing:
        array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
    return [encode_chunk(array[x : x + edge], kind) for x in range(0, array.shape[0], edge)]


def chunk_lengths(data: Data, count: int) -> list[int]:
    """Bytes of each of the `count` chunks that lie one after another, as their blosc headers say."""
    lengths, at = [], 0
    for _ in range(count):
        lengths.append(int.from_bytes(data[at + 12 : at + 16], "little") + CRC_BYTES)
        at += lengths[-1]
    return lengths


def decode_sample(data: Data, out: npt.NDArray[Any], edge: int | None = None, check: bool = True) -> None:
    """Decode the chunks of one sample, which lie one after another, into the C-contiguous array `out`."""
    edge = out.shape[0] if edge is None else edge
    starts = range(0, out.shape[0], edge)
    data, at = np.frombuffer(data, np.uint8), 0
    for x, length in zip(starts, chunk_lengths(data, len(starts)), strict=True):
        part = out[x : x + edge]
        if len(part) == edge:
            decode_chunk(data[at : at + length], part, check)
        else:
            filled = np.empty((edge, *out.shape[1:]), out.dtype)
            decode_chunk(data[at : at + length], filled, check)
            part[...] = filled[: len(part)]
        at += length
    if at != len(data):
        raise ChunkError(f"holds {len(data) - at} bytes more than its chunks")


def encode_chunk(array: npt.NDArray[Any], kind: StoredKind = "full") -> bytes:
    """Encode one sample, or one difference: blosc, then crc32c."""
    codec, level, shuffle = _BLOSC[kind][array.itemsize]
    body: bytes = blosc.compress(np.ascontiguousarray(array), codec.encode(), level, shuffle, 0)
    return body + crc32c(body).to_bytes(CRC_BYTES, "little")


def decode_chunk(data: Data, out: npt.NDArray[Any], check: bool = True) -> None:
    """Decode one encoded sample into the C-contiguous array `out`; unless told otherwise, check its crc32c.

    Raises ChunkError when the bytes were changed or do not hold an array of `out`'s size.
    """
    body = np.frombuffer(data, np.uint8)[:-CRC_BYTES]
    if len(data) <= CRC_BYTES + 16 or (check and crc32c(body) != int.from_bytes(data[-CRC_BYTES:], "little")):
        raise ChunkError("crc32c differs: the bytes on disk are not the ones that were written")
    held = int.from_bytes(data[4:8], "little")  # blosc header: uncompressed size
    if held != out.nbytes:
        raise ChunkError(f"holds {held} bytes, expected {out.nbytes}")
    if int.from_bytes(data[12:16], "little") != len(body):  # blosc believes its header and would read beyond the end
        raise ChunkError("is not as long as its blosc header says")
    try:
        blosc.decompress(body, out)
    except RuntimeError as error:
        raise ChunkError(str(error)) from error


def group_metadata(kind: StoredKind = "full") -> dict[str, Any]:
    """The zarr.json of a shard's group."""
    attributes = {} if kind == "full" else {"phantumor_store": kind}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array_metadata(
    name: str, shape: tuple[int, ...], kind: StoredKind = "full", edge: int | None = None
) -> dict[str, Any]:
    """The zarr.json of array `name` (`image` or `label`) with shape (n, X, Y, Z), `edge` planes along X in a chunk."""
    edge = shape[1] if edge is None else edge
    dtype = DTYPES[name]
    data_type = {"<i2": "int16", "|u1": "uint8"}[dtype.str]
    bytes_codec: dict[str, Any] = {"name": "bytes"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    if dtype.itemsize > 1:
        bytes_codec = little
    codec, level, shuffle = _BLOSC[kind][dtype.itemsize]
    compressor = {"typesize": dtype.itemsize, "cname": codec, "clevel": level, "shuffle": _SHUFFLE_NAMES[shuffle]}
    compressor["blocksize"] = 0
    sharding = {
        "chunk_shape": [1, edge, *shape[2:]],
        "codecs": [bytes_codec, {"name": "blosc", "configuration": compressor}, {"name": "crc32c"}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [shape[0], shape[1] + -shape[1] % edge, *shape[2:]]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "storage_transformers": [],
        "dimension_names": ["sample", "x", "y", "z"],
    }


def describes(found: Any, document: dict[str, Any]) -> bool:
    """Whether the zarr.json `found` is `document`, or what earlier versions wrote in its place.

    All are read alike: how a chunk was compressed stands in its own header.
    """
    text = json.dumps(document)
    labels = text.replace('"noshuffle"', '"bitshuffle"')
    deltas = [text.replace('"lz4"', '"zstd"').replace('"clevel": 5', '"clevel": 3')]
    deltas += [delta.replace('"noshuffle"', '"shuffle"') for delta in deltas]
    return found in (document, *map(json.loads, (labels, *deltas)))


def object_path(name: str) -> str:
    """The shard object of array `name`, relative to the shard's folder."""
    return f"{name}/c/0/0/0/0"


class _ObjectWriter:
    """Appends encoded samples to one shard object, then its index."""

    def __init__(self, store: Store, group: str, name: str) -> None:
        self.path = object_path(name)
        self._object = store.writer(f"{group}/{self.path}")
        self._digest = hashlib.sha256()
        self._chunks: list[ByteRange] = []
        self._offset = 0

    def append(self, chunks: list[bytes]) -> ByteRange:
        start = self._offset
        for chunk in chunks:
            self._chunks.append(ByteRange(self._offset, len(chunk)))
            self._write(chunk)
        return ByteRange(start, self._offset - start)

    def _write(self, data: bytes) -> None:
        self._object.write(data)
        self._digest.update(data)
        self._offset += len(data)

    def finish(self) -> FileDigest:
        index = np.array(self._chunks, "<u8").tobytes()
        self._write(index + crc32c(index).to_bytes(CRC_BYTES, "little"))
        self._object.finish()
        return FileDigest(self.path, self._offset, self._digest.hexdigest())

    def abandon(self) -> None:
        self._object.abandon()


class ShardWriter:
    """Writes the Zarr group `group` of a store sample by sample; `finish` makes it whole and durable.

    All samples have the shape `patch_shape`; without one, that of the first. With `slabs` a chunk is a part of one.
    """

    def __init__(
        self,
        store: Store,
        group: str,
        samples: int,
        patch_shape: tuple[int, ...] | None,
        kind: StoredKind = "full",
        *,
        slabs: bool = False,
    ) -> None:
        self._store, self._group, self._kind, self._slabs = store, group, kind, slabs
        self._patch_shape = patch_shape
        self._samples, self._written = samples, 0
        self._writers = {name: _ObjectWriter(store, group, name) for name in DTYPES}

    def encode(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[bytes]]:
        """One sample's `image` and `label` (or their differences) as `append` takes them."""
        if self._patch_shape is None:
            self._patch_shape = arrays["image"].shape
        for name, dtype in DTYPES.items():
            array = arrays[name]
            if array.shape != self._patch_shape or array.dtype != dtype:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, expected {dtype} {self._patch_shape}")
        edge = chunk_edge(self._patch_shape, self._slabs)
        return {name: encode_sample(arrays[name], self._kind, edge) for name in DTYPES}

    def append(self, chunks: Mapping[str, list[bytes]]) -> dict[str, ByteRange]:
        """Append one encoded sample; where each array's chunks landed."""
        self._written += 1
        return {name: self._writers[name].append(chunks[name]) for name in DTYPES}

    def finish(self) -> list[FileDigest]:
        """Write indexes and metadata, flush everything to disk; the digests of the data objects."""
        if self._written != self._samples or self._patch_shape is None:
            raise ValueError(f"{self._group}: {self._written} of {self._samples} samples were written")
        digests = [writer.finish() for writer in self._writers.values()]
        shape, edge = (self._samples, *self._patch_shape), chunk_edge(self._patch_shape, self._slabs)
        for name in DTYPES:
            self._write_json(f"{name}/zarr.json", array_metadata(name, shape, self._kind, edge))
        self._write_json("zarr.json", group_metadata(self._kind))
        self._store.settle(self._group)
        return digests

    def _write_json(self, name: str, document: dict[str, Any]) -> None:
        writer = self._store.writer(f"{self._group}/{name}")
        try:
            writer.write(json.dumps(document, indent=1).encode())
            writer.finish()
        finally:
            writer.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.abandon()
