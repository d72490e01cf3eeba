"""The sentence that a study permits, no more. Pure: figures in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.report.cells import counted, percent

Record = Mapping[str, Any]


def sentence(figures: Record) -> str:
    """What may be written about a study, as one or two sentences that carry their own limits."""
    test, pooled = figures["equivalence"], figures["pooled"]
    if not test["n"]:
        return "No reader has answered a trial yet; nothing can be said."
    scope = _scope(figures)
    halves = ", unsure as half right," if pooled["unsure"] else ""
    share = (
        f"accuracy{halves} {percent(test['share'])}, 90 % interval {percent(test['low'])} to {percent(test['high'])}"
    )
    margin = f"{100 * test['margin']:g} percentage points"
    if test["met"]:
        text = (
            f"{scope}, accuracy was equivalent to chance within a margin of {margin} ({share}; two one-sided tests, "
            f"p = {test['p']:.3f}{_by_both(test)}). This holds for these readers and these lesions."
        )
        return text + (f" {_apart(pooled)}" if _differs(pooled) else "") + _ranked(pooled)
    if _differs(pooled):
        return f"{scope}, readers told synthetic from real lesions {_direction(pooled)} ({share}).{_ranked(pooled)}"
    return (
        f"{scope}, the study is inconclusive: accuracy neither differs from chance nor lies within {margin} of it "
        f"({share}). That no difference was found does not show that there is none: about {test['needed']} "
        f"independent answers are needed if readers truly guess.{_ranked(pooled)}"
    )


def headline(figures: Record) -> str:
    """The verdict in a few words."""
    if figures["equivalence"]["met"]:
        return "Equivalent to chance within the margin" + (
            ", but not in how sure they were" if _ranked(figures["pooled"]) else ""
        )
    return "Not equivalent: accuracy differs from chance" if _differs(figures["pooled"]) else "Inconclusive"


def _scope(figures: Record) -> str:
    pooled, study = figures["pooled"], figures["study"]
    lesions = (
        f"{study['real_lesions']} real {figures['study']['organ']} lesions of {counted(study['real_scans'], 'scan')}"
    )
    synthetic = f"{study['synthetic_lesions']} synthetic ones in {counted(study['synthetic_scans'], 'scan')}"
    return (
        f"In {pooled['answered']} answers of {counted(pooled['readers'], 'reader')}{_roles(figures)} to {lesions} and "
        f"{synthetic}"
    )


def _roles(figures: Record) -> str:
    roles = sorted({reader["role"].strip().lower() for reader in figures["readers"] if reader["role"].strip()})
    return f" ({', '.join(roles)})" if roles else ""


def _by_both(test: Record) -> str:
    if test["clustered"] is None:
        return ""
    low, high = test["clustered"]
    return f"; drawing readers and trials {percent(low)} to {percent(high)}"


def _interval(pooled: Record) -> tuple[float, float]:
    """The wider of Wilson's 95 % interval and that over readers and trials, end by end."""
    accuracy, clustered = pooled["accuracy"], pooled["clustered"] or [1.0, 0.0]
    return min(accuracy["low"], clustered[0]), max(accuracy["high"], clustered[1])


def _differs(pooled: Record) -> bool:
    if not pooled["accuracy"]["n"]:
        return False
    low, high = _interval(pooled)
    return low > 0.5 or high < 0.5


def _direction(pooled: Record) -> str:
    low, _ = _interval(pooled)
    if low > 0.5:
        return "apart more often than by chance"
    return "apart, but took one for the other: less often right than by chance"


def _apart(pooled: Record) -> str:
    return f"Within that margin readers still told them {_direction(pooled)}."


def _ranked(pooled: Record) -> str:
    """What the ratings show beside accuracy, which a reader who nearly always says the same keeps near 50 %."""
    auc = pooled["auc"]
    if not auc or auc["low"] is None or auc["low"] <= 0.5 <= auc["high"]:
        return ""
    direction = "higher" if auc["low"] > 0.5 else "lower"
    return (
        f" Their ratings ranked synthetic lesions {direction} than real ones: AUC {auc['value']:.2f}, 95 % interval "
        f"{auc['low']:.2f} to {auc['high']:.2f}."
    )
