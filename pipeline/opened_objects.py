"""Shard objects, opened: files, byte ranges of an object store, whole objects in memory or in a cache."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.catalog import Dataset
from pipeline.object_cache import ObjectCache, ObjectSizeError
from pipeline.shard import Data, object_path
from pipeline.store import Store


class OpenObject(Protocol):
    """An object of which any part can be read."""

    def read(self, offset: int, length: int) -> Data: ...


class _OpenFile:
    """An open file, closed when the last thread that reads it has dropped it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        weakref.finalize(self, os.close, handle)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._handle, length, offset)

    def read_ahead(self) -> None:
        """Let the system read the file from its beginning to its end, instead of here and there."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_WILLNEED)


@dataclass(frozen=True)
class _Ranges:
    """An object that stays where it is."""

    store: Store
    key: str

    def read(self, offset: int, length: int) -> bytes:
        return self.store.read_range(self.key, offset, length)


class CachedFile:
    """A copy in an object cache."""

    def __init__(self, cache: ObjectCache, store: Store, key: str, size: int) -> None:
        self._cache, self._source, self._size = cache, _Ranges(store, key), size
        self._file = self._opened()

    def _opened(self) -> _OpenFile:
        return _OpenFile(self._cache.open(self._source.store, self._source.key, self._size))

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)

    def read_source(self, offset: int, length: int) -> bytes:
        """The same bytes of the object that was copied."""
        return self._source.read(offset, length)

    def renew(self) -> None:
        """Copy the object again, as the copy holds other bytes."""
        self._cache.remove(self._source.store, self._source.key)
        self._file = self._opened()


@dataclass(frozen=True)
class _InMemory:
    data: npt.NDArray[np.uint8]

    def read(self, offset: int, length: int) -> Data:
        return self.data[offset : offset + length]


def _open_file(path: Path, whole: bool) -> _OpenFile:
    file = _OpenFile(os.open(path, os.O_RDONLY))
    if whole:
        file.read_ahead()
    return file


def _in_memory(store: Store, key: str, size: int) -> _InMemory:
    data = store.read(key)
    if len(data) != size:
        raise ObjectSizeError(f"has {len(data):,} bytes instead of {size:,}")
    return _InMemory(np.frombuffer(data, np.uint8))


@dataclass(frozen=True)
class Opener:
    """Opens objects of a dataset in the way that a reader was asked for."""

    dataset: Dataset
    cache: ObjectCache | None
    whole: bool

    def __call__(self, which: tuple[int, str]) -> OpenObject:
        """The object of a shard, and of an array by its name. OSError where it is not there, ChunkError where cut."""
        store, key = self.dataset.object_key(*which)
        if self.cache is not None:
            return CachedFile(self.cache, store, key, self._size(*which))
        if store.folder is not None:
            return _open_file(store.folder / key, self.whole)
        if self.whole:
            return _in_memory(store, key, self._size(*which))
        return _Ranges(store, key)

    def _size(self, shard: int, name: str) -> int:
        sizes = {file.path: file.size for file in self.dataset.parts[shard].files}
        return sizes[object_path(name)]
