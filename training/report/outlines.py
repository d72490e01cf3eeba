"""How well outlines fit: overlap and surface figures of all classes, the spread of tumor Dice, and volumes.

In: metrics and scores. Out: a section, or None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from training.records import CaseScore
from training.report.cells import Cell, class_title, interval_legend, mean_cell
from training.report.charts import count_bars
from training.report.content import Chart, Charts, Part, Section, Table
from training.report.plot import BLUE
from training.report.volumes import volume_chart, volume_table

Record = Mapping[str, Any]


def surface_dice_title(metrics: Record) -> str:
    """`Surface Dice 2 mm`."""
    return f"Surface Dice {metrics['settings']['nsd_tolerance_mm']:g} mm"


def outlines(metrics: Record, scores: Sequence[CaseScore]) -> Section | None:
    """Overlap and surface figures of all classes."""
    if not metrics["classes"]:
        return None
    header = (
        "Class",
        "Samples with the class (n)",
        "Dice",
        surface_dice_title(metrics),
        "HD95 (mm)",
        "Missed (n)",
        "Predicted where absent (n)",
    )
    rows = [(class_title(name), *_outline_row(figures)) for name, figures in metrics["classes"].items()]
    legend = interval_legend(figures["dice"] for figures in metrics["classes"].values())
    return Section(
        "Outlines and volumes",
        "How well the predicted outline fits, as the mean over the samples that have the class. Dice and surface Dice "
        f"run from 0 to 1, best is 1; HD95 and bias are best at 0. The limits of agreement hold 95 % of the samples' "
        f"differences in volume, if these are spread normally. {legend}",
        [Table(header, rows), *_tumors(metrics, scores)],
    )


def _outline_row(figures: Record) -> tuple[str | Cell, ...]:
    presence = figures["presence"]
    return (
        str(presence["both"] + presence["missed"]),
        mean_cell(figures["dice"], 3),
        mean_cell(figures["nsd_2mm"], 3),
        mean_cell(figures["hd95_mm"], 1),
        str(presence["missed"]),
        str(presence["only_predicted"]),
    )


def _tumors(metrics: Record, scores: Sequence[CaseScore]) -> list[Part]:
    tumors = [score for score in scores if score.tumor and (score.truth_voxels or score.predicted_voxels)]
    if not tumors:
        return []
    return [Charts([volume_chart(tumors), *_spread(tumors)]), volume_table(metrics, tumors)]


def _spread(tumors: Sequence[CaseScore]) -> list[Chart]:
    known = [score.dice for score in tumors if score.truth_voxels and score.dice is not None]
    if not known:
        return []
    bins = Counter(min(9, int(dice * 10)) for dice in known)
    labels = {f"{k / 10:.1f}": bins[k] for k in range(10)}
    drawn = count_bars(labels, "tumor Dice (best is 1)", "outlines (n)", BLUE)
    return [Chart(drawn, "Tumor Dice of each outline.", "A bar holds the 0.1 above its label.")]
