"""The figures of one arm, from the evaluations of its runs.

In: the scores of each seed, on cases with tumors or on held-out healthy ones. Out: JSON-ready records. Samples of one
source case are no independent patients, so they count as one case together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.evaluation.results import CASES, Evaluation, read_evaluation
from training.experiment.spread import AMOUNT, SHARE, FloatArray, Record, crossed
from training.records import CaseScore

REAL, HEALTHY, SAMPLES = "evaluations", "healthy", "synthetic"  # folders of the experiment
Value = Callable[[CaseScore], float | None]


def evaluations_of(out: Path, folder: str, arm: str, seeds: Sequence[int]) -> dict[int, Evaluation]:
    """Those that are there, by seed."""
    paths = {seed: out / folder / f"{arm}-{seed}" for seed in seeds}
    return {seed: read_evaluation(path) for seed, path in paths.items() if (path / CASES).is_file()}


def figures(evaluations: Sequence[Evaluation], organ: str) -> Record:
    """Each figure of cases with tumors: mean, interval, number of cases, and the mean of each seed."""
    tumor = f"{organ}_tumor"
    return {
        "tumor_dice": _mean(evaluations, tumor, outline, SHARE),
        "tumor_nsd": _mean(evaluations, tumor, lambda s: s.nsd_2mm if s.truth_voxels else None, SHARE),
        "sensitivity": _share(evaluations, tumor, lambda s: s.found_lesions, lambda s: s.truth_lesions, SHARE),
        "false_tumors": _mean(evaluations, tumor, lambda s: s.false_positive_lesions, AMOUNT),
        "false_ml": _mean(evaluations, tumor, lambda s: s.false_positive_ml, AMOUNT),
        "organ_dice": _mean(evaluations, organ, outline, SHARE),
    }


def healthy_figures(healthy: Sequence[Evaluation], organ: str) -> Record:
    """The same of healthy cases."""
    tumor = f"{organ}_tumor"
    return {
        "healthy_false_tumors": _mean(healthy, tumor, lambda s: s.false_positive_lesions, AMOUNT),
        "healthy_false_ml": _mean(healthy, tumor, lambda s: s.false_positive_ml, AMOUNT),
        "healthy_clean": _mean(healthy, tumor, lambda s: float(s.predicted_voxels == 0), SHARE),
    }


def by_diameter(evaluations: Sequence[Evaluation], organ: str) -> list[Record]:
    """`from_mm`, `below_mm`, and tumors found of all, added up over seeds; by the evaluations' cut points."""
    if not evaluations:
        return []
    cuts = [0.0, *(float(cut) for cut in evaluations[0].settings["diameter_cuts_mm"])]
    rows = []
    for low, high in zip(cuts, [*cuts[1:], None], strict=True):
        lesions = [
            lesion
            for evaluation in evaluations
            for lesion in evaluation.lesions
            if lesion.source == "truth" and lesion.class_name == f"{organ}_tumor"
            if low <= lesion.diameter_mm and (high is None or lesion.diameter_mm < high)
        ]
        count = sum(lesion.matched for lesion in lesions)
        rows.append({"from_mm": low, "below_mm": high, "found": count, "n": len(lesions)})
    return rows


def cases_with(evaluations: Sequence[Evaluation], class_name: str) -> list[str]:
    """The source cases that any of them scored for a class."""
    return sorted({s.group for e in evaluations for s in e.scores if s.class_name == class_name})


def table(evaluations: Sequence[Evaluation], class_name: str, cases: Sequence[str], value: Value) -> FloatArray:
    """A value of every source case (rows), summed over its samples, in every evaluation (columns); 0 without any."""
    at = {case: row for row, case in enumerate(cases)}
    found = np.zeros((len(cases), len(evaluations)))
    for column, evaluation in enumerate(evaluations):
        for score in evaluation.scores:
            if score.class_name == class_name and score.group in at:
                found[at[score.group], column] += value(score) or 0.0
    return found


def outline(score: CaseScore) -> float | None:
    """Dice, of cases that have the class."""
    return score.dice if score.truth_voxels else None


def one_where(value: Value) -> Value:
    """The size of a mean's terms: 1 where there is a value."""
    return lambda score: None if value(score) is None else 1.0


def _mean(evaluations: Sequence[Evaluation], class_name: str, value: Value, limits: tuple[float, float]) -> Record:
    return _share(evaluations, class_name, value, one_where(value), limits)


def _share(
    evaluations: Sequence[Evaluation], class_name: str, amount: Value, size: Value, limits: tuple[float, float]
) -> Record:
    cases = cases_with(evaluations, class_name)
    amounts, sizes = (table(evaluations, class_name, cases, value) for value in (amount, size))
    return crossed(amounts, sizes, limits)
