"""Executors of this machine, without Ray: one process, or a pool of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from workers.failure import ShardError
from workers.shard_task import ShardJob, ShardReport, make_shard

_POOL_DEATHS = 3  # a worker that is killed (out of memory, say) breaks the pool; so often it is started anew


def run_serial(jobs: Sequence[ShardJob]) -> Iterator[ShardReport]:
    """Make shards in this process, one after the other."""
    for job in jobs:
        try:
            report = make_shard(job)
        except Exception as error:
            raise ShardError(job.shard, error) from error
        yield report


def run_processes(jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardReport]:
    """Make shards in `workers` processes; reports come as shards finish."""
    remaining = {job.shard: job for job in jobs}
    for deaths in range(_POOL_DEATHS + 1):
        try:
            for report in _run_pool(list(remaining.values()), workers):
                del remaining[report.shard]
                yield report
            return
        except BrokenProcessPool as error:
            if deaths == _POOL_DEATHS:
                raise ShardError(min(remaining), error) from error


def _run_pool(jobs: Sequence[ShardJob], workers: int) -> Iterator[ShardReport]:
    # spawn: forking a process that holds torch and arrow threads can deadlock
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)) as pool:
        running: dict[Future[ShardReport], int] = {}
        waiting = list(reversed(jobs))
        try:
            while running or waiting:
                while waiting and len(running) < 2 * workers:
                    job = waiting.pop()
                    running[pool.submit(make_shard, job)] = job.shard
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield _result(future, running.pop(future))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[ShardReport], shard: int) -> ShardReport:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:
        raise ShardError(shard, error) from error


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this worker when its driver is gone, killed without a word."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
