"""Training in several processes of a Ray cluster, which are restarted together from the last checkpoint.

In: what `training.train.train` takes, and a cluster. Out: its run folder, which the first process writes, and its
summary. Ray Train starts, connects and restarts the processes; what they have to say goes through `workers.desk`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.store import absolute
from pipeline.train_config import TrainConfig
from training.checkpoint import LAST
from training.data import Data, open_data
from training.distributed import Ranks
from training.train import TrainingInterrupted, train
from workers import ray_cluster
from workers.desk import Desk, End, Outcome

MAX_FAILURES = 3  # restarts in one command; machines that are taken away with notice do not count
_ASK_SECONDS = 0.5  # between looks at the desk
_STOP_SECONDS = 300  # for the steps up to the next line of the log, and a checkpoint
_AGAIN = "Run the same command with --resume to go on from the last checkpoint"
# Ray Train takes these from the environment of whoever starts a training.
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # processes stay where relative paths mean the same
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # a bare node needs minutes for its first import of torch
}


@dataclass(frozen=True)
class _Job:
    """What every process of the training is told."""

    data: tuple[str, ...]
    out: Path
    config: TrainConfig
    resume: bool
    marker: Path  # in `out`: who sees it shares the disk
    desk: Any


def train_on_ray(
    data: Data,
    out: Path,
    config: TrainConfig,
    *,
    address: str,
    workers: int = 1,
    resume: bool = False,
    insecure: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train as `training.train.train` does, in `workers` processes of the cluster at `address`; returns its summary.

    `local` starts a cluster on this machine, `auto` or an address joins one (`workers.ray_cluster.connect` says which
    are refused). Each process has a GPU of its own where the cluster has any and `config.device` allows it. `out`, and
    datasets that are folders, must lie on a disk that all machines of the cluster share. When a process is lost, all
    start again from the last checkpoint, MAX_FAILURES times. Raises what `train` raises.
    """
    if workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")
    places = tuple(absolute(dataset.store) for dataset in open_data(data, config).datasets)
    out = Path(out).resolve()
    with _marked(out) as marker, _cluster(address, workers, insecure) as ray, tempfile.TemporaryDirectory() as scratch:
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here).remote()
        share = _share([node["Resources"] for node in ray.nodes() if node["Alive"]], workers, config.device)
        if not share.fits:
            _wait_or_refuse(address, workers, share.gpu, log)
        job = _Job(places, out, config, resume, marker, desk)
        return _followed(ray, _Fit(partial(_process, job), workers, share, scratch), desk, log)


@contextlib.contextmanager
def _marked(out: Path) -> Iterator[Path]:
    """A file in the run's folder by which processes find out whether they see this very folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    marker = out / f".shared-{secrets.token_hex(8)}"
    with writing_to(out, "Choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        marker.touch()
    try:
        yield marker
    finally:
        with contextlib.suppress(OSError):
            marker.unlink()
            out.rmdir()  # if nothing came of it


@contextlib.contextmanager
def _cluster(address: str, workers: int, insecure: bool) -> Iterator[Any]:
    """Ray, connected; what still runs there ends with this."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A cluster of this machine alone offers all of its CPUs: Ray gives each process as many threads as it has CPUs.
    ray_cluster.connect(address, max(workers, os.cpu_count() or 1), insecure)
    import ray

    try:
        yield ray
    finally:
        ray.shutdown()


# -- how much of the cluster a process gets ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Share:
    """What each process reserves, and whether the cluster has that for all of them."""

    gpu: bool
    cpus: int
    fits: bool


def _share(nodes: Sequence[Mapping[str, float]], workers: int, device: str) -> _Share:
    """One GPU each where there are any, and as many CPUs as all can have alike."""
    gpu = device.startswith("cuda") or (device == "auto" and any(node.get("GPU", 0) >= 1 for node in nodes))

    def room(cpus: int) -> int:
        by_cpu = [int(node.get("CPU", 0)) // cpus for node in nodes]
        return sum(min(n, int(node.get("GPU", 0))) if gpu else n for n, node in zip(by_cpu, nodes, strict=True))

    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    fitting = [cpus for cpus in range(1, most + 1) if room(cpus) >= workers]
    return _Share(gpu, max(fitting, default=1), bool(fitting))


def _wait_or_refuse(address: str, workers: int, gpu: bool, log: Callable[[str], None]) -> None:
    """A cluster that was joined may grow; this machine does not."""
    what = "a GPU and a CPU" if gpu else "a CPU"
    if address == "local":
        raise InputError(
            f"--workers {workers}: each needs {what} of its own, which this machine does not have. Lower --workers"
            + (", or train with --device cpu" if gpu else "")
        )
    log(f"the cluster has no room for {workers} processes with {what} each: waiting for it to grow (Ctrl-C stops)")


# -- one process of the training --------------------------------------------------------------------------------------


def _process(job: _Job) -> None:
    """Train as one of the processes. Ray starts all of them again when one raises."""
    import ray
    import ray.train

    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), context.get_local_rank())
    attempt, resume = _agreed(ranks, job)
    if attempt == 0:
        return

    def finish(outcome: Outcome, value: Any) -> None:
        ray.get(job.desk.finish.remote(outcome, value))

    def say(line: str) -> None:
        if ray.get(job.desk.say.remote(line)):
            raise KeyboardInterrupt  # lines are said between steps, where a training can stop

    try:
        summary = _train(job, ranks, attempt, resume, say)
        if ranks.first:
            finish("done", summary)
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        finish("stopped", str(error) or f"stopped. {_AGAIN}")
        raise RuntimeError("stopped") from error  # others may wait for this process: let Ray end them
    except PhantumorError as error:  # would happen again
        finish("refused" if isinstance(error, InputError) else "failed", str(error))
        raise


def _agreed(ranks: Ranks, job: _Job) -> tuple[int, bool]:
    """Which attempt this is, 0 when nothing is left to do, and whether it resumes: as the first process finds it."""
    import ray
    import torch.distributed as dist

    found = [(0, False)]
    if ranks.first:
        attempt = ray.get(job.desk.begin.remote())
        found = [(attempt, job.resume or (attempt > 1 and (job.out / LAST).exists()))]
    if ranks.together:
        dist.broadcast_object_list(found)
    return found[0]


def _train(job: _Job, ranks: Ranks, attempt: int, resume: bool, say: Callable[[str], None]) -> dict[str, Any]:
    if not job.marker.exists():
        raise InputError(
            f"{job.out}: the machine {socket.gethostname()}, where process {ranks.rank} of the training runs, does not "
            "see this folder: --out must lie on a disk that all machines of the cluster share, under the same path"
        )
    if attempt > 1 and ranks.first:
        say(f"a process was lost: all start again (attempt {attempt} of {MAX_FAILURES + 1})")
    return train(job.data, job.out, job.config, resume=resume, log=say, ranks=ranks)


# -- the one who started it -------------------------------------------------------------------------------------------


class _Fit(threading.Thread):
    """Ray Train at work. In a thread: in the main one it would take Ctrl-C for itself and end without a checkpoint."""

    def __init__(self, process: Callable[[], None], workers: int, share: _Share, scratch: str) -> None:
        super().__init__(name="ray-train", daemon=True)
        self.error: BaseException | None = None
        self._process, self._workers, self._share, self._scratch = process, workers, share, scratch

    def run(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        scaling = ScalingConfig(
            num_workers=self._workers,
            use_gpu=self._share.gpu,
            resources_per_worker={"CPU": self._share.cpus} | ({"GPU": 1} if self._share.gpu else {}),
        )
        # Checkpoints are in the run's folder: Ray Train keeps none, but wants a folder.
        running = RunConfig(storage_path=self._scratch, failure_config=FailureConfig(max_failures=MAX_FAILURES))
        try:
            TorchTrainer(self._process, scaling_config=scaling, run_config=running).fit()
        except BaseException as error:
            self.error = error


def _followed(ray: Any, fit: _Fit, desk: Any, log: Callable[[str], None]) -> dict[str, Any]:
    """Start the training and tell the user how it goes, to its end; its summary."""
    fit.start()
    deadline = None
    while True:
        try:
            alive = fit.is_alive()
            lines, end = ray.get(desk.news.remote())
            for line in lines:
                log(line)
            if end is not None:
                return _result(end)
            if not alive:
                raise _lost(fit.error)
            if deadline is not None and time.monotonic() > deadline:
                raise TrainingInterrupted(f"stopped, no checkpoint came in {_STOP_SECONDS} s. {_AGAIN}")
            fit.join(_ASK_SECONDS)
        except KeyboardInterrupt:
            if deadline is not None or not ray.get(desk.stop.remote()):
                raise TrainingInterrupted(f"stopped at once. {_AGAIN}") from None
            deadline = time.monotonic() + _STOP_SECONDS
            log("stopping at the next line of the log, with a checkpoint; Ctrl-C again stops at once")


def _result(end: End) -> dict[str, Any]:
    match end.outcome:
        case "done":
            summary: dict[str, Any] = end.value
            return summary
        case "stopped":
            raise TrainingInterrupted(end.value)
        case "refused":
            raise InputError(end.value)
        case "failed":
            raise PhantumorError(end.value)


def _lost(error: BaseException | None) -> PhantumorError:
    """What the user reads when Ray has given up."""
    failures = getattr(error, "worker_failures", None) or {}
    reasons = [f"process {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items())]
    reason = "; ".join(reasons) or _last_line(error)
    return PhantumorError(
        f"training on Ray was given up after at most {MAX_FAILURES} restarts, at last with: {reason}. {_AGAIN}"
    )


def _last_line(error: object) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
