"""Where the processes of a training on Ray, and the one that started them, leave word for each other."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Outcome = Literal["done", "stopped", "refused", "failed"]


class End(NamedTuple):
    """How a training has ended: its summary when it is done, else a complete message."""

    outcome: Outcome
    value: Any


class Desk:
    """Runs as an actor of its own, on the machine of the one who started the training. Its calls come one by one."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._end: End | None = None
        self._stop = False
        self._attempts = 0

    def begin(self) -> int:
        """The number of an attempt that begins, 1 for the first; 0 when there is nothing left to do."""
        if self._end or self._stop:
            return 0
        self._attempts += 1
        return self._attempts

    def say(self, line: str) -> bool:
        """Leave a line for the user; whether the training is to stop."""
        self._lines.append(line)
        return self._stop

    def stop(self) -> bool:
        """Ask the training to stop; whether it has begun."""
        self._stop = True
        return self._attempts > 0

    def finish(self, outcome: Outcome, value: Any) -> None:
        """The training has ended. What comes first counts: the rest follows from it."""
        self._end = self._end or End(outcome, value)

    def news(self) -> tuple[list[str], End | None]:
        """The lines since the last call, and how the training has ended."""
        lines, self._lines = self._lines, []
        return lines, self._end
