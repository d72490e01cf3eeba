"""Repair: broken shards made again from the bank, then `manifest.parquet`.

A part is removed only when its shard can be made again: the bank is there, it is the one the dataset was made from,
and the cases of the shard hold the bytes that were prepared. In this order, so that a repair may be stopped anywhere:

1. `manifest.parquet` is removed: readers go by the parts, which say the same;
2. the part is removed: the shard is not committed any more, as if it had never been made;
3. the shard is made like any other, under a name of its own, and committed;
4. the files of the old attempt are removed, which nothing names any more;
5. `manifest.parquet` is written once all shards are there.

After 1 the same command goes on; after 2 `phantumor generate` does, which makes what is missing.

Other software than that which made a shard must come to the pixels on record, which is tried before all this. Where
only Zarr metadata is wrong, that is written again, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from pipeline.catalog import bank_of, compact
from pipeline.description import INFO, DatasetInfo, recipe_digest
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.manifest import WHOLE, Part, committed_shards, open_whole, part_name, read_part, shard_name
from pipeline.progress import Progress
from pipeline.shard import array_crc32c
from pipeline.spec import draw_sample
from pipeline.store import Store
from pipeline.synthesis import render
from workers.checks import check_shard, layout_of
from workers.findings import Finding
from workers.generate import job_for
from workers.replay import device_of, other_software
from workers.shard_files import Healthy, metadata_findings, rewrite_metadata
from workers.shard_task import make_shard
from workers.whole import Whole, open_if_sound

_RESUME = "Run the same `phantumor generate` command again: it makes the shards that are missing now"
_Checksums = tuple[int, int]  # of a sample's image and label


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
    plain = sorted({f.shard for f in findings if f.remedy == "metadata" and f.shard is not None} - set(shards))
    rewritten = [_rewrite(store, info, shard) for shard in plain]
    remade = _remake_all(store, info, shards) if shards else []
    repairs = [*rewritten, *remade]
    made = {repair.shard for repair in repairs if repair.done}
    left = [f for f in findings if f.remedy == "none" or (f.remedy in ("remake", "metadata") and f.shard not in made)]
    for shard in sorted(made):
        left += _still_wrong(store, info, shard) if shard in plain else check_shard(store, info, shard, None, healthy)
    stale = [f for f in findings if f.remedy == "compact"]
    whole_shards = not any(f.shard is not None for f in left)
    committed = committed_shards(store)
    if whole_shards and committed == list(range(info.plan.shards)):
        if stale or _is_behind(store, committed):
            with writing_to(store.url, "The same command tries again"):
                compact(store)
    elif whole_shards and stale:  # of a dataset that is being made: its parts say all, and the next run writes it anew
        store.remove([WHOLE])
    elif store.exists(WHOLE):
        left += stale
    return repairs, left


def _is_behind(store: Store, committed: Collection[int]) -> bool:
    """Whether the whole manifest is yet to be written, or to be written again as the dataset grew."""
    try:
        return not store.exists(WHOLE) or set(open_whole(store).parts()) != set(committed)
    except InputError:
        return True


def _rewrite(store: Store, info: DatasetInfo, shard: int) -> Repair:
    """Write the Zarr metadata of a shard again, whose part and data are as they should be."""
    try:
        _check_settings(store, info)
        part, rows = read_part(store, shard)
        rewrite_metadata(store, part, rows.num_rows, layout_of(info, rows))
    except (OSError, PhantumorError) as error:
        return Repair(shard, False, f"its Zarr metadata could not be written again: {error}")
    return Repair(shard, True, "its Zarr metadata was written again, its pixels stayed as they are")


def _still_wrong(store: Store, info: DatasetInfo, shard: int) -> list[Finding]:
    """What is wrong with the Zarr metadata of a shard."""
    part, rows = read_part(store, shard)
    return metadata_findings(store, part, rows.num_rows, layout_of(info, rows))


def _check_settings(store: Store, info: DatasetInfo) -> None:
    if recipe_digest(info.config) != info.config_digest:
        raise InputError(f"{store.url}/{INFO}: its settings are not those that the dataset was made with")


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
    """What was recorded of a shard; of the rows a digest and the checksums of pixels, as there may be many."""

    part: Part
    rows: str
    checksums: pa.Table

    @classmethod
    def of(cls, part: Part, rows: pa.Table) -> _Record:
        try:
            text = json.dumps(rows.to_pylist())  # as text, because a value that is not a number equals nothing
            digest = hashlib.sha256(text.encode()).hexdigest()
        except UnicodeDecodeError:  # in rows that are damaged
            digest = ""
        return cls(part, digest, rows.select(["index", "image_crc32c", "label_crc32c"]))

    def same(self, other: _Record) -> bool:
        """Whether the same bytes and rows were recorded, whoever made them."""
        return self.rows != "" and self.rows == other.rows and self.part.files == other.part.files

    def pixels(self) -> dict[int, _Checksums]:
        """Checksums by the index of a sample."""
        index, image, label = (column.to_pylist() for column in self.checksums.columns)
        return dict(zip(index, zip(image, label, strict=True), strict=True))


class _Remaker:
    """Makes shards of one dataset again. InputError when that cannot give the same samples."""

    def __init__(self, store: Store, info: DatasetInfo, shards: Sequence[int]) -> None:
        _check_settings(store, info)
        self._store, self._info = store, info
        self._bank = bank_of(store, info)
        self._sound_cases: set[str] = set()
        # What the whole manifest says of shards whose part cannot be read; it is gone once the first part is.
        self._said = _said_of(store, info.plan.samples, shards)

    def remake(self, shard: int) -> Repair:
        """Make one shard again. A failure leaves it uncommitted, never half made."""
        records = self._records(shard)
        device = device_of(records[0].part) if records else "auto"
        other = other_software(records[0].part) if records else ""
        try:
            self._check_cases(shard)
            if other:
                self._check_pixels(shard, records, device, other)
        except InputError as error:
            return _refused(shard, error)
        _withdraw(self._store, shard)
        make_shard(job_for(self._store, self._bank, self._info, shard, device))
        part, rows = read_part(self._store, shard)
        for attempt in {old.part.attempt for old in records} - {part.attempt}:
            self._store.remove_group(shard_name(shard, attempt))
        return Repair(shard, True, _outcome(_Record.of(part, rows), records, other))

    def _check_cases(self, shard: int) -> None:
        """InputError when a case of the shard does not hold the bytes that were prepared."""
        indices = self._info.plan.indices(shard)
        cases = {draw_sample(self._bank, self._info.config, index).case_id for index in indices}
        for case_id in sorted(cases - self._sound_cases):
            self._bank.check(case_id)
            self._sound_cases.add(case_id)

    def _check_pixels(self, shard: int, records: Sequence[_Record], device: str, other: str) -> None:
        """InputError unless the software here comes to the pixels that one of the records tells of."""
        torch.set_num_threads(1)  # as in the workers
        fitting = [record.pixels() for record in records]
        for index in self._info.plan.indices(shard):
            made = self._made(index, device)
            fitting = [recorded for recorded in fitting if recorded.get(index) == made]
            if not fitting:
                raise InputError(
                    f"{other}, which gives other pixels: sample {index} has not the crc32c on record. Repair with the "
                    f"software that made it; to accept other pixels, remove {WHOLE} and {part_name(shard)} and run the "
                    "same `phantumor generate` command again"
                )

    def _made(self, index: int, device: str) -> _Checksums:
        """Checksums of image and label of a sample, made in memory."""
        try:
            spec = draw_sample(self._bank, self._info.config, index)
            made = render(self._bank.load(spec.case_id), spec, device)
        except Exception as error:  # other software may fail in any way; nothing is removed yet
            raise InputError(f"sample {index} cannot be made by the software here: {error}") from error
        return array_crc32c(made.image), array_crc32c(made.label)

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


def _outcome(made: _Record, records: list[_Record], other: str) -> str:
    """How a shard made again compares with what was recorded of it."""
    if not records:
        return (
            "made again; nothing tells which pixels it had and which software made them, so they may be others now; "
            "its old files are not known either, --gc removes them"
        )
    same = any(made.same(old) for old in records)
    if other and not same:
        return f"made again, the same pixels as recorded ({other})"
    return "made again, the same bytes as recorded" if same else "made again, other than what was recorded"
