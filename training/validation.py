"""The quick figures of a training's validations, on stored patches. `training.evaluate` computes the thorough ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from training.metrics import dice
from training.network import ClassTable
from training.predict import Prediction


def validation_scores(predictions: Iterable[Prediction], classes: ClassTable) -> dict[str, Any]:
    """Scores of a set of samples, as `metrics.jsonl` holds them.

    `dice`: mean per class over the `samples_with` that hold the class in the truth, None where none does.
    `false_positive_voxels`: predicted tumor voxels per healthy sample, None without healthy samples.
    `score`: what decides on the best checkpoint: mean Dice of the tumor classes, of all when no sample has a tumor.
    """
    found: dict[str, list[float]] = {name: [] for name in classes.names[1:]}
    false_positives: list[int] = []
    tumor_ids = list(classes.tumors.values())
    samples = 0
    for _, truth, prediction in predictions:
        samples += 1
        for name, values in found.items():
            inside = truth == classes.classes[name]
            if inside.any():
                values.append(dice(inside, prediction == classes.classes[name]) or 0.0)
        if not np.isin(truth, tumor_ids).any():
            false_positives.append(int(np.isin(prediction, tumor_ids).sum()))
    means = {name: statistics.fmean(values) if values else None for name, values in found.items()}
    return {
        "score": _score(means, classes.tumors),
        "dice": means,
        "samples_with": {name: len(values) for name, values in found.items()},
        "false_positive_voxels": statistics.fmean(false_positives) if false_positives else None,
        "healthy_samples": len(false_positives),
        "samples": samples,
    }


def _score(means: Mapping[str, float | None], tumors: Iterable[str]) -> float:
    of_tumors = [value for name in tumors if (value := means[name]) is not None]
    of_all = [value for value in means.values() if value is not None]
    return statistics.fmean(of_tumors or of_all or [0.0])


def scores_line(scores: Mapping[str, Any]) -> str:
    """The scores for people."""
    parts = [
        f"{name} Dice {mean:.3f} (n={scores['samples_with'][name]})"
        for name, mean in scores["dice"].items()
        if mean is not None
    ]
    if scores["false_positive_voxels"] is not None:
        healthy = f"per healthy sample (n={scores['healthy_samples']})"
        parts.append(f"{scores['false_positive_voxels']:.1f} false tumor voxels {healthy}")
    return f"{scores['samples']} samples: {', '.join(parts) or 'no class to score'}"
