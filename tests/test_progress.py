"""Time spans and sizes for people, and a progress line that says what is left."""

from __future__ import annotations

import io

import pytest

from pipeline import progress
from pipeline.progress import Progress, duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_time_span(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1500, "1.5 kB"),
        (2_654_000, "2.7 MB"),
        (16_000_000_000, "16.0 GB"),
        (3.2e15, "3200.0 TB"),
        (999.6, "1.0 kB"),
        (999_960, "1.0 MB"),
    ],
)
def test_a_size(count: float, text: str) -> None:
    assert size(count) == text


class Clock:
    """A clock that tests turn."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_a_log_gets_a_line_now_and_then_and_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(100, "samples", stream=stream)
    for _ in range(100):
        clock.now += 1
        shown.advance(1)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "10/100 samples, 1.0/s, 1 min 30 s left"
    assert lines[-1] == "100/100 samples, 1.0/s"
    assert len(lines) == 10
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_is_rewritten(clock: Clock) -> None:
    stream = Terminal()
    shown = Progress(3, "shards", stream=stream)
    for _ in range(3):
        clock.now += 1
        shown.advance(1)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("3/3 shards, 1.0/s\n")
    assert [line.removeprefix("\x1b[K") for line in stream.getvalue().split("\r")][1:] == [
        "1/3 shards, 1.0/s, 2 s left",
        "2/3 shards, 1.0/s, 1 s left",
        "3/3 shards, 1.0/s\n",
    ]


def test_a_terminal_is_not_flooded(clock: Clock) -> None:
    stream = Terminal()
    shown = Progress(10_000, "samples", stream=stream)
    for _ in range(5000):
        clock.now += 0.001
        shown.advance(1)
    assert 10 < stream.getvalue().count("\r") < 30


def test_what_an_earlier_run_did_counts_as_done_but_not_for_the_rate(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(100, "samples", done=50, stream=stream)
    clock.now += 10
    shown.advance(10, note=" (again)")
    assert stream.getvalue() == "60/100 samples, 1.0/s, 40 s left (again)\n"


def test_an_instant_end_divides_by_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    Progress(5, "samples", stream=stream).advance(5)
    assert stream.getvalue().startswith("5/5 samples, ")


def test_progress_goes_to_stderr(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    Progress(1, "samples").advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/1 samples" in err
