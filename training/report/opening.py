"""The top of an evaluation report: the result in one sentence, what belongs beside it, what not to conclude.

In: the dict of `training.summary`. Out: `Opening`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.intervals import FEW_GROUPS, proportion
from training.report.cells import counted, mean_interval, number, percent, share_interval
from training.report.content import Opening, Tile

Record = Mapping[str, Any]

NOTICE = "Research software, not for clinical use"
TITLE = "Tumor segmentation: evaluation report"
SMALL_MM = 10  # tumors below it are what reading misses most, and what synthesis is for


def opening(metrics: Record) -> Opening:
    """Headline, leads, warnings and tiles of an evaluation."""
    counts = metrics["counts"]
    notice = (
        f"{counted(counts['samples'], 'sample')} from {counted(counts['source_cases'], 'source case')}: "
        f"{counts['tumor_samples']} with tumor, {counts['healthy_samples']} healthy. {NOTICE}."
    )
    return Opening(TITLE, headline(metrics), _leads(metrics), notice, _warnings(metrics), _tiles(metrics))


def tumor_classes(metrics: Record) -> dict[str, Record]:
    """The figures of the tumor classes, by name."""
    return {name: figures for name, figures in metrics["classes"].items() if figures["kind"] == "tumor"}


def headline(metrics: Record) -> str:
    """The result in one plain sentence."""
    counts = metrics["counts"]
    if not counts["samples"]:
        return "Nothing was evaluated: there are no samples."
    if counts["tumors"]:
        found = metrics["all_tumors"]["lesions"]["sensitivity"]
        share = f"{percent(found['value'])} (95 % interval {share_interval(found)})"
        return f"Found {found['count']} of {counted(found['n'], 'tumor')}: {share}."
    if not tumor_classes(metrics):
        return f"{counted(counts['samples'], 'sample')} evaluated, for organs only."
    clean = metrics["all_tumors"]["healthy"]["without_false_tumor"]
    return f"No tumors to find; {clean['count']} of {counted(clean['n'], 'healthy sample')} free of false tumors."


def _leads(metrics: Record) -> list[str]:
    """What belongs beside the headline: how well they are covered, false tumors, and healthy samples."""
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


def _tiles(metrics: Record) -> list[Tile]:
    """The four figures that most readers look for."""
    if not tumor_classes(metrics):
        return []
    tumors = metrics["all_tumors"]
    lesions, false, overlap = tumors["lesions"], tumors["healthy"]["false_lesions_per_sample"], tumors["dice"]
    return [
        _share_tile("Tumors found", lesions["sensitivity"]),
        *_small_tile(lesions["by_diameter"]),
        _mean_tile("False tumors per healthy sample", false, "healthy sample"),
        _mean_tile("Tumor outline (Dice, best is 1)", overlap, "outline"),
    ]


def _small_tile(strata: Sequence[Record]) -> list[Tile]:
    """Small tumors, where the strata have a border at what counts as small."""
    small = [row for row in strata if row["below_mm"] is not None and row["below_mm"] <= SMALL_MM]
    if not small or small[-1]["below_mm"] != SMALL_MM:
        return []
    share = proportion(sum(row["count"] for row in small), sum(row["n"] for row in small))
    return [_share_tile(f"Tumors below {SMALL_MM} mm found", share)]


def _share_tile(name: str, share: Record) -> Tile:
    if not share["n"]:
        return Tile(name, percent(None), ("none in the truth",))
    details = (f"{share['count']} of {share['n']}", f"95 % interval {share_interval(share)}")
    return Tile(name, percent(share["value"]), details)


def _mean_tile(name: str, mean: Record, noun: str) -> Tile:
    if not mean["n"]:
        return Tile(name, number(None, 2), (f"no {noun}",))
    interval = f"95 % interval {mean_interval(mean, 2)}" if mean["low"] is not None else mean["note"]
    return Tile(name, number(mean["mean"], 2), (f"mean of {counted(mean['n'], noun)}", interval))
