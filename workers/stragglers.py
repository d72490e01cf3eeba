"""Since when shards are at work, from the records that workers leave in the dataset while they make one.

Elapsed time counts from a worker's start, not from submission: shards that wait for a slot are no stragglers. It is
measured on the driver's clock, from when the driver first saw the record, as clocks of nodes differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from pipeline.store import Store

_RECORD = re.compile(r"running/(\d{6,})-[0-9a-f]+\.json")


class Starts:
    """The start records of one run."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._seen: dict[str, float] = {}
        self._over: set[str] = set()

    def look(self, shards: Collection[int], now: float) -> dict[int, float]:
        """When each of these shards was first seen at work: its newest attempt, as an older one may have died.

        What the store does not answer just now is left for the next look.
        """
        try:
            keys = self._keys()
        except OSError:
            return {}
        since: dict[int, float] = {}
        for key, shard in keys.items():
            if shard in shards and key not in self._over and (key in self._seen or self._is_ours(key)):
                seen = self._seen.setdefault(key, now)
                since[shard] = max(seen, since.get(shard, seen))
        return since

    def forget(self, shard: int) -> None:
        """Its attempts were stopped: they may have left their records, which say nothing about the next one."""
        self._over |= {key for key in self._seen if _shard_of(key) == shard}

    def clear(self) -> None:
        """Remove what killed workers of this run left."""
        try:
            self._store.remove([key for key in self._keys() if self._is_ours(key)])
        except OSError:
            return  # they only tell something, and `phantumor verify --gc` removes them as well

    def _keys(self) -> dict[str, int]:
        shards = ((entry.key, _shard_of(entry.key)) for entry in self._store.entries("running"))
        return {key: shard for key, shard in shards if shard is not None}

    def _is_ours(self, key: str) -> bool:
        """Other runs may work on the dataset, or have been killed."""
        try:
            return bool(json.loads(self._store.read(key))["run"] == self._run)
        except (OSError, ValueError, KeyError, TypeError):  # finished in between
            return False


def _shard_of(key: str) -> int | None:
    match = _RECORD.fullmatch(key)
    return int(match[1]) if match else None
