"""The realism report's sections of figures: the document of `realism.json` in, markup out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from training.realism.charts import Line, line_chart
from training.report.cells import number, table
from training.report.markup import Markup, join, tag
from training.report.plot import BLUE, VERMILION
from training.report.sections import section

Record = Mapping[str, Any]

TELLING_FEATURES = 8
_SIDES = {"real": BLUE, "synthetic": VERMILION}
_SHAPE_TITLES = {
    "diameter_mm": ("Diameter (mm)", 1),
    "sphericity": ("Sphericity", 2),
    "box_fill": ("Box fill", 2),
    "extent_ratio": ("Extent ratio", 2),
}


def contrast(document: Record) -> Markup:
    """HU of lesions relative to their parenchyma."""
    figures = document["contrast"]
    rows = [
        ("Voxels, all lesions (headline)", number(figures["w1_voxels_hu"], 1)),
        ("Voxels, synthetic lesions of like size", number(figures["w1_voxels_like_size_hu"], 1)),
        ("Lesion means, all lesions", number(figures["w1_means_hu"], 1)),
        ("Lesion means, synthetic lesions of like size", number(figures["w1_means_like_size_hu"], 1)),
        ("Parenchyma against parenchyma (floor)", number(figures["w1_parenchyma_hu"], 1)),
        ("As few synthetic lesions against the others (floor)", number(figures["w1_sampling_hu"], 1)),
    ]
    names = {"real": "Real", "synthetic": "Synthetic", "like_size": "Synthetic, of like size"}
    means = [(title, *_summary_cells(figures[side], 1)) for side, title in names.items()]
    return section(
        "Contrast",
        "HU of a lesion minus the mean of its own parenchyma. Distances between real and synthetic, best is 0; nothing "
        "can be expected to fall much below the floor.",
        table(("Wasserstein-1 between real and synthetic", "HU"), rows),
        table(("Contrast of a lesion (HU)", *_SUMMARY), means),
        tag("div", _histogram(figures["histogram"]), _profile(document["profile"]), class_="charts"),
    )


def _histogram(histogram: Record) -> Markup:
    edges = histogram["edges_hu"]
    centers = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    lines = [Line(f"{side} lesions", centers, _percent(histogram[side]), colour) for side, colour in _SIDES.items()]
    lines += [
        Line(f"{side} parenchyma", centers, _percent(histogram[f"{side}_parenchyma"]), colour, True)
        for side, colour in _SIDES.items()
    ]
    caption = tag("figcaption", tag("b", "Voxels of lesions and of their parenchyma."), " Each lesion weighs the same.")
    return tag("figure", line_chart(lines, "HU minus parenchyma mean", "voxels in 5 HU (%)"), caption)


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def _profile(profile: Record) -> Markup:
    lines = [Line(side, profile["depth_mm"], profile[side], colour) for side, colour in _SIDES.items()]
    caption = tag(
        "figcaption", tag("b", "Across the edge."), " Mean over the real lesions and the synthetic ones of like size."
    )
    return tag(
        "figure", line_chart(lines, "depth below the lesion's surface (mm)", "HU minus parenchyma mean"), caption
    )


def classifier(document: Record) -> Markup:
    """How well real and synthetic are told apart, beside the floor, and by what."""
    rows = []
    for kind in document["classifier"]:
        for title, name in (("lesions", "classifier"), ("healthy organ (floor)", "classifier_floor")):
            rows.append((f"{kind.capitalize()} boxes, {title}", *_auc_cells(document[name][kind])))
    header = (
        "Compared",
        "AUC",
        "95 % interval",
        "Folds by",
        "Boxes of a side",
        "Lesions real / synthetic",
        "Cases real / synthetic",
    )
    return section(
        "Told apart",
        "A classifier's AUC on boxes that it was not trained on: 0.5 indistinguishable, 1 always told apart. What the "
        "floor reaches already comes from scanner and patient; only what lies above it can be blamed on the lesions.",
        table(header, rows),
        *(tag("p", line, class_="note") for line in _classifier_notes(document)),
        *(_telling(document, kind) for kind in document["classifier"]),
    )


def _auc_cells(record: Record) -> tuple[str, ...]:
    interval = "–" if record["low"] is None else f"{number(record['low'], 2)} to {number(record['high'], 2)}"
    both = [f"{record['real'][key]} / {record['synthetic'][key]}" for key in ("lesions", "cases")]
    return number(record["auc"], 2), interval, record["folds_by"] or "–", str(record["real"]["boxes"]), *both


def _classifier_notes(document: Record) -> list[str]:
    """Each note once, with what it belongs to."""
    found: dict[str, list[str]] = {}
    for title, name in (("lesions", "classifier"), ("floor", "classifier_floor")):
        for kind, record in document[name].items():
            for note in record["notes"]:
                found.setdefault(note, []).append(f"{title}, {kind}")
    return [f"{note[0].upper()}{note[1:]} ({'; '.join(where)})." for note, where in found.items()]


def _telling(document: Record, kind: str) -> Markup:
    """The features that tell the sides apart best by themselves, with the same of the floor."""
    features = document["classifier"][kind]["features"][:TELLING_FEATURES]
    if not features:
        return Markup()
    floor = {row["name"]: row["auc"] for row in document["classifier_floor"][kind]["features"]}
    rows = [
        (
            row["name"],
            number(row["auc"], 2),
            number(floor.get(row["name"]), 2),
            number(row["real_median"], 2),
            number(row["synthetic_median"], 2),
        )
        for row in features
    ]
    header = ("Feature", "AUC by itself", "Its floor", "Real, median", "Synthetic, median")
    intro = tag(
        "p",
        tag("b", f"What gives it away, {kind} boxes."),
        " Above 0.5 the synthetic boxes have more of it, below 0.5 less.",
    )
    return join([intro, table(header, rows)])


def texture(document: Record) -> Markup:
    """Correlation lengths."""
    figures, missing = document["texture"], document["texture"]["not_measured"]
    titles = {"lesion_mm": "Lesion (mm)", "parenchyma_mm": "Parenchyma (mm)", "ratio": "Lesion over parenchyma"}
    rows = [
        (f"{title}, {side}", *_summary_cells(figures[key][side], 2), number(figures[key]["w1"], 2) if last else "")
        for key, title in titles.items()
        for side, last in (("real", False), ("synthetic", True))
    ]
    return section(
        "Grain",
        "Correlation length of what remains after the smooth part is taken away. Noise of the scanner is in lesion and "
        "parenchyma alike, so their ratio tells whether a lesion is too smooth or too coarse. Too small, or without a "
        f"crossing within 15 mm: {missing['real']} real and {missing['synthetic']} synthetic lesions.",
        table(("Correlation length", *_SUMMARY, "W1"), rows),
    )


def shapes(document: Record) -> Markup:
    """Size and shape against the real cases and published statistics."""
    parts = [_shape_table(name, figures) for name, figures in document["shape"].items()]
    return section(
        "Size and shape",
        "All measured synthetic lesions against the real ones, and against published ones where they were "
        "given. Sphericity depends on how a surface is measured: compare it with the real cases first.",
        *parts,
    )


def _shape_table(name: str, figures: Record) -> Markup:
    rows = []
    for key, (title, digits) in _SHAPE_TITLES.items():
        here = figures[key]
        if not here["real"]["n"]:
            continue
        sides = [_median_and_quartiles(here[side], digits) for side in _SIDES]
        rows.append((title, *sides, number(here["ks"], 2), number(here["w1"], digits)))
    first = figures["diameter_mm"]
    header = (
        f"Against {name}",
        f"{name}, n = {first['real']['n']}",
        f"Synthetic, n = {first['synthetic']['n']}",
        "KS",
        "W1",
    )
    return table(header, rows)


def _median_and_quartiles(summary: Record, digits: int) -> Markup:
    spread = f"({number(summary['p25'], digits)} to {number(summary['p75'], digits)})"
    return join([number(summary["median"], digits), tag("br"), tag("small", spread)])


def left_out(document: Record) -> Markup:
    """Lesions that were not measured, by reason."""
    rows = [
        (f"{side.capitalize()}: {reason}", str(count))
        for side in _SIDES
        for reason, count in document["counts"][side]["left_out"].items()
    ]
    if not rows:
        return section("Left out", "Every lesion was measured.")
    return section("Left out", "Lesions that are in no figure above.", table(("Reason", "Lesions"), rows))


_SUMMARY = ("n", "Mean", "Median", "Quartiles", "Range")


def _summary_cells(summary: Record, digits: int) -> tuple[str, ...]:
    if not summary["n"]:
        return ("0", *("–" for _ in _SUMMARY[1:]))
    low, middle, high, least, most, mean = (
        number(summary[key], digits) for key in ("p25", "median", "p75", "min", "max", "mean")
    )
    return str(summary["n"]), mean, middle, f"{low} to {high}", f"{least} to {most}"
