"""What goes wrong in a worker, in plain words: exceptions do not survive every trip between processes."""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.progress import duration

RESUME = "Committed shards are safe; run the same command again to resume"
_KEPT_CHARACTERS = 20_000  # of a traceback, from its end: it travels in one message


class SampleError(Exception):
    """A sample that cannot be made: its index, its spec as JSON (empty where drawing it failed), what went wrong."""

    def __init__(self, index: int, spec: str, cause: Exception) -> None:
        super().__init__(index, spec, cause)
        self.index, self.spec, self.cause = index, spec, cause


@dataclass(frozen=True)
class Failure:
    """Why an attempt at a shard came to nothing.

    `kinds` are the names of the exception's classes, the most special first; `where` is the line that raised it;
    `died` tells that the process ended without a word, or that its node did. `sample` and `spec` are there where one
    sample is to blame.
    """

    shard: int
    kinds: tuple[str, ...]
    message: str
    where: str = ""
    errno: int | None = None
    died: bool = False
    sample: int | None = None
    spec: str = ""
    traceback: str = ""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def kind(self) -> str:
        """The exception's class."""
        return self.kinds[0]

    @property
    def same(self) -> tuple[str, str]:
        """Equal for failures of one cause: messages name samples and files, so they differ where the cause does not."""
        return self.kind, self.where

    def line(self) -> str:
        """For people."""
        return f"{self.kind}: {self.message}" if self.message else self.kind


def failure_of(shard: int, error: BaseException, *, died: bool = False) -> Failure:
    """What is worth keeping of an exception; of a SampleError, that of its cause."""
    sample, spec, cause = None, "", error
    while isinstance(cause, SampleError):
        sample, spec, cause = cause.index, cause.spec, cause.cause
    return Failure(
        shard=shard,
        kinds=tuple(kind.__name__ for kind in type(cause).__mro__[:-1]),
        message=_message(cause),
        where=_raised_at(cause),
        errno=cause.errno if isinstance(cause, OSError) else None,
        died=died,
        sample=sample,
        spec=spec,
        traceback="".join(traceback.format_exception(error))[-_KEPT_CHARACTERS:],
    )


def death(shard: int, kind: str, message: str) -> Failure:
    """The failure of a shard whose worker ended without a word."""
    return Failure(shard, (kind,), message, died=True)


def lost(shard: int, seconds: float) -> Failure:
    """The failure of a shard of which nothing was heard for so long."""
    return Failure(shard, ("AttemptLost",), f"no result after {duration(seconds)}: its process or its node hangs")


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)[-_KEPT_CHARACTERS:]


def _raised_at(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else ""
