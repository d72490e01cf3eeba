"""An executor that follows a script on a clock of its own: nothing sleeps, nothing runs."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.store import FolderStore
from workers.attempt import ShardJob, ShardReport
from workers.executor import Result
from workers.failure import Failure, failure_of

SAMPLES = 4  # of a shard
FOREVER = float("inf")


def jobs_of(shards: int, run: str = "") -> list[ShardJob]:
    """Jobs of a dataset that is never made."""
    config = GenerateConfig(samples=max(1, shards * SAMPLES), patch_shape=(16, 16, 16), shard_samples=SAMPLES)
    return [ShardJob("data", "bank", "0" * 64, config, shard, run=run) for shard in range(shards)]


@dataclass
class Clock:
    """Seconds that tests turn."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Ends:
    """How an attempt ends: after so many seconds with an exception, a death, or a report."""

    seconds: float = 1.0
    error: Exception | None = None
    died: bool = False
    status: Any = "committed"

    def result(self, shard: int) -> Result:
        if self.error is not None:
            return failure_of(shard, self.error, died=self.died)
        return ShardReport(shard, self.status, SAMPLES, 1_000_000, self.seconds)


@dataclass
class _Attempt:
    handle: int
    job: ShardJob
    ends: Ends
    due: float = FOREVER
    key: str = ""


@dataclass
class Scripted:
    """Attempts at a shard end as its script says, one entry each; those without one are made in a second.

    `slots_now` may be a function of the time. Starts are recorded in the store as workers do.
    """

    clock: Clock
    store: FolderStore
    script: Mapping[int, Sequence[Ends]] = field(default_factory=dict)
    slots_now: Callable[[float], int] = lambda now: 2
    run: str = ""
    interrupt_at: float = FOREVER
    submitted: list[tuple[float, int]] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    most_running: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self._queue: deque[_Attempt] = deque()
        self._running: list[_Attempt] = []
        self._tries: dict[int, int] = {}

    def slots(self) -> int:
        return self.slots_now(self.clock.now)

    def window(self) -> int:
        return 2 * self.slots()

    def submit(self, job: ShardJob) -> int:
        attempt = self._tries.get(job.shard, 0)
        self._tries[job.shard] = attempt + 1
        script = self.script.get(job.shard, ())
        handle = len(self.submitted)
        self.submitted.append((self.clock.now, job.shard))
        self._queue.append(_Attempt(handle, job, script[attempt] if attempt < len(script) else Ends()))
        return handle

    def wait(self, timeout_s: float) -> list[tuple[int, Result]]:
        self._start()
        until = min([self.clock.now + timeout_s, *(attempt.due for attempt in self._running)])
        if until >= self.interrupt_at:
            raise KeyboardInterrupt
        self.clock.now = until
        finished = [attempt for attempt in self._running if attempt.due <= until]
        for attempt in finished:
            self._end(attempt)
        self._start()
        return [(attempt.handle, attempt.ends.result(attempt.job.shard)) for attempt in finished]

    def cancel(self, handle: int) -> None:
        self.cancelled.append(self.submitted[handle][1])
        self._queue = deque(attempt for attempt in self._queue if attempt.handle != handle)
        # what runs goes on, as on a frozen node, and may speak up later

    def close(self) -> None:
        self.closed = True

    def attempts_at(self, shard: int) -> list[float]:
        """When the shard was handed in."""
        return [when for when, other in self.submitted if other == shard]

    def _start(self) -> None:
        while self._queue and len(self._running) < self.slots():
            attempt = self._queue.popleft()
            attempt.due = self.clock.now + attempt.ends.seconds
            attempt.key = f"running/{attempt.job.shard:06d}-{attempt.handle:012x}.json"
            self.store.replace(attempt.key, json.dumps({"run": self.run}).encode())
            self._running.append(attempt)
            self.most_running = max(self.most_running, len(self._running))

    def _end(self, attempt: _Attempt) -> None:
        self._running.remove(attempt)
        self.store.remove([attempt.key])


def record_of(folder: Path, shard: int) -> Any:
    """The quarantine record of a shard."""
    return json.loads((folder / f"failures/{shard:06d}.json").read_text())


def failures(*kinds: str) -> list[Failure]:
    """Failures of these kinds, each raised elsewhere."""
    return [Failure(shard, (kind, "Exception"), "", where=f"{kind}.py") for shard, kind in enumerate(kinds)]
