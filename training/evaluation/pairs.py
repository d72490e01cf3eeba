"""One scored sample, and what everything that can be scored offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pipeline.case import Float16Array, UInt8Array
from training.records import TumorFact

if TYPE_CHECKING:
    from training.report import Example

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Pair:
    """One sample with its truth and prediction, uint8 class ids (X, Y, Z) on one grid."""

    case_id: str
    group: str  # source case
    split: str | None
    truth: UInt8Array
    prediction: UInt8Array
    spacing_mm: Spacing
    classes: Mapping[str, int]  # what is scored
    facts: Sequence[TumorFact] = ()  # of the true tumors, as far as they are known
    probabilities: Mapping[int, Float16Array] | None = None  # (X, Y, Z) by tumor class; None without FROC


class Scored(Protocol):
    """Something to score: how many samples, the samples, and one of them again with its CT for a picture."""

    def __len__(self) -> int: ...
    def pairs(self) -> Iterator[Pair]: ...
    def example(self, case_id: str, caption: str) -> Example | None: ...
