"""Running the steps of an experiment, one or several at once: order, failures, Ctrl-C; commands as processes."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.errors import PhantumorError
from pipeline.experiments.ledger import Ledger
from pipeline.experiments.plan import Step
from pipeline.experiments.processes import Processes, only_one
from pipeline.experiments.runner import run_steps

WAIT_S = 20.0  # longer than anything here takes, but no test hangs


class Commands:
    """Stands in for phantumor: a step writes its product, and does as told."""

    def __init__(self, **acts: Callable[[], int]) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self.stops = 0
        self._acts, self._guard = acts, threading.Lock()

    def __call__(self, words: Sequence[str], name: str) -> int:
        with self._guard:
            self.began.append(name)
            self.most = max(self.most, len(self.began) - len(self.ended))
        code = self._acts.get(name, lambda: 0)()
        Path(words[-1]).write_text(name)
        with self._guard:
            self.ended.append(name)
        return code

    def stop(self) -> None:
        self.stops += 1


def steps(out: Path, *described: str) -> list[Step]:
    """`name:product<need,need`; the product is the name where none is told."""
    found = []
    for words in described:
        front, _, needs = words.partition("<")
        name, _, product = front.partition(":")
        file = out / (product or name)
        found.append(Step(name, ("make", name, str(file)), file, tuple(needs.split(",")) if needs else ()))
    return found


def run(out: Path, planned: Sequence[Step], commands: Commands, jobs: int, log: Callable[[str], None] = print) -> None:
    run_steps(planned, Ledger(out), log, commands, lambda _: (), jobs)


def meet(*, others: int = 1) -> Callable[[], int]:
    """Returns only when so many others have come as well: proves that they ran at once."""
    barrier = threading.Barrier(1 + others)
    return lambda: int(barrier.wait(WAIT_S) < 0)


# -- several at once --------------------------------------------------------------------------------------------------


def test_independent_steps_run_at_once_and_no_more_than_asked(tmp_path: Path) -> None:
    both = meet()
    commands = Commands(a=both, b=both)
    run(tmp_path, steps(tmp_path, "a", "b", "c<a", "d<b", "e<c,d"), commands, jobs=2)
    assert set(commands.began[:2]) == {"a", "b"}
    assert commands.began[-1] == "e"
    assert commands.most == 2


def test_with_one_job_steps_run_in_their_order(tmp_path: Path) -> None:
    commands = Commands()
    run(tmp_path, steps(tmp_path, "c", "a<c", "b"), commands, jobs=1)
    assert commands.began == ["c", "a", "b"]
    assert commands.most == 1


def test_steps_that_write_the_same_file_take_turns_in_their_order(tmp_path: Path) -> None:
    commands = Commands()
    run(tmp_path, steps(tmp_path, "train:bank", "val:bank", "test:bank"), commands, jobs=3)
    assert commands.began == ["train", "val", "test"]
    assert commands.most == 1


def test_a_failure_lets_the_others_end_and_starts_nothing(tmp_path: Path) -> None:
    failed, lines = threading.Event(), list[str]()

    def log(line: str) -> None:
        lines.append(line)
        if "still at work: slow" in line:
            failed.set()

    commands = Commands(bad=lambda: 3, slow=lambda: 0 if failed.wait(WAIT_S) else 9)
    planned = steps(tmp_path, "bad", "slow", "next<slow", "other")
    with pytest.raises(PhantumorError) as caught:
        run(tmp_path, planned, commands, jobs=2, log=log)
    assert str(caught.value).startswith("`phantumor make bad ")
    assert "ended with exit code 3, see above. Run the same command again" in str(caught.value)
    assert sorted(commands.ended) == ["bad", "slow"]
    again = Commands()
    run(tmp_path, planned, again, jobs=2)
    assert sorted(again.began) == ["bad", "next", "other"]  # slow was finished, and counts


def test_two_failures_are_one_message(tmp_path: Path) -> None:
    both = meet()
    commands = Commands(a=lambda: both() or 1, b=lambda: both() or 2)
    with pytest.raises(PhantumorError, match=r"make . \S+` ended with exit code . and `phantumor make .* see"):
        run(tmp_path, steps(tmp_path, "a", "b"), commands, jobs=2)


def test_an_interrupt_stops_all_and_keeps_what_ended_well(tmp_path: Path) -> None:
    stopped = threading.Event()

    class Stopping(Commands):
        def stop(self) -> None:
            super().stop()
            stopped.set()

    def interrupted() -> int:
        raise KeyboardInterrupt

    ends_well, ends_early = (lambda: 0 if stopped.wait(WAIT_S) else 9), (lambda: int(stopped.wait(WAIT_S)))
    commands = Stopping(well=ends_well, early=ends_early, c=interrupted)
    planned = steps(tmp_path, "well", "early", "c", "last<c")
    with pytest.raises(KeyboardInterrupt, match="Run the same command again"):
        run(tmp_path, planned, commands, jobs=3)
    assert commands.stops == 1
    assert [step.name for step in planned if Ledger(tmp_path).is_done(step)] == ["well"]


# -- commands as processes --------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
try:
    print(sys.argv[1], "begins"); print("trouble", file=sys.stderr)
    time.sleep(60 if sys.argv[1] == "long" else 0)
except KeyboardInterrupt:
    print("checkpoint written"); sys.exit(1)
sys.exit(7)
"""
PROGRAM = (sys.executable, "-c", SCRIPT)


def test_lines_of_named_commands_tell_whose_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = io.StringIO()
    with only_one(tmp_path, print) as lock:
        assert Processes(lock, shown, named=True, program=PROGRAM)(["short"], "train a-0") == 7
    assert shown.getvalue() == "[train a-0] short begins\n"
    assert capsys.readouterr().err == "[train a-0] trouble\n"


def test_commands_run_with_the_exit_codes_of_phantumor(tmp_path: Path) -> None:
    with only_one(tmp_path, print) as lock:
        assert Processes(lock, None)(["experiment", "report", str(tmp_path / "none")], "report") == 2


def test_a_stop_lets_commands_end_by_themselves_and_starts_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.experiments.processes._TO_STOP_S", 0.0)
    begun = threading.Semaphore(0)

    class Shown(io.StringIO):
        def write(self, text: str) -> int:
            begun.release()
            return super().write(text)

    shown, codes = Shown(), list[int]()
    with only_one(tmp_path, print) as lock:
        commands = Processes(lock, shown, named=True, program=PROGRAM)
        threads = [threading.Thread(target=lambda: codes.append(commands(["long"], "a"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert all(begun.acquire(timeout=WAIT_S) for _ in threads)
        commands.stop()
        for thread in threads:
            thread.join(WAIT_S)
        assert commands(["long"], "late") == 1
    assert codes == [1, 1]
    assert "late" not in shown.getvalue()


def test_commands_are_told_when_they_do_not_end_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = _Child()
    monkeypatch.setattr("pipeline.experiments.processes.subprocess.Popen", lambda *_, **__: child)
    with only_one(tmp_path, print) as lock:
        commands = Processes(lock, None)
        thread = threading.Thread(target=lambda: commands(["train"], "a"))
        thread.start()
        assert child.begun.wait(WAIT_S)
        commands.stop()
        thread.join(WAIT_S)
    assert child.told == [signal.SIGINT]


class _Child:
    """A process that does not stop before it is told."""

    stdout = stderr = None

    def __init__(self) -> None:
        self.told: list[int] = []
        self.begun, self._told = threading.Event(), threading.Event()

    def wait(self, timeout: float | None = None) -> int:
        self.begun.set()
        if timeout is None:
            self._told.wait(WAIT_S)
        return 1

    def send_signal(self, number: int) -> None:
        self.told.append(number)
        self._told.set()


def test_a_call_waits_for_the_command_that_a_killed_one_left_behind(tmp_path: Path) -> None:
    lines: list[str] = []
    told, entered = threading.Event(), threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        told.set()

    def second() -> None:
        with only_one(tmp_path, log):
            entered.set()

    with only_one(tmp_path, print):
        other = threading.Thread(target=second)
        other.start()
        assert told.wait(WAIT_S)
        assert not entered.is_set()
    other.join(WAIT_S)
    assert entered.is_set()
    assert "another process is at work there" in lines[0]
