"""Whether a dataset is whole: reads every byte of every committed shard and compares it with what the manifest says.

Needs no bank (but for the pixels of a `delta` dataset) and changes nothing. `workers.replay` compares with the bank,
`workers.repair` makes broken shards again, `workers.view_checks` is for views.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.description import INFO, MOST_VOXELS, DatasetInfo, dataset_classes, recipe_digest
from pipeline.errors import InputError
from pipeline.grid import index3
from pipeline.manifest import OPTIONAL, SCHEMA, WHOLE, Part, committed_shards, part_name, read_part, sample_id
from pipeline.progress import Progress
from pipeline.shard import DTYPES, StoredKind, object_path
from pipeline.store import Store
from pipeline.threads import THREADS, in_threads
from workers.findings import Finding, few, unreadable
from workers.plan import Plan
from workers.shard_files import Healthy, Layout, check_files
from workers.whole import Said, Whole, open_if_sound, row_differences, uncommitted

_OBJECTS = sorted(object_path(name) for name in DTYPES)
_RANGES = [f"{name}_range" for name in DTYPES]
_FIXED_LISTS = ["shape_vox", "origin_vox", "affine", *_RANGES]  # whose items are numbers, never null
_REMOTE_THREADS = 16  # an object store answers many at once, each of them slowly
_MEMORY = 2 << 30  # bytes for the samples that are checked at a time
_CASE_VOXELS = 2**27  # of a large whole case


def check_dataset(store: Store, info: DatasetInfo, healthy: Healthy | None = None) -> Iterator[Finding]:
    """Everything that is wrong with the files of a dataset, shard by shard, with progress on standard error."""
    plan, committed = info.plan, committed_shards(store)
    yield from _info_findings(info, plan)
    whole: Whole | None = None
    if store.exists(WHOLE):
        opened = open_if_sound(store, plan.samples)
        if isinstance(opened, Finding):
            yield opened
        else:
            whole = opened
    said = whole.said(committed) if whole else ((shard, None) for shard in committed)
    progress = Progress(plan.samples_in(shard for shard in committed if shard < plan.shards), "samples checked")
    results = in_threads(lambda one: check_shard(store, info, *one, healthy), said, threads_for(store, [info]))
    for shard, findings in zip(committed, results, strict=True):
        yield from findings
        progress.advance(len(plan.indices(shard)) if shard < plan.shards else 0)
    if whole is not None:
        yield from _end_of(whole, committed, plan)


def threads_for(store: Store, infos: Iterable[DatasetInfo]) -> int:
    """How many shards of these datasets to check at a time: each has a sample in memory, encoded and decoded."""
    voxels = max(_CASE_VOXELS if info.config.whole_cases else math.prod(info.patch_shape) for info in infos)
    wanted = THREADS if store.folder is not None else _REMOTE_THREADS
    return max(1, min(wanted, _MEMORY // (8 * voxels)))


def _info_findings(info: DatasetInfo, plan: Plan) -> list[Finding]:
    """`dataset.json` against itself. Its settings decide all bytes, so nothing is remade from settings in doubt."""
    wrong = []
    if recipe_digest(info.config) != info.config_digest:
        wrong.append("its config does not have its config_digest: it was edited, or another phantumor wrote it")
    if info.shards != plan.shards:
        wrong.append(f"it plans {info.shards} shards, its config makes {plan.shards}")
    if info.classes != dataset_classes(info.config.organs):
        wrong.append("its classes are not those of its organs")
    return [Finding(None, what, INFO, "none") for what in wrong]


def _end_of(whole: Whole, committed: list[int], plan: Plan) -> Iterator[Finding]:
    """What is known of the whole manifest once all parts were compared with it."""
    if whole.fault is not None:
        yield whole.fault
    what = f"is missing, though {WHOLE} knows the shard"
    for shard in uncommitted(whole, committed):
        yield Finding(shard, what, part_name(shard), "remake" if 0 <= shard < plan.shards else "compact")


# ---- one shard ----


class Examined(NamedTuple):
    """A shard's part, where it can be relied on, and what is wrong with part and files."""

    findings: list[Finding]
    part: Part | None = None
    rows: pa.Table | None = None


def check_shard(
    store: Store, info: DatasetInfo, shard: int, said: Said | None = None, healthy: Healthy | None = None
) -> list[Finding]:
    """What is wrong with a committed shard: its part, its files, what `manifest.parquet` says of it."""
    found = examine(store, info, shard, healthy)
    if said is not None and found.part is not None and found.rows is not None:
        wrong = _whole_differences(said, found.part, found.rows)
        found.findings.extend(Finding(shard, what, WHOLE, "compact") for what in wrong)
    return few(found.findings)


def examine(store: Store, info: DatasetInfo, shard: int, healthy: Healthy | None = None) -> Examined:
    """Read the part and every file of a committed shard."""
    file, plan, kind = part_name(shard), info.plan, info.config.store
    if shard >= plan.shards:
        what = _larger(store, info) or f"the dataset has no such shard, the last is {plan.shards - 1}; remove this file"
        return Examined([Finding(shard, what, file, "none")])
    try:
        part, rows = read_part(store, shard)
    except InputError as error:
        return Examined([unreadable(shard, file, error)])
    indices = plan.indices(shard)
    wrong = _structure_faults(part, rows, indices, info)
    if wrong:  # without the columns and files to rely on, what follows would only add noise
        return Examined([Finding(shard, what, file) for what in wrong])
    found = [Finding(shard, what, file) for what in _row_faults(part, rows, indices, info)]
    if kind != "recipe":
        found += check_files(store, part, rows, layout_of(info, rows), healthy)
    return Examined(found, part, rows)


def layout_of(info: DatasetInfo, rows: pa.Table) -> Layout:
    """How the samples of a shard are stored, whose rows are those of its part."""
    kind: StoredKind = "delta" if info.config.store == "delta" else "full"
    return Layout(kind, index3(rows["shape_vox"][0].as_py()), info.config.whole_cases)


def _larger(store: Store, info: DatasetInfo) -> str:
    """What to do where a growth is on record that `dataset.json` does not tell of, as in an older copy of it."""
    found = [_growth(store, entry.key) for entry in store.entries("growth")]
    samples, key = max(found, default=(0, ""))
    if samples <= info.config.samples:
        return ""
    if samples == math.inf:
        return f"{INFO} has no such shard, and {key} cannot be read, which may tell of it; restore that file"
    return f"{INFO} is behind {key}: run the `phantumor generate` command with --samples {samples:.0f}"


def _growth(store: Store, key: str) -> tuple[float, str]:
    """Samples of a growth, infinitely many where that cannot be told, and its file."""
    try:
        return int(json.loads(store.read(key))["samples"]), key
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return math.inf, key


def _structure_faults(part: Part, rows: pa.Table, indices: range, info: DatasetInfo) -> list[str]:
    """Faults of a part that make the rest of it useless."""
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        return [f"holds invalid values: {error}"]
    if rows.num_rows != len(indices):
        return [f"holds {rows.num_rows} rows, the shard has {len(indices)} samples"]
    kind = info.config.store
    empty = _without_value(rows, [n for n in SCHEMA.names if n not in OPTIONAL or (n in _RANGES and kind != "recipe")])
    if empty:
        return [f"has rows without a value for {', '.join(empty)}"]
    return _shape_faults(rows, info) or _pixel_faults(part, rows, kind)


def _shape_faults(rows: pa.Table, info: DatasetInfo) -> list[str]:
    """Whether all samples of the shard have one shape, which the dataset's settings allow: memory depends on it."""
    shapes = {tuple(shape) for shape in rows["shape_vox"].to_pylist()}
    wanted = "that of a case" if info.config.whole_cases else str(info.patch_shape)
    for shape in sorted(shapes):
        possible = min(shape) > 0 and math.prod(shape) <= MOST_VOXELS
        if not (possible if info.config.whole_cases else shape == info.patch_shape):
            return [f"has rows with shape_vox {shape}, the shape is {wanted}"]
    return ["has rows with several shape_vox"] if len(shapes) > 1 else []


def _without_value(rows: pa.Table, names: Iterable[str]) -> list[str]:
    """Columns that have a null, or lists of numbers with one."""
    return [
        name
        for name in names
        if rows[name].null_count or (name in _FIXED_LISTS and pc.list_flatten(rows[name]).null_count)
    ]


def _pixel_faults(part: Part, rows: pa.Table, kind: str) -> list[str]:
    """Whether the part names what its kind of dataset keeps."""
    named = sorted(file.path for file in part.files)
    if kind != "recipe" and named != _OBJECTS:
        return [f"names the files {', '.join(named) or 'none'}, not image and label"]
    if kind == "recipe" and named:
        return [f"names the files {', '.join(named)}, but a recipe has none"]
    if kind == "recipe" and any(rows[name].null_count < rows.num_rows for name in _RANGES):
        return ["has rows with ranges of pixels, but a recipe has none"]
    return []


def _row_faults(part: Part, rows: pa.Table, indices: range, info: DatasetInfo) -> list[str]:
    """Rows that are not those of this shard of this dataset, or that disagree with the spec beside them."""
    wrong = []
    if part.config_digest != info.config_digest:
        wrong.append(f"config digest {part.config_digest[:12]}, the dataset has {info.config_digest[:12]}")
    names = "sample_id index shard row spacing_mm shape_vox split case_id origin_vox spec".split()
    always = {"shard": part.shard, "spacing_mm": info.spacing_mm}
    for number, (index, row) in enumerate(zip(indices, rows.select(names).to_pylist(), strict=True)):
        columns = _different(row, {"sample_id": sample_id(index), "index": index, "row": number, **always})
        if columns:
            wrong.append(f"row {number} is not of sample {index}: {columns}")
        columns = _spec_difference(row, info.seed)
        if columns:
            wrong.append(f"sample {index}: its spec is not that of its row: {columns}")
    return wrong


def _spec_difference(row: Mapping[str, Any], seed: int) -> str:
    expected = {name: row[name] for name in ("index", "split", "case_id", "origin_vox")}
    try:
        return _different(json.loads(row["spec"]), {**expected, "seed": seed, "patch_shape": row["shape_vox"]})
    except (ValueError, AttributeError, RecursionError):
        return "it is no JSON object"


def _different(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """`name value (not expected)` of each difference, empty without any."""
    pairs = ((name, found.get(name), value) for name, value in expected.items())
    return ", ".join(f"{name} {value!r} (not {wanted!r})" for name, value, wanted in pairs if value != wanted)


def _whole_differences(said: Said, part: Part, rows: pa.Table) -> list[str]:
    """Where `manifest.parquet` disagrees with the part of a shard, which is what it was made from."""
    file = part_name(part.shard)
    wrong = [] if said.part == part else [f"not the provenance in {file}"]
    if said.rows != rows.num_rows:
        return [*wrong, f"{said.rows} rows of this shard, {rows.num_rows} in {file}"]
    return wrong + row_differences(said.table, rows, file)
