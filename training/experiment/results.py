"""From the evaluations of all runs to the `experiment.json` of a label-free experiment.

    {"format_version": 1, "experiment": "label-free", "headline": "...", "organ": "liver", "train_steps": 2000,
     "cases": {"real": 31, ...},
     "runs": {"done": 12, "planned": 16},
     "arms": [{"name", "title", "curve", "amount", "annotated", "samples", "data", "seeds": [0, 1],
               "figures": {"tumor_dice": {"mean", "low", "high", "interval", "cases", "seeds", "by_seed"},
                           "tumor_nsd", "sensitivity", "false_tumors", "false_ml", "organ_dice",
                           "healthy_false_tumors", "healthy_false_ml", "healthy_clean"},
               "by_diameter": [{"from_mm", "below_mm", "found", "n"}]}],
     "differences": [{"name", "tumor_dice", "sensitivity", "organ_dice", "p", "p_holm"}]}

`interval` says what low and high are over: "over cases and seeds", "over cases", "over seeds, on these cases only" or
null. Arms without any finished run are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.evaluation.results import Evaluation
from training.experiment.arms import HEALTHY, REAL, by_diameter, evaluations_of, figures, healthy_figures
from training.experiment.differences import differences
from training.experiment.headline import headline
from training.experiment.spread import Record

FORMAT_VERSION = 1
REFERENCE = "synthetic"  # what the other arms are compared with
PLANNED = ("name", "title", "curve", "amount", "annotated", "samples", "data")


def collect(out: Path, plan: Mapping[str, Any], experiment: Mapping[str, Any]) -> Record:
    """The document of `experiment.json`; `plan` is `plan.json`, `experiment` is `experiment.yaml`."""
    settings = experiment["settings"]
    organ, seeds = str(settings["organ"]), list(settings["seeds"])
    real = {arm["name"]: evaluations_of(out, REAL, arm["name"], seeds) for arm in plan["arms"]}
    arms = [_arm(out, arm, real[arm["name"]], organ) for arm in plan["arms"] if real[arm["name"]]]
    document = {
        "format_version": FORMAT_VERSION,
        "experiment": "label-free",
        "headline": headline(arms, organ),
        "organ": organ,
        "train_steps": plan["train_steps"],
        "cases": dict(plan["cases"]),
        "runs": {"done": sum(map(len, real.values())), "planned": len(plan["arms"]) * len(seeds)},
        "arms": arms,
    }
    return document | {"differences": differences(real, REFERENCE, organ)}


def _arm(out: Path, planned: Mapping[str, Any], real: Mapping[int, Evaluation], organ: str) -> Record:
    healthy = evaluations_of(out, HEALTHY, planned["name"], list(real))
    on_real = list(real.values())
    return {
        **{key: planned[key] for key in PLANNED},
        "seeds": list(real),
        "figures": figures(on_real, organ) | healthy_figures(list(healthy.values()), organ),
        "by_diameter": by_diameter(on_real, organ),
    }
