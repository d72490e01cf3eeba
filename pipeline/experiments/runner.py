"""Running steps one after the other, each as a phantumor command of its own, and remembering which are done.

A step that ended well leaves a note below `done/`; a killed experiment goes on with the first step without one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from pipeline.errors import PhantumorError
from pipeline.experiments.plan import Step
from pipeline.files import replace_file
from pipeline.progress import duration

RESUME = "Run the same command again to go on from there"
DONE, LOCK = "done", ".lock"
_TO_STOP_S = 3.0  # so long a command has to stop by itself when a terminal has told it as well
Log = Callable[[str], None]
Command = Callable[[Sequence[str]], int]  # the words after `phantumor`; its exit code


class Ledger:
    """Which steps are done; the notes also tell how long they took."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def is_done(self, step: Step) -> bool:
        """Whether the same command ended well and what it made is there."""
        note = self._read(step)
        return note is not None and note["command"] == self._command(step) and step.product.exists()

    def add(self, step: Step, seconds: float) -> None:
        note = {"command": self._command(step), "seconds": round(seconds, 1)}
        file = self._file(step)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(note, indent=1).encode())

    def forget(self, step: Step) -> None:
        self._file(step).unlink(missing_ok=True)

    def _file(self, step: Step) -> Path:
        return self._out / DONE / f"{step.name.replace(' ', '-')}.json"

    def _read(self, step: Step) -> dict[str, object] | None:
        try:
            return dict(json.loads(self._file(step).read_text()))
        except (OSError, ValueError):
            return None

    def _command(self, step: Step) -> list[str]:
        """Without the experiment's own place, so that it may be moved."""
        return [word.replace(str(self._out), "OUT") for word in step.words]


def missing(steps: Sequence[Step], ledger: Ledger) -> list[Step]:
    """The steps that are not done, and those that need one of them."""
    names: set[str] = set()
    for step in steps:
        if names & set(step.needs) or not ledger.is_done(step):
            names.add(step.name)
    return [step for step in steps if step.name in names]


def run_steps(
    steps: Sequence[Step], ledger: Ledger, log: Log, command: Command, further: Callable[[Step], Sequence[str]]
) -> None:
    """Run what is missing, each command shown first. `further` gives words that decide how, not what.

    PhantumorError when a command fails; what was finished before it is kept.
    """
    left = missing(steps, ledger)
    done = len(steps) - len(left)
    if done:
        log(f"{done} of {len(steps)} steps are done already")
    for number, step in enumerate(left, done + 1):
        for later in left[number - done - 1 :]:
            ledger.forget(later)  # what was made from an older state of this step
        words = [*step.words, *(step.resume if step.product.exists() else ()), *further(step)]
        log(f"\n[{number}/{len(steps)}] $ phantumor {shlex.join(words)}")
        started = time.monotonic()
        code = command(words)
        if code:
            raise PhantumorError(f"`phantumor {shlex.join(words)}` ended with exit code {code}, see above. {RESUME}")
        ledger.add(step, time.monotonic() - started)
        log(f"[{number}/{len(steps)}] {step.name}: {duration(time.monotonic() - started)}")


class Subprocess:
    """Runs commands in processes of their own, which hold the experiment's lock as long as they live."""

    def __init__(self, lock: IO[str], stdout: IO[str] | None) -> None:
        self._lock, self._stdout = lock, stdout

    def __call__(self, words: Sequence[str]) -> int:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *words], stdout=self._stdout, pass_fds=(self._lock.fileno(),)
        )
        try:
            return child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise KeyboardInterrupt(f"stopped; what was finished is kept. {RESUME}") from None


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Let the command end in its own way: a training writes its checkpoint."""
    try:
        child.wait(_TO_STOP_S)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        child.wait()


@contextlib.contextmanager
def only_one(out: Path, log: Log) -> Iterator[IO[str]]:
    """Hold the experiment's lock. Waits for a command that a killed call left at work in the same folder."""
    with (out / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"{out}: another process is at work there; waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(lock.fileno(), 0)
        yield lock
