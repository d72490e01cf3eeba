"""The tables of an experiment's report: a row an arm, figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
LEGEND = "In round brackets the 95 % interval over cases and seeds; in square brackets the range over seeds."


def figure_table(arms: Sequence[Record], shown: Sequence[Figure], organ: str) -> Table:
    """A row an arm."""
    titles = (figure.title.format(organ=organ.capitalize()) for figure in shown)
    rows: list[Sequence[str | Cell]] = []
    for arm in arms:
        first = arm["figures"][shown[0].key]
        name = Cell(arm["name"], arm["title"])
        counts = (str(first["cases"]), str(first["seeds"]))
        rows.append((name, *counts, *(cell(arm["figures"][figure.key], figure.digits) for figure in shown)))
    return Table(("Arm", "Cases", "Seeds", *titles), rows)


def cell(figure: Record, digits: int | None) -> Cell:
    """A figure with its interval, or with the range over its seeds."""
    if figure["low"] is not None:
        interval = share_interval(figure) if digits is None else mean_interval(figure, digits)
        return Cell(_text(figure["mean"], digits), f"({interval})")
    ends = sorted(figure["by_seed"])
    spread = f"[{_text(ends[0], digits)} to {_text(ends[-1], digits)}]" if len(ends) > 1 else ""
    return Cell(_text(figure["mean"], digits), spread)


def size_table(arms: Sequence[Record]) -> Table:
    """Tumors found of all, by diameter."""
    groups = [f"{stratum(row['from_mm'], row['below_mm'])} mm" for row in arms[0]["by_diameter"]]
    rows = [[arm["name"], *(f"{row['found']} of {row['n']}" for row in arm["by_diameter"])] for arm in arms]
    return Table(("Arm", *groups), rows)


def _text(value: float | None, digits: int | None) -> str:
    return percent(value) if digits is None else number(value, digits)
