"""Writing files so that a crash leaves the old file, the new file, or nothing; never half of one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError, PhantumorError

ASIDE = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # names of files that are not under their own name yet


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a created or renamed name survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _aside(path: Path) -> Path:
    """A name beside `path` that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


class Replacement:
    """A file in the making that takes the place of `path` when it is finished, in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = _aside(path)
        self._file = self._aside.open("wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self) -> None:
        self._settle().replace(self._path)
        sync_folder(self._path.parent)

    def _settle(self) -> Path:
        """Make what was written durable; where it lies."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._aside

    def abandon(self) -> None:
        """Remove what was written, unless it is finished."""
        with contextlib.suppress(OSError):  # a full disk refuses the last flush as well
            self._file.close()
        self._aside.unlink(missing_ok=True)


def _write_aside(path: Path, data: bytes) -> Path:
    file = Replacement(path)
    try:
        file.write(data)
        return file._settle()
    except BaseException:
        file.abandon()
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing an older file in one step."""
    file = Replacement(path)
    try:
        file.write(data)
        file.finish()
    finally:
        file.abandon()


def create_file(path: Path, data: bytes) -> bool:
    """Write `data` to `path` unless it exists. True for the one caller that created it, whole and on disk."""
    aside = _write_aside(path, data)
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder in the making that becomes `folder` (new, or empty) when the block ends, and vanishes when it fails.

    It lies beside `folder`, under a name that matches `ASIDE`.
    """
    final = folder.resolve()
    aside = _aside(final)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(final)
        sync_folder(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing_to(folder: str | os.PathLike[str], resume: str) -> Iterator[None]:
    """Turn disk errors (full, read-only, no permission) below into one message that ends with `resume`."""
    try:
        yield
    except (NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise InputError(f"cannot write to {folder}: {error.filename} is in the way. Give another path") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PhantumorError(f"cannot write to {folder}: {reason}. {resume}") from error
