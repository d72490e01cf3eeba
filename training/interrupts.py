"""Ctrl-C and SIGTERM, kept out of the moments in which a training is between two states."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is what schedulers send before they take a machine away


class Interrupts:
    """Inside `with`, both signals raise KeyboardInterrupt, but inside `held()` only at its end.

    With `wait_to_be_asked` they only set `asked`: of processes that train together none may stop alone. Outside the
    main thread Python delivers no signals, and nothing is changed.
    """

    def __init__(self, wait_to_be_asked: bool = False) -> None:
        self._waits = wait_to_be_asked
        self._old: dict[signal.Signals, Any] = {}
        self._holding = self._ignoring = self._pending = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._arrive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if self._ignoring:
            return
        if not (self._holding or self._waits):
            raise KeyboardInterrupt
        self._pending = True

    @property
    def asked(self) -> bool:
        """Whether a signal waits to be obeyed."""
        return self._pending

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Do what is inside as a whole."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending and not self._waits:
            self._pending = False
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """From here on nothing interrupts: the last checkpoint is being written."""
        self._ignoring = True
