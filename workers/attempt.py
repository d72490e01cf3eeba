"""One attempt at a shard, whatever fills it: the job, the start record, the files that are removed unless committed.

An attempt writes under a name of its own. Whoever creates the shard's part file first has committed it, so any number
of attempts may work on one shard, and each may be stopped at any moment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal

from pipeline.bank import Bank, open_bank
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.manifest import Part, commit_part, part_name, read_part, running_name, shard_name
from pipeline.store import Store, open_store
from workers.plan import Plan


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to make a shard. Small: it travels through the scheduler."""

    dataset: str
    bank: str
    bank_fingerprint: str
    config: GenerateConfig
    shard: int
    device: str = "auto"
    grown: tuple[int, ...] = ()  # of the plan
    run: str = ""  # of the ledger, for the start record

    @property
    def plan(self) -> Plan:
        """Of the dataset."""
        return Plan(self.config.samples, self.config.shard_samples, self.grown)

    @property
    def samples(self) -> range:
        """Indices of the shard's samples."""
        return self.plan.indices(self.shard)


@dataclass(frozen=True)
class ShardReport:
    """What became of an attempt. `lost`: another attempt committed the shard first, which is as good."""

    shard: int
    status: Literal["committed", "already", "lost"]
    samples: int
    bytes: int
    seconds: float


@dataclass
class Attempt:
    """An attempt that has begun. Set `committed` to what committing its part said."""

    job: ShardJob
    dataset: Store
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    committed: bool = False
    _started: float = field(default_factory=time.perf_counter)

    @property
    def group(self) -> str:
        """The Zarr group that it writes, relative to the dataset."""
        return shard_name(self.job.shard, self.name)

    def commit(self, part: Part, rows: list[dict[str, Any]]) -> None:
        """Create the part file, unless another attempt did.

        OSError when the files are gone: one that slept for hours has lost them to the clean-up of left-overs.
        """
        for file in part.files:
            if self._size(f"{self.group}/{file.path}") != file.size:
                raise OSError(errno.ESTALE, "not what was written any more", f"{self.group}/{file.path}")
        self.committed = commit_part(self.dataset, part, rows)

    def _size(self, key: str) -> int | None:
        try:
            return self.dataset.size(key)
        except FileNotFoundError:
            return None

    def report(self, part: Part) -> ShardReport:
        """What became of it."""
        status: Literal["committed", "lost"] = "committed" if self.committed else "lost"
        written = sum(file.size for file in part.files)
        seconds = time.perf_counter() - self._started
        return ShardReport(self.job.shard, status, len(self.job.samples), written, seconds)


def is_made(job: ShardJob) -> ShardReport | None:
    """The report of a shard that is committed already; None of one that is to be made."""
    if opened_store(job.dataset).exists(part_name(job.shard)):
        return ShardReport(job.shard, "already", len(job.samples), 0, 0.0)
    return None


@contextlib.contextmanager
def attempt_at(job: ShardJob) -> Iterator[Attempt]:
    """Begin an attempt. It is on record as long as it lasts; one that fails or loses takes its files away."""
    attempt = Attempt(job, opened_store(job.dataset))
    with _recorded(attempt), _removed_unless_committed(attempt):
        yield attempt


@contextlib.contextmanager
def _recorded(attempt: Attempt) -> Iterator[None]:
    """Tell who works on the shard since when, as long as it lasts: the driver and `phantumor status` look at it."""
    job, dataset = attempt.job, attempt.dataset
    key = running_name(job.shard, attempt.name)
    who = {"host": socket.gethostname(), "pid": os.getpid(), "run": job.run, "device": job.device}
    record = {"shard": job.shard, "attempt": attempt.name, **who, "started": time.time()}
    dataset.replace(key, json.dumps(record).encode())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it tells something, it decides nothing
            dataset.remove([key])


@contextlib.contextmanager
def _removed_unless_committed(attempt: Attempt) -> Iterator[None]:
    """An attempt that fails or loses takes its own files away; they must not keep a full disk full.

    One that is interrupted just after its commit does not know of it yet: then the manifest is asked.
    """
    try:
        yield
    finally:
        # What went wrong first is what matters; `verify --gc` removes what stays behind.
        with contextlib.suppress(OSError, InputError):
            if not attempt.committed and not _is_named(attempt):
                attempt.dataset.remove_group(attempt.group)


def _is_named(attempt: Attempt) -> bool:
    """Whether the manifest names this attempt."""
    dataset, shard = attempt.dataset, attempt.job.shard
    return dataset.exists(part_name(shard)) and read_part(dataset, shard)[0].attempt == attempt.name


@lru_cache(maxsize=2)
def opened_bank(place: str, fingerprint: str) -> Bank:
    """Opened once per process: cases are memory maps, shared by all processes of a node through the page cache."""
    bank = open_bank(place)
    if bank.fingerprint != fingerprint:
        raise InputError(f"{place}: the bank changed while the dataset was being made; run the command again")
    return bank


@cache
def check_case(bank: Bank, case_id: str) -> None:
    """InputError when a case does not hold the bytes that were prepared: once per process, 0.1 s for an abdomen."""
    bank.check(case_id)


@lru_cache(maxsize=4)
def opened_store(place: str) -> Store:
    """Opened once per process: connections are kept."""
    return open_store(place)
