"""Writing `manifest.parquet`: whole when the last shard is committed, and now and then of the first shards before.

It holds nothing that the parts do not. Readers open it and the parts behind it, so a dataset that is being made opens
fast at any size.
"""

from __future__ import annotations

import contextlib
from itertools import count, takewhile

from pipeline.catalog import compact
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.manifest import WHOLE, commit_times, open_whole
from pipeline.plan import Plan
from pipeline.store import Store
from workers.attempt import ShardReport
from workers.failure import RESUME

_LOOK_SHARDS = 256  # made between looks, each of which lists the parts
_LEAST_SHARDS = 512  # that are worth a file of their own: to open them takes about a second
_SHARE = 4  # written again when it would become this share larger: all together five times what it ends with


def finish(store: Store, plan: Plan, *, anew: bool) -> bool:
    """Write the whole manifest once every shard is committed, `anew` also where there is one; whether all are."""
    planned = range(plan.shards)
    if not commit_times(store).keys() >= set(planned):
        return False
    with writing_to(store.url, RESUME):
        if anew or not store.exists(WHOLE) or set(open_whole(store).parts()) != set(planned):
            _write(store, plan.shards)
    return True


def _write(store: Store, shards: int) -> None:
    """Write it of the first shards, which are committed."""
    before = None
    while (now := _times_of_first(store, shards)) != before:  # repaired meanwhile
        before = now
        compact(store, range(len(now)))


def _times_of_first(store: Store, shards: int) -> list[float]:
    """When each of the first shards was committed, up to the first that is not; others come and go meanwhile."""
    times = commit_times(store)
    return [times[shard] for shard in range(min(shards, _first(times)))]


def _first(committed: dict[int, float]) -> int:
    """How many shards are committed before the first that is not."""
    return sum(1 for _ in takewhile(committed.__contains__, count()))


class Compactor:
    """Told of each shard that a run made."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store, self._plan, self._made = store, plan, 0

    def __call__(self, report: ShardReport) -> None:
        """Now and then write what has come since; a failure decides nothing, as the parts are there."""
        self._made += 1
        if self._made % _LOOK_SHARDS == 0:
            with contextlib.suppress(OSError, PhantumorError):
                self._look()

    def _look(self) -> None:
        first, held = _first(commit_times(self._store)), self._held()
        if first < self._plan.shards and first - held >= max(_LEAST_SHARDS, held // _SHARE):  # the end is for `finish`
            _write(self._store, first)

    def _held(self) -> int:
        """How many shards it holds, from the first on; 0 for what readers would not take."""
        if not self._store.exists(WHOLE):
            return 0
        try:
            parts = open_whole(self._store).parts()
        except InputError:
            return 0
        return len(parts) if max(parts, default=-1) < len(parts) else 0
