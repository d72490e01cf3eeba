"""Workers and drivers on this machine that are killed, frozen, doubled, or meet a sample that cannot be made."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults import orders
from tests.faults.lab import CONFIG, SHARDS, Lab, Run, committed, wait_for

TWO = ("--workers", 2)
HASTY = {"backup_least_s": 0.5, "look_s": 0.1}  # a straggler is one after half a second
PAUSE = {"pauses_s": [0.05, 0.05]}


def made(run: Run) -> int:
    """Samples that a command says it made."""
    last = run.said().splitlines()[-1]
    return int(last.partition(" samples, ")[2].split()[0])


def last_run(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((max((out / "runs").iterdir()) / "run.json").read_text())
    return found


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_that_is_killed_is_replaced(lab: Lab, out: Path, moment: str) -> None:
    for shard in (2, 7, 11):
        orders.give(out, shard, f"kill {moment}")
    run = lab.generate(out, *TWO)
    assert run.wait() == 0, run.said()
    begun = [shard for shard, _ in orders.notes(out, "begins")]
    assert len(begun) == SHARDS + 3
    assert sorted(shard for shard, _ in orders.notes(out, "already")) == ([2, 7, 11] if moment == "after" else [])
    lab.assert_recovered(out)


def test_a_shard_that_always_kills_its_worker_is_put_aside(lab: Lab, out: Path) -> None:
    orders.give(out, 5, "always kill before")
    run = lab.generate(out, *TWO)
    assert run.wait() == 1
    assert "1 shard (5) could not be made" in run.said()
    assert len([shard for shard, _ in orders.notes(out, "begins") if shard == 5]) == 3
    assert json.loads((out / "failures/000005.json").read_text())["attempts"][-1]["died"]
    orders.take_back(out, 5)
    again = lab.generate(out)
    assert again.wait() == 1
    assert "--retry-failed tries them again" in again.said()
    lab.resume(out, "--retry-failed")
    lab.assert_recovered(out)


@pytest.mark.parametrize(
    "kills", [pytest.param(3, id="3-kills"), pytest.param(40, id="40-kills", marks=pytest.mark.soak)]
)
def test_a_driver_that_is_killed_again_and_again(lab: Lab, out: Path, kills: int) -> None:
    """Kills come at any moment, to the driver alone; its workers leave by themselves, and the command is run again."""
    orders.give(out, "all", "always slow 0.05")
    chance = random.Random(kills)
    seen: list[int] = []
    for _ in range(kills):
        run = lab.generate(out, *TWO)
        goal = len(committed(out)) + chance.randrange(SHARDS // min(kills, 4))
        while run.processes() and len(committed(out)) < goal:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        run.kill()
        assert run.wait() in (-9, 0)
        wait_for(lambda run=run: not run.processes(), "its workers to leave")  # type: ignore[misc]
        seen.append(len(committed(out)))
        if run.code == 0:
            break
    assert seen == sorted(seen)
    lab.resume(out, *TWO)
    lab.assert_recovered(out)
    print(f"\ncommitted shards after each kill: {seen}")


def test_a_killed_machine_leaves_what_the_next_run_removes(lab: Lab, out: Path) -> None:
    """Driver and workers end at once, as by a power cut: nobody tidies up, an hour later the same command does."""
    for shard in (4, 5):
        orders.give(out, shard, "freeze before")
    run = lab.generate(out, *TWO)
    wait_for(lambda: len(orders.notes(out, "stops")) == 2, "two frozen workers")
    run.kill_all(signal.SIGKILL)
    assert run.wait() == -9
    left = [*(out / "shards").glob("00000[45]-*"), *(out / "running").iterdir()]
    assert len(left) == 4
    an_hour_ago = time.time() - 3700
    for path in [path for top in left for path in (top, *top.rglob("*"))]:
        os.utime(path, (an_hour_ago, an_hour_ago))
    lab.resume(out, *TWO)
    assert not any(path.exists() for path in left)
    lab.assert_recovered(out)


def test_a_frozen_worker_costs_nothing_but_its_slot(lab: Lab, out: Path) -> None:
    """Its shard is tried again; with that committed, the frozen one is told to stop, and tidies up as it wakes up."""
    orders.give(out, 3, "freeze before")
    run = lab.generate(out, *TWO, policy={**HASTY, "grace_s": 60.0})
    wait_for(lambda: orders.notes(out, "stops") != [], "a frozen worker")
    [(shard, frozen)] = orders.notes(out, "stops")
    wait_for(lambda: len(committed(out)) == SHARDS, "all others and the backup")
    assert len(list((out / "shards").glob("000003-*"))) == 2
    os.kill(frozen, signal.SIGCONT)
    assert run.wait() == 0, run.said()
    assert [begun for begun, _ in orders.notes(out, "begins")].count(shard) == 2
    assert last_run(out)["counts"]["backups"] == 1  # type: ignore[index]
    assert len(list((out / "shards").glob("000003-*"))) == 1
    lab.assert_recovered(out)


def test_a_worker_that_stays_frozen_is_killed(lab: Lab, out: Path) -> None:
    orders.give(out, 3, "freeze before")
    run = lab.generate(out, *TWO, policy={**HASTY, "grace_s": 1.0})
    assert run.wait() == 0, run.said()
    [(_, frozen)] = orders.notes(out, "stops")
    assert frozen not in run.processes()
    lab.assert_recovered(out)


def test_a_machine_that_slept_loses_every_race_and_ends_well(lab: Lab, out: Path) -> None:
    """Driver and workers sleep in the middle of two shards; another machine finishes the dataset; then they wake up."""
    for shard in (6, 7):
        orders.give(out, shard, "freeze before")
    asleep = lab.generate(out, *TWO)
    wait_for(lambda: len(orders.notes(out, "stops")) == 2, "two frozen workers")
    asleep.kill_all(signal.SIGSTOP)
    other = lab.generate(out)
    assert other.wait() == 0, other.said()
    assert made(other) >= 2 * 2
    asleep.kill_all(signal.SIGCONT)
    assert asleep.wait() == 0, asleep.said()
    assert sorted(shard for shard, _ in orders.notes(out, "lost")) == [6, 7]
    assert made(asleep) + made(other) == CONFIG.samples
    lab.assert_recovered(out)


@pytest.mark.parametrize("repetition", [0, *(pytest.param(k, marks=pytest.mark.soak) for k in range(1, 20))])
def test_two_commands_at_once_make_one_dataset(lab: Lab, out: Path, repetition: int) -> None:
    both = [lab.generate(out, *TWO), lab.generate(out, *TWO)]
    assert [run.wait() for run in both] == [0, 0], [run.said() for run in both]
    assert sum(made(run) for run in both) == CONFIG.samples
    assert sorted(shard for shard, _ in orders.notes(out, "committed")) in ([], list(range(SHARDS)))
    lab.assert_recovered(out)


@pytest.mark.parametrize("words", [(), TWO], ids=["serial", "processes"])
def test_a_poison_sample_costs_its_shard_until_its_cause_is_mended(lab: Lab, out: Path, words: tuple[object]) -> None:
    orders.give(out, 4, "always raise 9")
    run = lab.generate(out, *words)
    assert run.wait() == 1
    [told] = [line for line in run.said().splitlines() if line.startswith("phantumor: ")]
    assert "1 shard (4) could not be made" in told
    assert "--retry-failed" in told
    record = json.loads((out / "failures/000004.json").read_text())
    assert (record["sample"], record["spec"]["index"], len(record["attempts"])) == (9, 9, 1)
    assert record["attempts"][0]["message"] == "no tumor fits into sample 9"
    assert len(committed(out)) == SHARDS - 1
    still = lab.generate(out, *words, "--retry-failed")
    assert still.wait() == 1
    orders.take_back(out, 4)  # the cause is mended
    lab.resume(out, *words, "--retry-failed")
    lab.assert_recovered(out)


def test_poison_everywhere_stops_the_run_soon(lab: Lab, out: Path) -> None:
    for shard in range(SHARDS):
        orders.give(out, shard, f"always raise {2 * shard}")
    run = lab.generate(out)
    assert run.wait() == 1
    assert "the first 3 shards failed alike" in run.said()
    assert len(orders.notes(out, "begins")) == 3
    for shard in range(SHARDS):
        orders.take_back(out, shard)
    lab.resume(out, "--retry-failed")
    lab.assert_recovered(out)


@pytest.mark.parametrize("words", [(), TWO], ids=["serial", "processes"])
def test_a_write_error_that_lasts_costs_one_shard_and_one_that_passes_nothing(
    lab: Lab, out: Path, words: tuple[object]
) -> None:
    orders.give(out, 2, "always EIO")
    orders.give(out, 8, "EIO")
    run = lab.generate(out, *words, policy=PAUSE)
    assert run.wait() == 1
    assert "1 shard (2) could not be made" in run.said()
    assert last_run(out)["counts"]["retries"] == 2 + 1  # type: ignore[index]
    orders.take_back(out, 2)
    lab.resume(out, *words, "--retry-failed")
    lab.assert_recovered(out)
