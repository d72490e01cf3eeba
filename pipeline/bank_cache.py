"""Cases of a bank in an object store, copied to this node's disk once, so that they can be mapped into memory.

    $PHANTUMOR_CACHE/cases/<case_id>-<digest>.zarr            default: ~/.cache/phantumor
    $PHANTUMOR_CACHE/banks/<fingerprint>/cases/<case_id>.zarr  links to the cases of a bank

However many processes of a node ask for a case, one of them copies it: the others wait for its lock. Under its name a
case's folder is always whole, and of the bytes that were prepared. A bank that got one more case, and any other bank
with the same cases, share the copies. Nothing is ever removed; who needs the room removes the folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import shutil
from pathlib import Path

from pipeline.bank_format import CASES, CaseRecord, chunk_file, chunk_key, dtype_of
from pipeline.errors import InputError
from pipeline.files import sync_folder, writing_to
from pipeline.node_cache import aside_of, cache_folder, locked, remove_left_overs
from pipeline.store import Store
from pipeline.threads import in_threads

_ROOM = "Set PHANTUMOR_CACHE to a folder with room for the bank's cases"
_whole: set[Path] = set()  # cases that this process has looked at


def bank_folder(fingerprint: str) -> Path:
    """The folder for the cases of one bank."""
    return cache_folder() / "banks" / fingerprint[:16]


def fetch_case(bank: Store, record: CaseRecord, folder: Path) -> None:
    """Make sure that `folder`, a `bank_folder`, holds a case of a bank in an object store.

    InputError when the bank lacks it or holds other bytes, OSError when the bank cannot be reached.
    """
    link = folder / CASES / f"{record.case_id}.zarr"
    if link in _whole and link.is_dir():
        return
    copy = folder.parent.parent / CASES / f"{record.case_id}-{_digest(record)}.zarr"
    if not (link.is_dir() and _is_whole(copy, record)):
        with locked(copy.with_name(f".{copy.name}.lock"), _ROOM):
            if not _is_whole(copy, record):  # nobody else copied it while we waited
                _copy(bank, record, copy)
        with writing_to(folder, _ROOM), contextlib.suppress(FileExistsError):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(copy, link.parent))
    _whole.add(link)


def _digest(record: CaseRecord) -> str:
    """Of what the case's arrays hold, 16 hexadecimal digits."""
    arrays = sorted((name, stored.sha256) for name, stored in record.arrays.items())
    return hashlib.sha256(repr(arrays).encode()).hexdigest()[:16]


def _is_whole(copy: Path, record: CaseRecord) -> bool:
    """Whether every file is there and of its length; cleaners of temporary folders take them one by one."""
    try:
        return all(
            chunk_file(copy, name, len(stored.shape)).stat().st_size
            == math.prod(stored.shape) * dtype_of(name).itemsize
            for name, stored in record.arrays.items()
        )
    except FileNotFoundError:
        return False


def _copy(bank: Store, record: CaseRecord, copy: Path) -> None:
    """Write aside, then rename."""
    aside = aside_of(copy)
    with writing_to(copy.parent, _ROOM):
        _remove_left_overs(copy)
    try:
        for _ in in_threads(lambda name: _copy_array(bank, record, name, aside), sorted(record.arrays)):
            pass
        with writing_to(copy.parent, _ROOM):
            _put_in_place(aside, copy)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_left_overs(copy: Path) -> None:
    """What killed processes left, and a copy that is not whole any more."""
    remove_left_overs(copy.parent, f".{copy.name}.*.tmp")
    if copy.exists():
        broken = aside_of(copy)
        copy.rename(broken)
        shutil.rmtree(broken)


def _put_in_place(aside: Path, copy: Path) -> None:
    for folder in [aside, *(path for path in aside.rglob("*") if path.is_dir())]:
        sync_folder(folder)
    try:
        aside.rename(copy)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another node put the same there
            raise
    sync_folder(copy.parent)


def _copy_array(bank: Store, record: CaseRecord, name: str, aside: Path) -> None:
    stored = record.arrays[name]
    chunk = chunk_key(name, len(stored.shape))
    key = f"{CASES}/{record.case_id}.zarr/{chunk}"
    try:
        data = bank.read(key)
    except FileNotFoundError as error:
        raise InputError(f"{bank.url}/{key}: missing. {_DAMAGED}") from error
    if hashlib.sha256(data).hexdigest() != stored.sha256:
        raise InputError(f"{bank.url}/{key}: not the bytes that were prepared. {_DAMAGED}")
    with writing_to(aside.parent, _ROOM):
        file = aside / chunk
        file.parent.mkdir(parents=True)
        with file.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())


_DAMAGED = "The bank is damaged: `phantumor copy` it there again"
