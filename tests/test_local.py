"""Executors of this machine: in this process, and in a pool whose workers are killed, stopped and cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakes import act
from tests.scripted import jobs_of
from workers.attempt import ShardJob, ShardReport
from workers.executor import Executor, Result, SerialExecutor
from workers.failure import Failure
from workers.local import ProcessExecutor


@contextmanager
def pool(workers: int = 2) -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(workers, act)
    try:
        yield executor
    finally:
        executor.close()


def jobs_in(folder: Path, count: int, **orders: str) -> list[ShardJob]:
    """Jobs of a dataset in `folder`; `s3="die"` is the order for shard 3."""
    for name, order in orders.items():
        (folder / name.removeprefix("s")).write_text(order)
    return [replace(job, dataset=str(folder)) for job in jobs_of(count)]


def results(executor: Executor, jobs: list[ShardJob]) -> dict[int, Result]:
    """What became of each shard."""
    shards = {executor.submit(job): job.shard for job in jobs}
    found: dict[int, Result] = {}
    while len(found) < len(jobs):
        found |= {shards[handle]: result for handle, result in executor.wait(5.0)}
    return found


def pids(folder: Path, shard: int) -> list[int]:
    return [int(line) for line in (folder / f"{shard}.pids").read_text().split()]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Until it holds; a `process` that ends before is a failure that says why."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


# ---- this process ----


def test_serial_runs_one_at_a_time_and_hands_failures_back(tmp_path: Path) -> None:
    executor = SerialExecutor(act)
    handles = [executor.submit(job) for job in jobs_in(tmp_path, 3, s1="raise")]
    executor.cancel(handles[2])
    [(first, made)] = executor.wait(1.0)
    [(second, failed)] = executor.wait(1.0)
    assert executor.wait(0.0) == []
    assert (first, second) == tuple(handles[:2])
    assert isinstance(made, ShardReport)
    assert isinstance(failed, Failure)
    assert (failed.sample, failed.kind) == (9, "UnpicklableError")
    assert (executor.slots(), executor.window()) == (1, 1)
    assert pids(tmp_path, 0) == [os.getpid()]


# ---- a pool ----


@dataclass(frozen=True)
class Ran:
    """What a pool of two made of eight shards, some of them troubled."""

    folder: Path
    found: dict[int, Result]

    def failure(self, shard: int) -> Failure:
        result = self.found[shard]
        assert isinstance(result, Failure)
        return result


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    with pool() as executor:
        found = results(executor, jobs_in(folder, 8, s1="die", s2="raise", s4="die once", s5="refuse"))
        assert executor.wait(0.0) == []
    return Ran(folder, found)


def test_a_pool_makes_what_can_be_made_in_few_processes(ran: Ran) -> None:
    assert [shard for shard in range(8) if isinstance(ran.found[shard], ShardReport)] == [0, 3, 4, 6, 7]
    used = {pid for shard in range(8) for pid in pids(ran.folder, shard)}
    assert os.getpid() not in used
    assert len(used) <= 2 + 4  # the four that died were replaced
    assert not any(alive(pid) for pid in used)


def test_what_a_worker_raises_comes_back_in_words(ran: Ran) -> None:
    bug = ran.failure(2)
    assert (bug.shard, bug.sample, bug.spec, bug.kind) == (2, 9, '{"index": 9}', "UnpicklableError")
    assert "raise SampleError" in bug.traceback
    assert "InputError" in ran.failure(5).kinds


def test_a_killed_worker_costs_its_own_shard_a_try_and_the_others_nothing(ran: Ran) -> None:
    assert [len(pids(ran.folder, shard)) for shard in range(8)] == [1, 3, 1, 1, 2, 1, 1, 1]
    assert ran.failure(1).died
    assert ran.failure(1).message == "its worker ended 3 times, last by SIGKILL (out of memory?)"


def test_what_is_cancelled_makes_room_and_tidies_up(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 3, s0="hang")
    with pool(1) as executor:
        stuck, queued = executor.submit(jobs[0]), executor.submit(jobs[1])
        wait_for(lambda: (tmp_path / "0.pids").exists())
        executor.cancel(queued)
        executor.cancel(stuck)
        [(_, result)] = waited(executor, jobs[2])
        wait_for((tmp_path / "0.left").exists)
    assert isinstance(result, ShardReport)
    assert result.shard == 2
    assert not (tmp_path / "1.pids").exists()


def waited(executor: Executor, job: ShardJob) -> list[tuple[int, Result]]:
    executor.submit(job)
    found: list[tuple[int, Result]] = []
    while not found:
        found = executor.wait(5.0)
    return found


def test_closing_stops_what_runs_and_even_what_is_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.local._GRACE_S", 0.5)
    jobs = jobs_in(tmp_path, 2, s0="hang", s1="hang")
    with pool() as executor:
        for job in jobs:
            executor.submit(job)
        wait_for(lambda: all((tmp_path / f"{shard}.pids").exists() for shard in (0, 1)))
        frozen, hanging = (pids(tmp_path, shard)[0] for shard in (0, 1))
        os.kill(frozen, signal.SIGSTOP)
    assert (tmp_path / "1.left").exists()
    assert not (tmp_path / "0.left").exists()
    assert not alive(frozen)
    assert not alive(hanging)


DRIVER = """
import sys
from pathlib import Path
from tests.test_local import jobs_in, pool
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with pool() as executor:
        for job in jobs_in(folder, 2, s0="hang", s1="hang"):
            executor.submit(job)
        (folder / "waiting").touch()
        executor.wait(60.0)
        print("woke up")
"""


@contextmanager
def driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with a pool of two workers, in a process group of its own."""
    script = folder / "driver.py"
    script.write_text(DRIVER)
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_workers_leave_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    with driver(tmp_path) as process:
        wait_for(lambda: all((tmp_path / f"{shard}.pids").exists() for shard in (0, 1)), process)
        process.kill()
        workers = [pids(tmp_path, shard)[0] for shard in (0, 1)]
        wait_for(lambda: not any(alive(pid) for pid in workers))
    assert (tmp_path / "0.left").exists()


def is_deaf(pid: int) -> bool:
    """Whether SIGINT is blocked, where that can be looked up."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return True
    [blocked] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigBlk")]
    return bool(int(blocked, 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.parametrize("when", ["waiting", "1.pids"])
def test_ctrl_c_is_the_drivers_alone(tmp_path: Path, when: str) -> None:
    with driver(tmp_path) as process:
        wait_for((tmp_path / when).exists, process)
        if when == "1.pids":
            assert all(is_deaf(pids(tmp_path, shard)[0]) for shard in (0, 1) if (tmp_path / f"{shard}.pids").exists())
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, also while workers still start
        out, said = process.communicate(timeout=60)
    assert "woke up" not in out
    assert said.count("KeyboardInterrupt") == 1
    assert said.count("Traceback") == 1
