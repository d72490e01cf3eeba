"""The curves of an experiment's report: score over unique synthetic samples, and over annotated cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.curve import Point, amount_chart
from training.experiment.tables import DICE, FOUND, LEGEND, ON_REAL, Figure, figure_table
from training.report.content import Chart, Charts, Section

Record = Mapping[str, Any]
WITH_SYNTHETIC = "+synthetic"  # ends the names of arms with both


def diversity(document: Record) -> Section | None:
    """Score over the number of unique samples."""
    arms = _on_curve(document, "diversity")
    if not arms:
        return None
    charts = [
        _chart(document, {"stored": arms}, "unique synthetic samples", figure, "on-the-fly") for figure in (DICE, FOUND)
    ]
    explanation = (
        "How many different synthetic samples a training needs, at equal steps. Dashed: on-the-fly, where no sample "
        f"comes twice. {LEGEND}"
    )
    return Section("Diversity", explanation, [Charts(charts), figure_table(arms, ON_REAL, document["organ"])])


def annotation(document: Record) -> Section | None:
    """Score over the number of annotated cases, with and without synthetic samples."""
    arms = _on_curve(document, "annotation")
    if not arms:
        return None
    both = [arm for arm in arms if arm["name"].endswith(WITH_SYNTHETIC)]
    alone = [arm for arm in arms if arm not in both]
    series = {"annotated alone": alone, "with synthetic": both}
    charts = [_chart(document, series, "annotated cases", figure, "synthetic") for figure in (DICE, FOUND)]
    explanation = f"What annotated cases add. Dashed: synthetic tumors alone, no case annotated. {LEGEND}"
    return Section("Annotation", explanation, [Charts(charts), figure_table(arms, ON_REAL, document["organ"])])


def _on_curve(document: Record, curve: str) -> list[Record]:
    return sorted((arm for arm in document["arms"] if arm["curve"] == curve), key=lambda arm: arm["amount"])


def _chart(document: Record, series: Mapping[str, Sequence[Record]], x: str, figure: Figure, level: str) -> Chart:
    points = {name: _points(arms, figure.key) for name, arms in series.items()}
    title = figure.title if figure.digits is not None else f"{figure.title} (share)"
    svg = amount_chart(points, x, title, _level(document, level, figure.key))
    return Chart(svg, f"{figure.title} by {x}.", "Whiskers: 95 % intervals, where there are any.")


def _points(arms: Sequence[Record], key: str) -> list[Point]:
    figures = [(arm["amount"], arm["figures"][key]) for arm in arms]
    return [Point(amount, f["mean"], f["low"], f["high"]) for amount, f in figures if f["mean"] is not None]


def _level(document: Record, name: str, key: str) -> tuple[str, float] | None:
    means = [arm["figures"][key]["mean"] for arm in document["arms"] if arm["name"] == name]
    return (name, means[0]) if means and means[0] is not None else None
