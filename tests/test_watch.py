"""What is said of an object store that does not answer, and when a process that wants to end is left by force."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import PhantumorError
from pipeline.s3_pulse import Pulse
from pipeline.store import FolderStore
from tests.s3_server import ROOT
from tests.scripted import Clock
from workers.watch import Watcher, watched


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


def test_silence_counts_from_the_first_question_without_an_answer(clock: Clock) -> None:
    pulse = Pulse(clock)
    assert pulse.silence_s() == 0
    with pulse.request() as one:
        clock.now = 3
        assert pulse.silence_s() == 3
        with pulse.request() as other:
            clock.now = 5
            assert pulse.silence_s() == 5
            other.answered = True
        assert pulse.silence_s() == 0  # it lives; the first one has waited in vain from now on
        clock.now = 9
        assert pulse.silence_s() == 4
        one.answered = True
    clock.now = 99
    assert pulse.silence_s() == 0


def test_a_request_that_fails_leaves_the_store_silent_until_it_answers(clock: Clock) -> None:
    pulse = Pulse(clock)
    with pytest.raises(OSError, match="away"), pulse.request():
        raise OSError("away")
    clock.now = 20
    with pulse.request():  # a writer that only took the bytes: nobody was asked
        pass
    assert pulse.silence_s() == 20
    with pulse.request() as one:
        one.answered = True
    assert pulse.silence_s() == 0


def test_what_asks_nobody_is_no_silence(clock: Clock) -> None:
    pulse = Pulse(clock)
    with pulse.request():
        pass
    clock.now = 20
    assert pulse.silence_s() == 0


def test_an_outage_and_its_end_are_told_once(clock: Clock) -> None:
    told: list[str] = []
    silence = {5: 5, 11: 11, 13: 13, 14: 14, 40: 0, 41: 0, 60: 15}
    watcher = Watcher("s3://b/data", "http://there", lambda: silence[int(clock.now)], told.append, clock)
    for clock.now in silence:
        assert not watcher.look()
    away, back, again = told
    assert "s3://b/data: http://there has not answered for 13 s (since " in away
    assert "after some minutes the run stops" in away
    assert back == "s3://b/data: http://there answers again after 40 s"
    assert "15 s" in again


@pytest.mark.parametrize(
    ("asked_at", "now", "silence", "leave"),
    [
        (None, 50, 50, False),  # nobody wants it to end
        (10, 13, 100, False),  # what tidies up has a few seconds
        (10, 14, 100, True),
        (10, 14, 3, False),  # it answers: tidying up goes on
        (10, 60, 0, False),
        (10, 60, 4, True),
    ],
)
def test_the_process_is_left_when_tidying_up_gets_no_answer(
    clock: Clock, asked_at: float | None, now: float, silence: float, leave: bool
) -> None:
    watcher = Watcher("s3://b", "there", lambda: silence, lambda line: None, clock)
    if asked_at is not None:
        clock.now = asked_at
        watcher.stop()
    clock.now = now
    assert watcher.look() is leave


def test_what_goes_wrong_inside_comes_out_and_signals_are_given_back(tmp_path: Path) -> None:
    class Remote(FolderStore):
        folder = None  # type: ignore[assignment]

    before = signal.set_wakeup_fd(-1)
    with pytest.raises(PhantumorError), watched([FolderStore(tmp_path), Remote(tmp_path)], print):
        raise PhantumorError("stopped")
    assert signal.set_wakeup_fd(before) == -1


STUCK = """
import sys, time
from pathlib import Path
from pipeline.s3_pulse import PULSE
from pipeline.store import FolderStore
from workers import watch

class Remote(FolderStore):
    folder = None

watch._TELL_S = watch._LEAVE_S = 0.2
with watch.watched([Remote(Path("data"))], print), PULSE.request():
    while True:
        try:
            time.sleep(60)  # as long as the client waits: no signal comes through
        except KeyboardInterrupt:
            pass
"""


MANY_FILES = """
import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
held = [os.dup(0) for _ in range(1100)]
"""


@pytest.mark.parametrize(("number", "before"), [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGINT, MANY_FILES)])
def test_ctrl_c_ends_a_process_that_waits_for_an_answer(number: signal.Signals, before: str) -> None:
    stuck = STUCK if number == signal.SIGINT else f"import signal\nsignal.signal(15, lambda *_: None)\n{STUCK}"
    command = [sys.executable, "-u", "-c", before + stuck]
    environment = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:9 has not answered" in process.stdout.readline()
        process.send_signal(number)
        said, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (1, "")
    assert said.startswith("phantumor: stopped; the object store does not answer")
