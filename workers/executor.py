"""What runs shards: one process, a pool of them, or a Ray cluster, behind one interface. None of them decides anything.

An executor is given jobs and hands back what became of each. Retries, backups and limits are the driver's
(`workers.drive`), except where only the executor can tell: whose process died, and how often.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

from workers.attempt import ShardJob, ShardReport
from workers.failure import Failure, failure_of

Task = Callable[[ShardJob], ShardReport]
Result = ShardReport | Failure


class Executor(Protocol):
    """Runs jobs in any order. A handle names one submission; the same job may be submitted more than once."""

    def slots(self) -> int:
        """How many shards could run now."""

    def window(self) -> int:
        """How many shards to hand in before the first of them is done."""

    def submit(self, job: ShardJob) -> int:
        """Take a job; its handle. Does not wait."""

    def wait(self, timeout_s: float) -> list[tuple[int, Result]]:
        """What has finished since; waits for the first, at most `timeout_s`, also when nothing runs."""

    def cancel(self, handle: int) -> None:
        """Stop an attempt if that can be done; whether anything is said of it later is open."""

    def close(self) -> None:
        """Stop everything and leave; attempts get a few seconds to tidy up. Harmless twice."""


def outcome_of(task: Task, job: ShardJob) -> Result:
    """Run a task where it is; what it raises comes back as a record."""
    try:
        return task(job)
    except Exception as error:
        return failure_of(job.shard, error)


def shard_task(job: ShardJob) -> ShardReport:
    """Make a shard. Loaded where it runs: a driver needs no torch."""
    from workers.shard_task import make_shard

    return make_shard(job)


class SerialExecutor:
    """Runs jobs in this process, one in each `wait`."""

    def __init__(self, task: Task = shard_task) -> None:
        self._task = task
        self._handles = count()
        self._queue: deque[tuple[int, ShardJob]] = deque()

    def slots(self) -> int:
        return 1

    def window(self) -> int:
        return 1

    def submit(self, job: ShardJob) -> int:
        handle = next(self._handles)
        self._queue.append((handle, job))
        return handle

    def wait(self, timeout_s: float) -> list[tuple[int, Result]]:
        if not self._queue:
            time.sleep(timeout_s)
            return []
        handle, job = self._queue.popleft()
        return [(handle, outcome_of(self._task, job))]

    def cancel(self, handle: int) -> None:
        self._queue = deque(entry for entry in self._queue if entry[0] != handle)

    def close(self) -> None:
        self._queue.clear()
