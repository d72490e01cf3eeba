"""From answers and truth to the figures of each reader, of all together, and of their agreement. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.study.answers import Answer, Reader
from training.intervals import proportion
from training.realism.distances import summary
from training.study.statistics import (
    FloatArray,
    accuracy_interval,
    auc_interval,
    cohen_kappa,
    detection,
    equivalence,
    fleiss_kappa,
    forced_choice,
    rating,
)

Record = dict[str, Any]
_FLIPPED = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Read:
    """A reader's answers by trial, practice left out: the first and the repeated; sides as the study lists them."""

    reader: Reader
    first: Mapping[str, Answer]
    again: Mapping[str, Answer]

    def said(self, trial: str) -> str:
        return self.first[trial].answer


def reads(reader: Reader, answers: Sequence[Answer]) -> Read:
    """Split a reader's answers; a repeated pair was shown with its sides changed, so its answer is turned back."""
    given = [one for one in answers if not one.practice]
    again = {
        one.trial: one.model_copy(update={"answer": _FLIPPED.get(one.answer, one.answer)})
        for one in given
        if one.repeat
    }
    return Read(reader, {one.trial: one for one in given if not one.repeat}, again)


def reader_figures(read: Read, truth: Mapping[str, str], trials: Sequence[str], seed: int) -> Record:
    """The figures of one reader."""
    answered = [trial for trial in trials if trial in read.first]
    scores = _scores([read], truth, trials)
    again = [trial for trial in trials if trial in read.again and trial in read.first]
    return {
        "reader": read.reader.name,
        "role": read.reader.role,
        "years": read.reader.years,
        "answered": len(answered),
        "of": len(trials),
        **_common([read], truth, trials, seed),
        "guessing": {"right": float(np.nansum(scores)), "n": len(answered)},
        "within": cohen_kappa([read.said(t) for t in again], [read.again[t].answer for t in again]),
        "seconds": summary([read.first[trial].time_ms / 1000 for trial in answered]),
    }


def pooled_figures(all_reads: Sequence[Read], truth: Mapping[str, str], trials: Sequence[str], seed: int) -> Record:
    """All readers together: answers added up, AUC averaged; `clustered` draws readers and trials."""
    scores = _scores(all_reads, truth, trials)
    times = [one.time_ms / 1000 for read in all_reads for one in read.first.values()]
    interval = accuracy_interval(scores, seed, 0.95)
    return {
        "readers": len(all_reads),
        "answered": int(np.isfinite(scores).sum()),
        **_common(all_reads, truth, trials, seed),
        "guessing": {"right": float(np.nansum(scores)), "n": int(np.isfinite(scores).sum())},
        "clustered": list(interval) if interval else None,
        "seconds": summary(times),
    }


def agreement(all_reads: Sequence[Read], trials: Sequence[str]) -> Record:
    """Cohen's kappa of each two readers over the trials both answered; Fleiss' over those that all answered."""
    pairs = []
    for a, b in combinations(all_reads, 2):
        both = [trial for trial in trials if trial in a.first and trial in b.first]
        kappa = cohen_kappa([a.said(t) for t in both], [b.said(t) for t in both])
        pairs.append({"readers": [a.reader.name, b.reader.name], **kappa})
    by_all = [trial for trial in trials if all(trial in read.first for read in all_reads)]
    fleiss = fleiss_kappa([[read.said(t) for read in all_reads] for t in by_all]) if len(all_reads) > 1 else None
    return {"pairs": pairs, "fleiss": fleiss}


def equivalence_with_chance(
    all_reads: Sequence[Read], truth: Mapping[str, str], trials: Sequence[str], margin: float, seed: int
) -> Record:
    """The equivalence test over all answers; of several readers also by the bootstrap over readers and trials."""
    scores = _scores(all_reads, truth, trials)
    n = int(np.isfinite(scores).sum())
    return equivalence(float(np.nansum(scores)), n, margin, accuracy_interval(scores, seed, 0.9))


def _common(all_reads: Sequence[Read], truth: Mapping[str, str], trials: Sequence[str], seed: int) -> Record:
    """Figures of one reader or of several together."""
    said = [(read.said(trial), truth[trial]) for read in all_reads for trial in trials if trial in read.first]
    decided = [(answer, right) for answer, right in said if answer != "unsure"]
    record: Record = {
        "accuracy": proportion(sum(answer == right for answer, right in decided), len(decided)),
        "unsure": len(said) - len(decided),
    }
    if any(right in _FLIPPED for right in truth.values()):
        left, right_side = (_counts(decided, side) for side in ("left", "right"))
        none = {"sensitivity": None, "specificity": None, "auc": None}
        return record | none | forced_choice(*left, *right_side)
    hits, synthetic = _counts(decided, "synthetic")
    rejections, real = _counts(decided, "real")
    return record | {
        "sensitivity": proportion(hits, synthetic),
        "specificity": proportion(rejections, real),
        "auc": auc_interval(_ratings(all_reads, trials), np.array([truth[t] == "synthetic" for t in trials]), seed),
        **detection(hits, synthetic, real - rejections, real),
    }


def _counts(decided: Sequence[tuple[str, str]], truth: str) -> tuple[int, int]:
    """How often it was recognised, and how often it was there."""
    there = [answer for answer, right in decided if right == truth]
    return there.count(truth), len(there)


def _scores(all_reads: Sequence[Read], truth: Mapping[str, str], trials: Sequence[str]) -> FloatArray:
    """(readers, trials): 1 right, 0 wrong, 0.5 unsure, NaN not answered."""

    def score(read: Read, trial: str) -> float:
        if trial not in read.first:
            return np.nan
        return 0.5 if read.said(trial) == "unsure" else float(read.said(trial) == truth[trial])

    return np.array([[score(read, trial) for trial in trials] for read in all_reads], np.float64)


def _ratings(all_reads: Sequence[Read], trials: Sequence[str]) -> FloatArray:
    def rated(read: Read, trial: str) -> float:
        one = read.first.get(trial)
        return np.nan if one is None else float(rating(one.answer, one.confidence))

    return np.array([[rated(read, trial) for trial in trials] for read in all_reads], np.float64)
