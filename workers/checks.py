"""Whether a dataset is whole: reads every byte of every committed shard and compares it with what the manifest says.

Needs no bank and changes nothing. `workers.replay` compares with the bank, `workers.repair` makes broken shards again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.catalog import DatasetInfo, dataset_classes
from pipeline.errors import InputError
from pipeline.manifest import (
    OPTIONAL,
    SCHEMA,
    Part,
    committed_shards,
    part_name,
    read_part,
    read_whole_manifest,
    sample_id,
)
from pipeline.progress import Progress
from pipeline.shard import DTYPES, object_path
from pipeline.threads import in_threads
from workers.findings import INFO, WHOLE, Finding, unreadable
from workers.plan import Plan
from workers.shard_files import check_files

_OBJECTS = sorted(object_path(name) for name in DTYPES)


def plan_of(info: DatasetInfo) -> Plan:
    """Which samples each shard of a dataset holds."""
    return Plan(info.config.samples, info.config.shard_samples)


def check_dataset(folder: Path, info: DatasetInfo) -> Iterator[Finding]:
    """Everything that is wrong with the files of a dataset, shard by shard, with progress on standard error."""
    plan, committed = plan_of(info), committed_shards(folder)
    yield from _info_findings(info, plan)
    whole: _Whole | None = None
    if (folder / WHOLE).exists():
        try:
            whole = _Whole.read(folder)
        except InputError as error:
            yield unreadable(None, WHOLE, error, "compact")
    progress = Progress(plan.samples_in(committed), "samples checked")
    results = in_threads(lambda shard: check_shard(folder, info, shard, whole), committed)
    for shard, findings in zip(committed, results, strict=True):
        yield from findings
        progress.advance(len(plan.indices(shard)))
    if whole is not None:
        yield from whole.uncommitted(committed, plan)


def _info_findings(info: DatasetInfo, plan: Plan) -> list[Finding]:
    """`dataset.json` against itself. Its settings decide all bytes, so nothing is remade from settings in doubt."""
    wrong = []
    if info.config.digest() != info.config_digest:
        wrong.append("its config does not have its config_digest: it was edited, or another phantumor wrote it")
    if info.shards != plan.shards:
        wrong.append(f"it plans {info.shards} shards, its config makes {plan.shards}")
    if info.classes != dataset_classes(info.config.organs):
        wrong.append("its classes are not those of its organs")
    return [Finding(None, what, INFO, "none") for what in wrong]


# ---- one shard ----


def check_shard(folder: Path, info: DatasetInfo, shard: int, whole: _Whole | None = None) -> list[Finding]:
    """What is wrong with a committed shard: its part, its files, its rows in `manifest.parquet`."""
    file, plan = part_name(shard), plan_of(info)
    if shard >= plan.shards:
        what = f"the dataset has no such shard, the last is {plan.shards - 1}; remove this file"
        return [Finding(shard, what, file, "none")]
    try:
        part, rows = read_part(folder, shard)
    except InputError as error:
        return [unreadable(shard, file, error)]
    indices = plan.indices(shard)
    wrong = _structure_faults(part, rows, indices)
    if wrong:  # without the columns and files to rely on, what follows would only add noise
        return [Finding(shard, what, file) for what in wrong]
    found = [Finding(shard, what, file) for what in _row_faults(part, rows, indices, info)]
    found += check_files(folder, part, rows, info.patch_shape)
    return found + (whole.differences(part, rows) if whole is not None else [])


def _structure_faults(part: Part, rows: pa.Table, indices: range) -> list[str]:
    """Faults of a part that make the rest of it useless."""
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        return [f"holds invalid values: {error}"]
    empty = [name for name in SCHEMA.names if name not in OPTIONAL and rows[name].null_count]
    if empty:
        return [f"has rows without a value for {', '.join(empty)}"]
    if rows.num_rows != len(indices):
        return [f"holds {rows.num_rows} rows, the shard has {len(indices)} samples"]
    if sorted(file.path for file in part.files) != _OBJECTS:
        return [f"names the files {', '.join(file.path for file in part.files) or 'none'}, not image and label"]
    return []


def _row_faults(part: Part, rows: pa.Table, indices: range, info: DatasetInfo) -> list[str]:
    """Rows that are not those of this shard of this dataset, or that disagree with the spec beside them."""
    wrong = []
    if part.config_digest != info.config_digest:
        wrong.append(f"config digest {part.config_digest[:12]}, the dataset has {info.config_digest[:12]}")
    names = ["sample_id", "index", "shard", "row", "spacing_mm", "split", "case_id", "origin_vox", "spec"]
    for number, (index, row) in enumerate(zip(indices, rows.select(names).to_pylist(), strict=True)):
        place = {"sample_id": sample_id(index), "index": index, "shard": part.shard, "row": number}
        columns = _different(row, {**place, "spacing_mm": info.spacing_mm})
        if columns:
            wrong.append(f"row {number} is not of sample {index}: {columns}")
        columns = _spec_difference(row, info)
        if columns:
            wrong.append(f"sample {index}: its spec is not that of its row: {columns}")
    return wrong


def _spec_difference(row: Mapping[str, Any], info: DatasetInfo) -> str:
    expected = {name: row[name] for name in ("index", "split", "case_id", "origin_vox")}
    try:
        spec = json.loads(row["spec"])
        return _different(spec, {**expected, "seed": info.seed, "patch_shape": list(info.patch_shape)})
    except (ValueError, AttributeError):
        return "it is no JSON object"


def _different(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """`name value (not expected)` of each difference, empty without any."""
    pairs = ((name, found.get(name), value) for name, value in expected.items())
    return ", ".join(f"{name} {value!r} (not {wanted!r})" for name, value, wanted in pairs if value != wanted)


# ---- manifest.parquet ----


@dataclass(frozen=True)
class _Whole:
    """`manifest.parquet`: the same rows and provenance as the parts, in shard order."""

    parts: Mapping[int, Part]
    rows: pa.Table
    shards: npt.NDArray[np.int64]  # of each row, ascending

    @staticmethod
    def read(folder: Path) -> _Whole:
        """InputError when it cannot be read, or does not look like a manifest."""
        parts, rows = read_whole_manifest(folder / WHOLE)
        shards = rows["shard"].to_numpy()
        if rows["shard"].null_count or (np.diff(shards) < 0).any():
            raise InputError("its rows are not in the order of shards")
        return _Whole(parts, rows, shards)

    def differences(self, part: Part, rows: pa.Table) -> list[Finding]:
        """Where it disagrees with the part of a shard, which is what it was made from."""
        first, last = np.searchsorted(self.shards, [part.shard, part.shard + 1]).tolist()
        mine = self.rows.slice(first, last - first)
        wrong = [] if self.parts.get(part.shard) == part else [f"not the provenance in {part_name(part.shard)}"]
        if mine.num_rows != rows.num_rows:
            wrong.append(f"{mine.num_rows} rows of this shard, {rows.num_rows} in {part_name(part.shard)}")
        elif not mine.equals(rows):
            wrong += _row_differences(mine, rows, part_name(part.shard))
        return [Finding(part.shard, what, WHOLE, "compact") for what in wrong]

    def uncommitted(self, committed: list[int], plan: Plan) -> list[Finding]:
        """Shards that it knows and that no part file commits."""
        missing = sorted({*self.parts, *np.unique(self.shards).tolist()} - set(committed))
        what = f"is missing, though {WHOLE} knows the shard"
        return [
            Finding(shard, what, part_name(shard), "remake" if 0 <= shard < plan.shards else "compact")
            for shard in missing
        ]


def _row_differences(mine: pa.Table, rows: pa.Table, file: str) -> list[str]:
    """One line for each row that differs. As text, because a value that is not a number equals nothing."""
    wrong = []
    for a, b in zip(mine.to_pylist(), rows.to_pylist(), strict=True):
        columns = [name for name in SCHEMA.names if json.dumps(a[name]) != json.dumps(b[name])]
        if columns:
            wrong.append(f"sample {b['index']}: not the {', '.join(columns)} in {file}")
    return wrong
