"""Which samples a report shows: the worst, and what to compare them with. In: scores. Out: ids and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.records import CaseScore

WORST, HEALTHY = 10, 3


def choose_examples(scores: Sequence[CaseScore]) -> dict[str, str]:
    """Ids and captions of the samples to show: the worst `WORST`, then a median and the best outline to compare with.

    Worst are the lowest mean Dice of the tumors that a sample has, among equals the most false tumor. Up to
    `HEALTHY` of the places are for the healthy samples with most false tumor. Where no sample has tumor and none is
    predicted, the lowest mean Dice of organs.
    """
    tumors = [score for score in scores if score.tumor]
    dice, false, kind = _mean_dice(tumors), _false_ml(tumors), "tumor"
    if not dice and not any(false.values()):
        dice, kind = _mean_dice(scores), "organ"
    ranked = sorted(dice, key=lambda case_id: (dice[case_id], -false.get(case_id, 0.0), case_id))
    healthy = {score.case_id for score in tumors if score.healthy}
    alarms = sorted((i for i in healthy if false[i] > 0), key=lambda case_id: (-false[case_id], case_id))
    kept = max(min(HEALTHY, len(alarms)), WORST - len(ranked))
    worst, alarms = ranked[: WORST - min(kept, len(alarms))], alarms[:kept]
    captions = {i: f"{kind} Dice {dice[i]:.2f}{_also_false(false.get(i, 0.0))}" for i in worst}
    captions |= {i: f"healthy sample, {false[i]:.2f} ml of false tumor" for i in alarms}
    numbered = {i: f"Worst {k}: {text}" for k, (i, text) in enumerate(captions.items(), 1)}
    return numbered | _to_compare(ranked[len(worst) :], dice, kind)


def _mean_dice(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Mean Dice of the classes that a sample has, by sample."""
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.truth_voxels and score.dice is not None:
            found.setdefault(score.case_id, []).append(score.dice)
    return {case_id: sum(values) / len(values) for case_id, values in found.items()}


def _false_ml(tumors: Sequence[CaseScore]) -> dict[str, float]:
    """Volume of false tumors of all classes, by sample."""
    false: dict[str, float] = {}
    for score in tumors:
        false[score.case_id] = false.get(score.case_id, 0.0) + (score.false_positive_ml or 0.0)
    return false


def _also_false(ml: float) -> str:
    return f", and {ml:.2f} ml of false tumor elsewhere" if ml else ""


def _to_compare(better: Sequence[str], dice: Mapping[str, float], kind: str) -> dict[str, str]:
    """The median and the best of the outlines that are not among the worst."""
    if not better:
        return {}
    ranks = {better[len(better) // 2]: "Median outline", better[-1]: "Best outline"}
    return {case_id: f"{rank}: {kind} Dice {dice[case_id]:.2f}" for case_id, rank in ranks.items()}
