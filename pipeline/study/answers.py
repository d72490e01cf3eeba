"""The answers of readers: one file each, one JSON line an answer, appended and flushed to disk before it is accepted.

    {"type": "reader", "name": "Ann", "role": "radiologist", "years": 8, "at": "2026-01-31T09:00:00+00:00"}
    {"type": "answer", "number": 4, "trial": "t012", "cases": ["007"], "answer": "real", "confidence": 4, ...}

A line that was cut off by a crash was never accepted; it is dropped, and the reader is asked again.
"""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import PhantumorError
from pipeline.files import sync_folder
from pipeline.settings import explain
from pipeline.study.design import reader_id

ENDING = ".jsonl"
YEARS_MOST = 80


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reader(_Line):
    """Who reads; said once, at the start."""

    type: Literal["reader"] = "reader"
    name: str
    role: str = Field(default="", max_length=60)
    years: float | None = Field(default=None, ge=0, le=YEARS_MOST)  # of experience
    at: str = ""

    @property
    def id(self) -> str:
        return reader_id(self.name)


class Answer(_Line):
    """One answer. `answer` is what was said: `real`, `synthetic`, `unsure`, or the synthetic side as it was shown."""

    type: Literal["answer"] = "answer"
    number: int = Field(ge=0)
    trial: str
    cases: tuple[str, ...]  # as they were shown, from left to right
    practice: bool
    repeat: bool
    answer: Literal["real", "synthetic", "unsure", "left", "right"]
    confidence: int | None = Field(ge=1, le=5)  # None with `unsure`
    time_ms: float = Field(ge=0)  # looking, without loading and without time in a hidden tab
    loading_ms: float = Field(ge=0)
    slices_seen: int = Field(ge=0)
    at: str = ""


_LINE: TypeAdapter[Reader | Answer] = TypeAdapter(Annotated[Reader | Answer, Field(discriminator="type")])


class AnswerBook:
    """The answers folder of a study. Safe for the threads of one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def readers(self) -> list[str]:
        """Ids of those who have begun."""
        return sorted(path.name.removesuffix(ENDING) for path in self._folder.glob(f"*{ENDING}"))

    def begin(self, reader: Reader) -> Reader:
        """Enter a reader, or find the one of this name who has begun."""
        with self._lock:
            known, _ = self._read(reader.id)
            if known is not None:
                return known
            entered = reader.model_copy(update={"at": _now()})
            self._append(reader.id, entered)
            return entered

    def read(self, reader: str) -> tuple[Reader | None, list[Answer]]:
        """A reader by id, and the answers so far in the order given; None for one who has not begun."""
        with self._lock:
            return self._read(reader)

    def add(self, reader: str, answer: Answer) -> bool:
        """Keep an answer, on disk before this returns. False when it is not the next one: late, or too early."""
        with self._lock:
            known, given = self._read(reader)
            if known is None or answer.number != len(given):
                return False
            self._append(reader, answer.model_copy(update={"at": _now()}))
            return True

    def _read(self, reader: str) -> tuple[Reader | None, list[Answer]]:
        path = self._folder / f"{reader}{ENDING}"
        lines = list(_lines(path)) if path.exists() else []
        if not lines:
            return None, []
        first, *rest = lines
        if not isinstance(first, Reader) or not all(isinstance(line, Answer) for line in rest):
            raise PhantumorError(f"{path}: damaged: one reader comes first, answers follow. Restore it from a copy")
        return first, [line for line in rest if isinstance(line, Answer)]

    def _append(self, reader: str, line: Reader | Answer) -> None:
        path = self._folder / f"{reader}{ENDING}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)  # of a line cut off by a crash nothing may stay before the next one
            file.seek(whole)
            file.write(line.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._folder)


def _lines(path: Path) -> Iterator[Reader | Answer]:
    """Lines that were written whole."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            yield _LINE.validate_json(line)
        except ValidationError as error:
            raise PhantumorError(
                f"{path}, line {number}: damaged: {explain(error)}. Restore the file from a copy, or remove the line "
                "and all after it: the reader goes on from there"
            ) from error


COLUMNS = ("reader", "role", "years", *(name for name in Answer.model_fields if name != "type"))


def answers_csv(book: AnswerBook, readers: Sequence[str]) -> str:
    """All answers of these readers as CSV, without the truth."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name in readers:
        reader, given = book.read(name)
        if reader is not None:
            writer.writerows(csv_row(reader, answer) for answer in given)
    return out.getvalue()


def csv_row(reader: Reader, answer: Answer) -> dict[str, Any]:
    """A line of the CSV, by `COLUMNS`."""
    row: dict[str, Any] = answer.model_dump(exclude={"type"}) | {"cases": " ".join(answer.cases)}
    return {"reader": reader.id, "role": _plain(reader.role), "years": reader.years} | row


def _plain(text: str) -> str:
    """No cell that a spreadsheet would run as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
