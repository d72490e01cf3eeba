"""What a test orders for a shard, and the task that makes shards with these faults; read wherever the worker runs.

Beside the dataset `data` lies `data.orders`: a file named by a shard's number (or `all`) holds the order, the file
`notes` gets a line for all that attempts have to tell. An order is for the first attempt that meets it, one that begins
with `always` for every attempt.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from workers.attempt import ShardJob, ShardReport


def folder_of(dataset: Path | str) -> Path:
    """Where the orders of a dataset lie; it need not exist."""
    return Path(f"{dataset}.orders")


def give(dataset: Path, shard: int | str, order: str) -> None:
    folder_of(dataset).mkdir(exist_ok=True)
    (folder_of(dataset) / str(shard)).write_text(order)


def take_back(dataset: Path, shard: int | str) -> None:
    (folder_of(dataset) / str(shard)).unlink()


def notes(dataset: Path, status: str) -> list[tuple[int, int]]:
    """(shard, process) of every attempt that told this status, in the order of telling."""
    file = folder_of(dataset) / "notes"
    lines = (line.split() for line in (file.read_text().splitlines() if file.exists() else ()))
    return [(int(shard), int(pid)) for what, shard, pid in lines if what == status]


def make(job: ShardJob) -> ShardReport:
    """The task: make a shard as the product does, with the faults that were ordered for it."""
    from workers.shard_task import make_shard

    _note(job, "begins")
    with contextlib.ExitStack() as stack:
        for order in [*_taken(job, "all"), *_taken(job, str(job.shard))]:
            stack.enter_context(_faulted(job, order.split()))
        report = make_shard(job)
    _note(job, report.status)
    return report


def _taken(job: ShardJob, name: str) -> list[str]:
    folder = folder_of(job.dataset)
    mine = folder / f"{name}.{os.getpid()}"
    try:
        order = (folder / name).read_text()
        if not order.startswith("always"):
            (folder / name).rename(mine)  # of several attempts, one gets it
    except FileNotFoundError:
        return []
    return [order.removeprefix("always ")]


def _note(job: ShardJob, what: str) -> None:
    folder = folder_of(job.dataset)
    if folder.is_dir():
        with (folder / "notes").open("a") as file:
            file.write(f"{what} {job.shard} {os.getpid()}\n")


@contextlib.contextmanager
def _faulted(job: ShardJob, order: Sequence[str]) -> Iterator[None]:
    from workers import attempt, shard_task

    if order[0] == "EIO":
        raise OSError(errno.EIO, os.strerror(errno.EIO), job.dataset)
    if order[0] == "raise":
        patch = mock.patch.object(shard_task, "render_batch", _at_render(order, shard_task.render_batch))
    else:
        patch = mock.patch.object(attempt.Attempt, "commit", _at_commit(job, order, attempt.Attempt.commit))
    with patch:
        yield


def _at_commit(job: ShardJob, order: Sequence[str], commit: Callable[..., None]) -> Callable[..., None]:
    """`kill before`, `kill after`, `freeze before`: stop the process by a signal at its commit; `slow 0.3`: wait."""
    number = signal.SIGKILL if order[0] == "kill" else signal.SIGSTOP

    def stopping(*given: Any) -> None:
        if order[0] == "slow":
            time.sleep(float(order[1]))
        if order[1] == "before":
            _note(job, "stops")
            os.kill(os.getpid(), number)
        commit(*given)
        if order[1] == "after":
            os.kill(os.getpid(), number)

    return stopping


def _at_render(order: Sequence[str], render: Callable[..., Any]) -> Callable[..., Any]:
    """`raise 9`: the generator cannot make sample 9."""

    def render_batch(cases: Any, specs: Any, device: str) -> Any:
        if any(spec.index == int(order[1]) for spec in specs):
            raise ArithmeticError(f"no tumor fits into sample {order[1]}")
        return render(cases, specs, device)

    return render_batch
