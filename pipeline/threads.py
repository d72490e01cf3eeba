"""Threads for work that spends its time without the interpreter's lock: reading, decoding, checksums, gzip."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
THREADS = min(8, os.cpu_count() or 1)  # beyond eight the interpreter's lock and the disk are what is waited for


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """The results of `work`, in the order of `items`, which are taken only a little ahead.

    The first exception of `work` is raised where its result would come. Then, and when the consumer stops, what has
    not begun is never begun, and what has is waited for.
    """
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) >= 2 * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
