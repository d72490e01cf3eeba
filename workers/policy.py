"""What to do about failures and stragglers. Pure decisions; `workers.drive` carries them out."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from workers.failure import Failure

Verdict = Literal["stop", "retry", "poison"]
NO_ANSWER = "NoAnswerError"  # of an object store that was asked for minutes

# What the next shard would meet as well: input that is wrong, a place that cannot be written to, code that is missing.
_STOP_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
_STOP_KINDS = frozenset({"InputError", "PermissionError", "RuntimeEnvSetupError", "AuthenticationError"})
# What another moment may mend: networks, remote disks (an object store's faults come as EIO), memory that neighbours
# take. The bytes do not depend on the try, so trying again is harmless.
_RETRY_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOMEM, errno.ESTALE, errno.EREMOTEIO),
        *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN),
        *(errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ESHUTDOWN),
    }
)
_RETRY_KINDS = frozenset({"TimeoutError", "ConnectionError", "MemoryError", "OutOfMemoryError", "AttemptLost"})


@dataclass(frozen=True)
class Policy:
    """The numbers behind the decisions."""

    # The S3 client tries for two minutes before it gives up, a hard NFS mount for ever: what comes through to us is
    # worth two more tries, the second after a server has had the time to fail over.
    pauses_s: tuple[float, ...] = (5.0, 30.0)
    # A poison shard is one in thousands. One in four is a fault of the code, the bank or the cluster; at least five,
    # so that a short run with two bad specs ends by itself.
    breaker_window: int = 20
    breaker_share: float = 0.25
    breaker_least: int = 5
    breaker_first: int = 3  # a run that begins with three failures of one cause will go on like that
    # An object store that answers nobody: no shard's fault. The client has tried for two minutes before the first of
    # these failures, so the run ends some three minutes after the store went away.
    outage_failures: int = 3
    outage_s: float = 30.0
    # Backups as MapReduce and cubed have them: late in a run, for what takes far longer than the others do.
    backup_started: int = 10  # or all shards of a run that has fewer
    backup_done_share: float = 0.5
    backup_factor: float = 3.0
    backup_least_s: float = 10.0  # below, a backup costs more than it can save
    backup_blind_s: float = 900.0  # where no other shard tells how long one takes
    # An attempt that is not heard of for so long is taken for lost and stopped: its process hangs, or its node does.
    # Far beyond what a slow machine explains, as it cannot be told from one that computes.
    lost_factor: float = 20.0
    lost_least_s: float = 1800.0
    lost_blind_s: float = 4 * 3600.0

    def verdict(self, failure: Failure, failures: int) -> Verdict:
        """What to do about a shard that has now failed so many times in this run.

        A death was retried by the executor already, three times, so it is not retried here.
        """
        if failure.errno in _STOP_ERRNOS or _STOP_KINDS & {*failure.kinds}:
            return "stop"
        if NO_ANSWER in failure.kinds:  # how often is for `Outage` to judge
            return "retry"
        if not failure.died and _transient(failure) and failures <= len(self.pauses_s):
            return "retry"
        return "poison"

    def pause_s(self, failures: int) -> float:
        """How long to let a shard rest after so many failures."""
        return self.pauses_s[min(failures, len(self.pauses_s)) - 1]

    def may_back_up(self, started: int, done: int, jobs: int) -> bool:
        """Whether a run is so far that a straggler can be told from the others."""
        enough = started >= min(self.backup_started, jobs)
        return enough and (done == 0 or done >= self.backup_done_share * jobs)

    def straggles(self, elapsed_s: float, durations_s: Collection[float]) -> bool:
        """Whether a shard takes far longer than the finished ones took."""
        if not durations_s:
            return elapsed_s > self.backup_blind_s
        return elapsed_s > max(self.backup_least_s, self.backup_factor * median(durations_s))

    def is_lost(self, elapsed_s: float, durations_s: Collection[float]) -> bool:
        """Whether to give up an attempt that has said nothing for so long."""
        if not durations_s:
            return elapsed_s > self.lost_blind_s
        return elapsed_s > max(self.lost_least_s, self.lost_factor * median(durations_s))


def _transient(failure: Failure) -> bool:
    if failure.errno is not None:
        return failure.errno in _RETRY_ERRNOS
    # an OSError without a number is a library's own, which says nothing about how lasting it is
    return failure.kind == "OSError" or bool(_RETRY_KINDS & {*failure.kinds})


@dataclass
class Breaker:
    """Stops a run in which not the shards are at fault. Told of each shard once, when it is settled."""

    policy: Policy
    _last: deque[Failure | None] = field(default_factory=deque)
    _settled: int = 0

    def settled(self, failure: Failure | None) -> None:
        """A shard was made (None) or given up."""
        self._settled += 1
        self._last.append(failure)
        if len(self._last) > self.policy.breaker_window:
            self._last.popleft()

    def tripped(self) -> str:
        """Why the run should stop; empty when it should not."""
        failed = [failure for failure in self._last if failure is not None]
        alike = len({failure.same for failure in failed}) == 1
        if alike and self._settled == len(failed) == self.policy.breaker_first:
            return f"the first {len(failed)} shards failed alike"
        if len(failed) >= self.policy.breaker_least and len(failed) > self.policy.breaker_share * len(self._last):
            return f"{len(failed)} of the last {len(self._last)} shards failed"
        return ""


@dataclass
class Outage:
    """Stops a run whose object store is away: attempts fail for want of an answer, one after another, of any shard."""

    policy: Policy
    _failures: int = 0
    _since_s: float = 0.0

    def attempt_ended(self, failure: Failure | None, now_s: float) -> bool:
        """Told of every attempt that was made (None) or failed; whether the run should stop."""
        if failure is None or NO_ANSWER not in failure.kinds:
            self._failures = 0
            return False
        if self._failures == 0:
            self._since_s = now_s
        self._failures += 1
        lasting = now_s - self._since_s >= self.policy.outage_s
        return lasting and self._failures >= self.policy.outage_failures
