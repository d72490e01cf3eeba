"""The report's sections of figures: metrics or records in, markup out; empty where a section does not apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.organs import CLASS_IDS
from training.report.cells import class_title, interval_legend, mean_cell, share_cell, stratum, table
from training.report.charts import BLUE, ORANGE, ShareBar, count_bars, share_bars, volume_scatter
from training.report.markup import Markup, tag
from training.scoring import CaseScore, LesionRecord

Record = Mapping[str, Any]

LISTED_LESIONS = 10
_MANY = 5  # false tumors in one sample: the last bar


def section(title: str, explanation: str, *parts: Markup) -> Markup:
    """A heading, what the reader sees there, and the parts."""
    explained = [tag("p", explanation, class_="explain")] if explanation else []
    return tag("section", tag("h2", title), *explained, *parts)


def definitions(words: Mapping[str, str]) -> Markup:
    """What the words of a report mean."""
    items = (part for name, text in words.items() for part in (tag("dt", name), tag("dd", text)))
    return section("What the words mean", "", tag("dl", *items))


def tumor_classes(metrics: Record) -> dict[str, Record]:
    """The figures of the tumor classes, by name."""
    return {name: figures for name, figures in metrics["classes"].items() if figures["kind"] == "tumor"}


def tumors_by_size(metrics: Record) -> Markup:
    """How many of the small and of the large tumors are found."""
    if not metrics["counts"]["tumors"]:
        return Markup()
    charts = [_size_chart(name, figures) for name, figures in _with_total(metrics) if _true_tumors(figures)]
    return section(
        "Tumors found, by size",
        "Each bar is the share of true tumors of that diameter which the prediction touches. The whisker is the 95 % "
        "Wilson interval: the fewer tumors stand behind a bar, the longer it is.",
        tag("div", *charts, class_="charts"),
    )


def _true_tumors(figures: Record) -> int:
    return int(figures["lesions"]["sensitivity"]["n"])


def _with_total(metrics: Record) -> list[tuple[str, Record]]:
    """Title and figures of each tumor class, and of all together where there are several."""
    classes = [(class_title(name), figures) for name, figures in tumor_classes(metrics).items()]
    return [*classes, ("All tumors", metrics["all_tumors"])] if len(classes) > 1 else classes


def _size_chart(name: str, figures: Record) -> Markup:
    bars = [
        ShareBar(stratum(row["from_mm"], row["below_mm"]), row["count"], row["n"], row["low"], row["high"])
        for row in figures["lesions"]["by_diameter"]
    ]
    whole = figures["lesions"]["sensitivity"]
    caption = tag("figcaption", tag("b", name), f": {whole['count']} of {whole['n']} found")
    return tag("figure", share_bars(bars, "tumor diameter (mm)", "tumors found"), caption)


def detection(metrics: Record) -> Markup:
    """Sensitivity and precision of each tumor class."""
    if not tumor_classes(metrics):
        return Markup()
    header = (
        "Class",
        "True tumors found (sensitivity)",
        "Found with IoU of 0.1 or more",
        "Predicted tumors that are true (precision)",
        "Samples with tumor flagged (sensitivity)",
        "Samples without tumor left clean (specificity)",
    )
    rows = [
        (
            title,
            share_cell(figures["lesions"]["sensitivity"]),
            share_cell(figures["lesions"]["sensitivity_iou_0.1"]),
            share_cell(figures["lesions"]["precision"]),
            share_cell(figures["samples"]["sensitivity"]),
            share_cell(figures["samples"]["specificity"]),
        )
        for title, figures in _with_total(metrics)
    ]
    return section(
        "Detection",
        "Counts of tumors, then counts of samples; in brackets the 95 % interval. The sample columns only ask whether "
        "any tumor of the class is predicted, not where.",
        table(header, rows),
    )


def healthy(metrics: Record, scores: Sequence[CaseScore]) -> Markup:
    """False tumors where there are none."""
    if not tumor_classes(metrics) or not metrics["counts"]["healthy_samples"]:
        return Markup()
    header = (
        "False tumors of class",
        "Healthy samples without any",
        "False tumors per healthy sample",
        "False volume per healthy sample (ml)",
    )
    rows = [
        (
            title,
            share_cell(figures["healthy"]["without_false_tumor"]),
            mean_cell(figures["healthy"]["false_lesions_per_sample"], 2),
            mean_cell(figures["healthy"]["false_ml_per_sample"], 3),
        )
        for title, figures in _with_total(metrics)
    ]
    caption = tag("figcaption", tag("b", "False tumors in each healthy sample"), ", all classes together")
    chart = count_bars(_false_counts(scores), "false tumors in the sample", "healthy samples (n)", ORANGE)
    return section(
        "False alarms on healthy samples",
        "These samples have no tumor: whatever is predicted as tumor is wrong. Best is 0. "
        + interval_legend(figures["healthy"]["false_lesions_per_sample"] for _, figures in _with_total(metrics)),
        table(header, rows),
        tag("div", tag("figure", chart, caption), class_="charts"),
    )


def _false_counts(scores: Sequence[CaseScore]) -> dict[str, int]:
    """How many healthy samples have 0, 1, ... false tumors."""
    false: Counter[str] = Counter()
    for score in scores:
        if score.healthy and score.tumor:
            false[score.case_id] += score.false_positive_lesions or 0
    samples = Counter(min(_MANY, n) for n in false.values())
    return {f"{_MANY} or more" if n == _MANY else str(n): samples[n] for n in range(_MANY + 1)}


def outlines(metrics: Record, scores: Sequence[CaseScore]) -> Markup:
    """Overlap and surface figures of all classes, and the volumes of tumors."""
    if not metrics["classes"]:
        return Markup()
    header = (
        "Class",
        "Samples with the class (n)",
        "Dice",
        "Surface Dice 2 mm",
        "HD95 (mm)",
        "Volume error (ml)",
        "Missed (n)",
        "Predicted where absent (n)",
    )
    rows = [(class_title(name), *_outline_row(figures)) for name, figures in metrics["classes"].items()]
    return section(
        "Outlines",
        "How well the predicted outline fits, as the mean over the samples that have the class. Dice and surface Dice "
        "run from 0 to 1, best is 1; HD95 and volume error are best at 0. "
        + interval_legend(figures["dice"] for figures in metrics["classes"].values()),
        table(header, rows),
        tag("div", *_outline_charts(scores), class_="charts"),
    )


def _outline_row(figures: Record) -> tuple[str, ...]:
    presence = figures["presence"]
    return (
        str(presence["both"] + presence["missed"]),
        mean_cell(figures["dice"], 3),
        mean_cell(figures["nsd_2mm"], 3),
        mean_cell(figures["hd95_mm"], 1),
        mean_cell(figures["volume_error_ml"], 2),
        str(presence["missed"]),
        str(presence["only_predicted"]),
    )


def _outline_charts(scores: Sequence[CaseScore]) -> list[Markup]:
    tumors = [score for score in scores if score.tumor and (score.truth_voxels or score.predicted_voxels)]
    if not tumors:
        return []
    scatter = tag(
        "figcaption",
        tag("b", "Tumor volume, one point a sample."),
        " On the dashed line prediction and truth agree. Points at 0 are missed (bottom) or false (left).",
    )
    charts = [tag("figure", volume_scatter(_volumes(tumors)), scatter)]
    bins = Counter(min(9, int(score.dice * 10)) for score in tumors if score.truth_voxels and score.dice is not None)
    if bins:
        labels = {f"{k / 10:.1f}": bins[k] for k in range(10)}
        spread = tag("figcaption", tag("b", "Tumor Dice of each outline."), " A bar holds the 0.1 above its label.")
        charts.append(tag("figure", count_bars(labels, "tumor Dice (best is 1)", "outlines (n)", BLUE), spread))
    return charts


def _volumes(tumors: Sequence[CaseScore]) -> dict[str, list[tuple[float, float]]]:
    """True and predicted ml of each sample, by class."""
    volumes: dict[str, list[tuple[float, float]]] = {}
    for score in sorted(tumors, key=lambda score: (CLASS_IDS[score.class_name], score.case_id)):
        volumes.setdefault(class_title(score.class_name), []).append((score.truth_ml, score.predicted_ml))
    return volumes


def failures(lesions: Sequence[LesionRecord]) -> Markup:
    """The largest missed and the largest false tumors, to look them up."""
    parts = []
    for source, title in (("truth", "Largest missed tumors"), ("prediction", "Largest false tumors")):
        wrong = [lesion for lesion in lesions if lesion.source == source and not lesion.matched]
        wrong.sort(key=lambda lesion: (-lesion.volume_mm3, lesion.case_id, lesion.lesion_id))
        if wrong:
            shown = wrong[:LISTED_LESIONS]
            parts += [tag("p", tag("b", title), f" ({len(shown)} of {len(wrong)})"), _lesion_table(shown)]
    return section("Where it fails", "The complete list is in lesions.parquet.", *parts) if parts else Markup()


def _lesion_table(lesions: Sequence[LesionRecord]) -> Markup:
    header = ("Sample", "Class", "Diameter (mm)", "Volume (ml)", "Center (voxel X, Y, Z)")
    rows = [
        (
            lesion.case_id,
            class_title(lesion.class_name),
            f"{lesion.diameter_mm:.1f}",
            f"{lesion.volume_mm3 / 1000:.3f}",
            f"{lesion.centroid_x_vox:.0f}, {lesion.centroid_y_vox:.0f}, {lesion.centroid_z_vox:.0f}",
        )
        for lesion in lesions
    ]
    return table(header, rows)
