"""From the evaluations of all runs to the `experiment.json` of a label-kinds experiment.

As that of a label-free one, with figures on held-out synthetic samples, and further:

    {"experiment": "label-kinds", "scored_on": {"samples": 200, "cases": 2, "other_cases": true},
     "minutes_per": {"mask": 3.6, ...},
     "arms": [{..., "labels": ["mask", "box"], "minutes": 1203.5, "tumors": [52, 6100], "real": {"figures"} or null}],
     "differences": [...], "real_differences": [...]}

`minutes` is what an annotator would have taken, `tumors` how many the arm's datasets hold; both null for arms on
annotated cases. `other_cases` is null where a dataset was given to score on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.catalog import open_dataset
from training.evaluation.results import Evaluation
from training.experiment.arms import REAL, SAMPLES, by_diameter, evaluations_of, figures
from training.experiment.differences import differences
from training.experiment.results import FORMAT_VERSION, PLANNED
from training.experiment.spread import OVER_SEEDS, Record
from training.report.cells import counted, mean_interval, number, percent

REFERENCE = "mask"  # what the other arms are compared with
Runs = Mapping[str, Mapping[int, Evaluation]]


def collect(out: Path, plan: Mapping[str, Any], experiment: Mapping[str, Any]) -> Record:
    """The document of `experiment.json`; `plan` is `plan.json`, `experiment` is `experiment.yaml`."""
    settings = experiment["settings"]
    organ, seeds, planned = str(settings["organ"]), list(settings["seeds"]), plan["arms"]
    tested, real = (
        {arm["name"]: evaluations_of(out, folder, arm["name"], seeds) for arm in planned} for folder in (SAMPLES, REAL)
    )
    costs = _Costs(out / "data", settings["minutes_per"])
    arms = [
        {
            **{key: arm[key] for key in (*PLANNED, "labels")},
            **costs.of(arm),
            "seeds": list(tested[arm["name"]]),
            "figures": figures(list(tested[arm["name"]].values()), organ),
            "by_diameter": by_diameter(list(tested[arm["name"]].values()), organ),
            "real": {"figures": figures(list(runs.values()), organ)} if (runs := real[arm["name"]]) else None,
        }
        for arm in planned
        if tested[arm["name"]]
    ]
    return {
        "format_version": FORMAT_VERSION,
        "experiment": "label-kinds",
        "headline": headline(arms),
        "organ": organ,
        "train_steps": plan["train_steps"],
        "cases": dict(plan["cases"]),
        "scored_on": _scored_on(tested, None if "test" in experiment else "healthy-test" in plan["cases"]),
        "runs": {"done": sum(map(len, tested.values())), "planned": len(planned) * len(seeds)},
        "minutes_per": settings["minutes_per"],
        "arms": arms,
        "differences": differences(tested, REFERENCE, organ),
        "real_differences": differences(real, REFERENCE, organ),
    }


def headline(arms: Sequence[Record]) -> str:
    """What masks reach, and which cheaper arm comes closest."""
    mask = next((arm for arm in arms if arm["name"] == REFERENCE), None)
    if mask is None or mask["figures"]["tumor_dice"]["mean"] is None:
        return f"{counted(len(arms), 'arm')} evaluated so far; none of them is {REFERENCE} with a tumor to outline."
    text = f"On held-out synthetic samples, training on masks reaches tumor Dice {_dice(mask)}"
    cheaper = [arm for arm in arms if arm["minutes"] is not None and arm["minutes"] < mask["minutes"]]
    if not cheaper:
        return f"{text}."
    closest = max(cheaper, key=lambda arm: arm["figures"]["tumor_dice"]["mean"] or 0.0)
    share = percent(closest["minutes"] / mask["minutes"])
    return f"{text}; of what costs less, {closest['name']} comes closest with {_dice(closest)} at {share} of the time."


def _dice(arm: Record) -> str:
    dice = arm["figures"]["tumor_dice"]
    interval = mean_interval(dice, 2)
    over = f" {OVER_SEEDS}" if dice["interval"] == OVER_SEEDS else ""
    return number(dice["mean"], 2) + (f" ({interval}{over})" if interval else "")


def _scored_on(tested: Runs, other_cases: bool | None) -> Record:
    first = next((run for runs in tested.values() for run in runs.values()), None)
    scores = first.scores if first else []
    return {
        "samples": len({score.case_id for score in scores}),
        "cases": len({score.group for score in scores}),
        "other_cases": other_cases,
    }


class _Costs:
    """What annotating an arm's datasets would have taken: tumors times minutes, samples times minutes of tags."""

    def __init__(self, data: Path, minutes_per: Mapping[str, float]) -> None:
        self._data, self._minutes_per = data, minutes_per
        self._counts: dict[str, tuple[int, int]] = {}

    def of(self, arm: Mapping[str, Any]) -> Record:
        if not arm["labels"]:
            return {"minutes": None, "tumors": None}
        counts = [self._count(name) for name in arm["data"]]
        minutes = (
            (samples if kind == "tag" else tumors) * self._minutes_per[kind]
            for kind, (samples, tumors) in zip(arm["labels"], counts, strict=True)
        )
        return {"minutes": round(sum(minutes), 2), "tumors": [tumors for _, tumors in counts]}

    def _count(self, name: str) -> tuple[int, int]:
        """Samples and tumors of a dataset."""
        if name not in self._counts:
            tumors = open_dataset(self._data / name).columns(["n_tumors"])["n_tumors"].to_numpy()
            self._counts[name] = len(tumors), int(tumors.sum())
        return self._counts[name]
