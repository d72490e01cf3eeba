"""The section that compares every arm with the reference arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.experiment.tables import LEGEND, cell
from training.report.cells import Cell, number
from training.report.content import Chart, Charts, Section, Table
from training.report.dots import Dot, difference_dots

Record = Mapping[str, Any]


def differences(document: Record) -> Section | None:
    """What each arm has more or less than `synthetic`."""
    rows = document["differences"]
    if not rows:
        return None
    dots = [Dot(row["name"], *(row["tumor_dice"][key] for key in ("mean", "low", "high"))) for row in rows]
    svg = difference_dots(dots, "tumor Dice minus that of synthetic")
    explanation = (
        "Each arm minus synthetic, paired by case and seed. p: how often a difference in tumor Dice as large comes "
        f"about by chance, by permutation of cases; below it, corrected for the number of arms (Holm). {LEGEND}"
    )
    header = ("Arm", "Tumor Dice", "Tumors found (share)", f"{document['organ'].capitalize()} Dice", "p (tumor Dice)")
    chart = Chart(svg, "Tumor Dice.", "On the right: better than synthetic.")
    return Section("Against synthetic", explanation, [Charts([chart]), Table(header, [_row(row) for row in rows])])


def _row(row: Record) -> tuple[str | Cell, ...]:
    figures = (cell(row[key], 3) for key in ("tumor_dice", "sensitivity", "organ_dice"))
    return row["name"], *figures, Cell(number(row["p"], 3), number(row["p_holm"], 3))
