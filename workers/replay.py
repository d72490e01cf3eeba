"""Replay: samples made again from the bank and compared with what is stored. Finds what no checksum can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from pipeline.bank import Bank
from pipeline.case import Case
from pipeline.catalog import Home
from pipeline.errors import InputError, PhantumorError
from pipeline.manifest import Part, part_name, read_part, shard_name
from pipeline.measure import measure_sample
from pipeline.progress import Progress
from pipeline.shard import DTYPES, ChunkError, array_crc32c, chunk_edge, decode_sample, object_path
from pipeline.spec import SampleSpec, draw_sample
from pipeline.synthesis import Rendered, render
from pipeline.versions import software
from workers.findings import Finding, unreadable
from workers.plan import Plan
from workers.shard_files import healthy_patch

_CHOICE = 0x5EED_C0DE  # apart from every sample's own SeedSequence((seed, index)): those have an index below 2**31
_TOLERANCE = 1e-6  # of measured facts: sums of floats may differ in the last bits from one processor to another
# What decides the pixels of a sample beside bank, config and index.
_SHAPING = ("phantumor", "numpy", "torch", "connected-components-3d")
Indices = npt.NDArray[np.int64]


def indices_of(plan: Plan, shards: Iterable[int]) -> Indices:
    """Indices of all samples of these shards."""
    ranges = [np.arange(held.start, held.stop) for held in map(plan.indices, shards)]
    return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)


def choose(seed: int, indices: Indices, fraction: float) -> list[int]:
    """A share of these samples, at least one (where there are any), ascending.

    Every sample has its lot, whatever the others are; the lowest ones are taken. So a larger share holds the smaller
    one, and of a dataset that grew the old samples have their old lots.
    """
    if not len(indices):
        return []
    count = max(1, round(fraction * len(indices)))
    order = np.argpartition(_lots(seed, indices), count - 1)[:count]
    return [int(index) for index in np.sort(indices[order])]


def _lots(seed: int, indices: Indices) -> npt.NDArray[np.uint64]:
    """A number for each index as if drawn at random, no number twice: SplitMix64 (Steele, Lea, Flood 2014)."""
    start = np.random.SeedSequence((seed, _CHOICE)).generate_state(1, np.uint64)
    z = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def replay(chosen: Sequence[tuple[Home, Sequence[int]]]) -> Iterator[tuple[Home, Finding]]:
    """Make samples again and compare: the spec with the one drawn anew, pixels and facts with the spec's outcome.

    Takes samples of shards without other findings, by the dataset that they lie in. Progress on standard error.
    """
    torch.set_num_threads(1)  # as in the workers: more threads only wait for each other on small boxes
    progress = Progress(sum(len(indices) for _, indices in chosen), "samples replayed")
    for home, indices in chosen:
        plan = home.info.plan
        for shard, group in groupby(indices, plan.shard_of):
            for finding in _replay_some(home, shard, plan.indices(shard).start, list(group), progress):
                yield home, finding


def _replay_some(home: Home, shard: int, first: int, indices: Sequence[int], progress: Progress) -> Iterator[Finding]:
    """Replay samples of one shard, whose first sample is `first`."""
    try:
        part, rows = read_part(home.store, shard)
    except InputError as error:  # it was whole a moment ago
        yield unreadable(shard, part_name(shard), error, "none")
        return
    for index in indices:
        yield from _replay_one(home, part, rows.slice(index - first, 1).to_pylist()[0])
        progress.advance(1)


def _replay_one(home: Home, part: Part, row: Mapping[str, Any]) -> list[Finding]:
    """What differs between a stored sample and the same sample made again."""
    bank, file, what = home.bank, part_name(part.shard), f"sample {row['index']}: "
    try:
        spec = SampleSpec.model_validate_json(row["spec"])
        drawn = draw_sample(bank, home.info.config, row["index"])
        case = bank.load(spec.case_id)
        rendered = render(case, spec, device_of(part))
        facts = measure_sample(case, spec, rendered)
    except (ValidationError, PhantumorError) as error:
        return [Finding(part.shard, f"{what}cannot be made again: {' '.join(str(error).split())}", file)]
    wrong = []
    if drawn != spec:
        names = [name for name in SampleSpec.model_fields if getattr(spec, name) != getattr(drawn, name)]
        wrong.append((file, f"its spec is not the one that is drawn for it: {', '.join(names)}"))
    columns = [name for name, value in facts.items() if not _close(row[name], value)]
    if columns:
        wrong.append((file, f"not what is measured in it: {', '.join(columns)}"))
    if home.info.config.store == "recipe":
        wrong += [(file, fault) for fault in _recipe_faults(row, rendered)]
    else:
        wrong += _pixel_faults(home, part, row, rendered, case)
    return _explained(wrong, bank, part, spec.case_id, what)


def _recipe_faults(row: Mapping[str, Any], rendered: Rendered) -> list[str]:
    """All that is kept of a recipe's pixels is their checksums."""
    made: dict[str, npt.NDArray[Any]] = {"image": rendered.image, "label": rendered.label}
    return [
        f"what its spec gives has another {name}_crc32c"
        for name, array in made.items()
        if array_crc32c(array) != row[f"{name}_crc32c"]
    ]


def _pixel_faults(
    home: Home, part: Part, row: Mapping[str, Any], rendered: Rendered, case: Case
) -> list[tuple[str, str]]:
    """Pairs of file and difference."""
    wrong = []
    for name, made in (("image", rendered.image), ("label", rendered.label)):
        file = f"{shard_name(part.shard, part.attempt)}/{object_path(name)}"
        stored = np.empty(made.shape, DTYPES[name])
        try:
            edge = chunk_edge(stored.shape, home.info.config.whole_cases)
            decode_sample(home.store.read_range(file, *row[f"{name}_range"]), stored, edge)
        except (OSError, ChunkError) as error:  # it was whole a moment ago
            wrong.append((file, f"its {name} cannot be read: {error}"))
            continue
        if home.info.config.store == "delta":
            stored += healthy_patch(case, name, row, home.info.config.organs)
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
