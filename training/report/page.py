"""The text of `report.html`: one self-contained page that a reader understands in a minute.

In: the dict of `training.summary`, the records, pictures as PNG bytes. Out: HTML without any reference to elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.intervals import FEW_GROUPS, proportion
from training.report.cells import counted, mean_interval, number, percent, share_interval, table
from training.report.markup import Markup, html_document, join, png_figure, tag
from training.report.sections import (
    definitions,
    detection,
    failures,
    healthy,
    outlines,
    section,
    tumor_classes,
    tumors_by_size,
)
from training.report.style import CSS
from training.scoring import CaseScore, LesionRecord

Record = Mapping[str, Any]
Picture = tuple[str, bytes]  # caption, PNG

NOTICE = "Research software, not for clinical use"
TITLE = "Tumor segmentation: evaluation report"


def page(
    metrics: Record,
    scores: Sequence[CaseScore],
    lesions: Sequence[LesionRecord],
    pictures: Sequence[Picture],
    context: Mapping[str, str],
) -> str:
    """The whole report as HTML text."""
    body = [
        _opening(metrics),
        _tiles(metrics),
        tumors_by_size(metrics),
        _pictures(pictures),
        detection(metrics),
        healthy(metrics, scores),
        outlines(metrics, scores),
        failures(lesions),
        definitions(metrics["definitions"]),
        _context(context),
        tag("p", f"{NOTICE}.", class_="notice"),
    ]
    return html_document(TITLE, CSS, body)


def headline(metrics: Record) -> str:
    """The result in one plain sentence."""
    counts = metrics["counts"]
    if not counts["samples"]:
        return "Nothing was evaluated: there are no samples."
    if counts["tumors"]:
        return f"Found {counts['found_tumors']} of {counted(counts['tumors'], 'tumor')}."
    if not tumor_classes(metrics):
        return f"{counted(counts['samples'], 'sample')} evaluated, for organs only."
    clean = metrics["all_tumors"]["healthy"]["without_false_tumor"]
    return f"No tumors to find; {clean['count']} of {counted(clean['n'], 'healthy sample')} free of false tumors."


def _opening(metrics: Record) -> Markup:
    counts = metrics["counts"]
    extent = (
        f"{counted(counts['samples'], 'sample')} from {counted(counts['source_cases'], 'source case')}: "
        f"{counts['tumor_samples']} with tumor, {counts['healthy_samples']} healthy. {NOTICE}."
    )
    return join(
        [
            tag("h1", TITLE),
            tag("p", headline(metrics), class_="headline"),
            *(tag("p", sentence, class_="lead") for sentence in _leads(metrics)),
            tag("p", extent, class_="notice"),
            *(tag("p", warning, class_="warning") for warning in _warnings(metrics)),
        ]
    )


def _leads(metrics: Record) -> list[str]:
    """What belongs beside the headline: false tumors, and healthy samples."""
    counts, clean = metrics["counts"], metrics["all_tumors"]["healthy"]["without_false_tumor"]
    if not tumor_classes(metrics):
        return []
    leads = ["Nothing at all was predicted as tumor."]
    if counts["predicted_tumors"]:
        predicted = counted(counts["predicted_tumors"], "predicted tumor")
        leads = [f"{counts['false_tumors']} of {predicted} touched no true tumor (false tumors)."]
    if counts["found_tumors"]:
        better = metrics["all_tumors"]["lesions"]["sensitivity_iou_0.1"]["count"]
        leads.insert(0, f"Found means touched: {better} of them are covered well enough for an IoU of 0.1 or more.")
    if clean["n"] and counts["tumors"]:
        leads.append(f"{clean['count']} of {counted(clean['n'], 'healthy sample')} stayed free of false tumors.")
    return leads


def _warnings(metrics: Record) -> list[str]:
    """What the reader must not conclude."""
    counts = metrics["counts"]
    if not counts["samples"] or not tumor_classes(metrics):
        return []
    warnings = []
    if not counts["tumors"]:
        warnings.append("The truth holds no tumor of the evaluated classes: nothing here says how well they are found.")
    if not counts["healthy_samples"]:
        warnings.append("No healthy sample was evaluated: false alarms in healthy people are unknown.")
    if counts["source_cases"] == 1 < counts["samples"]:
        warnings.append("All samples come from one source case: the figures say nothing about other patients.")
    elif counts["source_cases"] < counts["samples"]:
        warnings.append(
            "Several samples share a source case. Intervals of means allow for that, and are left out below "
            f"{FEW_GROUPS} source cases; intervals of shares (such as tumors found) do not, and are too narrow."
        )
    return warnings


def _tiles(metrics: Record) -> Markup:
    """The four figures that most readers look for."""
    if not tumor_classes(metrics):
        return Markup()
    tumors = metrics["all_tumors"]
    lesions, false, overlap = tumors["lesions"], tumors["healthy"]["false_lesions_per_sample"], tumors["dice"]
    tiles = (
        ("Tumors found", *_share_figure(lesions["sensitivity"])),
        ("Tumors below 10 mm found", *_share_figure(_small_tumors(lesions["by_diameter"]))),
        ("False tumors per healthy sample", *_mean_figure(false, "healthy sample")),
        ("Tumor outline (Dice, best is 1)", *_mean_figure(overlap, "outline")),
    )
    boxes = (
        tag("div", tag("span", name, class_="name"), tag("b", value), *(tag("span", d) for d in details), class_="tile")
        for name, value, *details in tiles
    )
    return tag("div", *boxes, class_="tiles")


def _small_tumors(strata: Sequence[Record]) -> Record:
    small = [row for row in strata if row["below_mm"] is not None and row["below_mm"] <= 10]
    return proportion(sum(row["count"] for row in small), sum(row["n"] for row in small))


def _share_figure(share: Record) -> tuple[str, ...]:
    """Percent, and the lines that stand below it."""
    if not share["n"]:
        return percent(None), "none in the truth"
    return percent(share["value"]), f"{share['count']} of {share['n']}", f"95 % interval {share_interval(share)}"


def _mean_figure(mean: Record, noun: str) -> tuple[str, ...]:
    """Mean, and the lines that stand below it."""
    if not mean["n"]:
        return number(None, 2), f"no {noun}"
    interval = f"95 % interval {mean_interval(mean, 2)}" if mean["low"] is not None else mean["note"]
    return number(mean["mean"], 2), f"mean of {counted(mean['n'], noun)}", interval


def _pictures(pictures: Sequence[Picture]) -> Markup:
    if not pictures:
        return Markup()
    return section(
        "Examples",
        "CT, truth and prediction, each in the slice with the largest true tumor (without one, the largest predicted).",
        *(png_figure(caption, png) for caption, png in pictures),
    )


def _context(context: Mapping[str, str]) -> Markup:
    if not context:
        return Markup()
    return section("What was evaluated", "", table(("Item", "Value"), list(context.items()), class_="scroll plain"))
