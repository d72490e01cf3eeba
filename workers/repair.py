"""Repair: broken shards made again from the bank, then `manifest.parquet`.

A part is removed only when its shard can be made again: the bank is there, it is the one the dataset was made from,
and the cases of the shard hold the bytes that were prepared.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.bank import Bank
from pipeline.catalog import Dataset, DatasetInfo, compact
from pipeline.errors import InputError, PhantumorError
from pipeline.files import sync_folder, writing_to
from pipeline.manifest import SCHEMA, Part, committed_shards, part_name, read_part, read_whole_manifest, shard_name
from pipeline.progress import Progress
from pipeline.spec import draw_sample
from workers.checks import check_shard, plan_of
from workers.findings import INFO, WHOLE, Finding
from workers.generate import job_for
from workers.replay import device_of
from workers.shard_task import make_shard

_Record = tuple[Part, pa.Table]
_RESUME = "Run the same `phantumor generate` command again: it makes the shards that are missing now"


@dataclass(frozen=True)
class Repair:
    """What became of one broken shard."""

    shard: int
    done: bool
    note: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return f"shard {self.shard}: {self.note}"


def bank_of(folder: Path, info: DatasetInfo) -> Bank:
    """The bank that a dataset was made from; InputError when it is gone or was changed."""
    return Dataset(folder, info, SCHEMA.empty_table(), {}).bank  # needs no manifest, which may be what is broken


def repair(folder: Path, info: DatasetInfo, findings: Sequence[Finding]) -> tuple[list[Repair], list[Finding]]:
    """Make the broken shards again and write `manifest.parquet` anew; what was done, and what is still wrong."""
    shards = sorted({f.shard for f in findings if f.remedy == "remake" and f.shard is not None})
    repairs = _remake_all(folder, info, shards) if shards else []
    made = {repair.shard for repair in repairs if repair.done}
    left = [f for f in findings if f.remedy == "none" or (f.remedy == "remake" and f.shard not in made)]
    left += [again for shard in sorted(made) for again in check_shard(folder, info, shard)]
    stale = [f for f in findings if f.remedy == "compact"]
    whole_shards = not any(f.shard is not None for f in left)
    if whole_shards and committed_shards(folder) == list(range(plan_of(info).shards)):
        if stale or not (folder / WHOLE).exists():
            with writing_to(folder, "The same command tries again"):
                compact(folder)
    elif (folder / WHOLE).exists():
        left += stale
    return repairs, left


def _remake_all(folder: Path, info: DatasetInfo, shards: Sequence[int]) -> list[Repair]:
    try:
        remaker = _Remaker(folder, info)
    except InputError as error:
        return [_refused(shard, error) for shard in shards]
    progress, repairs = Progress(len(shards), "shards made again"), []
    for shard in shards:
        try:
            repairs.append(remaker.remake(shard))
        except (OSError, PhantumorError) as error:  # what stopped this one (a full disk, say) would stop the next
            return [*repairs, Repair(shard, False, f"could not be made again: {error}. {_RESUME}")]
        progress.advance(1)
    return repairs


def _refused(shard: int, error: InputError) -> Repair:
    return Repair(shard, False, f"not made again: {error}")


class _Remaker:
    """Makes shards of one dataset again. InputError when that cannot give the same samples."""

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        if info.config.digest() != info.config_digest:
            raise InputError(f"{folder / INFO}: its settings are not those that the dataset was made with")
        self._folder, self._info = folder, info
        self._bank = bank_of(folder, info)
        self._sound_cases: set[str] = set()
        try:  # what it says of shards whose part cannot be read; it is gone once the first part is
            self._parts, self._rows = read_whole_manifest(folder / WHOLE)
        except InputError:
            self._parts, self._rows = {}, SCHEMA.empty_table()

    def remake(self, shard: int) -> Repair:
        """Make one shard again. A failure leaves it uncommitted, never half made."""
        try:
            self._check_cases(shard)
        except InputError as error:
            return _refused(shard, error)
        records = self._records(shard)
        _withdraw(self._folder, shard)
        device = device_of(records[0][0]) if records else "auto"
        make_shard(job_for(self._folder, self._bank, self._info.config, shard, device))
        part, rows = read_part(self._folder, shard)
        for attempt in {old.attempt for old, _ in records} - {part.attempt}:
            shutil.rmtree(self._folder / shard_name(shard, attempt), ignore_errors=True)
        return Repair(shard, True, _outcome(part, rows, records))

    def _check_cases(self, shard: int) -> None:
        """InputError when a case of the shard does not hold the bytes that were prepared."""
        indices = plan_of(self._info).indices(shard)
        cases = {draw_sample(self._bank, self._info.config, index).case_id for index in indices}
        for case_id in sorted(cases - self._sound_cases):
            self._bank.check(case_id)
            self._sound_cases.add(case_id)

    def _records(self, shard: int) -> list[_Record]:
        """What part and whole manifest say of a shard, as far as they can be read."""
        records = []
        with contextlib.suppress(InputError):
            records.append(read_part(self._folder, shard))
        if shard in self._parts:
            records.append((self._parts[shard], self._rows.filter(pc.field("shard") == shard)))
        return records


def _withdraw(folder: Path, shard: int) -> None:
    """Take the commit of a shard back; the whole manifest first, as readers prefer it to the parts."""
    for name in ("manifest", "shards"):
        (folder / name).mkdir(exist_ok=True)
    (folder / WHOLE).unlink(missing_ok=True)
    (folder / part_name(shard)).unlink(missing_ok=True)
    for place in (folder, folder / "manifest"):
        sync_folder(place)


def _outcome(part: Part, rows: pa.Table, records: list[_Record]) -> str:
    """How a shard made again compares with what was recorded of it."""
    if not records:
        return "made again; its old files are not known, --gc removes them"
    same = any(old.files == part.files and old_rows.equals(rows) for old, old_rows in records)
    return "made again, the same bytes as recorded" if same else "made again, other than what was recorded"
