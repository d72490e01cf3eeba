"""False alarms where there is no tumor. In: metrics and scores. Out: a section, or None where no sample is healthy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from training.records import CaseScore
from training.report.cells import interval_legend, mean_cell, share_cell
from training.report.charts import count_bars
from training.report.content import Chart, Charts, Section, Table
from training.report.detection import with_total
from training.report.plot import ORANGE

Record = Mapping[str, Any]

_MANY = 5  # false tumors in one sample: the last bar


def healthy(metrics: Record, scores: Sequence[CaseScore]) -> Section | None:
    """False tumors and ml per healthy sample, and how many samples and patients stay clean."""
    shown = with_total(metrics)
    if not shown or not metrics["counts"]["healthy_samples"]:
        return None
    header = (
        "False tumors of class",
        "False tumors per healthy sample",
        "False volume per healthy sample (ml)",
        "Healthy samples without any",
        "Patients without this tumor left clean (specificity)",
    )
    rows = [
        (
            title,
            mean_cell(figures["healthy"]["false_lesions_per_sample"], 2),
            mean_cell(figures["healthy"]["false_ml_per_sample"], 3),
            share_cell(figures["healthy"]["without_false_tumor"]),
            share_cell(figures["patients"]["specificity"]),
        )
        for title, figures in shown
    ]
    drawn = count_bars(_false_counts(scores), "false tumors in the sample", "healthy samples (n)", ORANGE)
    return Section(
        "False alarms on healthy samples",
        "These samples have no tumor: whatever is predicted as tumor is wrong. Best is 0. "
        + interval_legend(figures["healthy"]["false_lesions_per_sample"] for _, figures in shown),
        [
            Table(header, rows),
            Charts([Chart(drawn, "False tumors in each healthy sample,", "all classes together")]),
        ],
    )


def _false_counts(scores: Sequence[CaseScore]) -> dict[str, int]:
    """How many healthy samples have 0, 1, ... false tumors."""
    false: Counter[str] = Counter()
    for score in scores:
        if score.healthy and score.tumor:
            false[score.case_id] += score.false_positive_lesions or 0
    samples = Counter(min(_MANY, n) for n in false.values())
    return {f"{_MANY} or more" if n == _MANY else str(n): samples[n] for n in range(_MANY + 1)}
