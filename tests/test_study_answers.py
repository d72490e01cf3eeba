"""Answers are on disk when they are accepted, and a crash loses none of them."""

from __future__ import annotations

import csv
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PhantumorError
from pipeline.study.answers import Answer, AnswerBook, Reader, answers_csv


def answer(number: int, **changes: Any) -> Answer:
    facts: dict[str, Any] = {
        "number": number,
        "trial": f"t{number}",
        "cases": ("001",),
        "practice": False,
        "repeat": False,
        "answer": "real",
        "confidence": 3,
        "time_ms": 1500.0,
        "loading_ms": 80.0,
        "slices_seen": 9,
    }
    return Answer(**(facts | changes))


@pytest.fixture
def book(tmp_path: Path) -> AnswerBook:
    book = AnswerBook(tmp_path)
    book.begin(Reader(name="Ann", role="radiologist", years=8))
    return book


def test_answers_come_back_in_order_with_the_reader(book: AnswerBook, tmp_path: Path) -> None:
    assert all(book.add("ann", answer(k)) for k in range(3))
    reader, given = AnswerBook(tmp_path).read("ann")
    assert reader is not None
    assert (reader.role, reader.years) == ("radiologist", 8)
    assert [one.number for one in given] == [0, 1, 2]
    assert all(one.at for one in given)


def test_only_the_next_answer_is_taken(book: AnswerBook) -> None:
    assert book.add("ann", answer(0))
    assert not book.add("ann", answer(0, answer="synthetic"))
    assert not book.add("ann", answer(2))
    assert not book.add("ben", answer(0))
    assert [one.answer for one in book.read("ann")[1]] == ["real"]


def test_who_comes_back_goes_on(book: AnswerBook) -> None:
    book.add("ann", answer(0))
    assert book.begin(Reader(name="ANN", role="other")).role == "radiologist"
    assert len(book.read("ann")[1]) == 1


@pytest.mark.parametrize("torn", [b"{", b'{"type":"answer","number":1,"tri', b"\xff\xfe"])
def test_a_line_cut_off_by_a_crash_is_dropped_and_written_over(book: AnswerBook, tmp_path: Path, torn: bytes) -> None:
    book.add("ann", answer(0))
    with (tmp_path / "ann.jsonl").open("ab") as file:
        file.write(torn)
    again = AnswerBook(tmp_path)
    assert len(again.read("ann")[1]) == 1
    assert again.add("ann", answer(1))
    assert [one.number for one in AnswerBook(tmp_path).read("ann")[1]] == [0, 1]


def test_damage_in_the_middle_is_named(book: AnswerBook, tmp_path: Path) -> None:
    book.add("ann", answer(0))
    path = tmp_path / "ann.jsonl"
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(PhantumorError, match=r"ann\.jsonl, line 3.*Restore"):
        book.read("ann")


def test_an_answer_is_flushed_before_it_is_accepted(book: AnswerBook, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])
    book.add("ann", answer(0))
    assert events.count("fsync") == 2  # the file, and its folder


def test_two_readers_at_once_do_not_mix(book: AnswerBook) -> None:
    book.begin(Reader(name="Ben"))

    def read(name: str) -> None:
        for k in range(20):
            assert book.add(name, answer(k, trial=name))

    threads = [threading.Thread(target=read, args=(name,)) for name in ("ann", "ben")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("ann", "ben"):
        assert [one.trial for one in book.read(name)[1]] == [name] * 20


def test_csv_has_a_line_an_answer_and_no_formula(tmp_path: Path) -> None:
    book = AnswerBook(tmp_path)
    book.begin(Reader(name="Eve", role="=cmd()"))
    book.add("eve", answer(0, cases=("001", "002"), answer="left"))
    (row,) = csv.DictReader(io.StringIO(answers_csv(book, ["eve", "nobody"])))
    assert (row["reader"], row["cases"], row["answer"], row["confidence"]) == ("eve", "001 002", "left", "3")
    assert row["role"] == "'=cmd()"
