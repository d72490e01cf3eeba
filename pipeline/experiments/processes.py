"""Steps as processes of their own, and the lock of an experiment that they hold as long as they live."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

LOCK = ".lock"
_TO_STOP_S = 3.0  # so long commands have to stop by themselves when a terminal has told them as well
_PROGRAM = (sys.executable, "-m", "pipeline.cli")


class Processes:
    """Runs commands, whose exit codes come back. `named`: their lines begin with the name of the step.

    Standard output goes to `stdout`, None for that of this process.
    """

    def __init__(
        self, lock: IO[str], stdout: IO[str] | None, named: bool = False, program: Sequence[str] = _PROGRAM
    ) -> None:
        self._lock, self._stdout, self._named, self._program = lock, stdout, named, tuple(program)
        self._running: list[subprocess.Popen[str]] = []
        self._stopped = False
        self._guard, self._writing = threading.Lock(), threading.Lock()

    def __call__(self, words: Sequence[str], name: str) -> int:
        with self._guard:
            if self._stopped:
                return 1
            child = self._start(words)
            self._running.append(child)
        relays = [*self._relays(child, name)]
        code = child.wait()
        for relay in relays:
            relay.join()
        with self._guard:
            self._running.remove(child)
        return code

    def stop(self) -> None:
        """Let the commands end in their own way: a training writes its checkpoint."""
        with self._guard:
            self._stopped = True
            running = list(self._running)
        until = time.monotonic() + _TO_STOP_S
        for child in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until - time.monotonic()))
        for child in running:
            child.send_signal(signal.SIGINT)  # nothing happens where it has ended
        for child in running:
            child.wait()

    def _start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self._program, *words],
            stdout=pipe if self._named else self._stdout,
            stderr=pipe if self._named else None,
            env=os.environ | ({"PYTHONUNBUFFERED": "1"} if self._named else {}),
            pass_fds=(self._lock.fileno(),),
            encoding="utf-8",
            errors="replace",
        )

    def _relays(self, child: subprocess.Popen[str], name: str) -> Iterator[threading.Thread]:
        """Threads that pass on what a command prints."""
        for pipe, target in ((child.stdout, self._stdout or sys.stdout), (child.stderr, sys.stderr)):
            if pipe is not None:
                thread = threading.Thread(target=self._relay, args=(pipe, name, target), daemon=True)
                thread.start()
                yield thread

    def _relay(self, pipe: IO[str], name: str, target: IO[str]) -> None:
        with pipe, contextlib.suppress(BrokenPipeError):  # nobody reads: the command meets a closed pipe as well
            for line in pipe:
                with self._writing:
                    target.write(f"[{name}] {line.rstrip()}\n")
                    target.flush()


@contextlib.contextmanager
def only_one(out: Path, log: Callable[[str], None]) -> Iterator[IO[str]]:
    """Hold the experiment's lock. Waits for commands that a killed call left at work in the same folder."""
    with (out / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"{out}: another process is at work there; waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(lock.fileno(), 0)
        yield lock
