"""Tasks for executors in other processes: tiny stand-ins of `make_shard`, told what to do by files in the dataset."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pipeline.errors import InputError
from workers.attempt import ShardJob, ShardReport
from workers.failure import SampleError


def act(job: ShardJob) -> ShardReport:
    """Do what `<dataset>/<shard>` says, and note the process in `<dataset>/<shard>.pids`."""
    folder = Path(job.dataset)
    with (folder / f"{job.shard}.pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    order = folder / str(job.shard)
    if order.exists():
        _obey(order.read_text(), order, job)
    return ShardReport(job.shard, "committed", len(job.samples), 1000, 0.01)


def _obey(what: str, order: Path, job: ShardJob) -> None:
    if what == "die once":
        order.unlink()
    if what.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise SampleError(9, '{"index": 9}', UnpicklableError("a bug", 3))
    if what == "refuse":
        raise InputError("the bank changed")
    if what == "hang":
        _hang(order)


def _hang(order: Path) -> None:
    try:
        while order.exists():
            time.sleep(0.05)
    finally:
        order.with_suffix(".left").touch()


class UnpicklableError(Exception):
    """Cannot be made from its `args`, as many libraries' exceptions cannot."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number
