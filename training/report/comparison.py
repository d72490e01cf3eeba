"""What a report of two compared evaluations says below its opening. In: the dict of `training.comparison`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from training.report.cells import Cell, interval_legend, mean_interval, number, p_value, share_cell, signed
from training.report.content import Chart, Charts, Section, Table, Terms
from training.report.dots import Dot, difference_dots
from training.report.figure_names import digits, measure_title, share_title
from training.report.page import evaluated
from training.report.sections import MEANINGS

Record = Mapping[str, Any]

_UNITS = {
    "": "Dice and surface Dice",
    "mm": "Distance (mm)",
    "ml": "Volume (ml)",
    "tumors a sample": "False tumors a sample",
}


def comparison(record: Record, context: Mapping[str, str]) -> list[Section]:
    """Differences of means, shares, what the words mean, what was compared."""
    found = (
        _means(record),
        _shares(record),
        Section(MEANINGS, "", [Terms(record["definitions"])]),
        evaluated("What was compared", context, record["settings"]),
    )
    return [section for section in found if section is not None]


def _means(record: Record) -> Section | None:
    rows = [row for row in record["measures"] if row["n"]]
    if not rows:
        return None
    header = (
        "Figure",
        "Samples (source cases)",
        "a",
        "b",
        "b minus a",
        "Better is",
        "p after Holm, permutation (before)",
        "p after Holm, Wilcoxon (before)",
    )
    legend = interval_legend(row["difference"] for row in rows)
    return Section(
        "Differences of means",
        "Means and differences over the samples that have the figure on both sides. An interval that holds 0 leaves "
        f"open whether there is a difference. {legend}",
        [
            Charts(_charts(rows, record["settings"])),
            Table(header, [_mean_row(row, record["settings"]) for row in rows]),
        ],
    )


def _mean_row(row: Record, settings: Record) -> tuple[str | Cell, ...]:
    places, difference = digits(row), row["difference"]
    star = "*" if "note" in difference else ""
    interval = mean_interval(difference, places)
    unit = f" ({row['unit']})" if row["unit"] in ("mm", "ml") else ""
    return (
        measure_title(row, settings) + unit,
        f"{row['n']} ({row['groups']})",
        number(row["mean_a"], places),
        number(row["mean_b"], places),
        Cell(signed(difference["mean"], places) + star, f"({interval})" if interval else ""),
        row["better"],
        _p_cell(row, "permutation_p"),
        _p_cell(row, "wilcoxon_p"),
    )


def _p_cell(row: Record, name: str) -> Cell:
    before = row[name]
    return Cell(p_value(row[f"{name}_holm"]), "" if before is None else f"({p_value(before)})")


def _charts(rows: Sequence[Record], settings: Record) -> list[Chart]:
    """One for each unit, since their axes cannot be shared."""
    order = list(_UNITS)
    by_unit = groupby(sorted(rows, key=lambda row: order.index(row["unit"])), key=lambda row: row["unit"])
    return [_chart(unit, list(found), settings) for unit, found in by_unit]


def _chart(unit: str, rows: Sequence[Record], settings: Record) -> Chart:
    dots = [
        Dot(
            measure_title(row, settings),
            row["difference"]["mean"],
            row["difference"]["low"],
            row["difference"]["high"],
            f"n = {row['n']}",
        )
        for row in rows
    ]
    side = "right" if rows[0]["better"] == "higher" else "left"
    return Chart(difference_dots(dots, "b minus a"), f"{_UNITS[unit]}.", f"On the {side} of 0 b is better.")


def _shares(record: Record) -> Section | None:
    rows = [row for row in record["shares"] if row["n"]]
    if not rows:
        return None
    header = ("Figure", "a", "b", "Only a (n)", "Only b (n)", "p after Holm, McNemar (before)")
    cells = [
        (
            share_title(row),
            share_cell(row["a"]),
            share_cell(row["b"]),
            str(row["only_a"]),
            str(row["only_b"]),
            _p_cell(row, "mcnemar_p"),
        )
        for row in rows
    ]
    return Section(
        "Tumors found, samples told apart",
        "The same true tumors and the same samples for both; in brackets the 95 % Wilson interval. Only those that one "
        "side alone gets right tell the two apart.",
        [Table(header, cells)],
    )
