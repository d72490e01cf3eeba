"""The same faults on a Ray cluster: workers, nodes and drivers that are killed or freeze. A driver runs outside it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import orders
from tests.faults.lab import CONFIG, SHARDS, Lab, Run, committed, processes, wait_for
from tests.faults.ray_host import KEEPALIVE, Host, running_cluster
from tests.faults.test_processes import HASTY, last_run, made

pytestmark = pytest.mark.soak
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", **KEEPALIVE}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with running_cluster() as found:
        yield found


def start(lab: Lab, host: Host, out: Path, *words: object, **faults: object) -> Run:
    return lab.generate(out, "--ray", host.address, "--insecure", *words, environment=ENVIRONMENT, **faults)


def ended_well(run: Run) -> None:
    assert run.wait() == 0, run.said()


@pytest.mark.parametrize("repetition", range(3))
def test_killed_workers_are_replaced(lab: Lab, host: Host, out: Path, repetition: int) -> None:
    orders.give(out, "all", "always slow 0.1")
    for shard, moment in ((2, "before"), (7, "after"), (9, "before")):
        orders.give(out, shard, f"kill {moment}")
    ended_well(start(lab, host, out))
    assert len([shard for shard, _ in orders.notes(out, "begins")]) == SHARDS + 3
    assert [shard for shard, _ in orders.notes(out, "already")] == [7]
    lab.assert_recovered(out)


@pytest.mark.parametrize("repetition", range(3))
def test_a_killed_driver_takes_its_shards_along(lab: Lab, host: Host, out: Path, repetition: int) -> None:
    orders.give(out, "all", "always slow 0.2")
    chance, seen = random.Random(repetition), []
    for goal in (3, 7):
        run = start(lab, host, out)
        wait_for(lambda goal=goal: len(committed(out)) >= goal)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.3))
        run.kill()
        assert run.wait() == -9
        seen.append(len(committed(out)))
    run = start(lab, host, out)
    ended_well(run)
    assert made(run) <= CONFIG.samples - 2 * seen[-1]
    lab.assert_recovered(out)


def test_a_frozen_worker_is_overtaken(lab: Lab, host: Host, out: Path) -> None:
    orders.give(out, 3, "freeze before")
    run = start(lab, host, out, policy=HASTY)
    wait_for(lambda: orders.notes(out, "stops") != [], "a frozen worker")
    wait_for(lambda: len(committed(out)) == SHARDS, "all others and the backup")
    [(_, frozen)] = orders.notes(out, "stops")
    os.kill(frozen, signal.SIGCONT)
    ended_well(run)
    assert last_run(out)["counts"]["backups"] == 1  # type: ignore[index]
    wait_for(lambda: len(list((out / "shards").glob("000003-*"))) == 1, "the loser to tidy up")
    lab.assert_recovered(out)


@pytest.mark.parametrize("repetition", range(4))
def test_a_node_that_sleeps_holds_nothing_up_for_long(lab: Lab, host: Host, out: Path, repetition: int) -> None:
    """Its raylet and workers stop in the middle of a shard, as a virtual machine that is paused, and wake up late."""
    orders.give(out, "all", "always slow 0.3")
    raylets = host.ask("nodes")
    run = start(lab, host, out)
    wait_for(lambda: len(committed(out)) >= 4)
    asleep = host.family(raylets[-1])
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: len(committed(out)) == SHARDS, "the other node")
    took = time.monotonic() - began
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    ended_well(run)
    backups = last_run(out)["counts"]["backups"]  # type: ignore[index]
    wait_for(lambda: len(list((out / "shards").iterdir())) == SHARDS or not _any_alive(asleep), "the loser to tidy up")
    lost = sorted(shard for shard, _ in orders.notes(out, "lost"))
    print(f"\nasleep: all {SHARDS} shards committed {took:.0f} s later, {backups} backups, lost on waking up: {lost}")
    lab.assert_recovered(out)
    host.ask("remove")
    host.ask("add")


def _any_alive(pids: list[int]) -> bool:
    ours = {pid for pid, _ in processes()}
    return not ours.isdisjoint(pids)


@pytest.mark.parametrize("repetition", range(2))
def test_a_lost_node_costs_the_shards_that_it_was_at(lab: Lab, host: Host, out: Path, repetition: int) -> None:
    orders.give(out, "all", "always slow 0.3")
    run = start(lab, host, out)
    wait_for(lambda: len(committed(out)) >= 4)
    host.ask("remove")
    ended_well(run)
    begun = [shard for shard, _ in orders.notes(out, "begins")]
    assert SHARDS <= len(begun) <= SHARDS + 2
    lab.assert_recovered(out)
    host.ask("add")
