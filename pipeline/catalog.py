"""A dataset on disk as a value: `open_dataset(path)`. Reads only what the manifest says is committed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from pipeline.case import AIR_HU
from pipeline.config import GenerateConfig, Settings, differences, explain
from pipeline.errors import InputError
from pipeline.files import create_file, replace_file
from pipeline.grid import crop
from pipeline.manifest import (
    SCHEMA,
    Part,
    committed_shards,
    read_part,
    read_whole_manifest,
    shard_name,
    whole_manifest_bytes,
)
from pipeline.organs import CLASS_IDS
from pipeline.shard import DTYPES, ChunkError, decode_chunk, object_path

if TYPE_CHECKING:
    from pipeline.bank import Bank

FORMAT_VERSION = 1


class DatasetInfo(Settings):
    """`dataset.json`: what was planned, from which bank, with which software."""

    format_version: int = FORMAT_VERSION
    config: GenerateConfig
    config_digest: str
    bank: str  # folder of the bank, relative to the dataset where both move together, else absolute
    bank_fingerprint: str
    spacing_mm: float
    classes: dict[str, int]
    shards: int
    software: dict[str, str]

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        return self.config.patch_shape


class Sample(NamedTuple):
    """One stored sample: image int16 HU and label uint8, both (X, Y, Z), and its manifest row."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    row: dict[str, Any]


def dataset_classes(organs: tuple[str, ...]) -> dict[str, int]:
    """Names and ids of the classes in labels of these organs, background first."""
    names = ["background", *(name for organ in organs for name in (organ, f"{organ}_tumor"))]
    return {name: CLASS_IDS[name] for name in sorted(names, key=lambda name: CLASS_IDS[name])}


@dataclass(frozen=True)
class Dataset:
    """Committed samples: `manifest` (one row each, by index) and where their shards lie."""

    path: Path
    info: DatasetInfo
    manifest: pa.Table
    parts: Mapping[int, Part]

    def object_file(self, shard: int, name: str) -> Path:
        """The shard object of array `name` (`image` or `label`)."""
        if shard not in self.parts:
            raise InputError(f"{self.path}: a manifest row names shard {shard}, which no part file commits")
        return self.path / shard_name(shard, self.parts[shard].attempt) / object_path(name)

    @cached_property
    def _position(self) -> dict[int, int]:
        return {index: k for k, index in enumerate(self.manifest["index"].to_pylist())}

    def row(self, index: int) -> dict[str, Any]:
        """The manifest row of a sample, with `tumors` as a list of dicts."""
        if index not in self._position:
            held = f"{len(self._position)} samples" if self._position else "no sample"
            raise InputError(f"{self.path}: no sample with index {index} (the dataset holds {held})")
        row: dict[str, Any] = self.manifest.slice(self._position[index], 1).to_pylist()[0]
        return row

    def sample(self, index: int) -> Sample:
        """Image, label and manifest row of a sample, checksums verified."""
        row = self.row(index)
        arrays = {name: self._read(row, name) for name in DTYPES}
        return Sample(arrays["image"], arrays["label"], row)

    def _read(self, row: Mapping[str, Any], name: str) -> npt.NDArray[Any]:
        out = np.empty(self.info.patch_shape, DTYPES[name])
        offset, length = row[f"{name}_range"]
        read_chunk(self.object_file(row["shard"], name), offset, length, out)
        return out

    def healthy(self, index: int) -> npt.NDArray[np.int16]:
        """The healthy twin: the same patch of the bank case without the tumors, (X, Y, Z) int16 HU."""
        row = self.row(index)
        case = self.bank.load(row["case_id"])
        return crop(case.ct, tuple(row["origin_vox"]), self.info.patch_shape, AIR_HU)

    @cached_property
    def bank(self) -> Bank:
        """The bank that the dataset was made from; an InputError when it is gone or was changed."""
        from pipeline.bank import open_bank  # most uses of a dataset need no bank

        folder = (self.path / self.info.bank).resolve()
        try:
            bank = open_bank(folder)
        except InputError as error:
            raise InputError(f"{self.path}: its bank is needed here, but: {error}") from error
        if bank.fingerprint != self.info.bank_fingerprint:
            raise InputError(
                f"{self.path} was made from another state of the bank {folder}: fingerprint "
                f"{self.info.bank_fingerprint[:12]} then, {bank.fingerprint[:12]} now. Restore the bank's cases"
            )
        return bank

    @property
    def complete(self) -> bool:
        return len(self.parts) == self.info.shards

    def split_counts(self) -> dict[str, int]:
        """Samples by split."""
        counts = self.manifest["split"].value_counts().to_pylist()
        return {entry["values"]: entry["counts"] for entry in counts}

    def indices_of(self, split: str) -> list[int]:
        """Indices of the samples of a split (`all` for every sample), ascending."""
        table = self.manifest.select(["index", "split"])
        if split != "all":
            table = table.filter(pc.field("split") == split)
        return [int(index) for index in table["index"].to_pylist()]


def read_chunk(path: Path, offset: int, length: int, out: npt.NDArray[Any]) -> None:
    """Read one encoded sample of a shard object into `out`; one clear InputError when it is broken."""
    try:
        with path.open("rb") as file:
            data = os.pread(file.fileno(), length, offset)
        if len(data) != length:
            raise ChunkError(f"ends {length - len(data)} bytes early")
        decode_chunk(data, out)
    except (OSError, ChunkError) as error:
        raise broken_shard(path, error) from error


def broken_shard(path: Path, error: Exception) -> InputError:
    """The message for a shard object that is missing, cut or changed."""
    shard = path.parents[5].name.partition("-")[0]
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"shard {shard} cannot be read: {path}: {reason}. The shard itself may be whole")
    return InputError(
        f"broken shard {shard}: {path}: {reason}. "
        f"`phantumor verify {path.parents[7]} --repair` makes it again from the bank"
    )


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open a dataset, complete or still growing: a folder, or its `file://` URL."""
    folder = _local(os.fspath(path))
    info = read_info(folder)
    whole = folder / "manifest.parquet"
    if whole.is_file():
        parts, manifest = read_whole_manifest(whole)
    else:
        read = [read_part(folder, shard) for shard in committed_shards(folder)]
        parts = {part.shard: part for part, _ in read}
        tables = [rows for _, rows in read]
        manifest = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    return Dataset(folder, info, manifest, parts)


def _local(path: str) -> Path:
    """The folder that a path or URL names."""
    scheme, mark, rest = path.partition("://")
    if not mark:
        return Path(path)
    if scheme != "file":
        raise InputError(f"{path}: datasets are read from disks, not from {scheme}://. Copy it, or mount its store")
    return Path(unquote(rest.removeprefix("localhost")))


def read_info(folder: Path) -> DatasetInfo:
    """Read and check `dataset.json`."""
    file = folder / "dataset.json"
    if not file.is_file():
        what = "no such folder" if not folder.exists() else "it holds no dataset.json"
        raise InputError(f"{folder} is not a phantumor dataset: {what}. `phantumor generate` makes one")
    try:
        document = json.loads(file.read_text())
        version = document.get("format_version")
        if version == FORMAT_VERSION:
            return DatasetInfo.model_validate(document)
    except (OSError, ValueError, AttributeError) as error:
        reason = explain(error, DatasetInfo) if isinstance(error, ValidationError) else error
        raise InputError(
            f"{file}: not a readable dataset description: {reason}. Restore the file from a copy, or generate the "
            "dataset again into a new folder"
        ) from error
    raise InputError(
        f"{file}: dataset format {version}, this phantumor reads format {FORMAT_VERSION}. "
        "Use the phantumor that made it, or generate the dataset again"
    )


def create_info(folder: Path, info: DatasetInfo) -> None:
    """Write `dataset.json` once; the same dataset again is a resume, another one is refused."""
    data = json.dumps(info.model_dump(mode="json"), indent=2).encode()
    if not create_file(folder / "dataset.json", data):
        check_same(folder, info)


def check_same(folder: Path, info: DatasetInfo) -> None:
    """InputError when `folder` holds a dataset made with other settings or another bank than `info`."""
    old = read_info(folder)
    compared = ("config", "bank_fingerprint")
    before, now = ({k: d.model_dump(mode="json")[k] for k in compared} for d in (old, info))
    changed = differences(before, now)
    if changed:
        raise InputError(
            f"{folder} already holds a dataset made with other settings: {'; '.join(changed)}. "
            "Use the old settings to resume it, or another --out"
        )


def compact(folder: Path) -> None:
    """Write the whole manifest into one file, once every shard is committed."""
    parts = [read_part(folder, shard) for shard in committed_shards(folder)]
    replace_file(folder / "manifest.parquet", whole_manifest_bytes(parts))
