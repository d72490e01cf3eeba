"""The tables of an experiment's report: a row an arm, figures with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.progress import duration
from training.experiment.spread import OVER_BOTH, OVER_CASES, OVER_SEEDS
from training.report.cells import Cell, mean_interval, number, percent, share_interval, stratum
from training.report.content import Table

Record = Mapping[str, Any]


class Figure(NamedTuple):
    """A column: its title (`{organ}` stands for the organ), its key in `figures`, digits, or None for percent."""

    title: str
    key: str
    digits: int | None


DICE = Figure("Tumor Dice", "tumor_dice", 2)
FOUND = Figure("Tumors found", "sensitivity", None)
FALSE_ML = Figure("False tumor a scan (ml)", "false_ml", 1)
ORGAN_DICE = Figure("{organ} Dice", "organ_dice", 2)
ON_REAL = (
    DICE,
    Figure("Surface Dice", "tumor_nsd", 2),
    FOUND,
    Figure("False tumors a scan", "false_tumors", 1),
    FALSE_ML,
    ORGAN_DICE,
)
ON_HEALTHY = (
    Figure("Scans without false tumor", "healthy_clean", None),
    Figure("False tumors a scan", "healthy_false_tumors", 1),
    Figure("False tumor a scan (ml)", "healthy_false_ml", 1),
)
_KEYS = {
    OVER_CASES: "In round brackets the 95 % interval over cases.",
    OVER_BOTH: "In round brackets the 95 % interval over cases and seeds.",
    OVER_SEEDS: f"In square brackets the 95 % t interval {OVER_SEEDS}.",
}


def legend(figures: Iterable[Record]) -> str:
    """What the brackets behind these figures stand for."""
    found = {figure["interval"] for figure in figures}
    keys = [words for over, words in _KEYS.items() if over in found]
    return " ".join(keys) or "No intervals: too few cases, and one seed."


def arms_legend(arms: Sequence[Record], shown: Sequence[Figure]) -> str:
    """The same for a table of arms."""
    return legend(arm["figures"][figure.key] for arm in arms for figure in shown)


def whiskers(figures: Iterable[Record]) -> str:
    """What the whiskers of a chart of these figures stand for."""
    found = {figure["interval"] for figure in figures}
    over = [over for over in _KEYS if over in found]
    return f"Whiskers: 95 % intervals {' or '.join(over)}." if over else "No intervals: too few cases, and one seed."


def figure_table(arms: Sequence[Record], shown: Sequence[Figure], organ: str, timed: bool = False) -> Table:
    """A row an arm; `timed`: with the time that an annotator would have taken."""
    titles = (figure.title.format(organ=organ.capitalize()) for figure in shown)
    time = ("Annotation",) if timed else ()
    rows: list[Sequence[str | Cell]] = []
    for arm in arms:
        first = arm["figures"][shown[0].key]
        name = Cell(arm["name"], arm["title"])
        counts = (*([annotation_time(arm["minutes"])] if timed else []), str(first["cases"]), str(first["seeds"]))
        rows.append((name, *counts, *(cell(arm["figures"][figure.key], figure.digits) for figure in shown)))
    return Table(("Arm", *time, "Cases", "Seeds", *titles), rows)


def annotation_time(minutes: float | None) -> str:
    """`3 h 20 min`, or a dash where it is not known."""
    return "–" if minutes is None else duration(60 * minutes)


def cell(figure: Record, digits: int | None) -> Cell:
    """A figure with its interval, in square brackets where that is over seeds alone."""
    value = percent(figure["mean"]) if digits is None else number(figure["mean"], digits)
    interval = share_interval(figure) if digits is None else mean_interval(figure, digits)
    if not interval:
        return Cell(value)
    return Cell(value, f"[{interval}]" if figure["interval"] == OVER_SEEDS else f"({interval})")


def size_table(arms: Sequence[Record]) -> Table:
    """Tumors found of all, by diameter."""
    groups = [f"{stratum(row['from_mm'], row['below_mm'])} mm" for row in arms[0]["by_diameter"]]
    rows = [[arm["name"], *(f"{row['found']} of {row['n']}" for row in arm["by_diameter"])] for arm in arms]
    return Table(("Arm", *groups), rows)
