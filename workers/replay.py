"""Replay: samples made again from the bank and compared with what is stored. Finds what no checksum can."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from pipeline.bank import Bank
from pipeline.catalog import DatasetInfo, read_chunk
from pipeline.errors import InputError, PhantumorError
from pipeline.manifest import Part, part_name, read_part, shard_name
from pipeline.measure import measure_sample
from pipeline.progress import Progress
from pipeline.shard import DTYPES, object_path
from pipeline.spec import SampleSpec, draw_sample
from pipeline.synthesis import Rendered, render
from pipeline.versions import software
from workers.checks import plan_of
from workers.findings import Finding

_CHOICE = 0x5EED_C0DE  # apart from every sample's own SeedSequence((seed, index)): those have an index below 2**31
_TOLERANCE = 1e-6  # of measured facts: sums of floats may differ in the last bits from one processor to another
# What decides the pixels of a sample beside bank, config and index.
_SHAPING = ("phantumor", "numpy", "torch", "connected-components-3d")


def choose(info: DatasetInfo, shards: Collection[int], fraction: float) -> list[int]:
    """Indices of a share of the samples of these shards, at least one (where there are any), ascending.

    All samples of the dataset stand in one random order, the same at every call; the first of them are taken. So a
    larger share holds the smaller one, and a dataset that grew gets the same samples again.
    """
    plan = plan_of(info)
    rng = np.random.default_rng(np.random.SeedSequence((info.seed, _CHOICE)))
    order = rng.permutation(info.config.samples)
    there = order[np.isin(order // info.config.shard_samples, list(shards))]
    count = max(1, round(fraction * plan.samples_in(shards)))
    return sorted(int(index) for index in there[:count])


def replay(folder: Path, info: DatasetInfo, bank: Bank, indices: Collection[int]) -> Iterator[Finding]:
    """Make samples again and compare: the spec with the one drawn anew, pixels and facts with the spec's outcome.

    Takes samples of shards without other findings. Progress on standard error.
    """
    torch.set_num_threads(1)  # as in the workers: more threads only wait for each other on small boxes
    progress = Progress(len(indices), "samples replayed")
    for shard, group in groupby(indices, lambda index: index // info.config.shard_samples):
        part, rows = read_part(folder, shard)
        first = plan_of(info).indices(shard).start
        for index in group:
            row = rows.slice(index - first, 1).to_pylist()[0]
            yield from _replay_one(folder, info, bank, part, row)
            progress.advance(1)


def _replay_one(folder: Path, info: DatasetInfo, bank: Bank, part: Part, row: Mapping[str, Any]) -> list[Finding]:
    """What differs between a stored sample and the same sample made again."""
    file, what = part_name(part.shard), f"sample {row['index']}: "
    try:
        spec = SampleSpec.model_validate_json(row["spec"])
        drawn = draw_sample(bank, info.config, row["index"])
        rendered = render(bank.load(spec.case_id), spec, device_of(part))
        facts = measure_sample(bank.load(spec.case_id), spec, rendered)
    except (ValidationError, PhantumorError) as error:
        return [Finding(part.shard, f"{what}cannot be made again: {' '.join(str(error).split())}", file)]
    wrong = []
    if drawn != spec:
        names = [name for name in SampleSpec.model_fields if getattr(spec, name) != getattr(drawn, name)]
        wrong.append((file, f"its spec is not the one that is drawn for it: {', '.join(names)}"))
    columns = [name for name, value in facts.items() if not _close(row[name], value)]
    if columns:
        wrong.append((file, f"not what is measured in it: {', '.join(columns)}"))
    wrong += _pixel_faults(folder, part, row, rendered)
    return _explained(wrong, bank, part, spec.case_id, what)


def _pixel_faults(folder: Path, part: Part, row: Mapping[str, Any], rendered: Rendered) -> list[tuple[str, str]]:
    """Pairs of file and difference."""
    wrong = []
    for name, made in (("image", rendered.image), ("label", rendered.label)):
        file = f"{shard_name(part.shard, part.attempt)}/{object_path(name)}"
        stored = np.empty(made.shape, DTYPES[name])
        offset, length = row[f"{name}_range"]
        read_chunk(folder / file, offset, length, stored)
        count = int(np.count_nonzero(stored != made))
        if count:
            wrong.append((file, f"{count} voxels of its {name} differ from what its spec gives"))
    return wrong


def _explained(wrong: list[tuple[str, str]], bank: Bank, part: Part, case_id: str, what: str) -> list[Finding]:
    """Differences as findings; not the shard's fault where the bank is damaged or other software made it."""
    if not wrong:
        return []
    try:
        bank.check(case_id)
    except InputError as error:
        return [Finding(part.shard, f"{what}cannot be compared: {error}", part_name(part.shard), "none")]
    other = other_software(part)
    note = f" (but {other})" if other else ""
    return [Finding(part.shard, f"{what}{text}{note}", file, "none" if other else "remake") for file, text in wrong]


def device_of(part: Part) -> str:
    """The device that made a shard where this process has one, else the CPU."""
    device = str(part.versions.get("device", "cpu"))
    return device if device == "cpu" or torch.cuda.is_available() else "cpu"


def other_software(part: Part) -> str:
    """Which software that shapes pixels is another one here than where a shard was made; empty when it is the same."""
    here = {**software(), "device": device_of(part)}
    changed = [
        f"{name} {part.versions.get(name)} made it, here is {here.get(name)}"
        for name in (*_SHAPING, "device")
        if part.versions.get(name) != here.get(name)
    ]
    return ", ".join(changed)


def _close(a: Any, b: Any) -> bool:
    """Equal, with a tolerance for real numbers at any depth."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return bool(a == b)
