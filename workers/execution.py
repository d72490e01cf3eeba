"""Having jobs done as the user asked: by this process, by several, or by a Ray cluster; written down as a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import PhantumorError
from pipeline.progress import Progress
from pipeline.store import Store
from workers.attempt import ShardJob
from workers.compaction import Compactor
from workers.drive import Outcome, drive
from workers.executor import Executor, SerialExecutor, Task, shard_task
from workers.ledger import Ledger, RunFacts
from workers.policy import Policy
from workers.quarantine import quarantined


@dataclass(frozen=True)
class How:
    """Who does the work. `ray`: None for processes of this machine, else `local`, `auto` or an address."""

    workers: int = 1
    ray: str | None = None
    insecure: bool = False  # also on a Ray cluster that asks nobody for a token
    retry_failed: bool = False  # also shards that an earlier run gave up

    def executor(self, jobs: int, task: Task = shard_task) -> Executor:
        """Connect, or get ready to start processes."""
        if self.ray is not None:
            from workers.ray_cluster import connect  # who works without Ray need not have it running
            from workers.ray_executor import RayExecutor

            connect(self.ray, self.workers, self.insecure)
            return RayExecutor(task)
        if self.workers == 1:
            return SerialExecutor(task)
        from workers.local import ProcessExecutor

        return ProcessExecutor(min(self.workers, jobs + 1), task)  # one for a backup; they start as they are needed

    def name(self) -> str:
        """For people."""
        if self.ray is not None:
            return f"ray {self.ray}"
        return f"{self.workers} process{'es' if self.workers > 1 else ''}"


ALONE = How()


def without_quarantine(store: Store, shards: Sequence[int], how: How, log: Callable[[str], None]) -> list[int]:
    """The shards to be made now: all but those that an earlier run gave up, unless they are to be tried again."""
    aside = quarantined(store).intersection(shards)
    if aside and not how.retry_failed:
        log(f"left out: {_named(sorted(aside))} that failed before (see failures/); --retry-failed tries them again")
    return [shard for shard in shards if shard not in aside or how.retry_failed]


def run_jobs(
    store: Store,
    jobs: Sequence[ShardJob],
    executor: Executor,
    facts: RunFacts,
    samples: tuple[int, int],
    log: Callable[[str], None],
) -> Outcome:
    """Have the jobs done; the outcome. `samples`: all that progress counts to, and how many of them are there.

    See `drive` for what it raises.
    """
    aside = quarantined(store).intersection(job.shard for job in jobs)
    total, done = samples
    progress = Progress(total, "samples", done=done)
    ledger = Ledger(store, facts, quarantined=aside, progress=progress, log=log)
    compactor = Compactor(store, jobs[0].plan)
    return drive([replace(job, run=ledger.run) for job in jobs], executor, Policy(), ledger, compactor)


def check_all_made(store: Store, missing: Collection[int]) -> None:
    """PhantumorError when shards were given up, in this run or an earlier one."""
    failed = sorted(quarantined(store).intersection(missing))
    if failed:
        raise PhantumorError(
            f"{store.url}: {_named(failed)} could not be made; failures/ in it tells why, and with which sample and "
            "spec. All others are made. Mend the cause, then run the same command with --retry-failed"
        )


def _named(shards: Sequence[int]) -> str:
    shown = ", ".join(map(str, shards[:8])) + (", ..." if len(shards) > 8 else "")
    return f"{len(shards)} shard{'s' if len(shards) > 1 else ''} ({shown})"
