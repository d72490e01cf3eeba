"""What a run writes down, in the dataset, for whoever looks at it now or later.

```
runs/20261123T124044-3fa9c1/run.json         who, where, what command, which software; at the end how it went
                            progress.json    rates, time left, counts; replaced every few seconds
                            failures.jsonl   the last failures of attempts, one a line
failures/000042.json                         a shard that was given up
```
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import secrets
import shlex
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.errors import PhantumorError
from pipeline.progress import Progress, size
from pipeline.store import Store
from pipeline.versions import software
from workers.attempt import ShardJob, ShardReport
from workers.failure import RESUME, Failure
from workers.policy import NO_ANSWER
from workers.quarantine import put_aside, take_back

End = Literal["complete", "incomplete", "stopped", "interrupted"]
_EVERY_S = 5.0
_KEPT_FAILURES = 1000
_VERDICTS = {"retry": "it is tried again", "poison": "given up, see failures/", "stop": "the run stops"}


def this_command() -> str:
    """The command line of this process, as it can be typed again."""
    return shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])  # noqa: PTH119


@dataclass(frozen=True)
class RunFacts:
    """What a run is about; `executor` for people, such as `8 processes` or `ray auto`."""

    config_digest: str
    bank: str
    executor: str
    command: str = field(default_factory=this_command)


@dataclass
class Tally:
    """Counts of a run. `made` counts what this run committed, `done` also what another attempt had committed."""

    jobs: int = 0
    samples: int = 0
    done: int = 0
    done_samples: int = 0
    made_samples: int = 0
    bytes: int = 0
    retries: int = 0
    backups: int = 0
    failed_attempts: int = 0
    failed_shards: list[int] = field(default_factory=list)


def _utc() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The records of one run. PhantumorError, a complete message, when the dataset cannot be written to."""

    def __init__(
        self,
        store: Store,
        facts: RunFacts,
        *,
        quarantined: Collection[int] = (),
        progress: Progress | None = None,
        log: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc,
    ) -> None:
        """`quarantined`: shards with a record that this run tries again. `log` gets a line for each failure."""
        self.store, self.tally = store, Tally()
        self._facts, self._aside, self._progress = facts, set(quarantined), progress
        self._log, self._clock, self._now = log, clock, now
        self._began = self._written = clock()
        self._started = now()
        self.run = f"{self._started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._document: dict[str, Any] = {}  # of run.json
        self._failures: deque[str] = deque(maxlen=_KEPT_FAILURES)
        self._unwritten = self._said_silent = False

    # ---- what the driver tells ----

    def begin(self, jobs: Sequence[ShardJob], slots: int) -> None:
        """The run starts with these jobs."""
        self.tally.jobs, self.tally.samples = len(jobs), sum(len(job.samples) for job in jobs)
        self._document = {
            "run": self.run,
            **asdict(self._facts),
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "software": software(),
            "slots": slots,
            "jobs": {"shards": self.tally.jobs, "samples": self.tally.samples},
            "started": _stamp(self._started),
            "ended": None,
            "outcome": None,
        }
        with self._needed():
            self.store.replace(self._key("run.json"), _json(self._document))

    def finished(self, report: ShardReport) -> None:
        """A shard is committed."""
        tally = self.tally
        self._said_silent = False
        tally.done += 1
        tally.done_samples += report.samples
        tally.bytes += report.bytes
        tally.made_samples += report.samples if report.status == "committed" else 0
        if report.shard in self._aside:
            self._aside.remove(report.shard)
            tally.failed_shards = [shard for shard in tally.failed_shards if shard != report.shard]
            with self._needed():
                take_back(self.store, [report.shard])
        if self._progress is not None:
            self._progress.advance(report.samples, self._note())

    def failed(self, failure: Failure, verdict: str) -> None:
        """An attempt failed; what was decided about it."""
        self.tally.failed_attempts += 1
        self.tally.retries += verdict == "retry"
        names = ("shard", "kind", "message", "where", "died", "sample", "host", "pid", "when")
        line = {name: getattr(failure, name) for name in names} | {"verdict": verdict}
        self._failures.append(json.dumps(line))
        self._unwritten = True
        silent = NO_ANSWER in failure.kinds
        if silent and self._said_silent and verdict == "retry":
            return  # every attempt would say the same of the object store
        self._said_silent = silent
        blamed = "" if failure.sample is None else f", sample {failure.sample}"
        self._log(f"shard {failure.shard}{blamed}: {' '.join(failure.line().split())} ({_VERDICTS[verdict]})")

    def given_up(self, job: ShardJob, failures: Sequence[Failure]) -> None:
        """A shard is put aside."""
        self.tally.failed_shards.append(job.shard)
        self._aside.add(job.shard)
        retry = self._facts.command
        retry += "" if "--retry-failed" in retry else " --retry-failed"
        with self._needed():
            put_aside(self.store, job, failures, self.run, retry)

    def backed_up(self) -> None:
        """A straggler got a second attempt."""
        self.tally.backups += 1

    def tick(self, slots: int, in_flight: int) -> None:
        """Now and then: refresh what is shown and written."""
        now = self._clock()
        if now - self._written < _EVERY_S:
            return
        self._written = now
        self._write_progress(slots, in_flight)
        if self._progress is not None and self.tally.done < self.tally.jobs:
            self._progress.advance(0, self._note() if slots else ", waiting for a worker")

    def end(self, outcome: End, reason: str = "") -> None:
        """The run is over, for better or worse."""
        if not self._document:  # it never began
            return
        ended = {"ended": _stamp(self._now()), "outcome": outcome, "reason": reason, "counts": asdict(self.tally)}
        if self._write_progress(0, 0):  # a store that is away has kept the user waiting for long enough
            self._write("run.json", _json({**self._document, **ended}))
        if self._progress is not None:
            self._progress.end()

    # ---- how it is written ----

    def _note(self) -> str:
        failed = len(self.tally.failed_shards)
        return f", {size(self._rate(self.tally.bytes))}/s" + (f", shards failed: {failed}" if failed else "")

    def _rate(self, count: float) -> float:
        return count / max(self._clock() - self._began, 1e-3)

    def _write_progress(self, slots: int, in_flight: int) -> bool:
        rate = self._rate(self.tally.done_samples)
        left = self.tally.samples - self.tally.done_samples
        written = self._write(
            "progress.json",
            _json(
                {
                    "run": self.run,
                    "updated": _stamp(self._now()),
                    "seconds": round(self._clock() - self._began, 1),
                    "samples_per_s": round(rate, 3),
                    "mb_per_s": round(self._rate(self.tally.bytes) / 1e6, 3),
                    "eta_s": round(left / rate, 1) if rate else None,
                    "slots": slots,
                    "in_flight": in_flight,
                    **asdict(self.tally),
                }
            ),
        )
        if written and self._unwritten:
            self._unwritten = False
            self._write("failures.jsonl", "".join(f"{line}\n" for line in self._failures).encode())
        return written

    @contextlib.contextmanager
    def _needed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise PhantumorError(f"cannot write to {self.store.url}: {reason}. {RESUME}") from error

    def _write(self, name: str, data: bytes) -> bool:
        try:
            self.store.replace(self._key(name), data)
        except OSError:
            return False  # it tells about the run and decides nothing: the shards meet the same disk, and say so
        return True

    def _key(self, name: str) -> str:
        return f"runs/{self.run}/{name}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode()
