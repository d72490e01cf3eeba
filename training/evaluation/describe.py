"""What an evaluation or a comparison found, in a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.report.verdict import headline

Figures = Mapping[str, Any]


def describe(metrics: Figures, out: Path) -> list[str]:
    """An evaluation in five lines."""
    counts, tumors = metrics["counts"], metrics["all_tumors"]
    dice = tumors["dice"]
    tolerance = f"{metrics['settings']['nsd_tolerance_mm']:g} mm"
    sizes = ", ".join(_stratum(row) for row in tumors["lesions"]["by_diameter"] if row["n"])
    healthy = tumors["healthy"]
    clean = f"{healthy['without_false_tumor']['count']} of {healthy['n']} healthy samples are clean"
    clean = clean if healthy["n"] else "no healthy samples"
    return [
        f"found (touched) {counts['found_tumors']} of {counts['tumors']} tumors in {counts['tumor_samples']} samples, "
        f"{tumors['lesions']['sensitivity_iou_0.1']['count']} of them with an IoU of 0.1 or more",
        f"by size: {sizes or 'no tumors'}",
        f"outline: Dice {_number(dice['mean'])}, surface Dice at {tolerance} {_number(tumors['nsd_2mm']['mean'])}",
        f"false alarms: {counts['false_tumors']} in {counts['samples']} samples; {clean}",
        f"report: {out / 'report.html'}",
    ]


def _stratum(row: Figures) -> str:
    size = f">{row['from_mm']:g} mm" if row["below_mm"] is None else f"{row['from_mm']:g}-{row['below_mm']:g} mm"
    return f"{size} {row['count']} of {row['n']}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


_SHOWN = ("dice", "false_positive_lesions", "false_positive_ml")


def describe_comparison(record: Figures, out: Path) -> list[str]:
    """A comparison in a few lines, of all tumors together where there are any; each p is after Holm."""
    rows = [*record["measures"], *record["shares"]]
    if not rows:
        return [headline(record), f"report: {out / 'report.html'}"]
    names = [row["class"] for row in rows]
    name = "all_tumors" if "all_tumors" in names else next((n for n in names if n.endswith("_tumor")), names[0])
    own = [row for row in rows if row["class"] == name]
    return [
        headline(record),
        f"{name} in {record['pairs']['samples']} samples of {record['pairs']['source_cases']} source cases, a and b:",
        *(_difference(row) for row in own if row["measure"] in _SHOWN),
        *(_counts(row) for row in own if "mcnemar_p" in row and row["n"]),
        f"report: {out / 'report.html'}",
    ]


def _difference(row: Figures) -> str:
    low, high = row["difference"]["low"], row["difference"]["high"]
    interval = "no interval" if low is None else f"{low:+.2f} to {high:+.2f}"
    means = f"{_number(row['mean_a'])} and {_number(row['mean_b'])}"
    return f"{row['measure']}: {means}, b minus a {interval}, p {_p(row['permutation_p_holm'])} (n {row['n']})"


def _counts(row: Figures) -> str:
    a, b = (row[side]["count"] for side in ("a", "b"))
    return f"{row['measure']}: {a} and {b} of {row['n']}, p {_p(row['mcnemar_p_holm'])}"


def _p(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2g}"
