"""The section that compares every arm with the reference arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.tables import cell, legend, whiskers
from training.report.cells import Cell, number
from training.report.content import Chart, Charts, Section, Table
from training.report.dots import Dot, difference_dots

Record = Mapping[str, Any]
_FIGURES = ("tumor_dice", "sensitivity", "organ_dice")


def differences(rows: Sequence[Record], reference: str, organ: str, title: str) -> Section | None:
    """What each arm has more or less than the reference."""
    if not rows:
        return None
    dots = [Dot(row["name"], *(row["tumor_dice"][key] for key in ("mean", "low", "high"))) for row in rows]
    svg = difference_dots(dots, f"tumor Dice minus that of {reference}")
    explanation = (
        f"Each arm minus {reference}, paired by case and seed. p: how often a difference in tumor Dice as large comes "
        "about by chance, by permutation of cases; below it, corrected for the number of arms (Holm). "
        f"{legend(row[key] for row in rows for key in _FIGURES)}"
    )
    header = ("Arm", "Tumor Dice", "Tumors found (share)", f"{organ.capitalize()} Dice", "p (tumor Dice)")
    caption = f"On the right: better than {reference}. {whiskers(row['tumor_dice'] for row in rows)}"
    chart = Chart(svg, "Tumor Dice.", caption)
    return Section(title, explanation, [Charts([chart]), Table(header, [_row(row) for row in rows])])


def _row(row: Record) -> tuple[str | Cell, ...]:
    figures = (cell(row[key], 3) for key in _FIGURES)
    return row["name"], *figures, Cell(number(row["p"], 3), number(row["p_holm"], 3))
