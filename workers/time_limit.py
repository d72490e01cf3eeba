"""A limit for work that may never end: a generator that loops on some rare draw must not hold a run for ever."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

SAMPLE_CPU_S = 600.0  # samples take milliseconds to seconds, whole cases with large tumors a minute


class SampleTimeoutError(Exception):
    """A sample took more than its share; making it again would take as long."""


@contextlib.contextmanager
def cpu_limit(seconds: float = SAMPLE_CPU_S) -> Iterator[None]:
    """SampleTimeoutError when the block computes for longer: processor time, as a frozen or waiting process does not.

    Reaches Python code of a main thread only; what hangs elsewhere is for the driver to notice.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_signal: int, _frame: object) -> NoReturn:
        raise SampleTimeoutError(f"not made after {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
