"""Tumors found by what is known of them: organ, kind, contrast, texture. In: metrics. Out: a section, or None."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from training.report.cells import share_cell
from training.report.content import Chart, Charts, Section, Table
from training.report.dots import Dot, share_dots

Record = Mapping[str, Any]

_TITLES = {
    "organ": "By organ",
    "kind": "By kind of tumor",
    "contrast_hu": "By contrast to the organ",
    "texture": "By texture",
}


def strata(metrics: Record) -> Section | None:
    """A chart for each fact that tells the tumors apart; what all of them share is no stratum."""
    known = {title: metrics["all_tumors"]["strata"].get(key, []) for key, title in _TITLES.items()}
    shown = {title: rows for title, rows in known.items() if len(rows) > 1}
    if not shown:
        return None
    rows = [(title, _name(row), share_cell(row)) for title, found in shown.items() for row in found]
    return Section(
        "Tumors found, by what they are",
        "Share of the true tumors that the prediction touches, with its 95 % Wilson interval and n. Tumors of which "
        "the fact is not known are left out.",
        [
            Charts([_chart(title, found) for title, found in shown.items()]),
            Table(("Split", "Stratum", "Touched"), rows, "The numbers", folded=True),
        ],
    )


def _chart(title: str, rows: Sequence[Record]) -> Chart:
    dots = [Dot(_name(row), row["value"], row["low"], row["high"], f"{row['count']} of {row['n']}") for row in rows]
    total = sum(row["n"] for row in rows)
    return Chart(share_dots(dots, "tumors found"), title, f"(n = {total})")


def _name(row: Record) -> str:
    """`clear_cell` as `clear cell`, `-40 to -20` with true minus signs."""
    name = str(row["name"]).replace("_", " ")
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", name)
