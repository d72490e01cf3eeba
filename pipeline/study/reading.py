"""What a reader may see and answer next. Knows the truth of practice trials only, and no way back.

In: a study, its practice truth and its answer book. Out: JSON-ready records for the page, and paths of cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import InputError
from pipeline.study.answers import ENDING, Answer, AnswerBook, Reader
from pipeline.study.design import ANSWERS, CASES, PRACTICE, Presentation, Study, order, read_record, read_study

AHEAD = 1  # screens that the page may load before they are reached


class Practice(BaseModel):
    """`practice.json`: the right answer of each practice trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trials: Mapping[str, str]


class Given(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reader: str
    number: int = Field(ge=0)
    answer: Literal["real", "synthetic", "unsure", "left", "right"]
    confidence: int | None = Field(default=None, ge=1, le=5)
    time_ms: float = Field(ge=0, lt=1e9)
    loading_ms: float = Field(ge=0, lt=1e9)
    slices_seen: int = Field(ge=0, lt=100_000)


def check_answers(shown: Sequence[Presentation], file: Path, given: Sequence[Answer]) -> None:
    """InputError where the answers of a reader's file are not to what this study shows the reader, one by one."""
    for number, one in enumerate(given):
        screen = shown[number] if number < len(shown) else None
        if screen is None or asdict(screen) != one.model_dump(include=set(asdict(screen))):
            raise InputError(
                f"{file}: answer {number + 1} is to trial {one.trial}, which this study does not show this reader "
                "there: the file is of another study or reader. Put back the one of this study, or move it elsewhere"
            )


class Reading:
    """A study in progress, for any number of readers at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.study: Study = read_study(folder)
        self._practice = read_record(folder / PRACTICE, Practice, "copy the whole study folder").trials
        if {trial.id for trial in self.study.practice} - set(self._practice):
            raise InputError(f"{folder / PRACTICE}: is of another study; copy the whole study folder")
        if not (folder / ANSWERS).is_dir():
            raise InputError(
                f"{folder / ANSWERS}: no such folder, which takes the answers; copy the whole study folder"
            )
        self.book = AnswerBook(folder / ANSWERS)
        self._order = lru_cache(maxsize=64)(self._ordered)

    def begin(self, reader: Reader) -> dict[str, Any]:
        """Enter a reader, or let the one of this name go on; the state, with whether the name was `known`."""
        known = reader.id in self.book.readers()
        return self.state(self.book.begin(reader).id) | {"known": known}

    def state(self, reader: str) -> dict[str, Any]:
        """Where a reader is: screens done and left, and what the next one shows."""
        shown, given = self._where(reader)
        done = len(given)
        practice = len(self.study.practice)
        return {
            "reader": reader,
            "mode": self.study.mode,
            "organ": self.study.organ,
            "range_hu": list(self.study.range_hu),
            "done": done,
            "of": len(shown),
            "practice": practice,
            "next": self._screen(shown[done]) if done < len(shown) else None,
        }

    def answer(self, given: Given) -> tuple[bool, dict[str, Any]]:
        """Keep an answer; whether it is kept, and the state with what was right where it was practice.

        One that is not the next is not kept. The very answer that was kept last, sent again as its sender has not
        heard of it, is.
        """
        shown, _ = self._where(given.reader)
        if given.number >= len(shown):
            return False, self.state(given.reader)
        screen = shown[given.number]
        self._check_kind(given)
        said = given.model_dump(exclude={"reader", "number"})
        kept = self.book.add(given.reader, Answer(**asdict(screen), **said)) or self._is_last(given, said)
        state = self.state(given.reader)
        if kept and screen.practice:
            state["right"] = self._practice[screen.trial]
        return kept, state

    def _is_last(self, given: Given, said: Mapping[str, Any]) -> bool:
        _, answers = self.book.read(given.reader)
        return given.number == len(answers) - 1 and said.items() <= answers[-1].model_dump().items()

    def case_file(self, reader: str, number: int, side: int) -> Path | None:
        """The file of a case that the reader's present or next screen shows; None for every other one."""
        shown, given = self._where(reader)
        if not len(given) <= number <= min(len(given) + AHEAD, len(shown) - 1):
            return None
        cases = shown[number].cases
        return self._folder / CASES / f"{cases[side]}.nii" if 0 <= side < len(cases) else None

    def _screen(self, shown: Presentation) -> dict[str, Any]:
        """No trial and no case number: a repeated screen must look like any other."""
        places = [list(self.study.places_vox[case]) for case in shown.cases]
        return {"number": shown.number, "practice": shown.practice, "places": places}

    def _where(self, reader: str) -> tuple[tuple[Presentation, ...], list[Answer]]:
        if reader not in self.book.readers():
            raise InputError("nobody of this name has begun; start with your name")
        shown, given = self._order(reader), self.book.read(reader)[1]
        check_answers(shown, self._folder / ANSWERS / f"{reader}{ENDING}", given)
        return shown, given

    def _ordered(self, reader: str) -> tuple[Presentation, ...]:
        return order(self.study, reader)

    def _check_kind(self, given: Given) -> None:
        allowed = ("left", "right") if self.study.mode == "2afc" else ("real", "synthetic", "unsure")
        if given.answer not in allowed:
            raise InputError(f"the answer is one of {', '.join(allowed)} in this study, not {given.answer!r}")
        if (given.confidence is None) != (given.answer == "unsure"):
            raise InputError("an answer has a confidence of 1 to 5, `unsure` has none")
