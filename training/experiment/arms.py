"""The figures of one arm, from the evaluations of its runs.

In: the scores of each seed, on real cases and on held-out healthy ones. Out: JSON-ready records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.evaluation.results import CASES, Evaluation, read_evaluation
from training.experiment.spread import FloatArray, Record, crossed
from training.records import CaseScore

REAL, HEALTHY = "evaluations", "healthy"  # folders of the experiment
Value = Callable[[CaseScore], float | None]


def evaluations_of(out: Path, folder: str, arm: str, seeds: Sequence[int]) -> dict[int, Evaluation]:
    """Those that are there, by seed."""
    paths = {seed: out / folder / f"{arm}-{seed}" for seed in seeds}
    return {seed: read_evaluation(path) for seed, path in paths.items() if (path / CASES).is_file()}


def figures(real: Sequence[Evaluation], healthy: Sequence[Evaluation], organ: str) -> Record:
    """Each figure with mean, interval, number of cases, and the mean of each seed."""
    tumor = f"{organ}_tumor"
    found = {
        "tumor_dice": _mean(real, tumor, outline),
        "tumor_nsd": _mean(real, tumor, lambda s: s.nsd_2mm if s.truth_voxels else None),
        "sensitivity": _share(real, tumor, lambda s: s.found_lesions, lambda s: s.truth_lesions),
        "false_tumors": _mean(real, tumor, lambda s: s.false_positive_lesions),
        "false_ml": _mean(real, tumor, lambda s: s.false_positive_ml),
        "organ_dice": _mean(real, organ, outline),
    }
    return found | {
        "healthy_false_tumors": _mean(healthy, tumor, lambda s: s.false_positive_lesions),
        "healthy_false_ml": _mean(healthy, tumor, lambda s: s.false_positive_ml),
        "healthy_clean": _mean(healthy, tumor, lambda s: float(s.predicted_voxels == 0)),
    }


def by_diameter(real: Sequence[Evaluation], organ: str) -> list[Record]:
    """`from_mm`, `below_mm`, and tumors found of all, added up over seeds; by the evaluations' cut points."""
    if not real:
        return []
    cuts = [0.0, *(float(cut) for cut in real[0].settings["diameter_cuts_mm"])]
    rows = []
    for low, high in zip(cuts, [*cuts[1:], None], strict=True):
        lesions = [
            lesion
            for evaluation in real
            for lesion in evaluation.lesions
            if lesion.source == "truth" and lesion.class_name == f"{organ}_tumor"
            if low <= lesion.diameter_mm and (high is None or lesion.diameter_mm < high)
        ]
        count = sum(lesion.matched for lesion in lesions)
        rows.append({"from_mm": low, "below_mm": high, "found": count, "n": len(lesions)})
    return rows


def cases_with(evaluations: Sequence[Evaluation], class_name: str) -> list[str]:
    """Ids of the cases that any of them scored for a class."""
    return sorted({s.case_id for e in evaluations for s in e.scores if s.class_name == class_name})


def table(evaluations: Sequence[Evaluation], class_name: str, cases: Sequence[str], value: Value) -> FloatArray:
    """A value of every case (rows) in every evaluation (columns); 0 where it has none."""
    at = {case_id: row for row, case_id in enumerate(cases)}
    found = np.zeros((len(cases), len(evaluations)))
    for column, evaluation in enumerate(evaluations):
        for score in evaluation.scores:
            if score.class_name == class_name and score.case_id in at:
                found[at[score.case_id], column] = value(score) or 0.0
    return found


def outline(score: CaseScore) -> float | None:
    """Dice, of cases that have the class."""
    return score.dice if score.truth_voxels else None


def one_where(value: Value) -> Value:
    """The size of a mean's terms: 1 where there is a value."""
    return lambda score: None if value(score) is None else 1.0


def _mean(evaluations: Sequence[Evaluation], class_name: str, value: Value) -> Record:
    return _share(evaluations, class_name, value, one_where(value))


def _share(evaluations: Sequence[Evaluation], class_name: str, amount: Value, size: Value) -> Record:
    cases = cases_with(evaluations, class_name)
    return crossed(table(evaluations, class_name, cases, amount), table(evaluations, class_name, cases, size))
