"""Shard objects, read by many threads: what is kept open, what is fetched ahead, and what is said of broken ones.

Whoever reads samples asks for encoded chunks by shard, array and byte range.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.catalog import Dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.manifest import open_part
from pipeline.object_cache import ObjectCache
from pipeline.once_each import OnceEach
from pipeline.opened_objects import CachedFile, Opener
from pipeline.shard import DTYPES, ChunkError, Data
from pipeline.store import Store

OPEN_FILES = 256  # of each reader; a quarter of the usual limit of a process
WHOLE_SHARDS = 16  # kept in memory where objects are read whole: two windows of a stream that shuffles by shards
FETCHERS = 16  # requests at once of each reader; an object store answers in tens of milliseconds, whatever we do
THREADS = "shard-stream"  # how the names of all threads that read begin
Range = tuple[int, int]  # byte offset, length
Decode = Callable[[str, Data], None]
_Chunk = tuple[int, str, int, int]  # shard, array, byte offset, length
_GONE = (FileNotFoundError, NotADirectoryError)


class BrokenSampleError(InputError):
    """A sample cannot be read, or is not the one that was made. Others of the dataset may be whole."""

    def __init__(self, shard: str, message: str) -> None:
        super().__init__(message)
        self.shard = shard  # which one, in words


class Objects:
    """Shard objects of a dataset, which any number of threads may read.

    `whole_objects`: each object is read in one go, once, and kept: by the system where it is a file, in memory where it
    lies in an object store, WHOLE_SHARDS shards at most. With a `cache` objects are copied there and read as files.
    """

    def __init__(self, dataset: Dataset, cache: ObjectCache | None = None, whole_objects: bool = False) -> None:
        self._dataset = dataset
        self.by_object = whole_objects or cache is not None
        self.far = any(home.store.folder is None for home in dataset.homes)
        in_memory = whole_objects and cache is None
        most = len(DTYPES) * WHOLE_SHARDS if in_memory else OPEN_FILES
        self._open = OnceEach(Opener(dataset, cache, whole_objects), most)
        self._fetched: dict[_Chunk, deque[Future[Data]]] = {}
        self._fetching = threading.Lock()
        self._fetchers: ThreadPoolExecutor | None = None

    def expect_object(self, shard: int, name: str) -> None:
        """Begin to fetch an object that samples are read from soon, where objects are fetched whole."""
        if not self._open.has((shard, name)):
            self._fetcher().submit(self._open.get, (shard, name))

    def expect_chunk(self, shard: int, name: str, offset: int, length: int) -> None:
        """Begin to fetch an encoded chunk that is read soon, and once, where that takes long."""
        if self._dataset.home(shard).store.folder is None:
            chunk = (shard, name, offset, length)
            future = self._fetcher().submit(self._read, chunk)
            with self._fetching:
                self._fetched.setdefault(chunk, deque()).append(future)

    def _fetcher(self) -> ThreadPoolExecutor:
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(FETCHERS, f"{THREADS}-fetch")
        return self._fetchers

    def decode_chunks(self, shard: int, ranges: Mapping[str, Range], decode: Decode) -> None:
        """Have a sample's encoded chunks decoded, given the byte offset and length of each array's.

        `decode(name, data)` raises ChunkError for bytes that are not those that were written. BrokenSampleError that
        tells of the shard where they are cut or not there, PhantumorError where its store cannot be reached.
        """
        chunks = {name: (shard, name, *of) for name, of in ranges.items()}
        fetched = {name: self._taken(chunk) for name, chunk in chunks.items()}  # all: what stays is for another sample
        for name, chunk in chunks.items():
            try:
                future = fetched[name]
                self._decode(chunk, self._read(chunk) if future is None else future.result(), decode)
            except (OSError, ChunkError) as error:
                raise self._fault(shard, name, error) from error

    def _decode(self, chunk: _Chunk, data: Data, decode: Decode) -> None:
        """Decode a chunk; where it comes from a damaged copy, that of the object itself, which is copied again."""
        try:
            _decode_whole(chunk, data, decode)
        except ChunkError:
            source = self._read_source(chunk)
            if source is None:
                raise
            _decode_whole(chunk, source, decode)
            self._renew(chunk)

    def _read_source(self, chunk: _Chunk) -> Data | None:
        """The chunk of the object whose copy was read; None where no copy was."""
        shard, name, offset, length = chunk
        opened = self._open.get((shard, name))
        return opened.read_source(offset, length) if isinstance(opened, CachedFile) else None

    def _renew(self, chunk: _Chunk) -> None:
        opened = self._open.get(chunk[:2])
        if isinstance(opened, CachedFile):
            opened.renew()

    def _taken(self, chunk: _Chunk) -> Future[Data] | None:
        """A fetch of the chunk that nobody else waits for."""
        with self._fetching:
            waiting = self._fetched.get(chunk)
            if not waiting:
                return None
            future = waiting.popleft()
            if not waiting:
                del self._fetched[chunk]
        return future

    def _read(self, chunk: _Chunk) -> Data:
        shard, name, offset, length = chunk
        return self._open.get((shard, name)).read(offset, length)

    def _fault(self, shard: int, name: str, error: OSError | ChunkError) -> PhantumorError:
        """What is wrong with a shard; of a view it may be that its source was repaired since."""
        home = self._dataset.home(shard)
        own, attempt = shard - home.first_shard, self._dataset.parts[shard].attempt
        key = self._dataset.object_key(shard, name)[1]
        if home.store.folder is None and isinstance(error, OSError) and not isinstance(error, _GONE):
            return PhantumorError(
                f"shard {own:06d} cannot be read: {home.store.url}/{key}: {error.strerror or error}. The shard itself "
                "may be whole: see that this machine reaches its object store, and run again"
            )
        if self._dataset.info.sources and _attempt(home.store, own) not in ("", attempt):
            return InputError(
                f"shard {own} of {home.store.url} was made again since the view {self._dataset.path} was made; "
                "make the view again"
            )
        return _broken_shard(home.store, own, key, error)

    def close(self) -> None:
        """Close the files, and wait for what is being fetched."""
        fetchers, self._fetchers = self._fetchers, None
        if fetchers is not None:
            fetchers.shutdown(wait=not in_reading_thread(), cancel_futures=True)
        with self._fetching:
            self._fetched.clear()
        self._open.clear()


def in_reading_thread() -> bool:
    """Whether a thread that reads runs this, which cannot wait for itself.

    The garbage collector ends an abandoned iterator in whatever thread it happens to run.
    """
    return threading.current_thread().name.startswith(THREADS)


def _attempt(store: Store, shard: int) -> str:
    """The attempt that a part names now; empty when the part cannot be read."""
    try:
        return open_part(store, shard).part().attempt
    except (OSError, InputError):
        return ""


def _broken_shard(store: Store, shard: int, key: str, error: OSError | ChunkError) -> BrokenSampleError:
    """The error for a shard object that is missing, cut or changed, or which a disk does not give."""
    where = f"{store.url}/{key}"
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and not isinstance(error, _GONE):
        told = f"shard {shard:06d} cannot be read: {where}: {reason}. The shard itself may be whole"
    else:
        told = (
            f"broken shard {shard:06d}: {where}: {reason}. `phantumor verify {store.url} --repair` makes it again from "
            "the bank"
        )
    return BrokenSampleError(f"{store.url} {shard}", told)


def _decode_whole(chunk: _Chunk, data: Data, decode: Decode) -> None:
    _, name, _, length = chunk
    if len(data) != length:
        raise ChunkError(f"ends {length - len(data)} bytes early")
    decode(name, data)
