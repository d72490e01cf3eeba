"""The curves of an experiment's report: score over unique synthetic samples, and over annotated cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.curve import Point, amount_chart
from training.experiment.tables import DICE, FOUND, ON_REAL, Figure, arms_legend, figure_table, whiskers
from training.report.content import Chart, Charts, Section

Record = Mapping[str, Any]
WITH_SYNTHETIC = "+synthetic"  # ends the names of arms with both


def diversity(document: Record) -> Section | None:
    """Score over the number of unique samples."""
    every = document["arms"]
    arms = _on_curve(every, "diversity")
    if not arms:
        return None
    charts = [
        _chart(every, {"stored": arms}, "unique synthetic samples", figure, "on-the-fly") for figure in (DICE, FOUND)
    ]
    explanation = (
        "How many different synthetic samples a training needs, at equal steps. Dashed: on-the-fly, where no sample "
        f"comes twice. {arms_legend(arms, ON_REAL)}"
    )
    return Section("Diversity", explanation, [Charts(charts), figure_table(arms, ON_REAL, document["organ"])])


def annotation(every: Sequence[Record], organ: str, what: str, level: str) -> Section | None:
    """Score over the number of annotated cases, with and without synthetic samples; `level`: the arm without any."""
    arms = _on_curve(every, "annotation")
    if not arms:
        return None
    both = [arm for arm in arms if arm["name"].endswith(WITH_SYNTHETIC)]
    series = {"annotated alone": [arm for arm in arms if arm not in both], "with synthetic": both}
    charts = [_chart(every, series, "annotated cases", figure, level) for figure in (DICE, FOUND)]
    explanation = f"{what} Dashed: synthetic tumors alone, no case annotated. {arms_legend(arms, ON_REAL)}"
    return Section("Annotation", explanation, [Charts(charts), figure_table(arms, ON_REAL, organ)])


def _on_curve(every: Sequence[Record], curve: str) -> list[Record]:
    return sorted((arm for arm in every if arm["curve"] == curve), key=lambda arm: arm["amount"])


def _chart(
    every: Sequence[Record], series: Mapping[str, Sequence[Record]], x: str, figure: Figure, level: str
) -> Chart:
    points = {name: _points(arms, figure.key) for name, arms in series.items()}
    title = figure.title if figure.digits is not None else f"{figure.title} (share)"
    svg = amount_chart(points, x, title, _level(every, level, figure.key))
    drawn = [arm["figures"][figure.key] for arms in series.values() for arm in arms]
    return Chart(svg, f"{figure.title} by {x}.", whiskers(drawn))


def _points(arms: Sequence[Record], key: str) -> list[Point]:
    figures = [(arm["amount"], arm["figures"][key]) for arm in arms]
    return [Point(amount, f["mean"], f["low"], f["high"]) for amount, f in figures if f["mean"] is not None]


def _level(every: Sequence[Record], name: str, key: str) -> tuple[str, float] | None:
    means = [arm["figures"][key]["mean"] for arm in every if arm["name"] == name]
    return (name, means[0]) if means and means[0] is not None else None
