"""Ray executor: one stateless task per shard through a bounded window. Data passes through storage, not through Ray.

Why tasks: when a node dies, Ray runs its tasks elsewhere, while actors lose or hang the shards bound to them.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from workers.failure import ShardError
from workers.shard_task import ShardJob, ShardReport, make_shard

REPOSITORY = Path(__file__).resolve().parents[1]
# Without the first two, one frozen node stalls every shard for minutes; without the third, a shard that runs out of
# memory is retried for ever.
_ENVIRONMENT = {
    "RAY_grpc_client_keepalive_time_ms": "15000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_task_oom_retries": "3",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # CPU tasks keep the environment they were given
}
_CONNECT_SECONDS = 10
_GPU_TASKS_PER_GPU = 4  # drawing, measuring and encoding run on the CPU: several tasks share one GPU
_SHIPPED_WITHOUT = [".git", ".venv", "demo", "runs", "**/*.zarr", "**/*.nii.gz", ".mypy_cache", ".ruff_cache"]


def connect(address: str, workers: int | None) -> None:
    """Join a Ray cluster: `local` starts one here for this run, `auto` or an address joins a running one."""
    _set_environment(address)
    import ray

    _connect(ray, address, workers)


def run_ray(jobs: Sequence[ShardJob]) -> Iterator[ShardReport]:
    """Make shards on the cluster that was connected to, then leave it."""
    import ray

    try:
        yield from _run(ray, jobs)
    finally:
        ray.shutdown()


def _set_environment(address: str) -> None:
    """Ray reads some of these when it is imported, the rest when its processes start."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address == "local":
        # A token of this run alone: nobody else on the machine can submit work, and nothing is written to $HOME.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _connect(ray: Any, address: str, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        ray.init(address="local", num_cpus=workers or os.cpu_count(), include_dashboard=False, **quiet)
        return
    _check_reachable(address)
    shipped = {"working_dir": str(REPOSITORY), "excludes": _SHIPPED_WITHOUT}
    try:
        ray.init(address=address, runtime_env=shipped, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from error


def _check_reachable(address: str) -> None:
    """Ray itself tries an address where nobody listens for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> InputError:
    return InputError(
        f"--ray {address}: no Ray cluster answers there ({reason}). "
        "Start one (`ray up cluster.yaml`, `ray start --head`) or use --ray local"
    )


def _run(ray: Any, jobs: Sequence[ShardJob]) -> Iterator[ShardReport]:
    resources = ray.cluster_resources()
    task = _task(ray, resources, jobs)
    window = 2 * max(1, int(resources.get("CPU", 1)))
    running: dict[Any, int] = {}
    waiting = list(reversed(jobs))
    try:
        while running or waiting:
            while waiting and len(running) < window:
                job = waiting.pop()
                running[task.remote(job)] = job.shard
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                yield _result(ray, reference, running.pop(reference))
    finally:
        for reference in running:
            ray.cancel(reference)


def _task(ray: Any, resources: dict[str, float], jobs: Sequence[ShardJob]) -> Any:
    """`make_shard` as a Ray task. Exceptions are not retried by Ray: the same bytes would fail again."""
    wants_gpu = bool(jobs) and jobs[0].device != "cpu" and resources.get("GPU", 0) > 0
    return ray.remote(
        num_cpus=1,
        num_gpus=1 / _GPU_TASKS_PER_GPU if wants_gpu else 0,
        max_calls=0,  # keep the process, its imports and its open bank for the next shard
        max_retries=3,  # a worker or node that died
        retry_exceptions=False,
        scheduling_strategy="SPREAD",
    )(make_shard)


def _result(ray: Any, reference: Any, shard: int) -> ShardReport:
    try:
        report: ShardReport = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise ShardError(shard, error.cause if isinstance(error.cause, Exception) else error) from error
    except ray.exceptions.RayError as error:
        raise ShardError(shard, error) from error
    return report
