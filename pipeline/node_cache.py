"""The folder where a node keeps copies of what lies in object stores, shared by all its processes.

$PHANTUMOR_CACHE        default: ~/.cache/phantumor
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline.files import writing_to

_LEFT_OVER_S = 3600  # nothing happens for so long only in what a copier has left that was killed


def cache_folder() -> Path:
    """Where this node keeps copies."""
    chosen = os.environ.get("PHANTUMOR_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "phantumor"


@contextlib.contextmanager
def locked(lock: Path, remedy: str) -> Iterator[None]:
    """Wait until no other thread or process of this node holds the lock, which ends with its process at the latest."""
    with contextlib.ExitStack() as held:
        with writing_to(lock.parent, remedy):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(lock.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        held.callback(fcntl.flock, file, fcntl.LOCK_UN)  # a process forked meanwhile holds the file open, too
        yield


def aside_of(copy: Path) -> Path:
    """The name of a copy in the making. It is the caller's own, as locks do nothing on some shared disks."""
    return copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_left_overs(folder: Path, pattern: str) -> None:
    """Remove what killed processes left aside: old files and folders of this pattern."""
    for aside in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if aside.stat().st_mtime < time.time() - _LEFT_OVER_S:
                shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
