"""Where banks and datasets lie: a folder, or a prefix of an object store (`s3://bucket/prefix`), behind one interface.

A store holds objects by key, a relative POSIX path. What the commit protocol needs is here: an object is whole or not
there, `create` succeeds for exactly one of many, and nothing is ever renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import unquote

from pipeline.errors import InputError
from pipeline.files import ASIDE, Replacement, create_file, replace_file, sync_folder

Location = str | os.PathLike[str]
_ONE_SLASH = re.compile(r"(s3|file|gs|https?):/(?!/)")


class Entry(NamedTuple):
    """An object of a store: key, bytes, and seconds since 1970 of its last change."""

    key: str
    size: int
    modified: float


class ObjectWriter(Protocol):
    """An object in the making, written from its first byte to its last."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """Make the object whole and durable under its key."""

    def abandon(self) -> None:
        """Let go without finishing; what is left behind is for the caller to remove. Harmless after `finish`."""


class Store(Protocol):
    """Objects by key. What cannot be reached raises OSError, a missing object FileNotFoundError."""

    @property
    def url(self) -> str:
        """The place as a user may type it again."""

    @property
    def folder(self) -> Path | None:
        """The folder, for what is mapped into memory or read with open files; None of an object store."""

    def read(self, key: str) -> bytes: ...

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`: fewer where the object ends before."""

    def open(self, key: str) -> BinaryIO:
        """The object as a file that can be read and sought; what is not asked for is not fetched."""

    def size(self, key: str) -> int: ...

    def version(self, key: str) -> str:
        """What tells an object from one that was written in its place."""

    def exists(self, key: str) -> bool: ...

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it is there. True for the one caller that created it, whole and durable.

        Callers write different bytes: in an object store, where an answer may be lost and a request come twice, whoever
        finds the very bytes that it wanted to write takes them for its own.
        """

    def replace(self, key: str, data: bytes) -> None:
        """Write an object, in place of an older one, in one step."""

    def writer(self, key: str) -> ObjectWriter: ...

    def replacement(self, key: str) -> ObjectWriter:
        """As `replace`, for what is made bit by bit: the older object stays until `finish`."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All objects whose key is below `prefix/` (all of them without), by key; unfinished ones left out."""

    def is_free(self) -> bool:
        """Whether nothing lies there, but for files that a killed process had not given their names yet."""

    def groups(self, prefix: str) -> list[str]:
        """Names directly below `prefix/` that hold objects, or are empty folders."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""

    def remove_group(self, prefix: str) -> None:
        """Remove everything below `prefix/`."""

    def settle(self, prefix: str) -> None:
        """Make the names of everything below `prefix/` survive a power cut."""

    def free_bytes(self) -> int | None:
        """Room that is left; None where there is no limit to ask for."""


def open_store(place: Location | Store) -> Store:
    """The store at a folder, a `file://` URL or an `s3://bucket/prefix` URL; it need not exist yet."""
    if not isinstance(place, str | os.PathLike):
        return place
    text = os.fspath(place)
    if _ONE_SLASH.match(text):
        raise InputError(f"{text}: a URL has two slashes behind its scheme; for a folder of that name write ./{text}")
    scheme, mark, rest = text.partition("://")
    if not mark and text:
        return FolderStore(Path(text))
    if scheme == "file" and rest.removeprefix("localhost").startswith("/"):
        return FolderStore(Path(unquote(rest.removeprefix("localhost"))))
    if scheme == "s3":
        from pipeline.s3 import S3Store  # whoever works on disks needs no S3 client

        return S3Store(text)
    raise InputError(f"{text!r} is no place that can be opened; give a folder, file:///folder or s3://bucket/prefix")


def absolute(store: Store) -> str:
    """The place of a store, whatever the current folder."""
    return store.url if store.folder is None else str(store.folder.resolve())


def relative_place(of: Store, seen_from: Store) -> str:
    """How one place is written down in a file of another: relative between folders, so that both can move together."""
    if of.folder is None or seen_from.folder is None:
        return absolute(of)
    return os.path.relpath(of.folder.resolve(), seen_from.folder.resolve())


def store_at(place: str, seen_from: Store) -> Store:
    """The store that `relative_place` wrote down."""
    if "://" in place or seen_from.folder is None:
        return open_store(place)
    return FolderStore((seen_from.folder / place).resolve())


def checked_key(key: str) -> str:
    """The key, if it stays inside its store; keys come from manifests, which may come from anybody."""
    parts = key.split("/")
    if not key or "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{key!r} is no path inside a dataset or bank")
    return key


class FolderStore:
    """A folder of a local or shared disk. Needs hard links and fsync, as every POSIX file system has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        return str(self._folder)

    @property
    def folder(self) -> Path:
        return self._folder

    def __repr__(self) -> str:
        return f"FolderStore({self.url!r})"

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._path(key).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def open(self, key: str) -> BinaryIO:
        return self._path(key).open("rb")

    def size(self, key: str) -> int:
        return self._path(key).stat().st_size

    def version(self, key: str) -> str:
        found = self._path(key).stat()
        return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return create_file(path, data)

    def replace(self, key: str, data: bytes) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)

    def writer(self, key: str) -> ObjectWriter:
        return _FileWriter(self._path(key))

    def replacement(self, key: str) -> ObjectWriter:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Replacement(path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        top = self._path(prefix) if prefix else self._folder
        for key in sorted(self._keys(top)):
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                found = (self._folder / key).lstat()
                if stat.S_ISREG(found.st_mode):
                    yield Entry(key, found.st_size, found.st_mtime)

    def _keys(self, top: Path) -> Iterator[str]:
        for folder, _, names in os.walk(top, onerror=_raise_unless_gone):
            below = Path(folder).relative_to(self._folder)
            yield from ((below / name).as_posix() for name in names if not ASIDE.fullmatch(name))

    def is_free(self) -> bool:
        if self._folder.exists() and not self._folder.is_dir():
            return False
        found = self._folder.iterdir() if self._folder.exists() else ()
        return all(ASIDE.fullmatch(path.name) for path in found)

    def groups(self, prefix: str) -> list[str]:
        try:
            return sorted(e.name for e in os.scandir(self._path(prefix)) if e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def remove_group(self, prefix: str) -> None:
        top = self._path(prefix)
        while top.exists():  # whoever else removes it makes ours stumble
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(top)

    def settle(self, prefix: str) -> None:
        top = self._path(prefix)
        for folder in [top, *(p for p in top.rglob("*") if p.is_dir()), top.parent]:
            sync_folder(folder)

    def free_bytes(self) -> int:
        place = self._folder.resolve()
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class _FileWriter:
    """Writes a file under its own name: nobody reads it before something else names it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # a full disk refuses the last flush as well
            self._file.close()
