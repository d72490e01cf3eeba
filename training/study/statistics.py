"""Figures of one reader and of agreement. Pure: answers as plain values in, JSON-ready figures out.

Synthetic is the positive class. `unsure` is an answer of its own: proportions leave it out and say how many it were,
`guessing` counts it as half right, the rating scale puts it in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from training.intervals import FEW_GROUPS

Z_90 = 1.6448536269514722  # 95th percentile of the normal distribution: TOST at 5 % looks at a 90 % interval
POWER = 0.8
RESAMPLES = 2000

FloatArray = npt.NDArray[np.float64]
Record = dict[str, Any]


def log_linear(count: float, n: int) -> float:
    """A rate that is never 0 or 1: (count + 0.5) / (n + 1) (Hautus 1995)."""
    return (count + 0.5) / (n + 1)


def detection(hits: int, synthetic: int, false_alarms: int, real: int) -> Record:
    """`d_prime` = z(H) - z(F) and `criterion` = -(z(H) + z(F)) / 2 with log-linear rates; None without both classes.

    A positive criterion is a reader who rather says real (Macmillan and Creelman 2005, chapter 2).
    """
    if not synthetic or not real:
        return {"d_prime": None, "criterion": None}
    h, f = (_z(log_linear(count, n)) for count, n in ((hits, synthetic), (false_alarms, real)))
    return {"d_prime": h - f, "criterion": -(h + f) / 2}


def forced_choice(right_on_left: int, on_left: int, right_on_right: int, on_right: int) -> Record:
    """`d_prime` = sqrt(2) z(share correct), and `criterion`, here the side: positive is a reader who rather says right.

    Macmillan and Creelman 2005, chapter 7; log-linear rates. None without trials of both sides.
    """
    n = on_left + on_right
    if not n:
        return {"d_prime": None, "criterion": None}
    d_prime = math.sqrt(2) * _z(log_linear(right_on_left + right_on_right, n))
    side = detection(right_on_left, on_left, on_right - right_on_right, on_right)
    return {"d_prime": d_prime, "criterion": side["criterion"]}


def _z(share: float) -> float:
    return float(stats.norm.ppf(share))


def rating(answer: str, confidence: int | None) -> int:
    """-5 (certainly real) to 5 (certainly synthetic), 0 unsure."""
    return 0 if confidence is None else confidence if answer == "synthetic" else -confidence


def auc(real: Sequence[float] | FloatArray, synthetic: Sequence[float] | FloatArray) -> float | None:
    """Share of pairs in which the synthetic case has the higher rating, ties count half (Mann-Whitney)."""
    if not len(real) or not len(synthetic):
        return None
    a, b = np.asarray(real, float), np.asarray(synthetic, float)
    return float(((b[:, None] > a) + 0.5 * (b[:, None] == a)).mean())


def auc_interval(ratings: FloatArray, synthetic: npt.NDArray[np.bool_], seed: int) -> Record:
    """AUC of readers' ratings (readers, cases), mean over readers, with a 95 % bootstrap interval.

    Cases are drawn with replacement within their class, the same for all readers; several readers are drawn as well.
    A rating that was not given is NaN and left out, and so is a reader who rated fewer than five cases of a class: so
    few say hardly more than that 0, 0.5 and 1 are among the few values possible. Without such a reader `note` says so.
    """
    classes = [np.flatnonzero(synthetic == side) for side in (False, True)]
    rated = np.min([np.isfinite(ratings[:, own]).sum(axis=1) for own in classes], axis=0)
    ratings = ratings[rated >= FEW_GROUPS]
    record: Record = {"value": _mean_auc(ratings, synthetic), "low": None, "high": None}
    if record["value"] is None:
        return record | {"note": f"no AUC: fewer than {FEW_GROUPS} real or synthetic cases were rated"}
    rng = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    drawn = []
    for _ in range(RESAMPLES):
        cases = np.concatenate([rng.choice(own, len(own)) for own in classes])
        readers = rng.integers(len(ratings), size=len(ratings)) if len(ratings) > 1 else np.zeros(1, int)
        one = _mean_auc(ratings[np.ix_(readers, cases)], synthetic[cases])
        drawn += [] if one is None else [one]
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return record | {"low": low, "high": high}


def _mean_auc(ratings: FloatArray, synthetic: npt.NDArray[np.bool_]) -> float | None:
    values = []
    for row in ratings:
        there = np.isfinite(row)
        one = auc(row[there & ~synthetic], row[there & synthetic])
        values += [] if one is None else [one]
    return float(np.mean(values)) if values else None


def accuracy_interval(scores: FloatArray, seed: int, level: float) -> tuple[float, float] | None:
    """Bootstrap interval of the mean of scores (readers, trials; 0, 0.5 or 1, NaN where not answered).

    Readers and trials are drawn with replacement, each by itself. None with fewer than two readers or five trials.
    """
    readers, trials = scores.shape
    if readers < 2 or trials < FEW_GROUPS:
        return None
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
    means = []
    for _ in range(RESAMPLES):
        drawn = scores[np.ix_(rng.integers(readers, size=readers), rng.integers(trials, size=trials))]
        if np.isfinite(drawn).any():
            means.append(float(np.nanmean(drawn)))
    tail = 50 * (1 - level)
    low, high = np.percentile(means, (tail, 100 - tail)).tolist()
    return low, high


def equivalence(right: float, n: int, margin: float, also: tuple[float, float] | None = None) -> Record:
    """Two one-sided score tests: is accuracy within 0.5 plus or minus `margin`? (Schuirmann 1987)

    `right` of `n` answers, `unsure` as half. `p` is the larger of both; below 0.05 exactly when Wilson's 90 % interval
    (`low`, `high`) lies within the margin. `also`: a second 90 % interval that has to lie within it as well, as that
    of several readers, whose answers to one case are not independent. `needed`: see `answers_needed`.
    """
    record: Record = {"margin": margin, "n": n, "needed": answers_needed(margin)}
    if not n:
        return record | {"share": None, "low": None, "high": None, "p": None, "clustered": None, "met": None}
    share = right / n
    below, above = 0.5 - margin, 0.5 + margin
    p_low = float(stats.norm.sf((share - below) / math.sqrt(below * (1 - below) / n)))
    p_high = float(stats.norm.cdf((share - above) / math.sqrt(above * (1 - above) / n)))
    low, high = score_interval(share, n, Z_90)
    p = max(p_low, p_high)
    clustered = list(also) if also else None
    met = p < 0.05 and (also is None or (also[0] > below and also[1] < above))
    return record | {"share": share, "low": low, "high": high, "p": p, "clustered": clustered, "met": met}


def score_interval(share: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval of a share at `z` standard errors; the share may stem from half counts."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def answers_needed(margin: float) -> int:
    """Answers for 80 % power to show equivalence at 5 % if readers truly guess: ((z.95 + z.90) / (2 margin))^2.

    Normal approximation (Julious 2004, section 5), independent answers.
    """
    return math.ceil(((Z_90 + _z(1 - (1 - POWER) / 2)) / (2 * margin)) ** 2)


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Record:
    """Agreement of two sequences of answers beyond chance (Cohen 1960): `value`, `n`, observed share `agreed`.

    None of fewer than two answers, and where chance alone would agree always, as both gave one and the same throughout.
    """
    n = len(first)
    if n < 2:
        return {"value": None, "n": n, "agreed": float(first[0] == second[0]) if n else None}
    names = sorted({*first, *second})
    table = np.zeros((len(names), len(names)))
    for a, b in zip(first, second, strict=True):
        table[names.index(a), names.index(b)] += 1
    agreed = float(np.trace(table)) / n
    chance = float(table.sum(axis=0) @ table.sum(axis=1)) / n**2
    return {"value": (agreed - chance) / (1 - chance) if chance < 1 else None, "n": n, "agreed": agreed}


def fleiss_kappa(answers: Sequence[Sequence[str]]) -> Record:
    """Agreement of many readers beyond chance (Fleiss 1971); one row a trial, one answer of each reader in it."""
    if not answers or len(answers[0]) < 2:
        return {"value": None, "n": len(answers), "readers": len(answers[0]) if answers else 0}
    names = sorted({one for row in answers for one in row})
    counts = np.array([[row.count(name) for name in names] for row in map(list, answers)], float)
    readers = int(counts[0].sum())
    each = ((counts**2).sum(axis=1) - readers) / (readers * (readers - 1))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    value = (float(each.mean()) - chance) / (1 - chance) if chance < 1 else None
    return {"value": value, "n": len(answers), "readers": readers}
