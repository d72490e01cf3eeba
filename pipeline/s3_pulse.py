"""Whether the object store answers the requests of this process: noted at each request, asked by who watches a run.

A request that waits for its answer is in the client's hands, which tries again for minutes and says nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass
class Request:
    """One that is under way. Set `answered` when the store has said anything, be it no."""

    since: float
    answered: bool = False


class Pulse:
    """Since when nothing was answered, though something was asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._waiting = 0
        self._silent: float | None = None  # since when; None when the last that was asked was answered

    @contextlib.contextmanager
    def request(self) -> Iterator[Request]:
        """While a request is under way. One that comes back without an answer and without a failure asked nobody."""
        with self._lock:
            one = Request(self._clock())
            self._waiting += 1
            first = self._silent is None
            if first:
                self._silent = one.since
        failed = True
        try:
            yield one
            failed = False
        finally:
            with self._lock:
                self._waiting -= 1
                if one.answered:
                    self._silent = self._clock() if self._waiting else None
                elif not failed and first and not self._waiting:
                    self._silent = None

    def silence_s(self) -> float:
        """For how long nothing was answered; 0 when all is well."""
        with self._lock:
            return 0.0 if self._silent is None else self._clock() - self._silent


PULSE = Pulse()
