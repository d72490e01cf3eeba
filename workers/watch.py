"""What a run says, and how it ends on Ctrl-C, while the object store that it works on does not answer.

Requests are in the hands of a client that tries for minutes and lets nothing through meanwhile, Ctrl-C included. So a
thread beside it looks on. Leaving without a word to anybody is harmless: it is what a killed driver does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from pipeline.progress import duration
from pipeline.store import Store

_TELL_S = 12.0  # a request is tried several times within these
_LEAVE_S = 4.0  # for what tidies up after Ctrl-C to get an answer
_LOOK_S = 0.5
_STOPS = frozenset({signal.SIGINT, signal.SIGTERM})
LEFT = (
    "stopped; the object store does not answer, so unfinished shards could not be tidied up (`phantumor verify DATASET "
    "--gc` does that later). Committed shards are safe; run the same command again to resume"
)


@contextlib.contextmanager
def watched(stores: list[Store], log: Callable[[str], None]) -> Iterator[None]:
    """Look on while the block works with these stores. Disks that do not answer are the system's to tell of."""
    remote = [store.url for store in stores if store.folder is None]
    if not remote:
        yield
        return
    from pipeline.s3_client import endpoint_name  # whoever works on disks needs no S3 client
    from pipeline.s3_pulse import PULSE

    watcher = Watcher(remote[0], endpoint_name(), PULSE.silence_s, log)
    with _signals() as stops, _thread(watcher, stops):
        yield


@dataclass
class Watcher:
    """What there is to say and do; asked every now and then."""

    place: str
    endpoint: str
    silence_s: Callable[[], float]
    log: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _told: float | None = None  # since when nothing was answered
    _stop: float | None = None  # when the user asked to stop

    def stop(self) -> None:
        """The user wants the run to end."""
        self._stop = self._stop or self.clock()

    def look(self) -> bool:
        """Tell of an outage and of its end, once each; whether the process has to be left by force."""
        now, silence = self.clock(), self.silence_s()
        if silence >= _TELL_S and self._told is None:
            self._told = now - silence
            since = time.strftime("%H:%M:%S", time.localtime(time.time() - silence))
            self.log(
                f"{self.place}: {self.endpoint} has not answered for {duration(silence)} (since {since}). Trying on; "
                "after some minutes the run stops. Committed shards are safe, the same command resumes"
            )
        elif not silence and self._told is not None:
            self.log(f"{self.place}: {self.endpoint} answers again after {duration(now - self._told)}")
            self._told = None
        return self._stop is not None and min(silence, now - self._stop) >= _LEAVE_S


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket | None]:
    """Where the numbers of signals arrive at once, though Python acts on them only between requests."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(before)


@contextlib.contextmanager
def _thread(watcher: Watcher, stops: socket.socket | None) -> Iterator[None]:
    over = threading.Event()

    def look_on() -> None:
        while not over.is_set():
            if stops is None:
                over.wait(_LOOK_S)
            elif _told_to_stop(stops):
                watcher.stop()
            if watcher.look():
                _leave(watcher.log)

    thread = threading.Thread(target=look_on, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _told_to_stop(stops: socket.socket) -> bool:
    """Whether a signal to stop arrives within a look. By a time-out: `select` knows no descriptor above 1023."""
    stops.settimeout(_LOOK_S)
    try:
        return bool(_STOPS & {*stops.recv(64)})
    except TimeoutError:
        return False


def _leave(log: Callable[[str], None]) -> NoReturn:
    """End the process at once; its workers follow when they see that it is gone."""
    log(f"phantumor: {LEFT}")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
