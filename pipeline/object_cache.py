"""Shard objects of far-away datasets on a local disk, whole, up to so many bytes.

    $PHANTUMOR_CACHE/objects/<digest>        one object; the digest is of the place that it was copied from

Any number of processes share the folder. An object is written aside and gets its name when it is whole, so under its
name it is never half written. What was not used for the longest time is removed first; whoever has it open reads on,
as a removed file stays until it is closed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.node_cache import aside_of, cache_folder, locked, remove_left_overs
from pipeline.shard import ChunkError
from pipeline.store import Store, absolute

LIMIT_BYTES = 50_000_000_000
_ROOM = "Set PHANTUMOR_CACHE to a folder with room, or give the cache a lower limit"
_LOCKS = 64  # for all objects: a lock file of each would stay behind when it is removed


class ObjectSizeError(ChunkError):
    """An object does not have the size that its part file tells."""


def _default_folder() -> Path:
    return cache_folder() / "objects"


@dataclass(frozen=True)
class ObjectCache:
    """Copies of whole objects in `folder`, `limit_bytes` at most.

    What is being copied counts as well but cannot be given up: while several processes copy at once, and nothing is
    left to remove, they go beyond the limit by what they copy.
    """

    folder: Path = field(default_factory=_default_folder)
    limit_bytes: int = LIMIT_BYTES

    def __post_init__(self) -> None:
        if self.limit_bytes < 1:
            raise InputError(f"an object cache of {self.limit_bytes} bytes holds nothing; give it some gigabytes")

    def open(self, store: Store, key: str, size: int) -> int:
        """A handle of the object's copy, made first where there is none; the caller closes it.

        OSError where the object cannot be reached, ObjectSizeError where it is not of this size.
        """
        copy = self._copy_of(store, key)
        found = _opened(copy, size)
        if found is not None:
            return found
        with locked(self.folder / f".{int(copy.name, 16) % _LOCKS:02}.lock", _ROOM):
            found = _opened(copy, size)  # somebody may have copied it while we waited
            return self._copy(store, key, size, copy) if found is None else found

    def remove(self, store: Store, key: str) -> None:
        """Remove the object's copy, which is damaged; whoever opens the object next makes another one."""
        with writing_to(self.folder, _ROOM):
            self._copy_of(store, key).unlink(missing_ok=True)

    def _copy_of(self, store: Store, key: str) -> Path:
        return self.folder / hashlib.sha256(f"{absolute(store)}/{key}".encode()).hexdigest()[:32]

    def _copy(self, store: Store, key: str, size: int, copy: Path) -> int:
        if size > self.limit_bytes:
            raise InputError(
                f"{store.url}/{key} has {size:,} bytes, the object cache may hold {self.limit_bytes:,}. Give it a "
                "higher limit, of several objects for each thread that reads"
            )
        aside = aside_of(copy)
        with contextlib.ExitStack() as unless_kept:
            with writing_to(self.folder, _ROOM):
                handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                unless_kept.callback(os.close, handle)
                unless_kept.callback(aside.unlink)
                os.truncate(handle, size)  # from now on others count it
                self._make_room()
            data = store.read(key)
            if len(data) != size:
                raise ObjectSizeError(f"has {len(data):,} bytes instead of {size:,}")
            with writing_to(self.folder, _ROOM):
                _write(handle, data)
                aside.replace(copy)
            unless_kept.pop_all()
        self._make_room()
        return handle

    def _make_room(self) -> None:
        """Remove what was not used for the longest time until the rest is within the limit."""
        with locked(self.folder / ".room.lock", _ROOM):
            remove_left_overs(self.folder, ".*.tmp")
            held = []
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):
                    held.append((entry.stat().st_mtime_ns, entry.stat().st_size, Path(entry.path)))
            too_much = sum(size for _, size, _ in held) - self.limit_bytes
            for _, size, path in sorted(held):
                if too_much <= 0:
                    return
                if not path.name.startswith("."):
                    path.unlink(missing_ok=True)
                    too_much -= size


def _opened(copy: Path, size: int) -> int | None:
    """A handle of a copy, which is the last one used from now on; None where there is none of this size."""
    try:
        handle = os.open(copy, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if os.fstat(handle).st_size != size:
        os.close(handle)
        return None
    with contextlib.suppress(OSError):  # of another user: then it looks older than it is
        os.utime(handle)
    return handle


def _write(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.lseek(handle, 0, os.SEEK_SET)
    os.fsync(handle)  # or after a power cut the name might be there without the bytes
