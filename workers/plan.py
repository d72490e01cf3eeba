"""Which shards are whose. Pure; which samples a shard holds is in `pipeline.plan`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from pipeline.errors import InputError
from pipeline.plan import Plan

__all__ = ["WHOLE_PLAN", "Plan", "Slice"]


@dataclass(frozen=True)
class Slice:
    """Every `of`-th shard from the `number`-th on, for array jobs of a scheduler: `3/16` is the third of sixteen."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """From `3/16`; InputError for anything else."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text or "1/1")
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(
                f"--slice {text!r}: give K/N with K from 1 to N, such as 3/16 for the third of sixteen jobs"
            )
        return cls(int(match[1]), int(match[2]))

    def of_shards(self, shards: Iterable[int]) -> list[int]:
        """The shards that are this slice's; a shard is always of the same slice."""
        return [shard for shard in shards if shard % self.of == self.number - 1]


WHOLE_PLAN = Slice()
