"""Progress with rate and time left: one rewritten line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_PLAIN_SECONDS = 10.0
_TERMINAL_SECONDS = 0.2


def duration(seconds: float) -> str:
    """A time span for people: `45 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """A number of bytes for people, decimal units: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count, 0 if unit == "B" else 1) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Progress:
    """Counts `unit`s up to `total`. `done` is what an earlier run has already finished."""

    def __init__(self, total: int, unit: str, done: int = 0, stream: TextIO | None = None) -> None:
        self._total, self._unit, self._done, self._before = total, unit, done, done
        self._stream = stream or sys.stderr
        self._started = self._shown = time.monotonic()
        self._terminal = self._stream.isatty()
        self._open_line = False

    def advance(self, count: int, note: str = "") -> None:
        """Count finished units and show the line when it is due."""
        self._done += count
        now = time.monotonic()
        due = _TERMINAL_SECONDS if self._terminal else _PLAIN_SECONDS
        if now - self._shown >= due or self._done >= self._total:
            self._shown = now
            self._show(now, note)

    def _show(self, now: float, note: str) -> None:
        rate = (self._done - self._before) / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate > 0 else float("inf")
        ending = f", {duration(left)} left" if 0 < left < float("inf") else ""
        line = f"{self._done}/{self._total} {self._unit}, {rate:.1f}/s{ending}{note}"
        self._stream.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        self._open_line = self._terminal
        if self._done >= self._total:
            self.end()
        self._stream.flush()

    def end(self) -> None:
        """Leave the rewritten line behind, also when the work stopped before its end. Harmless twice."""
        if self._open_line:
            self._open_line = False
            self._stream.write("\n")
            self._stream.flush()
