"""What is done about failures and stragglers, as tables."""

from __future__ import annotations

import errno
import pickle

import pytest

from pipeline.errors import InputError, PhantumorError
from pipeline.s3_client import NoAnswerError
from tests.scripted import failures
from workers.failure import Failure, SampleError, death, failure_of
from workers.policy import Breaker, Outage, Policy, Verdict

POLICY = Policy()


def os_error(number: int) -> OSError:
    return OSError(number, "what the system says")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (os_error(errno.EIO), "retry"),
        (os_error(errno.ETIMEDOUT), "retry"),
        (os_error(errno.ECONNRESET), "retry"),
        (os_error(errno.ESTALE), "retry"),
        (os_error(errno.EAGAIN), "retry"),
        (os_error(errno.ENETUNREACH), "retry"),
        (TimeoutError(), "retry"),
        (ConnectionError("no answer"), "retry"),
        (ConnectionResetError(), "retry"),
        (OSError("a library's own"), "retry"),
        (MemoryError(), "retry"),
        (SampleError(7, "{}", os_error(errno.EIO)), "retry"),
        (os_error(errno.ENOSPC), "stop"),
        (os_error(errno.EDQUOT), "stop"),
        (os_error(errno.EROFS), "stop"),
        (os_error(errno.EACCES), "stop"),
        (PermissionError("not yours"), "stop"),
        (InputError("the bank changed"), "stop"),
        (SampleError(7, "{}", InputError("no such case")), "stop"),
        (os_error(errno.ENOENT), "poison"),
        (os_error(errno.EISDIR), "poison"),
        (PhantumorError("this shard cannot be"), "poison"),
        (ValueError("a bug"), "poison"),
        (SampleError(7, "{}", ZeroDivisionError()), "poison"),
        (RuntimeError(), "poison"),
    ],
)
def test_what_a_worker_raised(error: Exception, verdict: Verdict) -> None:
    assert POLICY.verdict(failure_of(4, error), 1) == verdict


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("WorkerDied", "poison"), ("OutOfMemoryError", "poison"), ("RuntimeEnvSetupError", "stop")],
)
def test_deaths_were_retried_where_they_happened(kind: str, verdict: Verdict) -> None:
    assert POLICY.verdict(death(4, kind, "its worker ended"), 1) == verdict


def test_three_tries_with_growing_pauses() -> None:
    failure = failure_of(4, os_error(errno.EIO))
    assert [POLICY.verdict(failure, tries) for tries in (1, 2, 3)] == ["retry", "retry", "poison"]
    assert 0 < POLICY.pause_s(1) < POLICY.pause_s(2)


def test_memory_that_neighbours_take_may_be_free_later() -> None:
    class OutOfMemoryError(RuntimeError):  # torch's, raised in the worker
        pass

    assert POLICY.verdict(failure_of(4, OutOfMemoryError("CUDA out of memory")), 1) == "retry"


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ("xxx", "first 3 shards failed alike"),
        ("xxy", ""),
        ("oxxx", ""),
        ("ooo", ""),
        ("xyxox", ""),  # four
        ("xyxoxy", "5 of the last 6"),
        (15 * "o" + "xxxxx", ""),  # exactly a quarter of twenty
        (30 * "o" + "xxxxxx", "6 of the last 20"),
        (8 * "ooox", ""),
        ("xx" + 18 * "o" + "xxxxx", ""),  # the first two have left the window
    ],
)
def test_the_breaker(outcomes: str, why: str) -> None:
    breaker = Breaker(POLICY)
    kinds = {"x": failures("Broken")[0], "y": failures("Worse")[0], "o": None}
    said = ""
    for outcome in outcomes:
        assert said == ""
        breaker.settled(kinds[outcome])
        said = breaker.tripped() if outcome != "o" else ""
    assert why in said
    assert bool(why) == bool(said)


@pytest.mark.parametrize(
    ("started", "done", "jobs", "late"),
    [
        *[(10, 8, 16, True), (9, 8, 16, False), (10, 7, 16, False), (100, 400, 1000, False), (520, 500, 1000, True)],
        *[(9, 5, 9, True), (9, 4, 9, False), (8, 5, 9, False), (2, 1, 2, True), (1, 0, 1, True)],
    ],
)
def test_backups_come_late(started: int, done: int, jobs: int, late: bool) -> None:
    assert POLICY.may_back_up(started, done, jobs) is late


@pytest.mark.parametrize(
    ("elapsed", "durations", "straggles"),
    [
        *[(31, [10, 10, 200], True), (30, [10, 10, 200], False), (10, [1, 1], False), (10.1, [1, 1], True)],
        *[(899, [], False), (901, [], True)],
    ],
)
def test_a_straggler_takes_three_times_the_median_and_some_seconds(
    elapsed: float, durations: list[float], straggles: bool
) -> None:
    assert POLICY.straggles(elapsed, durations) is straggles


@pytest.mark.parametrize(
    ("elapsed", "durations", "lost"),
    [
        *[(1799, [1], False), (1801, [1], True), (1801, [100], False), (2001, [100], True)],
        *[(4 * 3600 - 1, [], False), (4 * 3600 + 1, [], True)],
    ],
)
def test_an_attempt_is_lost_when_nothing_explains_how_long_it_takes(
    elapsed: float, durations: list[float], lost: bool
) -> None:
    assert POLICY.is_lost(elapsed, durations) is lost


SILENT = failure_of(4, NoAnswerError(errno.EIO, "cannot be reached"))


def test_no_shard_is_given_up_for_a_store_that_does_not_answer() -> None:
    assert {POLICY.verdict(SILENT, tries) for tries in range(1, 50)} == {"retry"}
    assert POLICY.pause_s(50) == POLICY.pause_s(2)


@pytest.mark.parametrize(
    ("ended", "stops"),
    [
        ([(0, "x"), (1, "x"), (29, "x")], None),  # many workers, whose failures come together
        ([(0, "x"), (1, "x"), (30, "x")], 30),
        ([(0, "x"), (31, "x")], None),
        ([(0, "x"), (31, "x"), (32, "x")], 32),
        ([(0, "x"), (20, "x"), (25, "o"), (26, "x"), (31, "x"), (40, "x")], None),
        ([(0, "x"), (20, "y"), (31, "x"), (32, "x")], None),
    ],
)
def test_the_breaker_of_a_store_that_is_away(ended: list[tuple[float, str]], stops: float | None) -> None:
    outage, kinds = Outage(POLICY), {"x": SILENT, "y": failures("Broken")[0], "o": None}
    stopped = [now for now, how in ended if outage.attempt_ended(kinds[how], now)]
    assert stopped == ([] if stops is None else [stops])


# ---- the record of a failure ----


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_failure_knows_sample_cause_and_place() -> None:
    try:
        try:
            raised(ValueError("inner"))
            [][1]
        except IndexError as cause:
            raise SampleError(7, '{"index": 7}', cause) from cause
    except SampleError as error:
        failure = failure_of(4, error)
    assert (failure.shard, failure.sample, failure.spec) == (4, 7, '{"index": 7}')
    assert failure.kinds[:2] == ("IndexError", "LookupError")
    assert failure.where.startswith("test_policy.py:")
    assert "[][1]" in failure.traceback
    assert failure.line() == "IndexError: list index out of range"


def test_failures_of_one_cause_are_the_same_whatever_they_say() -> None:
    one, other = (failure_of(shard, raised(ValueError(f"sample {shard}"))) for shard in (1, 2))
    assert one.message != other.message
    assert one.same == other.same
    assert one.same != failure_of(1, ValueError("sample 1")).same


def test_a_long_story_is_cut_to_its_end() -> None:
    failure = failure_of(1, raised(ValueError("x" * 100_000 + "the end")))
    assert len(failure.traceback) <= 20_000
    assert failure.traceback.rstrip().endswith("the end")
    assert len(failure.message) <= 20_000


def test_errors_survive_the_trip_between_processes() -> None:
    error = SampleError(7, "{}", ValueError("a bug"))
    back = pickle.loads(pickle.dumps(error))
    assert (back.index, back.spec, str(back.cause)) == (7, "{}", "a bug")
    failure = failure_of(3, error)
    assert pickle.loads(pickle.dumps(failure)) == failure
    assert isinstance(failure, Failure)
