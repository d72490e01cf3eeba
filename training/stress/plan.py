"""What is predicted: suites with their bases, levels and variants. In: a request. Out: a `Plan`; nothing is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.stress.base import Base, Drawn, Request, draw_bases, size_limits_mm
from training.stress.levels import STEPS
from training.stress.suites import SUITES, Setting, Size, Step, Suite, Variant, control, steps


@dataclass(frozen=True)
class Planned:
    """A suite and what it does to its bases."""

    suite: Suite
    bases: tuple[Base, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """All suites of a stress test."""

    suites: tuple[Planned, ...]
    control: tuple[Variant, ...]
    draws: dict[str, Drawn]  # by what they are for

    def variants(self) -> list[Variant]:
        """Each once, those of a case together."""
        wanted = [v for planned in self.suites for step in planned.steps for v in step.variants]
        return sorted(dict.fromkeys([*wanted, *self.control]), key=lambda variant: variant.spec.case_id)


def plan_of(request: Request, names: Sequence[str], samples: int) -> Plan:
    """Draw the bases, and lay out every suite on them. InputError where places are not found."""
    limits, diameter = size_limits_mm(request), request.numbers.diameter_mm
    setting = Setting(request.numbers, request.kind, limits)
    mean, largest = (diameter.at(k, *limits).value for k in (0, STEPS[-1]))
    drawn: dict[str, Drawn] = {}
    if set(names) - {Size.name}:
        drawn["others"] = draw_bases(request, samples, mean, mean)
    if Size.name in names:
        drawn[Size.name] = draw_bases(request, samples, mean, largest)
    laid_out = []
    for name in names:
        suite, bases = SUITES[name](setting), drawn[Size.name if name == Size.name else "others"].bases
        laid_out.append(Planned(suite, bases, steps(suite, bases)))
    return Plan(tuple(laid_out), control(next(iter(drawn.values())).bases), drawn)


def places(plan: Plan, folder: Path) -> dict[Variant, list[Path]]:
    """Where a variant's files go, without their endings: one place for each suite and level that shows it."""
    found: dict[Variant, list[Path]] = {}
    for planned in plan.suites:
        for step in planned.steps:
            for number, variant in enumerate(step.variants):
                place = folder / planned.suite.name / f"k{step.k:+d}" / f"{number:04d}"
                found.setdefault(variant, []).append(place)
    return found
