"""The document of `stress.json`. In: a plan and its outcomes. Out: a JSON-ready dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.intervals import FEW_GROUPS
from training.report.cells import counted
from training.stress.base import Request
from training.stress.figures import DEFINITIONS, control_figures, level_figures
from training.stress.levels import Quantity
from training.stress.plan import Plan, Planned
from training.stress.score import Outcome
from training.stress.suites import Size, Variant

FORMAT_VERSION = 1


def document_of(request: Request, plan: Plan, outcomes: Mapping[Variant, Outcome], samples: int) -> dict[str, Any]:
    """All figures of a stress test: `quantities`, `suites` with their levels, `control`, `notes`, `definitions`."""
    cases = sorted({variant.spec.case_id for variant in outcomes})
    controls = [outcomes[variant] for variant in plan.control]
    return {
        "format_version": FORMAT_VERSION,
        "organ": request.organ,
        "kind": request.numbers.kind,
        "spacing_mm": request.bank.spacing_mm,
        "patch_shape": list(request.patch_shape),
        "split": request.split,
        "seed": request.seed,
        "samples": samples,
        "cases": len(cases),
        "case_ids": cases,
        "draws": {what: drawn.draws for what, drawn in plan.draws.items()},
        "notes": _notes(request, plan, cases),
        "quantities": [row for planned in plan.suites for row in _quantities(planned)],
        "suites": [_suite_record(planned, outcomes, request.seed) for planned in plan.suites],
        "control": control_figures(controls, [v.spec.case_id for v in plan.control], request.seed),
        "definitions": dict(DEFINITIONS),
    }


def _suite_record(planned: Planned, outcomes: Mapping[Variant, Outcome], seed: int) -> dict[str, Any]:
    suite = planned.suite
    by_k = {step.k: [outcomes[variant] for variant in step.variants] for step in planned.steps}
    return {
        "name": suite.name,
        "factor": suite.factor,
        "unit": suite.unit,
        "digits": suite.digits,
        "explanation": suite.explanation,
        "levels": [level_figures(step, by_k[step.k], by_k[0], seed) for step in planned.steps],
    }


def _quantities(planned: Planned) -> Iterable[dict[str, Any]]:
    """The rows of the table of numbers: one for each contrast phase, or case, that the suite tells apart."""
    found: dict[str, Quantity] = {}
    for base in planned.bases:
        found.setdefault(planned.suite.where(base), planned.suite.quantity(base))
    for where, quantity in sorted(found.items()):
        yield {
            "suite": planned.suite.name,
            "factor": planned.suite.factor,
            "unit": planned.suite.unit,
            "where": where,
            "mean": quantity.mean,
            "sd": quantity.sd,
            "log": quantity.log,
            "source": quantity.source,
        }


def _notes(request: Request, plan: Plan, cases: Sequence[str]) -> list[str]:
    """What the reader must not conclude."""
    notes = [
        f"The tumors of a level lie in {counted(len(cases), 'source case')} and those of one case are not independent: "
        "the intervals of shares take them as if they were, and are too narrow."
    ]
    if len(cases) < FEW_GROUPS:
        notes.append(
            f"With fewer than {FEW_GROUPS} source cases, means have no interval, and other patients may differ."
        )
    if request.split != "test":
        notes.append(
            f"Cases of split {request.split}: a network that was trained on them knows these organs (not these tumors)."
        )
    for what, drawn in plan.draws.items():
        if drawn.draws > len(drawn.bases):
            places = "places for the largest tumor of the suite size" if what == Size.name else "places"
            gave = f"{counted(drawn.draws, 'draw')} gave {len(drawn.bases)} {places}"
            notes.append(f"{gave}; where one found none, the next was taken.")
    return notes
