"""Predicted against true tumor volume: agreement, bias, and volume in wrong places.

In: metrics and scores of tumors. Out: a chart, a table.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.organs import CLASS_IDS
from training.records import CaseScore
from training.report.cells import Cell, class_title, mean_cell, number
from training.report.content import Chart, Table
from training.report.opening import tumor_classes
from training.report.scatter import volume_scatter

Record = Mapping[str, Any]

_LIMITS_SD = 1.96  # Bland and Altman 1986: limits that hold 95 % of normally distributed differences


def volume_chart(tumors: Sequence[CaseScore]) -> Chart:
    """Predicted over true volume of these scores."""
    return Chart(
        volume_scatter(_points(tumors)),
        "Tumor volume, one point a sample.",
        "On the dashed line prediction and truth agree. Points at 0 are missed (bottom) or false (left).",
    )


def volume_table(metrics: Record, tumors: Sequence[CaseScore]) -> Table:
    """Bias with interval and limits of agreement of the samples that have the class, and volume in wrong places."""
    header = (
        "Volume",
        "Samples with the class (n)",
        "True, mean (ml)",
        "Predicted, mean (ml)",
        "Bias: predicted minus true (ml)",
        "Limits of agreement (ml)",
        "False tumors (ml a sample)",
        "Missed tumors (ml a sample)",
    )
    rows = [
        (class_title(name), *_row(figures, _present(tumors, name))) for name, figures in tumor_classes(metrics).items()
    ]
    return Table(header, rows)


def _present(tumors: Sequence[CaseScore], name: str) -> list[CaseScore]:
    return [score for score in tumors if score.class_name == name and score.truth_voxels]


def _row(figures: Record, present: Sequence[CaseScore]) -> tuple[str | Cell, ...]:
    wrong = figures["volumes"]
    return (
        str(len(present)),
        number(_mean([score.truth_ml for score in present]), 2),
        number(_mean([score.predicted_ml for score in present]), 2),
        mean_cell(figures["volume_error_ml"], 2),
        _limits([score.predicted_ml - score.truth_ml for score in present]),
        mean_cell(wrong["false_positive_ml"], 2),
        mean_cell(wrong["false_negative_ml"], 2),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _limits(differences: Sequence[float]) -> str:
    if len(differences) < 2:
        return number(None, 2)
    bias, half = statistics.fmean(differences), _LIMITS_SD * statistics.stdev(differences)
    return f"{number(bias - half, 2)} to {number(bias + half, 2)}"


def _points(tumors: Sequence[CaseScore]) -> dict[str, list[tuple[float, float]]]:
    """True and predicted ml of each sample, by class."""
    points: dict[str, list[tuple[float, float]]] = {}
    for score in sorted(tumors, key=lambda score: (CLASS_IDS[score.class_name], score.case_id)):
        points.setdefault(class_title(score.class_name), []).append((score.truth_ml, score.predicted_ml))
    return points
