"""The last few results of something that takes a while, for any number of threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """Results by key, the most recent ones; who asks for one that is being made waits for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._results: OrderedDict[Hashable, _T] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The result of a key, made where it is not kept. What `make` raises is raised."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._results:
                    self._results.move_to_end(key)
                    return self._results[key]
            try:
                made = make()
                with self._lock:
                    self._results[key] = made
                    if len(self._results) > self._most:
                        self._results.popitem(last=False)
                return made
            finally:
                with self._lock:
                    self._making.pop(key, None)
