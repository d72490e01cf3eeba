"""A bank, prepared cases on disk: opened for reading, and written case by case.

The format is in `pipeline.bank_format`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import __version__
from pipeline.bank_cache import bank_folder, fetch_case
from pipeline.bank_format import (
    CASE_ID,
    CASES,
    FORMAT,
    FORMAT_VERSION,
    INFO,
    TABLE,
    VOLUMES,
    CaseRecord,
    StoredArray,
    arrays_of,
    chunk_file,
    dtype_of,
    per_organ,
    record_of,
    records_of,
    table_of,
    write_group,
)
from pipeline.case import Case
from pipeline.errors import InputError, PhantumorError
from pipeline.files import replace_file, sync_folder, writing_to
from pipeline.organs import CLASS_IDS
from pipeline.store import FolderStore, Location, Store, open_store

__all__ = ["Bank", "BankWriter", "CaseRecord", "create_or_open_bank", "next_split", "open_bank"]

SPACING_LIMITS_MM = (0.2, 10.0)  # finer than any CT matrix, coarser than any organ needs
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
RECENT_CASES = 16  # that a bank keeps open; their pages are the system's to keep or drop
RESUME = "Cases that are already in the bank are whole; run the same command again"


@dataclass(frozen=True, eq=False)
class Bank:
    """An opened bank. Two are the same bank where their fingerprints agree."""

    path: Path  # the folder with the cases; of a bank in an object store, this node's copies of them
    spacing_mm: float
    records: tuple[CaseRecord, ...]  # by case id
    remote: Store | None = None  # the object store that it lies in

    @property
    def place(self) -> str:
        """Where it lies, for other processes and for a dataset's description."""
        return self.remote.url if self.remote else str(self.path.resolve())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over format version, spacing, and id, split and array digests of every case."""
        return fingerprint_of(self.spacing_mm, self.records)

    def healthy(self) -> Bank:
        """The bank without its annotated cases, which take no synthetic tumors; InputError when it holds no other."""
        found = tuple(record for record in self.records if not record.annotated)
        if not found:
            raise InputError(
                f"{self.place}: all of its cases are annotated: they keep the patients' own tumors and take no "
                "synthetic ones; give a bank of healthy cases"
            )
        return self if len(found) == len(self.records) else replace(self, records=found)

    def load(self, case_id: str) -> Case:
        """A case whose arrays are read-only memory maps, shared by all processes that load it.

        The same object again for a case that is among the last RECENT_CASES, as long as its files are whole.
        """
        record = self._record(case_id)
        if self.remote:
            fetch_case(self.remote, record, self.path)
        if not self._files_are_whole(case_id):
            for name, stored in record.arrays.items():
                self._whole_file(record, name, stored)  # says which one, and why
        return self._open(case_id)

    def _files_are_whole(self, case_id: str) -> bool:
        """The look at all files of a case that every sample takes; as plain strings, a tenth of the time of paths."""
        try:
            return all(os.stat(file).st_size == size for file, size in self._files(case_id))  # noqa: PTH116
        except OSError:
            return False

    @cached_property
    def _files(self) -> Callable[[str], tuple[tuple[str, int], ...]]:
        return lru_cache(RECENT_CASES)(self._files_anew)

    def _files_anew(self, case_id: str) -> tuple[tuple[str, int], ...]:
        record = self._record(case_id)
        group = case_folder(self.path, case_id)
        return tuple(
            (str(chunk_file(group, name, len(stored.shape))), math.prod(stored.shape) * dtype_of(name).itemsize)
            for name, stored in record.arrays.items()
        )

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; open cases hold memory maps, which stay here."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _open(self) -> Callable[[str], Case]:
        return lru_cache(RECENT_CASES)(self._open_anew)

    def _open_anew(self, case_id: str) -> Case:
        record = self._record(case_id)
        arrays: dict[str, Any] = {name: self._mapped(record, name, stored) for name, stored in record.arrays.items()}
        return Case(
            case_id=case_id,
            **{name: arrays[name] for name in VOLUMES},
            **per_organ(arrays, record.usable_organs),
            stats=record.stats,
            spacing_mm=record.spacing_mm,
            affine=record.affine,
            phase=record.phase,
            split=record.split,
            sources=record.sources,
            annotated=record.annotated,
        )

    def check(self, case_id: str) -> None:
        """Read every byte of a case and compare it with what was written; InputError for a damaged array."""
        record = self._record(case_id)
        if self.remote:
            fetch_case(self.remote, record, self.path)
        for name, stored in record.arrays.items():
            if hashlib.sha256(self._mapped(record, name, stored).data).hexdigest() != stored.sha256:
                raise InputError(f"{self._whole_file(record, name, stored)}: its bytes changed since. {_DAMAGED}")

    def _record(self, case_id: str) -> CaseRecord:
        if case_id not in self._by_id:
            known = ", ".join(list(self._by_id)[:8])
            raise InputError(f"{self.path}: no case {case_id!r} in this bank; it holds {len(self._by_id)}: {known}")
        return self._by_id[case_id]

    @cached_property
    def _by_id(self) -> dict[str, CaseRecord]:
        return {record.case_id: record for record in self.records}

    def _mapped(self, record: CaseRecord, name: str, stored: StoredArray) -> npt.NDArray[Any]:
        file = self._whole_file(record, name, stored)
        try:
            with file.open("rb") as stream:
                # np.memmap does the same several times slower.
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}. {_DAMAGED}") from error
        return np.frombuffer(mapped, dtype_of(name)).reshape(stored.shape)

    def _whole_file(self, record: CaseRecord, name: str, stored: StoredArray) -> Path:
        """The file of an array, looked at: there, and as long as it was written."""
        file = chunk_file(case_folder(self.path, record.case_id), name, len(stored.shape))
        expected = math.prod(stored.shape) * dtype_of(name).itemsize
        try:
            found = file.stat().st_size
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}. {_DAMAGED}") from error
        if found != expected:
            raise InputError(f"{file}: holds {found:,} bytes instead of {expected:,}. {_DAMAGED}")
        return file


def fingerprint_of(spacing_mm: float, records: Sequence[CaseRecord]) -> str:
    """What tells banks apart: sha256 (hex) over format version, spacing, and id, split and digests of every case.

    Of an annotated case also over its tumor classes: without any tumor, its arrays are those of a healthy one.
    """
    cases = sorted(
        [r.case_id, r.split, sorted((n, a.sha256) for n, a in r.arrays.items()), *filter(None, [r.annotated])]
        for r in records
    )
    return hashlib.sha256(json.dumps([FORMAT_VERSION, spacing_mm, cases]).encode()).hexdigest()


_DAMAGED = "The bank is damaged; copy it again, or prepare it again into a new folder"


def open_bank(place: Location | Store) -> Bank:
    """Open a bank for reading, in a folder or in an object store (`s3://bucket/prefix`).

    InputError when it is not a bank of this version, or holds no case yet.
    """
    store = open_store(place)
    bank = _read(store)
    if not bank.records:
        where = store.url
        raise InputError(f"{where}: the bank holds no case yet; add some with `phantumor prepare SOURCE --out {where}`")
    return bank


def case_folder(bank: Path, case_id: str) -> Path:
    """The Zarr group of a case."""
    return bank / CASES / f"{case_id}.zarr"


def _read(store: Store) -> Bank:
    info = _read_info(store)
    where = f"{store.url}/{TABLE}"
    try:
        # Not `read_table`: the threads of its scanner may still hold the bytes when the interpreter ends, and abort it.
        data = store.read(TABLE) if store.exists(TABLE) else None
        table = table_of([]) if data is None else pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{where}: not a readable Parquet file ({error}); prepare the bank again") from error
    records, spacing_mm = records_of(table, where), float(info["spacing_mm"])
    if store.folder is not None:
        return Bank(store.folder, spacing_mm, records)
    return Bank(bank_folder(fingerprint_of(spacing_mm, records)), spacing_mm, records, store)


def _read_info(store: Store) -> dict[str, Any]:
    if store.folder is not None and not store.folder.exists():
        raise InputError(f"{store.url}: no such bank; make one with `phantumor prepare SOURCE --out {store.url}`")
    try:
        info = json.loads(store.read(INFO))
        known = info["format"] == FORMAT and isinstance(info["spacing_mm"], float)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{store.url}: not a bank: it has no {INFO}; make one with `phantumor prepare`") from error
    except OSError as error:
        raise PhantumorError(f"{store.url}/{INFO}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{store.url}: not a bank: it has no readable {INFO}; make one with `phantumor prepare`"
        ) from error
    if not known:
        raise InputError(f"{store.url}: not a bank: its {INFO} is of something else")
    if info.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{store.url}: a bank of format version {info.get('format_version')}, this phantumor reads version "
            f"{FORMAT_VERSION}; prepare the bank again, or use the version that made it"
        )
    return dict(info)


def create_or_open_bank(place: Location, spacing_mm: float) -> BankWriter:
    """Open a bank for adding cases, made first where the folder is missing or empty. Use it in a `with` block.

    InputError when the folder holds something else, a bank of another spacing, or one that another process writes to.
    """
    if "://" in str(place):
        raise InputError(f"--out {place}: prepare the bank on a disk, then `phantumor copy` it to an object store")
    path = Path(place)
    if not SPACING_LIMITS_MM[0] <= spacing_mm <= SPACING_LIMITS_MM[1]:
        raise InputError(f"--spacing {spacing_mm}: must be {SPACING_LIMITS_MM[0]} to {SPACING_LIMITS_MM[1]} mm")
    if not FolderStore(path).is_free() and not (path / INFO).exists():
        raise InputError(f"{path}: exists and is not a bank; give --out a new or an empty folder")
    new = not (path / INFO).exists()
    if new:
        with writing_to(path, RESUME):
            (path / CASES).mkdir(parents=True, exist_ok=True)
            replace_file(path / INFO, _info(spacing_mm))
    bank = _read(open_store(path))
    if abs(bank.spacing_mm - spacing_mm) > 1e-6:
        raise InputError(
            f"{path}: this bank has a spacing of {bank.spacing_mm:g} mm, not {spacing_mm:g} mm; "
            f"pass --spacing {bank.spacing_mm:g} or another --out"
        )
    return BankWriter(bank, new)


def _info(spacing_mm: float) -> bytes:
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spacing_mm": float(spacing_mm),
        "classes": CLASS_IDS,
        "phantumor": __version__,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


class BankWriter:
    """Adds cases to a bank. A case is in the bank when its row is: everything else is left over and written anew."""

    def __init__(self, bank: Bank, new: bool) -> None:
        self.path = bank.path
        self.spacing_mm = bank.spacing_mm
        self.records: dict[str, CaseRecord] = {r.case_id: r for r in bank.records}
        self._new = new
        with writing_to(self.path, RESUME):
            self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise InputError(f"{self.path}: another process is adding cases to this bank; wait for it") from error
        for left_over in (self.path / CASES).glob(".*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._new and not self.records:
            self._withdraw()
        self._lock.close()

    def add_case(self, case: Case, *, recipe: str = "") -> CaseRecord:
        """Write a case and commit its row; the row. `recipe` names what the case was made from."""
        if not CASE_ID.fullmatch(case.case_id):
            raise InputError(f"{case.case_id!r}: a case id has letters, digits, '.', '_' and '-' only; rename the case")
        if case.case_id in self.records:
            raise InputError(f"{self.path}: holds a case {case.case_id!r} already; rename one of them")
        if abs(case.spacing_mm - self.spacing_mm) > 1e-6:
            raise ValueError(f"{case.case_id} has {case.spacing_mm} mm, the bank {self.spacing_mm} mm")
        with writing_to(self.path, RESUME):
            arrays = self._write_arrays(case)
            self._commit(self.records | {case.case_id: record_of(case, arrays, recipe)})
        return self.records[case.case_id]

    def set_split(self, case_id: str, split: str) -> None:
        """Give a case that is in the bank a split of its own."""
        record = self.records[case_id]
        if record.split != split:
            with writing_to(self.path, RESUME):
                self._commit(self.records | {case_id: replace(record, split=split)})

    def next_split(self) -> str:
        """The split for a case that nobody gave one."""
        return next_split([record.split for record in self.records.values()])

    def _write_arrays(self, case: Case) -> dict[str, StoredArray]:
        """Write aside, then rename: under its name a case's folder is always whole."""
        arrays = arrays_of(case)
        self._check_space(case.case_id, sum(a.nbytes for a in arrays.values()))
        aside = self.path / CASES / f".{case.case_id}.{os.getpid()}.tmp"
        final = case_folder(self.path, case.case_id)
        try:
            stored = write_group(aside, arrays, {"case_id": case.case_id, "affine": case.affine.tolist()})
            shutil.rmtree(final, ignore_errors=True)  # without a row: left over from a run that was cut off
            aside.rename(final)
            sync_folder(final.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return stored

    def _check_space(self, case_id: str, needed: int) -> None:
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise PhantumorError(
                f"{self.path}: case {case_id!r} needs {needed / 1e6:.0f} MB, "
                f"the disk has {free / 1e6:.0f} MB free. {RESUME}"
            )

    def _commit(self, records: Mapping[str, CaseRecord]) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table_of(list(records.values())), sink, compression="zstd")
        replace_file(self.path / TABLE, sink.getvalue().to_pybytes())
        self.records = dict(sorted(records.items()))

    def _withdraw(self) -> None:
        """Remove the bank that this writer made and put nothing into."""
        for file in (self.path / INFO, self.path / ".lock"):
            file.unlink(missing_ok=True)
        for folder in (self.path / CASES, self.path):
            if not any(folder.iterdir()):
                folder.rmdir()


def next_split(taken: Sequence[str]) -> str:
    """The split of one more case beside cases in the splits `taken`: about 70 % train, 15 % val, 15 % test.

    The first case is `train`, the second `test`, the third `val`. A case that is in keeps its split for ever, so that
    no patient wanders from a training into the test of a later one.
    """
    counts = Counter(taken)
    for split in ("train", "test", "val"):
        if not counts[split]:
            return split
    return max(SHARES, key=lambda split: SHARES[split] * (len(taken) + 1) - counts[split])
