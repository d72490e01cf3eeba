"""Shards that fail for reasons of their own are put aside, so that the others can be made.

`failures/000042.json` in the dataset tells all that is known; it goes when its shard is committed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.status import failed_shards
from pipeline.store import Store
from workers.attempt import ShardJob
from workers.failure import Failure


def failure_name(shard: int) -> str:
    """The record of a quarantined shard, relative to the dataset."""
    return f"failures/{shard:06d}.json"


def quarantined(store: Store) -> set[int]:
    """Shards that an earlier run gave up."""
    return set(failed_shards(store))


def put_aside(store: Store, job: ShardJob, failures: Sequence[Failure], run: str, retry: str) -> None:
    """Record why a shard was given up, and the command that tries it again."""
    last = failures[-1]
    record = {
        "shard": job.shard,
        "samples": [job.samples.start, job.samples.stop - 1],
        "sample": last.sample,
        "spec": _spec(last),
        "run": run,
        "retry": retry,
        "attempts": [_attempt(failure) for failure in failures],
    }
    store.replace(failure_name(job.shard), json.dumps(record, indent=2).encode())


def take_back(store: Store, shards: Iterable[int]) -> None:
    """Remove the records of shards."""
    store.remove([failure_name(shard) for shard in shards])


def _attempt(failure: Failure) -> dict[str, Any]:
    return {
        "exception": failure.kind,
        "message": failure.message,
        "where": failure.where,
        "died": failure.died,
        "host": failure.host,
        "pid": failure.pid,
        "when": failure.when,
        "traceback": failure.traceback.splitlines(),  # as lines, to be read without a tool
    }


def _spec(failure: Failure) -> Any:
    try:
        return json.loads(failure.spec)
    except ValueError:
        return failure.spec or None
