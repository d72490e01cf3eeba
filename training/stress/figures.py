"""From outcomes to figures. In: the outcomes of one level, in the order of its bases. Out: JSON-ready dicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from training.intervals import cluster_mean, proportion
from training.stress.score import Outcome
from training.stress.suites import Step

Record = dict[str, Any]

DEFINITIONS: dict[str, str] = {
    "level": "Mean of a factor plus k times its standard deviation; k = 0 is the mean. Where that is not physical, the "
    "nearest possible value stands; levels that come to the same are shown once.",
    "paired": "The samples of all levels of a suite are the same but for the suite's factor: the same cases, places, "
    "outlines and textures. In the suite location the place and its patch are the factor.",
    "found": "At least one voxel of the tumor is predicted as tumor of its organ.",
    "sensitivity": "Found tumors divided by all tumors of the level.",
    "covered": "Tumor and predicted tumors that touch it share a tenth or more of their common volume (IoU 0.1).",
    "lost, gained": "Tumors found at the mean (k = 0) but not at this level, and the other way round.",
    "Dice": "Of tumor voxels in the patch, false ones included; 0 where nothing of the tumor is found.",
    "false tumor": "A predicted tumor that touches no true one.",
    "control": "The same patches without their tumors. What is marked there at a tumor's place would have been counted "
    "as found without being seen.",
    "diameter, contrast": "Measured in the finished sample, before noise or thick slices: the organ's surface may cut "
    "a tumor.",
    "interval of a share": "95 % Wilson interval. It takes tumors as independent; those of one source case are not, so "
    "the true uncertainty is larger, the more so the fewer cases there are.",
    "interval of a mean": "95 % bootstrap interval that draws whole source cases with replacement; none below 5 cases.",
}


def level_figures(step: Step, outcomes: Sequence[Outcome], centre: Sequence[Outcome], seed: int) -> Record:
    """The figures of a level beside the level k = 0 of its suite. Samples without a true tumor count for nothing."""
    values = [level.value for level in step.levels]
    used = [k for k, outcome in enumerate(outcomes) if outcome.truth_voxels]
    cases = [step.variants[k].spec.case_id for k in used]
    pairs = [(outcomes[k].found, centre[k].found) for k in used if centre[k].truth_voxels]
    return {
        "k": step.k,
        "value": {"mean": sum(values) / len(values), "low": min(values), "high": max(values)},
        "clipped": sum(level.clipped for level in step.levels),
        "cut_to_nothing": len(outcomes) - len(used),
        **_shared([outcomes[k] for k in used], cases, seed),
        "pairs": len(pairs),
        "lost": sum(before and not now for now, before in pairs),
        "gained": sum(now and not before for now, before in pairs),
    }


def control_figures(outcomes: Sequence[Outcome], cases: Sequence[str], seed: int) -> Record:
    """What is marked without a tumor: at the tumors' places, and elsewhere."""
    used = [k for k, outcome in enumerate(outcomes) if outcome.truth_voxels]
    of = [outcomes[k] for k in used]
    where = [cases[k] for k in used]
    anything = [float(outcome.false_tumors + outcome.found) for outcome in of]
    return {
        "marked_at_the_place": proportion(sum(outcome.found for outcome in of), len(of)),
        "patches_without_a_false_tumor": proportion(sum(n == 0 for n in anything), len(of)),
        "predicted_ml": cluster_mean([outcome.predicted_ml for outcome in of], where, seed=seed),
    }


def _shared(outcomes: Sequence[Outcome], cases: Sequence[str], seed: int) -> Record:
    def mean(value: Callable[[Outcome], float | None]) -> Record:
        known = [
            (case, found)
            for case, outcome in zip(cases, outcomes, strict=True)
            if (found := value(outcome)) is not None
        ]
        return cluster_mean([found for _, found in known], [case for case, _ in known], seed=seed)

    return {
        "cases": len(set(cases)),
        "sensitivity": proportion(sum(outcome.found for outcome in outcomes), len(outcomes)),
        "sensitivity_iou_0.1": proportion(sum(outcome.covered for outcome in outcomes), len(outcomes)),
        "dice": mean(lambda outcome: outcome.dice),
        "false_tumors": mean(lambda outcome: outcome.false_tumors),
        "false_ml": mean(lambda outcome: outcome.false_ml),
        "diameter_mm": mean(lambda outcome: outcome.diameter_mm),
        "contrast_hu": mean(lambda outcome: outcome.contrast_hu),
    }
