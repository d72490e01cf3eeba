"""A shard that could not be made."""

from __future__ import annotations


class ShardError(Exception):
    """Carries the shard's number and what went wrong in the worker."""

    def __init__(self, shard: int, cause: Exception) -> None:
        super().__init__(shard, cause)
        self.shard = shard
        self.cause = cause
