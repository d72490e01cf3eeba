"""What killed processes leave in a dataset: attempts that nothing names, start records, files that were written aside.

A running `phantumor generate` has such things too, young ones; so only what has rested for a while is garbage. Where
nothing looks like garbage, a few listings are all that is read.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.files import ASIDE, writing_to
from pipeline.manifest import SHARD_FOLDER, WHOLE, committed_shards, open_part, open_whole, running_name, shard_name
from pipeline.progress import size
from pipeline.store import Entry, Store
from workers.findings import out_of_reach

_RECORD = re.compile(r"running/((\d{6,})-([0-9a-f]{8,32}))\.json")
_PROBE = re.compile(r"running/clock-[0-9a-f]{8}")
# Where files are written aside before they get their names; shards are written in place.
_WRITTEN_TO = (".", "manifest", "running", "failures", "growth")


@dataclass(frozen=True)
class Garbage:
    """A leftover; its path is relative to the dataset."""

    file: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return f"removed {self.file} ({size(self.bytes)})"


class Swept(NamedTuple):
    """What was removed; how many leftovers are too young, and in how many seconds the last of them is old enough."""

    removed: list[Garbage]
    young: int = 0
    seconds: float = 0.0


def remove_garbage(store: Store, age_minutes: float) -> list[Garbage]:
    """As `sweep`; what was removed."""
    return sweep(store, age_minutes).removed


def sweep(store: Store, age_minutes: float) -> Swept:
    """Remove attempts that no manifest names, their start records, and temporary files, all unchanged for so long.

    PhantumorError when the disk refuses.
    """
    removed: list[Garbage] = []
    young: dict[str, float] = {}
    now = 0.0
    with writing_to(store.url, "The same command removes the rest"):
        orphans = _orphans(store)
        records = _start_records(store)
        singles = [*_asides(store), *records.values()]
        if orphans or singles:
            now = _now_of(store) - 60 * age_minutes
            heap = _Heap(store, records, now, young)
            # A start record goes before its attempt: one that sleeps and wakes up again finds itself given up.
            removed = [garbage for entry in singles for garbage in heap.remove_object(entry)]
            removed += [garbage for orphan in orphans for garbage in heap.remove_attempt(orphan)]
    return Swept(sorted(removed, key=lambda garbage: garbage.file), len(young), max(young.values(), default=now) - now)


class _Attempt(NamedTuple):
    shard: int
    name: str

    @property
    def group(self) -> str:
        return shard_name(self.shard, self.name)

    @property
    def record(self) -> str:
        return running_name(self.shard, self.name)


class _Heap:
    """Leftovers of one store, and how old they are by the store's own clock. In `young`: what is left, since when."""

    def __init__(self, store: Store, records: dict[str, Entry], oldest: float, young: dict[str, float]) -> None:
        self._store, self._records, self._oldest, self._young = store, records, oldest, young

    def remove_object(self, entry: Entry) -> Iterator[Garbage]:
        """Remove a file, unless it is young, or the start record of an attempt that still writes."""
        match = _RECORD.fullmatch(entry.key)
        changed = max(entry.modified, self._changed(f"shards/{match[1]}.zarr") if match else 0.0)
        if changed > self._oldest:
            self._young[entry.key] = changed
            return
        self._store.remove([entry.key])
        yield Garbage(entry.key, entry.size)

    def remove_attempt(self, attempt: _Attempt) -> Iterator[Garbage]:
        """Remove a Zarr group, unless anything of it is young."""
        record = self._records.get(attempt.record)
        changed = max(self._changed(attempt.group), record.modified if record else 0.0)
        if changed > self._oldest:
            self._young[attempt.group] = changed
            return
        entries = list(self._store.entries(attempt.group))
        empty_folder = self._store.folder is not None and (self._store.folder / attempt.group).is_dir()
        if not entries and not empty_folder:
            return
        self._store.remove([entry.key for entry in entries])
        self._store.remove_group(attempt.group)
        yield Garbage(attempt.group, sum(entry.size for entry in entries))

    def _changed(self, group: str) -> float:
        """When anything in a group changed last; 0 when there is no such group."""
        times = [0.0]
        with contextlib.suppress(FileNotFoundError):  # the process that wrote it lives, and took it away itself
            if self._store.folder is not None:  # it has a time even before anything is in it
                times.append((self._store.folder / group).lstat().st_mtime)
            times += [entry.modified for entry in self._store.entries(group)]
        return max(times)


def _orphans(store: Store) -> list[_Attempt]:
    """Attempts that lost or were never finished. When in doubt, an attempt is none."""
    matches = (SHARD_FOLDER.fullmatch(name) for name in store.groups("shards"))
    attempts = [_Attempt(int(match[1]), match[2]) for match in matches if match]
    # Only now: an attempt that is committed in between is seen to be.
    committed = set(committed_shards(store))
    rivals = Counter(attempt.shard for attempt in attempts)
    suspects = [one for one in attempts if one.shard not in committed or rivals[one.shard] > 1]
    if not suspects:
        return []
    named = _named_by_whole(store)
    named_by_parts = {shard: _named_by_part(store, shard) for shard in {one.shard for one in suspects} & committed}
    there = set(attempts)
    return [
        one
        for one in suspects
        if named is not None
        and one not in named
        and (one.shard not in committed or _lost_to(one, named_by_parts[one.shard], there))
    ]


def _lost_to(attempt: _Attempt, winner: _Attempt | None, there: set[_Attempt]) -> bool:
    """Whether another attempt was committed, and is there: a part may be damaged and name anything."""
    return winner is not None and winner != attempt and winner in there


def _named_by_part(store: Store, shard: int) -> _Attempt | None:
    try:
        return _Attempt(shard, open_part(store, shard).part().attempt)
    except InputError:  # it may name any of them
        return None


def _named_by_whole(store: Store) -> set[_Attempt] | None:
    """What readers follow where there is a `manifest.parquet`; None when it cannot be told just now."""
    try:
        parts = open_whole(store).parts() if store.exists(WHOLE) else {}
    except InputError as error:
        return None if out_of_reach(error) else set()  # nobody can follow a broken one
    return {_Attempt(part.shard, part.attempt) for part in parts.values()}


def _start_records(store: Store) -> dict[str, Entry]:
    """Records of attempts that began and did not end; whoever reads them does without."""
    return {
        entry.key: entry
        for entry in store.entries("running")
        if _RECORD.fullmatch(entry.key) or _PROBE.fullmatch(entry.key)
    }


def _asides(store: Store) -> Iterator[Entry]:
    """Files that did not get their names. In an object store objects are whole or not there."""
    if store.folder is None:
        return
    for place in (*_WRITTEN_TO, *(f"runs/{run}" for run in store.groups("runs"))):
        folder = store.folder / place
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():  # noqa: PTH208 (many thousand names)
            if ASIDE.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):  # finished since it was listed
                    found = (folder / name).lstat()
                    if stat.S_ISREG(found.st_mode):
                        key = (folder / name).relative_to(store.folder).as_posix()
                        yield Entry(key, found.st_size, found.st_mtime)


def _now_of(store: Store) -> float:
    """The time of the clock that the ages of files go by: a file server's or an object store's is not ours."""
    key = f"running/clock-{secrets.token_hex(4)}"
    try:
        store.replace(key, b"")
        found = next((entry.modified for entry in store.entries("running") if entry.key == key), time.time())
        store.remove([key])
    except OSError:  # a full disk, which is what garbage is removed for
        return time.time()
    return found
