"""A disk that fails at the n-th change: Python tells every change of a file system to an audit hook before it is made.

Between two changes nothing can be seen from outside, so a process that is killed before every one of them in turn was
killed everywhere. Half-written files come on top.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_PLACES = {"open": (0,), "os.mkdir": (0,), "os.link": (0, 1), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,)}
_GROWING = ("open", "os.mkdir", "os.link", "os.rename", "write")  # what a full disk refuses


class Disk:
    """Counts the changes below a folder; at the n-th, and with `lasting` at every later one, something happens."""

    def __init__(self, folder: str, at: int, what: str, count_file: str = "") -> None:
        self._folder, self._at, self._what = folder.rstrip("/"), at, what
        self._count, self._count_file = 0, count_file
        self._act: Callable[[], None] = {"kill": _die, "EIO": _eio, "ENOSPC": _enospc}[what]

    def install(self) -> None:
        """From now on, for good."""
        from pipeline import files, store

        sys.addaudithook(self._hook)
        for kind in (store._FileWriter, files.Replacement):
            self._fail_writes(kind)

    def _fail_writes(self, kind: Any) -> None:
        write = kind.write

        def write_half(writer: Any, data: bytes) -> None:
            if self._inside(writer._file.name):
                self._change("write", lambda: (write(writer, data[: len(data) // 2]), writer._file.flush()))
            write(writer, data)

        kind.write = write_half

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        places = _PLACES.get(event)
        if places is None or (event == "open" and not (given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        relative = event in ("os.remove", "os.rmdir") and given[1] not in (-1, None)  # as shutil.rmtree does
        if relative or any(self._inside(given[place]) for place in places):
            self._change(event, lambda: None)

    def _inside(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self._folder)

    def _change(self, event: str, half: Callable[[], Any]) -> None:
        if self._what == "ENOSPC":
            self._count += 1
            if self._count >= self._at and event in _GROWING:
                self._act()
            return
        self._count += 1
        if self._count == self._at:
            if self._what == "kill":
                half()
            self._act()

    @property
    def reached(self) -> bool:
        """Whether the n-th change was made."""
        return self._count >= self._at


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _eio() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _enospc() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
