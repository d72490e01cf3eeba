"""The driver loop on a scripted executor: every branch of retry, backup, quarantine and stop, without waiting."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError, PhantumorError
from pipeline.s3_client import NoAnswerError
from pipeline.store import FolderStore
from tests.scripted import FOREVER, SAMPLES, Clock, Ends, Scripted, jobs_of, record_of
from workers.attempt import ShardReport
from workers.drive import Outcome, drive
from workers.failure import SampleError
from workers.ledger import Ledger, RunFacts
from workers.policy import Policy
from workers.quarantine import quarantined

BUG = ValueError("a spec that nobody thought of")
EIO = OSError(errno.EIO, "Input/output error", "manifest/000001.parquet")


class Run:
    """A run of `shards` jobs as scripted."""

    def __init__(self, folder: Path, shards: int, **script: Any) -> None:
        self.clock, self.store = Clock(), FolderStore(folder)
        tried_again, self.policy = script.pop("tried_again", ()), script.pop("policy", Policy())
        facts = RunFacts("digest", "bank", "scripted", "phantumor generate --out data")
        self.ledger = Ledger(self.store, facts, quarantined=tried_again, clock=self.clock)
        self.executor = Scripted(self.clock, self.store, run=self.ledger.run, **script)
        self.jobs = jobs_of(shards, self.ledger.run)
        self.reports: list[ShardReport] = []

    def drive(self) -> Outcome:
        return drive(self.jobs, self.executor, self.policy, self.ledger, self.reports.append, self.clock)

    @property
    def made(self) -> list[int]:
        return sorted(report.shard for report in self.reports)


def test_every_job_is_done_once_within_the_window(tmp_path: Path) -> None:
    run = Run(tmp_path, 9)
    assert run.drive() == Outcome(9 * SAMPLES, (), 0, 0)
    assert run.made == list(range(9))
    assert [shard for _, shard in run.executor.submitted] == list(range(9))
    assert len([when for when, _ in run.executor.submitted if when == 1000.0]) == 4  # twice the slots
    assert run.executor.closed
    assert not list((tmp_path / "running").iterdir())


def test_nothing_to_do(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    assert run.drive() == Outcome(0, (), 0, 0)
    assert run.executor.closed


def test_what_another_run_committed_is_done_but_not_made_here(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, script={0: [Ends(status="already")], 1: [Ends(status="lost")]})
    assert run.drive() == Outcome(SAMPLES, (), 0, 0)
    assert run.made == [0, 1, 2]


# ---- retries ----


def test_a_passing_fault_is_tried_again_after_a_pause_that_holds_nobody_up(tmp_path: Path) -> None:
    run = Run(tmp_path, 8, script={1: [Ends(error=EIO), Ends(error=EIO)]})
    assert run.drive() == Outcome(8 * SAMPLES, (), 2, 0)
    first, second, third = run.executor.attempts_at(1)
    assert second - first == 1 + 5
    assert third - second == 1 + 30
    others = [when for when, shard in run.executor.submitted if shard != 1]
    assert max(others) < second
    assert quarantined(run.store) == set()


def test_a_fault_that_does_not_pass_is_given_up(tmp_path: Path) -> None:
    run = Run(tmp_path, 8, script={1: [Ends(error=EIO)] * 3})
    assert run.drive() == Outcome(7 * SAMPLES, (1,), 2, 0)
    assert [attempt["message"] for attempt in record_of(tmp_path, 1)["attempts"]] == [
        "Input/output error: manifest/000001.parquet"
    ] * 3


# ---- quarantine ----


def test_a_poison_shard_is_put_aside_with_its_sample_and_the_others_are_made(tmp_path: Path) -> None:
    spec = '{"index": 9, "seed": 3}'
    run = Run(tmp_path, 8, script={2: [Ends(error=SampleError(9, spec, BUG))]})
    assert run.drive() == Outcome(7 * SAMPLES, (2,), 0, 0)
    assert quarantined(run.store) == {2}
    record = record_of(tmp_path, 2)
    assert record["samples"] == [8, 11]
    assert (record["sample"], record["spec"]) == (9, {"index": 9, "seed": 3})
    assert record["retry"] == "phantumor generate --out data --retry-failed"
    assert record["run"] == run.ledger.run
    [attempt] = record["attempts"]
    assert (attempt["exception"], attempt["message"]) == ("ValueError", "a spec that nobody thought of")
    assert any("a spec that nobody thought of" in line for line in attempt["traceback"])
    assert attempt["host"]
    assert attempt["when"]


def test_a_worker_that_died_too_often_is_not_tried_again(tmp_path: Path) -> None:
    run = Run(tmp_path, 4, script={2: [Ends(error=RuntimeError("killed"), died=True)]})
    assert run.drive().failed_shards == (2,)
    assert len(run.executor.attempts_at(2)) == 1


def test_a_commit_takes_a_shard_out_of_quarantine_and_a_failure_leaves_it_there(tmp_path: Path) -> None:
    for name in ("000001", "000002"):
        (tmp_path / "failures").mkdir(exist_ok=True)
        (tmp_path / f"failures/{name}.json").write_text("{}")
    run = Run(tmp_path, 4, tried_again={1, 2}, script={2: [Ends(error=BUG)]})
    assert run.drive().failed_shards == (2,)
    assert quarantined(run.store) == {2}
    assert record_of(tmp_path, 2)["shard"] == 2


# ---- stops ----


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), PhantumorError, "No space left on device. Committed shards"),
        (OSError(errno.EROFS, "Read-only file system"), PhantumorError, "Read-only"),
        (PermissionError(errno.EACCES, "Access Denied", "s3://b/k"), PhantumorError, "Access Denied: s3://b/k"),
        (InputError("bank: the bank changed"), InputError, "^bank: the bank changed$"),
        (SampleError(3, "", InputError("no such organ")), InputError, "^no such organ$"),
    ],
)
def test_what_every_shard_would_meet_stops_the_run(
    tmp_path: Path, error: Exception, kind: type[Exception], words: str
) -> None:
    run = Run(tmp_path, 50, script={3: [Ends(error=error)]})
    with pytest.raises(kind, match=words) as raised:
        run.drive()
    assert type(raised.value) is kind
    assert len(run.executor.submitted) < 10
    assert run.executor.closed
    assert quarantined(run.store) == set()


def test_a_run_that_only_fails_stops_early(tmp_path: Path) -> None:
    run = Run(tmp_path, 50, script={shard: [Ends(error=BUG)] for shard in range(50)})
    with pytest.raises(PhantumorError, match="first 3 shards failed alike, shard 2 with ValueError: a spec"):
        run.drive()
    assert quarantined(run.store) == {0, 1, 2}


def test_a_run_that_fails_too_often_stops_but_some_poison_does_not(tmp_path: Path) -> None:
    poison = [0, 7, 14, 20, 30]
    run = Run(tmp_path / "few", 40, script={shard: [Ends(error=BUG)] for shard in poison})
    assert run.drive().failed_shards == tuple(poison)
    run = Run(tmp_path / "many", 40, script={shard: [Ends(error=BUG)] for shard in range(1, 40, 3)})
    with pytest.raises(PhantumorError, match=r"5 of the last 1\d shards failed.*--retry-failed"):
        run.drive()


def test_ctrl_c_closes_the_executor_and_says_so_in_the_ledger(tmp_path: Path) -> None:
    run = Run(tmp_path, 50, interrupt_at=1004.5)
    with pytest.raises(KeyboardInterrupt):
        run.drive()
    assert run.executor.closed
    assert len(run.made) == 8
    assert '"outcome": "interrupted"' in (tmp_path / "runs" / run.ledger.run / "run.json").read_text()
    assert not list((tmp_path / "running").iterdir())


# ---- backups ----


def test_a_backup_overtakes_a_frozen_attempt_and_the_run_ends_without_it(tmp_path: Path) -> None:
    run = Run(tmp_path, 20, script={5: [Ends(FOREVER)]})
    assert run.drive() == Outcome(20 * SAMPLES, (), 0, 1)
    frozen, backup = run.executor.attempts_at(5)
    assert backup - frozen > 10
    assert run.executor.cancelled == [5]
    assert run.made == list(range(20))
    assert not list((tmp_path / "running").iterdir())


@pytest.mark.parametrize("zombie", [Ends(60), Ends(60, error=BUG), Ends(60, error=OSError(errno.ENOSPC, "full"))])
def test_a_zombie_that_speaks_up_late_is_ignored(tmp_path: Path, zombie: Ends) -> None:
    # Its backup is long done; shard 6 keeps the run going until it is heard.
    run = Run(tmp_path, 20, script={5: [zombie], 6: [Ends(70), Ends(90)]}, slots_now=lambda now: 4)
    assert run.drive() == Outcome(20 * SAMPLES, (), 0, 2)
    assert run.clock.now >= 1070
    assert run.made == list(range(20))


def test_a_shard_whose_two_attempts_fail_is_given_up_once(tmp_path: Path) -> None:
    script = {5: [Ends(60, error=BUG), Ends(1, error=BUG)], 6: [Ends(70), Ends(90)]}
    run = Run(tmp_path, 20, script=script, slots_now=lambda now: 4)
    assert run.drive() == Outcome(19 * SAMPLES, (5,), 0, 2)
    assert len(record_of(tmp_path, 5)["attempts"]) == 1


@pytest.mark.parametrize("paused", [False, True])
def test_what_the_first_attempt_makes_is_not_tried_again(tmp_path: Path, paused: bool) -> None:
    # The backup fails and rests for 5 s; then, before it can be tried again, the first attempt is done after all.
    def script(seconds: float) -> dict[int, list[Ends]]:
        return {5: [Ends(seconds), Ends(1, error=EIO)], 6: [Ends(200), Ends(200)]}

    run = Run(tmp_path / "when", 20, script=script(100), slots_now=lambda now: 4)
    run.drive()
    backup_s = run.executor.attempts_at(5)[1] - 1000

    def slots(now: float) -> int:
        return 0 if paused and backup_s + 1001 < now < backup_s + 1030 else 4

    run = Run(tmp_path / "then", 20, script=script(backup_s + (15 if paused else 4)), slots_now=slots)
    assert run.drive() == Outcome(20 * SAMPLES, (), 1, 2)
    assert len(run.executor.attempts_at(5)) == 2


def test_backups_wait_until_everything_was_handed_in(tmp_path: Path) -> None:
    run = Run(tmp_path, 100, script={5: [Ends(FOREVER)]})
    assert run.drive().backups == 1
    fresh = [when for when, shard in run.executor.submitted if shard != 5]
    assert run.executor.attempts_at(5)[1] >= max(fresh)


def test_the_store_is_asked_for_stragglers_seldom_and_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, 40, script={30: [Ends(61)], 31: [Ends(60)], 39: [Ends(0.5)]}, slots_now=lambda now: 4)
    asked: list[float] = []
    entries = run.store.entries

    def noted(prefix: str = "") -> Any:
        if prefix == "running":
            asked.append(run.clock.now)
            if len(asked) == 2:
                raise OSError(errno.EIO, "not just now")
        return entries(prefix)

    monkeypatch.setattr(run.store, "entries", noted)
    assert run.drive().backups == 2
    assert asked[0] >= 1007
    assert all(b - a >= 5 for a, b in itertools.pairwise(asked[:-1]))


def test_shards_that_were_there_say_nothing_about_durations(tmp_path: Path) -> None:
    there = {shard: [Ends(0.1, status="already")] for shard in range(12)}
    normal = {shard: [Ends(30)] for shard in range(12, 24)}
    run = Run(tmp_path, 24, script={**there, **normal}, slots_now=lambda now: 4)
    assert run.drive().backups == 0


def test_the_first_of_two_attempts_wins_whichever_it_is(tmp_path: Path) -> None:
    run = Run(tmp_path, 20, script={5: [Ends(40), Ends(500)]})
    assert run.drive() == Outcome(20 * SAMPLES, (), 0, 1)
    assert run.clock.now < 1100


def test_there_is_one_backup_at_most_and_none_of_short_shards(tmp_path: Path) -> None:
    run = Run(tmp_path / "twice", 20, script={5: [Ends(FOREVER), Ends(300)]})
    assert run.drive().backups == 1
    run = Run(tmp_path / "short", 20, script={5: [Ends(9)]})
    assert run.drive().backups == 0


SOON = Policy(backup_blind_s=60, lost_least_s=90, lost_blind_s=180)


@pytest.mark.parametrize(("shards", "after_s"), [(9, 10), (2, 10), (1, 60)])
def test_a_run_of_few_shards_gets_a_backup_too(tmp_path: Path, shards: int, after_s: float) -> None:
    """Once half of them tell how long one takes; a single one has more time."""
    run = Run(tmp_path, shards, script={0: [Ends(FOREVER)]}, policy=SOON)
    assert run.drive() == Outcome(shards * SAMPLES, (), 0, 1)
    frozen, backup = run.executor.attempts_at(0)
    assert after_s < backup - frozen < after_s + 20


def test_a_shard_of_which_nothing_is_heard_is_given_up_and_the_others_are_made(tmp_path: Path) -> None:
    run = Run(tmp_path, 20, script={5: [Ends(FOREVER)] * 9}, slots_now=lambda now: 6, policy=SOON)
    assert run.drive() == Outcome(19 * SAMPLES, (5,), 2, 1)
    record = record_of(tmp_path, 5)
    assert [attempt["exception"] for attempt in record["attempts"]] == ["AttemptLost"] * 3
    assert "no result after 1 min 3" in record["attempts"][0]["message"]
    assert 3 * 90 < run.clock.now - 1000 < 3 * 90 + 120
    assert not list((tmp_path / "running").iterdir())


def test_one_lost_attempt_is_followed_by_another(tmp_path: Path) -> None:
    script = {0: [Ends(FOREVER), Ends(FOREVER), Ends(1)]}
    run = Run(tmp_path, 1, script=script, slots_now=lambda now: 3, policy=SOON)
    assert run.drive() == Outcome(SAMPLES, (), 1, 1)


# ---- an object store that goes away ----


def test_a_run_whose_object_store_is_away_stops_and_blames_no_shard(tmp_path: Path) -> None:
    silent = NoAnswerError(errno.EIO, "http://there cannot be reached", "s3://b/k")
    run = Run(tmp_path, 50, script={shard: [Ends(12, error=silent)] * 9 for shard in range(4, 50)})
    with pytest.raises(
        PhantumorError, match=r"nothing gets through to .*: http://there cannot.*run the same command again"
    ):
        run.drive()
    assert run.made == [0, 1, 2, 3]
    assert quarantined(run.store) == set()
    assert 30 < run.clock.now - 1002 < 120


def test_an_outage_that_ends_in_time_costs_retries_only(tmp_path: Path) -> None:
    silent = NoAnswerError(errno.EIO, "http://there cannot be reached", "s3://b/k")
    run = Run(tmp_path, 8, script={shard: [Ends(12, error=silent)] * tries for shard, tries in ((2, 1), (3, 1))})
    assert run.drive() == Outcome(8 * SAMPLES, (), 2, 0)


def test_shards_that_wait_for_a_slot_are_no_stragglers(tmp_path: Path) -> None:
    # Two shards of 8 s each in turn: the last four wait for 16 s and more, but none runs for long.
    run = Run(tmp_path, 24, script={shard: [Ends(8)] for shard in range(24)}, slots_now=lambda now: 1)
    run.executor.window = lambda: 12  # type: ignore[method-assign]
    assert run.drive().backups == 0


def test_records_of_other_runs_are_not_ours(tmp_path: Path) -> None:
    run = Run(tmp_path, 20, script={5: [Ends(80)]})
    run.executor.run = "another"
    (tmp_path / "running").mkdir()
    (tmp_path / "running/000005-0123456789ab.json").write_text("half a rec")
    assert run.drive().backups == 0
    assert (tmp_path / "running/000005-0123456789ab.json").exists()


def test_a_shard_that_was_given_up_is_made_by_its_other_attempt(tmp_path: Path) -> None:
    # The backup dies of a bug; the straggler was only slow, and shard 6 gives it the time.
    script = {5: [Ends(60), Ends(1, error=BUG)], 6: [Ends(100), Ends(100)]}
    run = Run(tmp_path, 20, script=script, slots_now=lambda now: 4)
    outcome = run.drive()
    assert outcome == Outcome(20 * SAMPLES, (), 0, 2)
    assert quarantined(run.store) == set()


# ---- a cluster that changes ----


def test_slots_that_join_are_used_and_slots_that_leave_are_not_waited_for(tmp_path: Path) -> None:
    def slots(now: float) -> int:
        return 0 if now < 1020 else 8 if now < 1030 else 1

    run = Run(tmp_path, 100, slots_now=slots)
    assert run.drive().made_samples == 100 * SAMPLES
    assert run.executor.most_running == 8
    assert min(when for when, _ in run.executor.submitted) >= 1020
    assert 1035 < run.clock.now < 1100


def test_a_dataset_that_cannot_be_written_to_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    run = Run(tmp_path, 2)
    with pytest.raises(PhantumorError, match=f"cannot write to {tmp_path}: .*run the same command again"):
        run.drive()
    assert run.executor.closed
