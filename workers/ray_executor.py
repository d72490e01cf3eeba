"""Ray executor: one stateless task per shard. Data passes through storage, not through Ray.

Why tasks: when a node dies, Ray runs its tasks elsewhere, while actors lose or hang the shards bound to them. Nodes
that join are used, as pending tasks go wherever there is room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Any

from pipeline.errors import PhantumorError
from workers.attempt import ShardJob, ShardReport
from workers.executor import Result, Task, outcome_of, shard_task
from workers.failure import RESUME, failure_of

_GPU_TASKS_PER_GPU = 4  # drawing, measuring and encoding run on the CPU: several tasks share one GPU
_LOOK_S = 5.0  # between looks at what the cluster has
# Pending tasks are the demand that an autoscaler sees: with fewer, a cluster that starts without workers grows slowly.
_LEAST_WINDOW = 64
_GRACE_S = 5.0  # for cancelled tasks to take their files away
_SECONDS_BOUNDS = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 900.0]


class RayExecutor:
    """Runs jobs on the cluster that was connected to (`workers.ray_cluster.connect`), and leaves it on `close`."""

    def __init__(self, task: Task = shard_task, clock: Callable[[], float] = time.monotonic) -> None:
        import ray

        self._ray, self._clock = ray, clock
        self._handles = count()
        self._running: dict[Any, tuple[int, int]] = {}  # reference -> handle, shard
        self._cancelled: list[Any] = []
        self._looked = float("-inf")
        self._cpus = self._gpus = 0.0
        self._most = 0
        self._task = task
        self._remote = _remote(ray)
        self._wants_gpu = False

    def slots(self) -> int:
        """CPUs of the cluster now, or what its GPUs allow where the tasks need them."""
        self._look()
        slots = int(self._cpus)
        if self._wants_gpu:
            slots = min(slots, int(self._gpus * _GPU_TASKS_PER_GPU))
        self._most = max(self._most, slots)
        return slots

    def window(self) -> int:
        self.slots()
        return max(_LEAST_WINDOW, 2 * self._most)

    def submit(self, job: ShardJob) -> int:
        self._look()
        self._wants_gpu = job.device == "cuda" or (job.device == "auto" and self._gpus > 0)
        handle = next(self._handles)
        share = 1 / _GPU_TASKS_PER_GPU if self._wants_gpu else 0
        task = self._remote.options(num_gpus=share, name=f"shard {job.shard}")
        self._running[task.remote(self._task, job)] = handle, job.shard
        return handle

    def wait(self, timeout_s: float) -> list[tuple[int, Result]]:
        if not self._running:
            time.sleep(timeout_s)
            return []
        ready, rest = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [self._outcome(reference) for reference in ready]

    def cancel(self, handle: int) -> None:
        for reference in [r for r, (other, _) in self._running.items() if other == handle]:
            del self._running[reference]
            self._cancelled.append(reference)
            self._ray.cancel(reference)

    def close(self) -> None:
        for handle, _ in list(self._running.values()):
            self.cancel(handle)
        cancelled, self._cancelled = self._cancelled, []  # none the second time: waiting would start Ray anew
        try:
            if cancelled:  # a frozen node says nothing: it is left behind
                self._ray.wait(cancelled, num_returns=len(cancelled), timeout=_GRACE_S)
        finally:
            self._ray.shutdown()

    def _look(self) -> None:
        if self._clock() - self._looked >= _LOOK_S:
            self._looked = self._clock()
            resources = self._ray.cluster_resources()
            self._cpus, self._gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)

    def _outcome(self, reference: Any) -> tuple[int, Result]:
        handle, shard = self._running.pop(reference)
        errors = self._ray.exceptions
        try:
            return handle, self._ray.get(reference)
        except errors.RayTaskError as error:  # raised around the task, as when its code cannot be imported
            return handle, failure_of(shard, error.cause if isinstance(error.cause, Exception) else error)
        except errors.RaySystemError as error:
            raise PhantumorError(f"the Ray cluster failed: {_first_line(error)}. {RESUME}") from error
        except errors.RayError as error:  # a worker or a node died, or memory ran out, more often than is retried
            return handle, failure_of(shard, error, died=True)


def _remote(ray: Any) -> Any:
    """The Ray task. What it raises comes back as a result: only deaths are for Ray to retry."""
    return ray.remote(
        num_cpus=1,
        max_calls=0,  # keep the process, its imports and its open bank for the next shard, with a GPU as well
        max_retries=3,  # a worker or node that died
        retry_exceptions=False,
        scheduling_strategy="SPREAD",
    )(counted)


def counted(task: Task, job: ShardJob) -> Result:
    """Run a task in a Ray worker, and count what came of it for Prometheus (Ray serves it on every node)."""
    result = outcome_of(task, job)
    meters = _meters()
    if isinstance(result, ShardReport):
        meters["shards"].inc(1, tags={"status": result.status})
        if result.status == "committed":
            meters["seconds"].observe(result.seconds)
            meters["samples"].inc(result.samples)
            meters["bytes"].inc(result.bytes)
    else:
        meters["shards"].inc(1, tags={"status": "failed"})
    return result


@lru_cache(maxsize=1)
def _meters() -> dict[str, Any]:
    """Once per process: Ray keeps what it is given."""
    from ray.util.metrics import Counter, Histogram

    return {
        "shards": Counter("phantumor_shards_total", "Attempts at shards by how they ended", ("status",)),
        "seconds": Histogram("phantumor_shard_seconds", "Seconds that a shard took", _SECONDS_BOUNDS),
        "samples": Counter("phantumor_samples_total", "Samples committed"),
        "bytes": Counter("phantumor_bytes_total", "Bytes of committed shards"),
    }


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
