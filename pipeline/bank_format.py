"""How a bank lies on disk: the row of a case in `cases.parquet` and the arrays of a case in its Zarr group.

    BANK/bank.json              format version, spacing, class ids
    BANK/cases.parquet          one row a case, see SCHEMA
    BANK/cases/<case_id>.zarr   Zarr v3 group of VOLUMES and, for each organ that takes tumors, of PER_ORGAN:
                                voxels/<organ>, parenchyma/<organ>, of elongated organs along/<organ> and, of organs
                                with annotated tumors, lesions/<organ>

Each array is one uncompressed chunk, so its chunk file is the raw C-order array: any Zarr v3 reader opens it, and we
map it into memory in 0.2 ms, shared by all processes of a machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.case import Case, FloatArray, OrganStats, organ_shapes
from pipeline.errors import InputError
from pipeline.organs import CLASS_NAMES, is_tumor

FORMAT = "phantumor-bank"
FORMAT_VERSION = 2
INFO, TABLE, CASES = "bank.json", "cases.parquet", "cases"
CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # names files: no separators, no hidden or parent folders
VOLUMES: dict[str, npt.DTypeLike] = {
    "ct": "<i2",
    "organs": "u1",
    "vessels": "u1",
    "surface_distance_mm": "<f2",
    "vessel_distance_mm": "<f2",
    "noise": "i1",
}
PER_ORGAN: dict[str, npt.DTypeLike] = {"voxels": "<i4", "parenchyma": "<i2", "along": "u1", "lesions": "<i4"}
_ZARR_TYPES = {"i1": "int8", "i2": "int16", "u1": "uint8", "f2": "float16", "i4": "int32"}

SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("split", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("spacing_mm", pa.float64()),
        ("affine", pa.list_(pa.float64())),  # 16 numbers, row by row, voxel index to RAS mm
        ("phase", pa.string()),
        (
            "organs",
            pa.list_(
                pa.struct(
                    [
                        ("organ", pa.string()),
                        ("volume_ml", pa.float64()),
                        ("mean_hu", pa.float64()),
                        ("sd_hu", pa.float64()),
                        ("max_depth_mm", pa.float64()),
                        ("usable", pa.bool_()),  # takes tumors: a tumor organ that the scan does not cut off
                    ]
                )
            ),
        ),
        ("sources", pa.list_(pa.struct([("name", pa.string()), ("sha256", pa.string())]))),
        ("recipe", pa.string()),  # digest of sources and settings; the same recipe need not be prepared again
        (
            "arrays",
            pa.list_(pa.struct([("name", pa.string()), ("shape", pa.list_(pa.int64())), ("sha256", pa.string())])),
        ),
        ("annotated", pa.list_(pa.uint8())),  # tumor classes; empty of a healthy case, absent in older banks
    ]
)


@dataclass(frozen=True)
class StoredArray:
    """Shape of an array and sha256 of its bytes in C order."""

    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, eq=False)
class CaseRecord:
    """A case without its arrays: one row of `cases.parquet`."""

    case_id: str
    split: str
    shape: tuple[int, int, int]
    spacing_mm: float
    affine: FloatArray
    phase: str
    stats: Mapping[str, OrganStats]
    usable_organs: tuple[str, ...]
    sources: Mapping[str, str]
    recipe: str
    arrays: Mapping[str, StoredArray]
    annotated: tuple[int, ...] = ()


def record_of(case: Case, arrays: Mapping[str, StoredArray], recipe: str) -> CaseRecord:
    """The row of a case whose arrays were written."""
    x, y, z = case.ct.shape
    return CaseRecord(
        case_id=case.case_id,
        split=case.split,
        shape=(x, y, z),
        spacing_mm=case.spacing_mm,
        affine=case.affine,
        phase=case.phase,
        stats=case.stats,
        usable_organs=tuple(case.voxels),
        sources=case.sources,
        recipe=recipe,
        arrays=arrays,
        annotated=case.annotated,
    )


def table_of(records: Sequence[CaseRecord]) -> pa.Table:
    """`cases.parquet`, in the order of case ids."""
    return pa.Table.from_pylist([_row(r) for r in sorted(records, key=lambda r: r.case_id)], schema=SCHEMA)


def records_of(table: pa.Table, where: str) -> tuple[CaseRecord, ...]:
    """The rows of a `cases.parquet`, checked; InputError when they are not ours."""
    try:
        records = tuple(_record(row) for row in table.to_pylist())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: damaged or of another version ({error!r}); prepare the bank again") from error
    for record in records:
        # The id becomes a path, so a forged one could lead out of the bank.
        if not CASE_ID.fullmatch(record.case_id):
            raise InputError(f"{where}: damaged: {record.case_id!r} is no case id; prepare the bank again")
        if not all(number in CLASS_NAMES and is_tumor(number) for number in record.annotated):
            raise InputError(f"{where}: damaged: {record.case_id!r} annotates unknown classes; prepare the bank again")
        if {name: stored.shape for name, stored in record.arrays.items()} != _shapes(record):
            raise InputError(f"{where}: damaged: the arrays of {record.case_id!r} do not fit; prepare the bank again")
    return records


def _shapes(record: CaseRecord) -> dict[str, tuple[int, ...]]:
    """The arrays that a case must have, by name; how many voxels an organ has is for `voxels` to say."""
    stored = {o: record.arrays.get(f"voxels/{o}") for o in record.usable_organs}
    counts = {o: math.prod(array.shape) if array else 0 for o, array in stored.items()}
    tumors = {o: record.arrays.get(f"lesions/{o}") for o in record.usable_organs if record.annotated}
    lesions = {o: math.prod(array.shape[:1]) for o, array in tumors.items() if array}
    per_organ = organ_shapes(counts, lesions, record.shape, record.spacing_mm)
    return dict.fromkeys(VOLUMES, record.shape) | {f"{name}/{o}": shape for (name, o), shape in per_organ.items()}


def _row(record: CaseRecord) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in ("case_id", "split", "shape", "spacing_mm", "phase")}
    return row | {
        "affine": record.affine.ravel().tolist(),
        "organs": [{"organ": o, **vars(s), "usable": o in record.usable_organs} for o, s in record.stats.items()],
        "sources": [{"name": name, "sha256": digest} for name, digest in sorted(record.sources.items())],
        "recipe": record.recipe,
        "arrays": [{"name": name, "shape": a.shape, "sha256": a.sha256} for name, a in sorted(record.arrays.items())],
        "annotated": list(record.annotated),
    }


def _record(row: dict[str, Any]) -> CaseRecord:
    x, y, z = row["shape"]
    figures = ("volume_ml", "mean_hu", "sd_hu", "max_depth_mm")
    return CaseRecord(
        case_id=row["case_id"],
        split=row["split"],
        shape=(x, y, z),
        spacing_mm=row["spacing_mm"],
        affine=np.array(row["affine"], np.float64).reshape(4, 4),
        phase=row["phase"],
        stats={o["organ"]: OrganStats(**{name: o[name] for name in figures}) for o in row["organs"]},
        usable_organs=tuple(o["organ"] for o in row["organs"] if o["usable"]),
        sources={s["name"]: s["sha256"] for s in row["sources"]},
        recipe=row["recipe"],
        arrays={a["name"]: StoredArray(tuple(a["shape"]), a["sha256"]) for a in row["arrays"]},
        annotated=tuple(row.get("annotated") or ()),
    )


def arrays_of(case: Case) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a case by their names in the Zarr group, little-endian and in C order."""
    arrays = {name: np.ascontiguousarray(getattr(case, name), dtype) for name, dtype in VOLUMES.items()}
    return arrays | {
        f"{name}/{organ}": np.ascontiguousarray(array, dtype)
        for name, dtype in PER_ORGAN.items()
        for organ, array in getattr(case, name).items()
    }


def per_organ(arrays: Mapping[str, npt.NDArray[Any]], organs: Sequence[str]) -> dict[str, Any]:
    """The arrays that a case has per organ, as `Case` takes them, from all arrays by their names in the Zarr group."""
    return {name: {o: arrays[f"{name}/{o}"] for o in organs if f"{name}/{o}" in arrays} for name in PER_ORGAN}


def dtype_of(name: str) -> np.dtype[Any]:
    """The type of a stored array."""
    return np.dtype((VOLUMES | PER_ORGAN)[name.partition("/")[0]])


def chunk_key(name: str, ndim: int) -> str:
    """What holds all of an array, relative to its case's group."""
    return f"{name}/c/{'/'.join('0' * ndim)}"


def chunk_file(group: Path, name: str, ndim: int) -> Path:
    """The file that holds all of an array."""
    return group / chunk_key(name, ndim)


def write_group(
    group: Path, arrays: Mapping[str, npt.NDArray[Any]], attributes: Mapping[str, Any]
) -> dict[str, StoredArray]:
    """Write a Zarr v3 group of uncompressed one-chunk arrays, flushed to disk.

    By hand, as Zarr libraries leave out chunks that hold only the fill value, which then cannot be mapped into memory.
    """
    for folder in dict.fromkeys([group, *((group / name).parent for name in arrays)]):
        folder.mkdir()
        about = attributes if folder == group else {}
        _write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": about})
    return {name: _write_array(group, name, array) for name, array in arrays.items()}


def _write_array(group: Path, name: str, array: npt.NDArray[Any]) -> StoredArray:
    file = chunk_file(group, name, array.ndim)
    file.parent.mkdir(parents=True)
    _write_json(group / name / "zarr.json", _array_metadata(array))
    with file.open("wb") as stream:
        stream.write(array.data)
        stream.flush()
        os.fsync(stream.fileno())
    return StoredArray(array.shape, hashlib.sha256(array.data).hexdigest())


def _array_metadata(array: npt.NDArray[Any]) -> dict[str, Any]:
    endian = {} if array.itemsize == 1 else {"configuration": {"endian": "little"}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": array.shape,
        "data_type": _ZARR_TYPES[array.dtype.str[1:]],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": array.shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if array.dtype.kind == "f" else 0,
        "codecs": [{"name": "bytes", **endian}],
        "dimension_names": {3: ["x", "y", "z"], 2: ["voxel", "field"]}.get(array.ndim, ["voxel"]),
        "attributes": {},
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
