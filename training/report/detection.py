"""Which tumors are found: by size, by false candidates per scan, by rule, in samples and patients.

In: the dict of `training.summary`. Out: sections; None where one does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.report.cells import Cell, class_title, counted, number, percent, share_cell, stratum
from training.report.charts import ShareBar, grouped_bars
from training.report.content import Chart, Charts, Section, Table
from training.report.curves import froc_chart
from training.report.opening import tumor_classes

Record = Mapping[str, Any]

RULES = {"overlap": "touched", "iou_0.1": "IoU 0.1 or more", "iou_0.5": "IoU 0.5 or more"}


def with_total(metrics: Record) -> list[tuple[str, Record]]:
    """Title and figures of each tumor class, and of all together where there are several."""
    classes = [(class_title(name), figures) for name, figures in tumor_classes(metrics).items()]
    return [*classes, ("All tumors", metrics["all_tumors"])] if len(classes) > 1 else classes


def tumors_found(metrics: Record) -> Section | None:
    """How many of the small and of the large tumors are found, and what they cost in false candidates."""
    if not metrics["counts"]["tumors"]:
        return None
    shown = [(name, figures) for name, figures in with_total(metrics) if figures["lesions"]["sensitivity"]["n"]]
    rows = [
        (name, stratum(row["from_mm"], row["below_mm"]), share_cell(row), share_cell(row["iou_0.1"]))
        for name, figures in shown
        for row in figures["lesions"]["by_diameter"]
    ]
    curves = {name: figures["froc"] for name, figures in shown if figures.get("froc")}
    return Section(
        "Tumors found, by size",
        "Share of the n true tumors of each diameter that the prediction finds: touches at all, or covers with an IoU "
        "of 0.1 or more. With 95 % Wilson intervals: the fewer tumors, the wider.",
        [
            Charts([*(_size_chart(name, figures) for name, figures in shown), *_froc_chart(curves)]),
            Table(("Class", "Diameter (mm)", "Touched", "IoU 0.1 or more"), rows, "Numbers by size", folded=True),
            *_froc_table(curves),
        ],
    )


def _size_chart(name: str, figures: Record) -> Chart:
    rows = figures["lesions"]["by_diameter"]
    labels = [stratum(row["from_mm"], row["below_mm"]) for row in rows]
    series = {
        "touched": [_bar(label, row) for label, row in zip(labels, rows, strict=True)],
        "IoU 0.1 or more": [_bar(label, row["iou_0.1"]) for label, row in zip(labels, rows, strict=True)],
    }
    whole = figures["lesions"]["sensitivity"]
    drawn = grouped_bars(series, "tumor diameter (mm)", "tumors found")
    return Chart(drawn, f"{name}:", f"{whole['count']} of {whole['n']} touched. Above each bar its percent.")


def _bar(label: str, share: Record) -> ShareBar:
    return ShareBar(label, share["count"], share["n"], share["low"], share["high"])


def _froc_chart(curves: Mapping[str, Record]) -> list[Chart]:
    """Sensitivity against false candidates per scan, where probabilities were at hand."""
    if not curves:
        return []
    points = {
        name: [(point["false_per_scan"], point["sensitivity"]) for point in curve["points"]]
        for name, curve in curves.items()
    }
    scans = max(curve["scans"] for curve in curves.values())
    caption = (
        f"over {counted(scans, 'scan')}: what the tumors found cost in false candidates. A candidate is a connected "
        "piece of raised tumor probability; the lower the probability asked for, the more are found (up) and the more "
        "are false (right)."
    )
    return [Chart(froc_chart(points, _rates(curves)), "FROC", caption)]


def _froc_table(curves: Mapping[str, Record]) -> list[Table]:
    if not curves:
        return []
    header = ("FROC: tumors found at false candidates per scan of", *(f"{rate:g}" for rate in _rates(curves)), "Mean")
    rows = [(name, *map(percent, curve["at"].values()), number(curve["mean"], 2)) for name, curve in curves.items()]
    return [Table(header, rows)]


def _rates(curves: Mapping[str, Record]) -> list[float]:
    return [float(rate) for rate in next(iter(curves.values()))["at"]]


def detection(metrics: Record) -> Section | None:
    """Sensitivity, precision and F1 of each tumor class by rule, then whether samples and patients are flagged."""
    shown = with_total(metrics)
    if not shown:
        return None
    flagged: list[tuple[str | Cell, ...]] = [(name, *_flagged(figures)) for name, figures in shown]
    return Section(
        "Detection",
        "Counts of tumors under three rules for what counts as found; in brackets the 95 % interval. F1 is the "
        "harmonic mean of sensitivity and precision, best is 1. The second table only asks whether any tumor of the "
        "class is predicted, not where; a patient counts once, however many samples come from the same CT.",
        [
            Table(
                ("Found means", "True tumors found (sensitivity)", "Predicted tumors that are true (precision)", "F1"),
                [row for name, figures in shown for row in _rules(f"{name}, ", figures["lesions"])],
            ),
            Table(("Class", *_FLAGGED), flagged),
        ],
    )


def _rules(prefix: str, lesions: Record) -> list[tuple[str | Cell, ...]]:
    rules = ((title, lesions["by_rule"][key]) for key, title in RULES.items())
    return [
        (prefix + title, share_cell(rule["sensitivity"]), share_cell(rule["precision"]), number(rule["f1"], 2))
        for title, rule in rules
    ]


_FLAGGED = (
    "Samples with tumor flagged (sensitivity)",
    "Samples without tumor left clean (specificity)",
    "Patients with tumor flagged (sensitivity)",
    "Patients without tumor left clean (specificity)",
)


def _flagged(figures: Record) -> list[Cell]:
    return [
        share_cell(figures[unit][name]) for unit in ("samples", "patients") for name in ("sensitivity", "specificity")
    ]
