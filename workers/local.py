"""A pool of processes on this machine, without Ray.

Each worker is ours, so that a death is the death of one known shard: in a pool of the standard library one death breaks
all workers, and nobody can tell which shard it was.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NoReturn

from workers.attempt import ShardJob
from workers.executor import Result, Task, outcome_of, shard_task
from workers.failure import death

DEATHS = 3  # a shard whose worker was killed so often (out of memory, say) would kill the next one as well
_GRACE_S = 10.0  # for what was stopped to take its files away
_SPAWN = get_context("spawn")  # forking a process that holds torch and arrow threads can deadlock


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    handle: int | None = None  # of the shard that it works on


class ProcessExecutor:
    """Runs jobs in `workers` processes, which are started as they are needed."""

    def __init__(self, workers: int, task: Task = shard_task) -> None:
        self._size, self._task = workers, task
        self._handles = count()
        self._jobs: dict[int, ShardJob] = {}  # handed in and not handed back
        self._queue: deque[int] = deque()
        self._workers: list[_Worker] = []
        self._leaving: list[BaseProcess] = []
        self._deaths: Counter[int] = Counter()  # by shard

    def slots(self) -> int:
        return self._size

    def window(self) -> int:
        return 2 * self._size

    def submit(self, job: ShardJob) -> int:
        handle = next(self._handles)
        self._jobs[handle] = job
        self._queue.append(handle)
        self._hand_out()
        return handle

    def wait(self, timeout_s: float) -> list[tuple[int, Result]]:
        self._hand_out()
        busy = {worker.pipe: worker for worker in self._workers if worker.handle is not None}
        if not busy:
            time.sleep(timeout_s)
            return []
        finished = [self._outcome(busy[pipe]) for pipe in wait(list(busy), timeout_s) if isinstance(pipe, Connection)]
        self._hand_out()
        return [one for one in finished if one is not None]

    def cancel(self, handle: int) -> None:
        self._jobs.pop(handle, None)
        if handle in self._queue:
            self._queue.remove(handle)
        for worker in [w for w in self._workers if w.handle == handle]:
            self._dismiss(worker)

    def close(self) -> None:
        self._jobs.clear()
        self._queue.clear()
        for worker in list(self._workers):
            self._dismiss(worker)
        deadline = time.monotonic() + _GRACE_S
        for process in self._leaving:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():  # stuck in a disk that does not answer, or frozen
                process.kill()
                process.join(1.0)
        self._leaving.clear()

    def _hand_out(self) -> None:
        while self._queue:
            idle = next((worker for worker in self._workers if worker.handle is None), None)
            if idle is None:
                if len(self._workers) >= self._size:
                    return
                idle = self._hired()
            idle.handle = self._queue.popleft()
            try:
                idle.pipe.send(self._jobs[idle.handle])
            except OSError:  # it died while it was idle; waiting for its answer finds out
                continue

    def _hired(self) -> _Worker:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, self._task, os.getpid()), daemon=True)
        _start_deaf(process)
        theirs.close()  # so that the pipe ends with the worker
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _outcome(self, worker: _Worker) -> tuple[int, Result] | None:
        """What a worker has to say: its result, or, when it died, nothing before the last of several tries."""
        handle = worker.handle
        assert handle is not None
        try:
            result: Result = worker.pipe.recv()
        except (EOFError, OSError):
            return self._after_death(worker, handle)
        worker.handle = None
        del self._jobs[handle]
        return handle, result

    def _after_death(self, worker: _Worker, handle: int) -> tuple[int, Result] | None:
        shard = self._jobs[handle].shard
        self._dismiss(worker)
        worker.process.join(1.0)
        self._deaths[shard] += 1
        if self._deaths[shard] < DEATHS:
            self._queue.appendleft(handle)
            return None
        del self._jobs[handle]
        return handle, death(shard, "WorkerDied", f"its worker ended {DEATHS} times, last {_how(worker.process)}")

    def _dismiss(self, worker: _Worker) -> None:
        """Let a worker go: an idle one leaves as its pipe ends, a busy one is told to drop its shard."""
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.handle is not None:
            worker.process.terminate()
        self._leaving.append(worker.process)


def _how(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    return f"with exit code {code}"


def _start_deaf(process: BaseProcess) -> None:
    """Start a process that Ctrl-C does not reach: it goes to the whole group, and the driver decides.

    Blocked signals are inherited, so there is no moment, while its Python still loads, at which it would die loudly.
    """
    resource_tracker.ensure_running()  # starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, task: Task, parent: int) -> None:
    """What a worker process does: shard after shard, until its driver hangs up or is gone."""
    signal.signal(signal.SIGTERM, _drop)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(outcome_of(task, job))
        except OSError:  # nobody waits for it any more
            return


def _drop(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)  # as an exception, so that an unfinished shard's files are removed


def _leave_with(parent: int) -> None:
    """End this worker when its driver is gone, killed without a word."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)
