"""The text of the stress report: one self-contained page. In: the document of `stress.json`, the picture. Out: HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.report.cells import Cell, counted, interval_legend, mean_cell, number, percent, share_cell, share_interval
from training.report.content import Opening, Picture, Section, Table, Terms, Tile
from training.report.opening import NOTICE
from training.report.sections import html_page
from training.stress.picture import step_text, value_text

Record = Mapping[str, Any]

TITLE = "Stress test: what the network still finds"
_CAPTION = (
    "Left: share of the tumors found (whiskers: 95 % Wilson interval) and mean Dice, by level. Right: the suite's "
    "first sample at each level, in the axial slice where its tumor is largest; a missing level would repeat its "
    "neighbour."
)


def page(document: Record, png: bytes) -> str:
    """The whole report as HTML text."""
    sections = [
        Section("At a glance", "", [Picture(_CAPTION, png)]),
        *(_suite(suite) for suite in document["suites"]),
        _control(document["control"]),
        _numbers(document["quantities"]),
        Section("What the words mean", "", [Terms(document["definitions"])]),
        Section("What was tested", "", [Table(("Item", "Value"), list(document["context"].items()), plain=True)]),
    ]
    return html_page(_opening(document), sections, f"{NOTICE}.")


def headline(document: Record) -> str:
    """The weakest level in one sentence."""
    weakest = weakest_level(document)
    if weakest is None:
        return "No level has a tumor to find."
    suite, level = weakest
    share = level["sensitivity"]
    found = f"{share['count']} of {share['n']} tumors found"
    return f"Weakest at {suite['factor'].lower()} {value_text(level, suite)}: {found}."


def weakest_level(document: Record) -> tuple[Record, Record] | None:
    """Suite and level with the smallest share of found tumors, of equal ones the one nearest to the mean."""
    known = [(s, level) for s in document["suites"] for level in s["levels"] if level["sensitivity"]["n"]]
    return min(known, key=lambda pair: _how_weak(pair[1]), default=None)


def _how_weak(level: Record) -> tuple[float, int]:
    """Of equal shares the level nearest to the mean comes first."""
    return level["sensitivity"]["count"] / level["sensitivity"]["n"], abs(level["k"])


def _opening(document: Record) -> Opening:
    cases = counted(document["cases"], "source case")
    notice = (
        f"{counted(document['samples'], 'sample')} of {cases} at each level, synthetic {document['organ']} tumors of "
        f"kind {document['kind']}, at {document['spacing_mm']:g} mm. {NOTICE}."
    )
    chance = document["control"]["marked_at_the_place"]
    leads = [
        "One factor changes at a time; everything else of a sample stays the same, so differences are the factor's.",
        f"Of the same places without a tumor, {chance['count']} of {chance['n']} are marked: found by chance.",
    ]
    return Opening(TITLE, headline(document), leads, notice, document["notes"], [_tile(s) for s in document["suites"]])


def _tile(suite: Record) -> Tile:
    """How much a factor matters: its weakest level beside the mean."""
    levels = [level for level in suite["levels"] if level["sensitivity"]["n"]]
    if not levels:
        return Tile(suite["factor"], percent(None))
    weakest = min(levels, key=_how_weak)
    share = weakest["sensitivity"]
    middle = next((level["sensitivity"] for level in levels if level["k"] == 0), None)
    beside = [f"at the mean {middle['count']} of {middle['n']}"] if middle else []
    return Tile(
        suite["factor"],
        percent(share["count"] / share["n"]),
        (f"fewest found, at {value_text(weakest, suite)}", f"95 % interval {share_interval(share)}", *beside),
    )


def _suite(suite: Record) -> Section:
    header = (
        "Level",
        suite["factor"],
        "Found",
        "Covered (IoU 0.1)",
        "Lost / gained",
        "Dice",
        "False tumors a patch",
        "Diameter (mm)",
        "Contrast (HU)",
    )
    levels = suite["levels"]
    explanation = f"{suite['explanation']} {interval_legend([level['dice'] for level in levels])}"
    return Section(suite["factor"], explanation, [Table(header, [_level(level, suite) for level in levels])])


def _level(level: Record, suite: Record) -> tuple[str | Cell, ...]:
    low, high = (number(level["value"][end], suite["digits"]) for end in ("low", "high"))
    details = [f"{low} to {high}"] if low != high else []
    details += [f"{level['clipped']} clipped"] if level["clipped"] else []
    details += [f"{level['cut_to_nothing']} cut to nothing"] if level["cut_to_nothing"] else []
    return (
        step_text(level["k"]),
        Cell(value_text(level, suite), ", ".join(details)),
        share_cell(level["sensitivity"]),
        share_cell(level["sensitivity_iou_0.1"]),
        f"{level['lost']} / {level['gained']}" if level["k"] else "",
        mean_cell(level["dice"], 2),
        mean_cell(level["false_tumors"], 2),
        number(level["diameter_mm"]["mean"], 1),
        number(level["contrast_hu"]["mean"], 0),
    )


def _control(figures: Record) -> Section:
    rows: Sequence[tuple[str | Cell, ...]] = [
        ("Patches in which a tumor's place is marked without a tumor", share_cell(figures["marked_at_the_place"])),
        ("Patches in which nothing is marked", share_cell(figures["patches_without_a_false_tumor"])),
        ("Volume marked (ml)", mean_cell(figures["predicted_ml"], 2)),
    ]
    words = (
        "The same patches without their tumors. The more of them are marked at the tumor's place, the less the shares "
        "above say."
    )
    return Section("Control: healthy patches", words, [Table(("What", "Result"), rows)])


def _numbers(quantities: Sequence[Record]) -> Section:
    rows = [(q["factor"], q["where"], _mean_and_sd(q), q["source"]) for q in quantities]
    words = "Mean and standard deviation of each factor, and where they come from."
    return Section(
        "Where the levels come from", words, [Table(("Factor", "Of", "Mean, SD", "Source"), rows, plain=True)]
    )


def _mean_and_sd(quantity: Record) -> str:
    """`-42 HU, SD 12`; of a logarithm its mean and SD."""
    mean, sd = number(quantity["mean"], 3 if quantity["log"] else 1), f"{quantity['sd']:.3g}"
    unit = f" {quantity['unit']}" if quantity["unit"] else ""
    return f"logarithm{' of' + unit if unit else ''} {mean}, SD {sd}" if quantity["log"] else f"{mean}{unit}, SD {sd}"
