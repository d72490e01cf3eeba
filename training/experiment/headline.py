"""The result of an experiment in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.spread import OVER_SEEDS
from training.report.cells import counted, mean_interval, number, percent

Record = Mapping[str, Any]


def headline(arms: Sequence[Record], organ: str) -> str:
    """What synthetic training reached on real tumors, beside training on annotated ones where there was such."""
    by_name = {arm["name"]: arm for arm in arms}
    synthetic, real = by_name.get("synthetic"), by_name.get("real")
    if synthetic is None:
        return f"{counted(len(arms), 'arm')} evaluated so far; the arm synthetic is not among them."
    figures = synthetic["figures"]
    cases = counted(figures["tumor_dice"]["cases"], "real case")
    if not figures["tumor_dice"]["cases"]:
        return f"The real cases hold no {organ} tumor: nothing here says how well tumors are found."
    found = f"Trained on synthetic tumors only: {percent(figures['sensitivity']['mean'])} of real tumors touched"
    outline = f"tumor Dice {_dice(figures)}, {number(figures['false_tumors']['mean'], 1)} false tumors a scan"
    beside = f"; trained on annotated tumors {_dice(real['figures'])}" if real else ""
    return f"{found}, {outline} on {cases}{beside}."


def _dice(figures: Record) -> str:
    dice = figures["tumor_dice"]
    interval = mean_interval(dice, 2)
    over = f" {OVER_SEEDS}" if dice["interval"] == OVER_SEEDS else ""
    return number(dice["mean"], 2) + (f" ({interval}{over})" if interval else "")
