"""How each arm differs from one of them on the same real cases, paired by case and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.evaluation.results import Evaluation
from training.experiment.arms import Value, cases_with, one_where, outline, table
from training.experiment.spread import FloatArray, Record, crossed
from training.hypothesis_tests import holm, sign_flip_p

Runs = Mapping[int, Evaluation]  # by seed


def differences(arms: Mapping[str, Runs], reference: str, organ: str) -> list[Record]:
    """`{"name", "tumor_dice", "sensitivity", "organ_dice", "p", "p_holm"}` a compared arm.

    Each figure is the arm's minus the reference's, as of `crossed`. `p` is that of the tumor Dice by flipping signs
    of whole cases (their mean over seeds), `p_holm` the same corrected for the number of arms. Only seeds that both
    have are compared; an arm without such a seed is left out.
    """
    base = arms.get(reference, {})
    found = []
    for name, runs in arms.items():
        seeds = [seed for seed in runs if seed in base]
        if name == reference or not seeds:
            continue
        pairs = [(runs[seed], base[seed]) for seed in seeds]
        found.append({"name": name, **_figures(pairs, organ)})
    corrected = holm([row["p"] for row in found])
    return [{**row, "p_holm": p} for row, p in zip(found, corrected, strict=True)]


def _figures(pairs: Sequence[tuple[Evaluation, Evaluation]], organ: str) -> Record:
    tumor = f"{organ}_tumor"
    dice, sizes = _paired(pairs, tumor, outline, one_where(outline))
    of_cases = [float(d.sum() / s.sum()) for d, s in zip(dice, sizes, strict=True) if s.sum()]
    return {
        "tumor_dice": crossed(dice, sizes),
        "sensitivity": crossed(*_paired(pairs, tumor, lambda s: s.found_lesions, lambda s: s.truth_lesions)),
        "organ_dice": crossed(*_paired(pairs, organ, outline, one_where(outline))),
        "p": sign_flip_p(of_cases, [str(k) for k in range(len(of_cases))]),
    }


def _paired(
    pairs: Sequence[tuple[Evaluation, Evaluation]], class_name: str, amount: Value, size: Value
) -> tuple[FloatArray, FloatArray]:
    """Differences of amounts, and sizes, (cases, seeds), of the cases that both sides have."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    both = set(cases_with(first, class_name)) & set(cases_with(second, class_name))
    cases = sorted(both)
    a, b = (table(side, class_name, cases, amount) for side in (first, second))
    return a - b, table(second, class_name, cases, size)
