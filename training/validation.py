"""The quick figures of a training's validations, on stored patches. `training.evaluate` computes the thorough ones."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.case import UInt8Array
from pipeline.organs import BACKGROUND, is_tumor
from training.metrics import dice
from training.network import ClassTable
from training.predict import Prediction


@dataclass(frozen=True)
class SampleScore:
    """Of one sample."""

    dice: dict[str, float]  # by class, of those that the truth annotates and holds
    false_positive_voxels: int | None  # of tumors that the truth annotates, in a sample without any of these


def sample_scores(
    predictions: Iterable[Prediction], classes: ClassTable, annotated: Callable[[int], Collection[int]]
) -> list[SampleScore]:
    """Score each prediction by itself, on the class ids that its sample, by index, annotates."""
    return [
        _score(truth, prediction, {name: number for name, number in classes.classes.items() if number in annotated(of)})
        for of, truth, prediction in predictions
    ]


def _score(truth: UInt8Array, prediction: UInt8Array, annotated: Mapping[str, int]) -> SampleScore:
    found = {}
    for name, number in annotated.items():
        inside = truth == number
        if number != BACKGROUND and inside.any():
            found[name] = dice(inside, prediction == number) or 0.0
    tumor_ids = [number for number in annotated.values() if is_tumor(number)]
    healthy = bool(tumor_ids) and not np.isin(truth, tumor_ids).any()
    return SampleScore(found, int(np.isin(prediction, tumor_ids).sum()) if healthy else None)


def validation_scores(scores: Sequence[SampleScore], classes: ClassTable) -> dict[str, Any]:
    """Scores of a set of samples, as `metrics.jsonl` holds them.

    `dice`: mean per class over the `samples_with` that hold the class in the truth, None where none does.
    `false_positive_voxels`: predicted tumor voxels per healthy sample, None without healthy samples.
    `score`: what decides on the best checkpoint: mean Dice of the tumor classes, of all when no sample has a tumor.
    """
    found = {name: [s.dice[name] for s in scores if name in s.dice] for name in classes.names[1:]}
    false_positives = [s.false_positive_voxels for s in scores if s.false_positive_voxels is not None]
    means = {name: statistics.fmean(values) if values else None for name, values in found.items()}
    return {
        "score": _deciding(means, classes.tumors),
        "dice": means,
        "samples_with": {name: len(values) for name, values in found.items()},
        "false_positive_voxels": statistics.fmean(false_positives) if false_positives else None,
        "healthy_samples": len(false_positives),
        "samples": len(scores),
    }


def _deciding(means: Mapping[str, float | None], tumors: Iterable[str]) -> float:
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
