"""Things that many threads want: made once, tried again after a failure, let go of when they are old."""

from __future__ import annotations

import threading

import pytest

from pipeline.once_each import OnceEach


def test_however_many_ask_a_thing_is_made_once() -> None:
    asked, go_on, made = threading.Barrier(5), threading.Event(), []

    def make(key: str) -> str:
        made.append(key)
        go_on.wait()
        return key.upper()

    shared = OnceEach(make, 4)
    found: list[str] = []

    def ask() -> None:
        asked.wait()
        found.append(shared.get("a"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    asked.wait()
    go_on.set()
    for thread in threads:
        thread.join()
    assert (found, made) == (["A"] * 4, ["a"])


def test_what_failed_is_tried_again_and_what_is_old_is_let_go_of() -> None:
    made: list[int] = []

    def make(key: int) -> int:
        made.append(key)
        if len(made) == 1:
            raise OSError("once")
        return key

    shared = OnceEach(make, 2)
    with pytest.raises(OSError, match="once"):
        shared.get(1)
    assert [shared.get(key) for key in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 1, 2, 3, 2]
