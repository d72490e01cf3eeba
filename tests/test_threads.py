"""Work on threads: results in order, the first error, nothing begun that nobody wants."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from pipeline.threads import in_threads


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_come_in_the_order_of_the_items(count: int, threads: int) -> None:
    assert list(in_threads(lambda k: k * k, range(count), threads)) == [k * k for k in range(count)]


def test_several_run_at_once() -> None:
    together = threading.Barrier(3)
    assert len(list(in_threads(lambda _: together.wait(20), range(3), 3))) == 3


def test_items_are_taken_only_a_little_ahead() -> None:
    taken: list[int] = []
    results = in_threads(lambda k: k, (taken.append(k) or k for k in range(100)), 2)  # type: ignore[func-returns-value]
    assert next(results) == 0
    assert len(taken) == 4
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["error", "close"])
def test_nothing_is_begun_after_the_end(how: str) -> None:
    begun: list[int] = []

    def work(k: int) -> int:
        begun.append(k)
        if k == 3 and how == "error":
            raise OSError(5, "unplugged")
        return k

    results = in_threads(work, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    if how == "error":
        with pytest.raises(OSError, match="unplugged"):
            next(results)
    else:
        results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 7  # three results, and four that wait


def test_what_waits_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, cancelled, begun = Future.cancel, threading.Event(), []

    def cancel_and_tell(future: Future[int]) -> bool:
        done = cancel(future)
        if done:
            cancelled.set()
        return done

    def work(k: int) -> int:
        begun.append(k)
        assert k == 0 or cancelled.wait(5)
        return k

    monkeypatch.setattr(Future, "cancel", cancel_and_tell)
    results = in_threads(work, range(10), 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert set(begun) <= {0, 1, 2}  # two threads held 1 and perhaps 2; 3 waited for a thread
