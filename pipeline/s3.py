"""A prefix of an S3 bucket (or of anything that speaks S3) as a store.

A `create` is a conditional PUT (`If-None-Match: *`); an endpoint that takes no notice of the condition is refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Client

from pipeline.errors import InputError
from pipeline.s3_client import BeyondEndError, NoAnswerError, connect, endpoint_url, explained
from pipeline.s3_pulse import PULSE
from pipeline.store import Entry, ObjectWriter, checked_key

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

T = TypeVar("T")
# Before we try again what the client does not: requests that it cannot know to be harmless twice, answers cut short.
_PAUSES_S = (0.2, 1.0, 5.0)
_OUTAGE_S = 60.0  # the client has tried for so long itself: the store is away
_SILENCE_S = 100.0  # another client of this process has tried for as long as one does
_REMOVE_AT_ONCE = 500
_READ_AHEAD = 4 << 20  # bytes; few columns of a million rows in 40 requests
_PART_BYTES = 8 << 20  # of larger objects, parts are sent while the rest is still being made
_PARTS_AT_ONCE = 4  # each must arrive within a request's time limit, also where the line is slow
_first_user = cache(os.getpid)  # the process that asked first, also seen from those that were forked from it


class S3Store:
    """Objects below `s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        prefix = prefix.strip("/")
        if not bucket or (prefix and {"", ".", ".."} & set(prefix.split("/"))):
            raise InputError(f"{url}: give s3://bucket/prefix")
        self._url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._hasty, self._patient = connect(bucket, prefix)
        self._answered = self._conditional = False

    @property
    def url(self) -> str:
        return self._url

    @property
    def folder(self) -> None:
        return None

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def __reduce__(self) -> tuple[type[S3Store], tuple[str]]:
        return S3Store, (self.url,)  # another process opens its own connections

    @property
    def _client(self) -> Client:
        return self._patient if self._answered and PULSE.silence_s() < _SILENCE_S else self._hasty

    def read(self, key: str) -> bytes:
        with self._explained(key):
            return bytes(obstore.get(self._client, checked_key(key)).bytes())

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        try:
            with self._explained(key):
                return bytes(obstore.get_range(self._client, checked_key(key), start=offset, length=length))
        except BeyondEndError:
            return b""

    def read_version(self, key: str, version: str | None, offset: int, length: int) -> bytes:
        """A range of the object as it was when `head` was asked; an OSError when it was replaced since."""
        options: GetOptions = {"range": (offset, offset + length), "if_match": version}
        with self._explained(key):
            return bytes(obstore.get(self._client, key, options=options).bytes())

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(_Ranges(self, key), _READ_AHEAD)

    def size(self, key: str) -> int:
        return self.head(key)["size"]

    def version(self, key: str) -> str:
        return str(self.head(key)["e_tag"])

    def head(self, key: str) -> ObjectMeta:
        """What the object store says of an object."""
        with self._explained(key):
            return obstore.head(self._client, checked_key(key))

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def create(self, key: str, data: bytes) -> bool:
        """As any store's; but of several callers with the very same bytes, each may be told that it was the one."""
        created = self._again(lambda: self._create(key, data))
        if created and not self._conditional:
            self._check_conditional(key, data)
        return created

    def _create(self, key: str, data: bytes) -> bool:
        asked_before = self._answered
        try:
            self._put_new(key, data)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if not asked_before:
                raise
            # Somebody was first, or our own PUT arrived and its answer was lost: then these very bytes are there.
            with contextlib.suppress(FileNotFoundError):
                return self.read(key) == data
            # Nothing is there: ours never arrived, or another one's was in the way and failed.
            raise OSError(errno.EIO, f"not created: {error.strerror}", error.filename) from error
        return True

    def _put_new(self, key: str, data: bytes) -> None:
        with self._explained(key):
            obstore.put(self._client, checked_key(key), data, mode="create", use_multipart=False)

    def _check_conditional(self, key: str, data: bytes) -> None:
        """Once for each store: where the condition is not honoured, two attempts could commit the same shard."""
        try:
            self._put_new(key, data)
        except FileExistsError:
            self._conditional = True
            return
        raise InputError(
            f"{self.url}: {endpoint_url() or 'this endpoint'} overwrites objects in spite of `If-None-Match: *`, so "
            "two workers could commit the same shard. Use an object store with conditional PUT, or a disk"
        )

    def replace(self, key: str, data: bytes) -> None:
        with self._explained(key):
            obstore.put(self._client, checked_key(key), data, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def writer(self, key: str) -> ObjectWriter:
        return _Upload(self._client, checked_key(key), partial(self._explained, key))

    def replacement(self, key: str) -> ObjectWriter:
        return self.writer(key)  # nobody sees an upload before its end

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        yield from self._again(lambda: self._entries(prefix))

    def _entries(self, prefix: str) -> list[Entry]:
        with self._explained(prefix):
            batches = obstore.list(self._client, prefix=checked_key(prefix) if prefix else None)
            return sorted(Entry(m["path"], m["size"], m["last_modified"].timestamp()) for some in batches for m in some)

    def is_free(self) -> bool:
        return self._again(self._is_free)

    def _is_free(self) -> bool:
        with self._explained(""):
            return not any(len(some) for some in islice(obstore.list(self._client, chunk_size=1), 1))

    def groups(self, prefix: str) -> list[str]:
        return self._again(lambda: self._groups(checked_key(prefix)))

    def _groups(self, prefix: str) -> list[str]:
        with self._explained(prefix):
            listing = obstore.list_with_delimiter(self._client, prefix=prefix)
        return sorted(path.rstrip("/").rpartition("/")[2] for path in listing["common_prefixes"])

    def remove(self, keys: Iterable[str]) -> None:
        keys = [checked_key(key) for key in keys]
        for start in range(0, len(keys), _REMOVE_AT_ONCE):
            self._again(partial(self._remove, keys[start : start + _REMOVE_AT_ONCE]))

    def _remove(self, keys: list[str]) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained(keys[0]):
            obstore.delete(self._client, keys)

    def remove_group(self, prefix: str) -> None:
        self.remove([entry.key for entry in self.entries(checked_key(prefix))])

    def settle(self, prefix: str) -> None:
        """A PUT that was answered is durable."""

    def free_bytes(self) -> None:
        return None

    @contextlib.contextmanager
    def _explained(self, key: str, buffered: bool = False) -> Iterator[None]:
        """Raise what a disk would raise where the client fails. What is `buffered` may have asked nobody yet.

        A store that was waited for in vain is not waited for again until it answers: what is to be tidied up then
        must not take minutes.
        """
        self._refuse_forked()
        with PULSE.request() as request:
            try:
                yield
            except (BaseError, OSError) as error:
                found = explained(error, self.url, key)
                request.answered = not isinstance(found, NoAnswerError)
                self._answered |= isinstance(found, FileNotFoundError | FileExistsError | BeyondEndError)
                self._answered &= request.answered
                raise found from error
            request.answered = not buffered
            self._answered |= not buffered

    def _refuse_forked(self) -> None:
        """The client's threads do not come along in a fork, so the first request there would wait for ever."""
        if _first_user() != os.getpid():
            raise InputError(
                f"{self.url}: this process was forked from one that used S3, whose connections a fork does not "
                "survive. Start loader workers with multiprocessing_context='spawn'"
            )

    def _again(self, work: Callable[[], T]) -> T:
        """Do what is harmless to do twice until it succeeds, a few times, where another try may help."""
        started = time.monotonic()
        for pause in _PAUSES_S:
            try:
                return work()
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:
                if not self._answered or time.monotonic() - started > _OUTAGE_S:
                    raise
            time.sleep(pause)
        return work()


class _Ranges(io.RawIOBase):
    """An object as a file; each read is one request."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store, self._key = store, key
        found = store.head(key)
        self._size, self._version = found["size"], found["e_tag"]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        buffer[:length] = self._store.read_version(self._key, self._version, self._position, length)
        self._position += length
        return length


class _Upload:
    """Sends an object while it is written. Until `finish` nobody sees it.

    `abandon` takes back what was sent. What a killed process had sent stays, unseen and paid for, until the bucket's
    rule on incomplete multipart uploads removes it.
    """

    def __init__(self, client: Client, key: str, explained: Callable[..., AbstractContextManager[None]]) -> None:
        self._explained = explained
        self._open = True
        with explained(buffered=True):
            self._stream = obstore.open_writer(client, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def write(self, data: bytes) -> None:
        with self._explained(buffered=True):
            self._stream.write(data)

    def finish(self) -> None:
        with self._explained():
            self._stream.close()
        self._open = False

    def abandon(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(OSError), self._explained():
                self._stream.__exit__(InterruptedError, InterruptedError("abandoned"), None)
