"""The course of a training as a picture. In: the records of `metrics.jsonl`. Out: a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.files import replace_file

_INCHES, _DPI = (8, 6), 110


def write_curve(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss above; Dice of each class and false tumor voxels below, over the steps. Nothing without a record."""
    from matplotlib.figure import Figure

    steps = [record for record in records if "loss" in record]
    validations = [record for record in records if "val" in record]
    if not steps:
        return
    figure = Figure(figsize=_INCHES, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_loss(above, steps)
    _draw_validations(below, validations)
    below.set_xlabel("step")
    below.xaxis.get_major_locator().set_params(integer=True)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=_DPI, format="png")
    replace_file(path, picture.getvalue())


def _draw_loss(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], color="C0", linewidth=1)
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    rate = axes.twinx()
    rate.plot([r["step"] for r in records], [r["lr"] for r in records], color="0.6", linewidth=1, linestyle="--")
    rate.set_ylabel("learning rate (dashed)")


def _draw_validations(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    axes.set_ylabel("Dice on validation samples")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    if not records:
        axes.text(0.5, 0.5, "no validation yet", ha="center", va="center", transform=axes.transAxes)
        return
    for name in records[-1]["val"]["dice"]:
        points = [(r["step"], value) for r in records if (value := r["val"]["dice"].get(name)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=name)
    false = [(r["step"], value) for r in records if (value := r["val"]["false_positive_voxels"]) is not None]
    if false:
        beside = axes.twinx()
        beside.plot(*zip(*false, strict=True), color="0.5", linewidth=1, linestyle=":")
        beside.set_ylabel("false tumor voxels\nper healthy sample (dotted)")
        beside.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=8)
