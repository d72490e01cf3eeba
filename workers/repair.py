"""Repair: broken shards made again from the bank, then `manifest.parquet`.

A part is removed only when its shard can be made again: the bank is there, it is the one the dataset was made from,
and the cases of the shard hold the bytes that were prepared. In this order, so that a repair may be stopped anywhere:

1. `manifest.parquet` is removed: readers go by the parts, which say the same;
2. the part is removed: the shard is not committed any more, as if it had never been made;
3. the shard is made like any other, under a name of its own, and committed;
4. the files of the old attempt are removed, which nothing names any more;
5. `manifest.parquet` is written once all shards are there.

After 1 the same command goes on; after 2 `phantumor generate` does, which makes what is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.catalog import DatasetInfo, bank_of, compact, recipe_digest
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.manifest import Part, committed_shards, open_whole, part_name, read_part, shard_name
from pipeline.progress import Progress
from pipeline.spec import draw_sample
from pipeline.store import Store
from workers.checks import check_shard
from workers.findings import INFO, WHOLE, Finding
from workers.generate import job_for
from workers.plan import plan_of
from workers.replay import device_of
from workers.shard_files import Healthy
from workers.shard_task import make_shard
from workers.whole import Whole, open_if_sound

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


def repair(
    store: Store, info: DatasetInfo, findings: Sequence[Finding], healthy: Healthy | None = None
) -> tuple[list[Repair], list[Finding]]:
    """Make the broken shards again and write `manifest.parquet` anew; what was done, and what is still wrong."""
    shards = sorted({f.shard for f in findings if f.remedy == "remake" and f.shard is not None})
    repairs = _remake_all(store, info, shards) if shards else []
    made = {repair.shard for repair in repairs if repair.done}
    left = [f for f in findings if f.remedy == "none" or (f.remedy == "remake" and f.shard not in made)]
    left += [again for shard in sorted(made) for again in check_shard(store, info, shard, None, healthy)]
    stale = [f for f in findings if f.remedy == "compact"]
    whole_shards = not any(f.shard is not None for f in left)
    committed = committed_shards(store)
    if whole_shards and committed == list(range(plan_of(info).shards)):
        if stale or _is_behind(store, committed):
            with writing_to(store.url, "The same command tries again"):
                compact(store)
    elif store.exists(WHOLE):
        left += stale
    return repairs, left


def _is_behind(store: Store, committed: Collection[int]) -> bool:
    """Whether the whole manifest is yet to be written, or to be written again as the dataset grew."""
    try:
        return not store.exists(WHOLE) or set(open_whole(store).parts()) != set(committed)
    except InputError:
        return True


def _remake_all(store: Store, info: DatasetInfo, shards: Sequence[int]) -> list[Repair]:
    try:
        remaker = _Remaker(store, info, shards)
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


class _Record(NamedTuple):
    """What was recorded of a shard; of the rows a digest, as there may be many."""

    part: Part
    rows: str

    @classmethod
    def of(cls, part: Part, rows: pa.Table) -> _Record:
        try:
            text = json.dumps(rows.to_pylist())  # as text, because a value that is not a number equals nothing
        except UnicodeDecodeError:  # in rows that are damaged
            return cls(part, "")
        return cls(part, hashlib.sha256(text.encode()).hexdigest())

    def same(self, other: _Record) -> bool:
        """Whether the same bytes and rows were recorded, whoever made them."""
        return self.rows != "" and self.rows == other.rows and self.part.files == other.part.files


class _Remaker:
    """Makes shards of one dataset again. InputError when that cannot give the same samples."""

    def __init__(self, store: Store, info: DatasetInfo, shards: Sequence[int]) -> None:
        if recipe_digest(info.config) != info.config_digest:
            raise InputError(f"{store.url}/{INFO}: its settings are not those that the dataset was made with")
        self._store, self._info = store, info
        self._bank = bank_of(store, info)
        self._sound_cases: set[str] = set()
        # What the whole manifest says of shards whose part cannot be read; it is gone once the first part is.
        self._said = _said_of(store, plan_of(info).samples, shards)

    def remake(self, shard: int) -> Repair:
        """Make one shard again. A failure leaves it uncommitted, never half made."""
        try:
            self._check_cases(shard)
        except InputError as error:
            return _refused(shard, error)
        records = self._records(shard)
        _withdraw(self._store, shard)
        device = device_of(records[0].part) if records else "auto"
        make_shard(job_for(self._store, self._bank, self._info, shard, device))
        part, rows = read_part(self._store, shard)
        for attempt in {old.part.attempt for old in records} - {part.attempt}:
            self._store.remove_group(shard_name(shard, attempt))
        return Repair(shard, True, _outcome(_Record.of(part, rows), records))

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
            records.append(_Record.of(*read_part(self._store, shard)))
        return [*records, self._said[shard]] if shard in self._said else records


def _said_of(store: Store, samples: int, shards: Sequence[int]) -> dict[int, _Record]:
    """What the whole manifest recorded of these shards, as far as it can be read."""
    whole = open_if_sound(store, samples)
    if not isinstance(whole, Whole):
        return {}
    return {
        shard: _Record.of(said.part, said.table)
        for shard, said in whole.said(shards)
        if said is not None and said.part is not None
    }


def _withdraw(store: Store, shard: int) -> None:
    """Take the commit of a shard back; the whole manifest first, as readers prefer it to the parts."""
    store.remove([WHOLE])
    store.remove([part_name(shard)])
    with contextlib.suppress(FileNotFoundError):  # no shard is committed any more
        store.settle("manifest")  # before the old files go: what names them must not come back after a power cut


def _outcome(made: _Record, records: list[_Record]) -> str:
    """How a shard made again compares with what was recorded of it."""
    if not records:
        return "made again; its old files are not known, --gc removes them"
    same = any(made.same(old) for old in records)
    return "made again, the same bytes as recorded" if same else "made again, other than what was recorded"
