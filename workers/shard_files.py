"""Whether the files of a shard are the ones that its part describes: every byte is read, nothing is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.bank import Bank
from pipeline.case import Case
from pipeline.delta import healthy_image, healthy_label
from pipeline.errors import InputError
from pipeline.grid import Index3, index3
from pipeline.manifest import Part, shard_name
from pipeline.shard import (
    CRC_BYTES,
    DTYPES,
    ChunkError,
    FileDigest,
    StoredKind,
    array_crc32c,
    array_metadata,
    chunk_edge,
    chunk_lengths,
    crc32c,
    decode_sample,
    describes,
    group_metadata,
    object_path,
)
from pipeline.store import Store
from workers.findings import Finding, unreadable

_AT_ONCE = 8 << 20  # bytes of a request to an object store, which answers after a while and then fast
_MOST_JSON = 1 << 16  # bytes; ours have two thousand
_MOST_OVERHEAD = 1 << 16  # bytes that encoding can add to a sample which does not compress


@dataclass(frozen=True)
class Layout:
    """How the samples of a shard are stored."""

    kind: StoredKind
    shape: Index3  # of each sample
    whole_cases: bool = False

    @property
    def edge(self) -> int:
        """Planes along X in a chunk."""
        return chunk_edge(self.shape, self.whole_cases)

    @property
    def chunks(self) -> int:
        """Chunks of a sample."""
        return -(-self.shape[0] // self.edge)


class Healthy:
    """The healthy patches of a dataset's samples, which turn differences into samples."""

    def __init__(self, bank: Bank, organs: tuple[str, ...]) -> None:
        self._bank, self._organs = bank, organs

    def patch(self, name: str, row: Mapping[str, Any]) -> npt.NDArray[Any]:
        """The `image` or `label` that a sample's difference was taken from; InputError for a damaged bank."""
        return healthy_patch(self._bank.load(row["case_id"]), name, row, self._organs)

    def damage(self, case_id: str) -> str:
        """What is wrong with a case of the bank, empty when nothing is; read once."""
        if case_id not in self._checked:
            try:
                self._bank.check(case_id)
                self._checked[case_id] = ""
            except InputError as error:
                self._checked[case_id] = str(error)
        return self._checked[case_id]

    @cached_property
    def _checked(self) -> dict[str, str]:
        return {}


def healthy_patch(case: Case, name: str, row: Mapping[str, Any], organs: tuple[str, ...]) -> npt.NDArray[Any]:
    """The `image` or `label` (X, Y, Z) of a sample's case without tumors, for its manifest row."""
    origin, shape = index3(row["origin_vox"]), index3(row["shape_vox"])
    return healthy_image(case, origin, shape) if name == "image" else healthy_label(case, origin, shape, organs)


def check_files(
    store: Store, part: Part, rows: pa.Table, layout: Layout, healthy: Healthy | None = None
) -> list[Finding]:
    """What is wrong with the files of a shard; `rows` are those of its part, one a sample.

    Of differences the pixels are compared where `healthy` is given.
    """
    found = metadata_findings(store, part, rows.num_rows, layout)
    for name in DTYPES:
        found += _object_findings(store, part, name, _ObjectCheck(rows, name, layout, healthy))
    return found


def metadata_findings(store: Store, part: Part, samples: int, layout: Layout) -> list[Finding]:
    """The Zarr metadata, which our own reader does without and every other reader needs."""
    found = []
    for file, document in _metadata_of(part, samples, layout).items():
        try:
            if not describes(json.loads(store.read_range(file, 0, _MOST_JSON)), document):
                found.append(Finding(part.shard, "is not the metadata of such a shard", file, "metadata"))
        except OSError as error:
            found.append(unreadable(part.shard, file, error, "metadata"))
        except (ValueError, RecursionError) as error:
            found.append(Finding(part.shard, f"is damaged: {error}", file, "metadata"))
    return found


def rewrite_metadata(store: Store, part: Part, samples: int, layout: Layout) -> None:
    """Write the Zarr metadata of a shard of `samples` anew; its data stays as it is."""
    for file, document in _metadata_of(part, samples, layout).items():
        store.replace(file, json.dumps(document, indent=1).encode())


def _metadata_of(part: Part, samples: int, layout: Layout) -> dict[str, dict[str, Any]]:
    """By key: what a shard's Zarr metadata says."""
    shape, kind = (samples, *layout.shape), layout.kind
    documents = {"zarr.json": group_metadata(kind)}
    documents |= {f"{name}/zarr.json": array_metadata(name, shape, kind, layout.edge) for name in DTYPES}
    return {f"{shard_name(part.shard, part.attempt)}/{name}": document for name, document in documents.items()}


def _object_findings(store: Store, part: Part, name: str, check: _ObjectCheck) -> list[Finding]:
    """One shard object: its size, every chunk, its index, its digest."""
    file = f"{shard_name(part.shard, part.attempt)}/{object_path(name)}"
    recorded = next(digest for digest in part.files if digest.path == object_path(name))
    try:
        size = store.size(file)
        if size != recorded.size:
            wrong = [f"holds {size:,} bytes, {recorded.size:,} were written"]
        else:
            with store.open(file) as stream:
                wrong = check.faults(stream, recorded)
    except OSError as error:
        return [unreadable(part.shard, file, error)]
    return [Finding(part.shard, what, file) for what in wrong] + [
        Finding(part.shard, what, file, "none") for what in check.not_compared
    ]


class _ObjectCheck:
    """Reads a shard object once, from its first byte to its last."""

    def __init__(self, rows: pa.Table, name: str, layout: Layout, healthy: Healthy | None) -> None:
        self._name, self._layout, self._healthy = name, layout, healthy
        self._ranges = np.array(rows[f"{name}_range"].to_pylist(), np.int64).reshape(-1, 2)
        self._rows = rows.select(["index", "case_id", "origin_vox", "shape_vox", f"{name}_crc32c"]).to_pylist()
        self._out = np.empty(layout.shape, DTYPES[name])  # where the samples are decoded to
        self.not_compared: list[str] = []  # not the shard's fault

    def faults(self, stream: BinaryIO, recorded: FileDigest) -> list[str]:
        """What is wrong with the object, which has the recorded size."""
        index_bytes = self._ranges.nbytes * self._layout.chunks + CRC_BYTES
        if not _covers(self._ranges, recorded.size - index_bytes, self._out.nbytes + _MOST_OVERHEAD):
            return ["the ranges in the manifest are not those of samples one after the other that fill it"]
        digest, wrong, chunks = hashlib.sha256(), [], []
        for (offset, length), row in zip(self._ranges.tolist(), self._rows, strict=True):
            data = stream.read(length)
            digest.update(data)
            fault = self._sample_fault(data, row)
            if fault:
                wrong.append(f"sample {row['index']}: {fault}")
            chunks += _chunks_in(data, offset, self._layout.chunks)
        data = stream.read(index_bytes)
        digest.update(data)
        wrong += _index_faults(data, np.array(chunks, "<u8"), damaged=bool(wrong))
        if not wrong and digest.hexdigest() != recorded.sha256:
            wrong.append("its sha256 is not the one in the part, though every checksum inside it fits")
        return wrong

    def _sample_fault(self, data: bytes, row: Mapping[str, Any]) -> str:
        try:
            decode_sample(data, self._out, self._layout.edge)
        except ChunkError as error:
            return str(error)
        if self._layout.kind == "delta":
            return self._delta_fault(row)
        same = array_crc32c(self._out) == row[f"{self._name}_crc32c"]
        return "" if same else "its pixels do not have the crc32c in the manifest"

    def _delta_fault(self, row: Mapping[str, Any]) -> str:
        """The manifest has the crc32c of the sample, not of the difference."""
        if self._healthy is None:
            return ""
        try:
            sample = np.add(self._out, self._healthy.patch(self._name, row))
        except InputError as error:
            self._not_compared(row, str(error))
            return ""
        if array_crc32c(sample) == row[f"{self._name}_crc32c"]:
            return ""
        damage = self._healthy.damage(row["case_id"])
        if damage:
            self._not_compared(row, damage)
            return ""
        return "added to its healthy patch it does not have the crc32c in the manifest"

    def _not_compared(self, row: Mapping[str, Any], why: str) -> None:
        self.not_compared.append(f"sample {row['index']}: cannot be compared: {why}")


def _covers(ranges: npt.NDArray[np.int64], size: int, most: int) -> bool:
    """Whether (offset, length) pairs lie one after the other, without gaps, from 0 to `size`; no length over `most`."""
    if size < 0 or (ranges < 0).any() or (ranges > size).any() or (ranges[:, 1] > most).any():
        return False  # before sums of them, which could run over
    ends = ranges.sum(axis=1)
    return bool((ranges[:, 1] > 0).all() and (ranges[:, 0] == [0, *ends[:-1]]).all() and ends[-1] == size)


def _chunks_in(data: bytes, offset: int, count: int) -> list[tuple[int, int]]:
    """(offset, length) of the chunks of a sample, which lies at `offset`."""
    if count == 1:
        return [(offset, len(data))]
    lengths = chunk_lengths(data, count)
    return list(zip(accumulate(lengths[:-1], initial=offset), lengths, strict=True))


def _index_faults(data: bytes, chunks: npt.NDArray[np.uint64], damaged: bool) -> list[str]:
    """The index at the end of a shard object: what other Zarr readers find the chunks by.

    In a damaged sample nobody knows where several chunks lie.
    """
    body = data[:-CRC_BYTES]
    if len(body) != chunks.nbytes or crc32c(body) != int.from_bytes(data[-CRC_BYTES:], "little"):
        return ["the index at its end fails its checksum"]
    same = (np.frombuffer(body, "<u8").reshape(-1, 2) == chunks).all(axis=1)
    if damaged:
        return []
    return [f"chunk {k}: the index at its end has another range than the manifest" for k in np.flatnonzero(~same)]
