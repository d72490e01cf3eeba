"""The one loop that has shards made, whatever runs them: a bounded window, retries, backups, quarantine, a breaker.

It holds no data and decides little: `workers.policy` says what to do, the executor does it, the ledger writes it down.
First committed wins, so a second attempt at a shard is always harmless.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from pipeline.errors import InputError, PhantumorError
from workers.attempt import ShardJob, ShardReport
from workers.executor import Executor, Result
from workers.failure import RESUME, Failure, lost
from workers.ledger import End, Ledger
from workers.policy import Breaker, Outage, Policy
from workers.stragglers import Starts

_WAKE_S = 5.0  # nothing happens for longer: the ledger is due, nodes may have joined
_LOOK_S = 5.0  # between looks for stragglers, each of which lists a folder
_SELDOM_S = 60.0  # between looks for lost attempts only


@dataclass(frozen=True)
class Outcome:
    """What a run did. `failed_shards` are in quarantine; there are none when all is made."""

    made_samples: int
    failed_shards: tuple[int, ...]
    retries: int
    backups: int


def drive(
    jobs: Sequence[ShardJob],
    executor: Executor,
    policy: Policy,
    ledger: Ledger,
    on_report: Callable[[ShardReport], None] = lambda report: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Have all jobs done; closes the executor and ends the ledger, however it goes.

    InputError or PhantumorError, complete messages, where going on makes no sense; KeyboardInterrupt after a clean
    stop. Shards that fail for reasons of their own do not stop the others: see the outcome.
    """
    starts = Starts(ledger.store, ledger.run)
    end: End = "stopped"
    reason = ""
    try:
        ledger.begin(jobs, executor.slots())
        _Drive(jobs, executor, policy, ledger, starts, on_report, clock).run()
        end = "incomplete" if ledger.tally.failed_shards else "complete"
    except KeyboardInterrupt:
        end = "interrupted"
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        try:
            executor.close()
        finally:
            starts.clear()
            ledger.end(end, reason)
    tally = ledger.tally
    return Outcome(tally.made_samples, tuple(sorted(tally.failed_shards)), tally.retries, tally.backups)


class _Drive:
    """The state of a run."""

    def __init__(
        self,
        jobs: Sequence[ShardJob],
        executor: Executor,
        policy: Policy,
        ledger: Ledger,
        starts: Starts,
        on_report: Callable[[ShardReport], None],
        clock: Callable[[], float],
    ) -> None:
        self._executor, self._policy, self._ledger, self._starts = executor, policy, ledger, starts
        self._on_report, self._clock = on_report, clock
        self._breaker, self._outage = Breaker(policy), Outage(policy)
        self._jobs = {job.shard: job for job in jobs}
        self._waiting = deque(self._jobs)
        self._resting: dict[int, float] = {}  # shard -> when it is tried again
        self._attempts: dict[int, int] = {}  # handle -> shard; what is not in here is of no interest any more
        self._open = set(self._jobs)  # neither made nor given up
        self._failures: dict[int, list[Failure]] = {}
        self._backed_up: set[int] = set()
        self._durations_s: list[float] = []
        self._looked = clock()

    def run(self) -> None:
        """Until every shard is made or given up. Attempts that nobody waits for any more are left behind."""
        while self._open:
            self._hand_in()
            for handle, result in self._executor.wait(self._patience_s()):
                self._take(handle, result)
            self._look_after_attempts()
            self._ledger.tick(self._executor.slots(), len(self._in_flight()))

    def _in_flight(self) -> set[int]:
        return self._open.intersection(self._attempts.values())

    def _hand_in(self) -> None:
        now = self._clock()
        for shard in [shard for shard, due in self._resting.items() if due <= now]:
            del self._resting[shard]
            self._waiting.appendleft(shard)
        room = self._executor.window() - len(self._in_flight())
        while self._waiting and room > 0:
            self._submit(self._waiting.popleft())
            room -= 1

    def _submit(self, shard: int) -> None:
        self._attempts[self._executor.submit(self._jobs[shard])] = shard

    def _patience_s(self) -> float:
        due = min(self._resting.values(), default=float("inf")) - self._clock()
        return max(0.0, min(_WAKE_S, due))

    # ---- what came back ----

    def _take(self, handle: int, result: Result) -> None:
        shard = self._attempts.pop(handle, None)
        if shard is None:  # a zombie: its shard was made by another attempt
            return
        if isinstance(result, Failure):
            self._failed(shard, result)
        else:
            self._made(shard, result)

    def _made(self, shard: int, report: ShardReport) -> None:
        self._settle(shard)
        self._breaker.settled(None)
        self._outage.attempt_ended(None, self._clock())
        self._cancel(shard)
        if report.status != "already":  # those take no time
            self._durations_s.append(report.seconds)
        self._ledger.finished(report)
        self._on_report(report)

    def _failed(self, shard: int, failure: Failure) -> None:
        if shard not in self._open:
            return
        failures = self._failures.setdefault(shard, [])
        failures.append(failure)
        away = self._outage.attempt_ended(failure, self._clock())
        verdict = "stop" if away else self._policy.verdict(failure, len(failures))
        self._ledger.failed(failure, verdict)
        if away:
            raise PhantumorError(
                f"stopped: nothing gets through to {self._ledger.store.url}: {failure.message}. {RESUME}"
            )
        if verdict == "stop":
            self._stop(failure)
        elif verdict == "retry":
            self._resting[shard] = self._clock() + self._policy.pause_s(len(failures))
        else:
            self._give_up(shard, failures)

    def _give_up(self, shard: int, failures: Sequence[Failure]) -> None:
        """Put a shard aside. Another attempt at it that is still at work may prove us wrong, and is welcome to."""
        self._settle(shard)
        self._ledger.given_up(self._jobs[shard], failures)
        self._breaker.settled(failures[-1])
        trouble = self._breaker.tripped()
        if trouble:
            raise PhantumorError(
                f"stopped: {trouble}, shard {shard} with {failures[-1].line()}. Mend the cause (failures/ in "
                f"{self._ledger.store.url} has the details), then run the same command with --retry-failed"
            )

    def _settle(self, shard: int) -> None:
        self._open.discard(shard)
        self._resting.pop(shard, None)
        if shard in self._failures and shard in self._waiting:  # to be tried again, but a backup came first
            self._waiting.remove(shard)

    def _stop(self, failure: Failure) -> NoReturn:
        if "InputError" in failure.kinds:
            raise InputError(failure.message)
        what = failure.message if failure.errno is not None else failure.line()
        raise PhantumorError(f"cannot make shard {failure.shard} of {self._ledger.store.url}: {what}. {RESUME}")

    # ---- attempts that take too long ----

    def _look_after_attempts(self) -> None:
        """Late in a run, try again elsewhere what takes far too long; at any time, stop what nothing is heard of."""
        now, late = self._clock(), self._is_late()
        in_flight = self._in_flight()
        if not in_flight or now - self._looked < (_LOOK_S if late else _SELDOM_S):
            return
        self._looked = now
        for shard, since in self._starts.look(in_flight, now).items():
            if self._policy.is_lost(now - since, self._durations_s):
                self._cancel(shard)
                self._starts.forget(shard)
                self._failed(shard, lost(shard, now - since))
            elif late and shard not in self._backed_up and self._policy.straggles(now - since, self._durations_s):
                self._backed_up.add(shard)
                self._submit(shard)
                self._ledger.backed_up()

    def _is_late(self) -> bool:
        done = len(self._jobs) - len(self._open)
        started = done + len(self._in_flight())
        return not self._waiting and self._policy.may_back_up(started, done, len(self._jobs))

    def _cancel(self, shard: int) -> None:
        """Let go of all attempts at a shard."""
        for handle in [handle for handle, other in self._attempts.items() if other == shard]:
            del self._attempts[handle]
            self._executor.cancel(handle)
