"""Things that are dear to make and wanted by many threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class OnceEach(Generic[K, V]):
    """What `make` gives for each key, made once however many threads ask; the `most` last used ones are kept."""

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self._make, self._most = make, most
        self._lock = threading.Lock()
        self._made: OrderedDict[K, Future[V]] = OrderedDict()

    def has(self, key: K) -> bool:
        """Whether it is there, or being made."""
        return key in self._made

    def get(self, key: K) -> V:
        with self._lock:
            future = self._made.get(key)
            missing = future is None
            if future is None:
                future = self._made[key] = Future()
                while len(self._made) > self._most:
                    self._made.popitem(last=False)
            else:
                self._made.move_to_end(key)
        if missing:
            self._fulfil(key, future)
        return future.result()

    def _fulfil(self, key: K, future: Future[V]) -> None:
        try:
            future.set_result(self._make(key))
        except BaseException as error:  # whatever it is, others wait for it
            with self._lock:
                if self._made.get(key) is future:  # the next one who asks tries again
                    del self._made[key]
            future.set_exception(error)

    def clear(self) -> None:
        with self._lock:
            self._made.clear()
