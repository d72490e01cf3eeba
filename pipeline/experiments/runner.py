"""Running steps in their order, so many independent ones at once; a killed experiment goes on with what is missing."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

from pipeline.errors import PhantumorError
from pipeline.experiments.ledger import Ledger, missing
from pipeline.experiments.plan import Step
from pipeline.progress import duration

RESUME = "Run the same command again to go on from there"
Log = Callable[[str], None]
Further = Callable[[Step], Sequence[str]]  # words that decide how a step is done, not what comes out


class Command(Protocol):
    """Runs a phantumor command. Called from several threads at once where several steps run."""

    def __call__(self, words: Sequence[str], name: str) -> int:
        """`words` stand after `phantumor`, `name` is the step's; the exit code."""

    def stop(self) -> None:
        """Let what runs end in its own way; nothing runs afterwards."""


class _Running(NamedTuple):
    step: Step
    label: str  # its number among all
    words: Sequence[str]
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def run_steps(
    steps: Sequence[Step], ledger: Ledger, log: Log, command: Command, further: Further, jobs: int = 1
) -> None:
    """Run what is missing, up to `jobs` steps at once, each command shown first.

    PhantumorError when a command fails, after those beside it have ended; what was finished is kept.
    """
    left = missing(steps, ledger)
    done = len(steps) - len(left)
    if done:
        log(f"{done} of {len(steps)} steps are done already")
    for step in left:
        ledger.forget(step)  # what was made from an older state of a step before it
    labels = (f"[{number}/{len(steps)}]" for number in range(done + 1, len(steps) + 1))
    _Crew(ledger, log, command, further, labels, jobs).work_off(left)


class _Crew:
    """Up to `jobs` steps at work."""

    def __init__(
        self, ledger: Ledger, log: Log, command: Command, further: Further, labels: Iterator[str], jobs: int
    ) -> None:
        self._ledger, self._log, self._command, self._further = ledger, log, command, further
        self._labels, self._jobs = labels, jobs
        self._at_work: dict[Future[int], _Running] = {}

    def work_off(self, left: list[Step]) -> None:
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                failures = self._work_off(left, pool)
            except BaseException as end:
                self._stop()
                if isinstance(end, KeyboardInterrupt):
                    raise KeyboardInterrupt(f"stopped; what was finished is kept. {RESUME}") from None
                raise
        if failures:
            raise PhantumorError(f"{' and '.join(failures)}, see above. {RESUME}")

    def _work_off(self, left: list[Step], pool: ThreadPoolExecutor) -> list[str]:
        """What failed; nothing is started after a failure."""
        waiting, failures = list(left), list[str]()
        while self._at_work or (waiting and not failures):
            while not failures and len(self._at_work) < self._jobs and (step := self._startable(waiting)):
                waiting.remove(step)
                self._start(step, pool)
            for future in wait(self._at_work, return_when=FIRST_COMPLETED).done:
                failures += self._end(self._at_work.pop(future), future.result())
            if failures and self._at_work:
                names = ", ".join(running.step.name for running in self._at_work.values())
                self._log(f"{failures[-1]}: no further step is started; still at work: {names}")
        return failures

    def _startable(self, waiting: Sequence[Step]) -> Step | None:
        """The first step whose needs are done and which writes where no other does: cases of one bank take turns."""
        running = [one.step for one in self._at_work.values()]
        unfinished, busy = {step.name for step in (*waiting, *running)}, {step.product for step in running}
        return next((s for s in waiting if not unfinished & set(s.needs) and s.product not in busy), None)

    def _start(self, step: Step, pool: ThreadPoolExecutor) -> None:
        if step.new:
            shutil.rmtree(step.new, ignore_errors=True)  # of an attempt that was cut off
        words = [*step.words, *(step.resume if step.product.exists() else ()), *self._further(step)]
        running = _Running(step, next(self._labels), words, time.monotonic())
        self._log(f"\n{running.label} $ phantumor {shlex.join(words)}")
        self._at_work[pool.submit(self._command, words, step.name)] = running

    def _end(self, running: _Running, code: int) -> list[str]:
        """Take note of a step that ended; what to say where it failed."""
        if code:
            return [f"`phantumor {shlex.join(running.words)}` ended with exit code {code}"]
        self._ledger.add(running.step, running.seconds)
        self._log(f"{running.label} {running.step.name}: {duration(running.seconds)}")
        return []

    def _stop(self) -> None:
        """What ends well in spite of it counts."""
        self._command.stop()
        for future, running in self._at_work.items():
            if future.exception() is None and future.result() == 0:
                self._ledger.add(running.step, running.seconds)
