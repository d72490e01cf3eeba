"""The two-sample classifier: can a linear rule tell real from synthetic boxes that it was not trained on?

In: feature vectors of both sides with the lesion and the case each came from. Out: a JSON-ready record with the AUC,
its interval, how it was folded and which features alone tell the sides apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.intervals import FEW_GROUPS
from training.realism.definitions import CASES_FOR_FOLDS, SEED
from training.realism.distances import FloatArray

FOLDS = 5
RESAMPLES = 2000
MIN_BOXES = 10  # of a side; fewer say nothing (choice)
L2_C = 0.1  # inverse strength of the L2 penalty, on standardised features (choice: about as many features as boxes)


@dataclass(frozen=True)
class Side:
    """Boxes of one side: features (n, features), lesion and case of each box."""

    features: FloatArray
    lesions: tuple[str, ...]
    cases: tuple[str, ...]

    def groups(self, by_case: bool) -> npt.NDArray[np.int64]:
        """The number of each box's group (n,), from 0."""
        names = self.cases if by_case else self.lesions
        return np.asarray(np.unique(names, return_inverse=True)[1], np.int64)

    def counts(self) -> dict[str, int]:
        return {"boxes": len(self.lesions), "lesions": len(set(self.lesions)), "cases": len(set(self.cases))}


def two_sample_auc(real: Side, synthetic: Side, names: Sequence[str]) -> dict[str, Any]:
    """`auc` with `low` and `high`, `folds_by` ("case" or "lesion"), counts, `notes`, and `features` by their own AUC.

    A group is never in training and test at once. `auc` is None, with the reason in `notes`, where a side has fewer
    than two lesions or `MIN_BOXES` boxes.
    """
    record: dict[str, Any] = {"auc": None, "low": None, "high": None, "folds_by": None, "folds": 0}
    record |= {"real": real.counts(), "synthetic": synthetic.counts(), "notes": [], "features": []}
    if min(len(set(side.lesions)) for side in (real, synthetic)) < 2:
        record["notes"] = ["not measured: a side has boxes of fewer than 2 lesions, so there is nothing to fold by"]
        return record
    if min(len(side.lesions) for side in (real, synthetic)) < MIN_BOXES:
        record["notes"] = [f"not measured: a side has fewer than {MIN_BOXES} boxes"]
        return record
    by_case = min(len(set(side.cases)) for side in (real, synthetic)) >= CASES_FOR_FOLDS
    scored = _score(real, synthetic, by_case)
    low, high = _interval(scored)
    return record | {
        "auc": scored.auc(),
        "low": low,
        "high": high,
        "folds_by": "case" if by_case else "lesion",
        "folds": scored.folds,
        "notes": _notes(by_case, low is not None),
        "features": _single_features(real, synthetic, names),
    }


BY_LESION = (
    "folds are by lesion, not by case, because a side has only one case: the classifier has seen other lesions of the "
    "same scan, so it may know scanner and patient by heart and the AUC be too high; where it learnt from few lesions, "
    "the AUC may as well be too low"
)


def _notes(by_case: bool, interval: bool) -> list[str]:
    notes = [] if by_case else [BY_LESION]
    if not interval:
        notes.append(f"no interval: a side has fewer than {FEW_GROUPS} groups to draw from")
    elif not by_case:
        notes.append("the interval draws lesions, which share a case and may share tissue: it is too narrow")
    return notes


@dataclass(frozen=True)
class _Scored:
    """Held-out comparisons by pair of groups (real group, synthetic group): pairs won by the synthetic box, and all."""

    won: FloatArray
    pairs: FloatArray
    folds: int

    def auc(self) -> float:
        return float(self.won.sum() / self.pairs.sum())


def _score(real: Side, synthetic: Side, by_case: bool) -> _Scored:
    groups = [side.groups(by_case) for side in (real, synthetic)]
    sizes = [int(g.max()) + 1 for g in groups]
    folds = min(FOLDS, *sizes)
    fold_of = [_deal(g, folds, k)[g] for k, g in enumerate(groups)]
    won, pairs = np.zeros(sizes), np.zeros(sizes)
    for fold in range(folds):
        held = [f == fold for f in fold_of]
        a, b = _held_out(real.features, synthetic.features, held[0], held[1])
        _compare(a, b, groups[0][held[0]], groups[1][held[1]], won, pairs)
    return _Scored(won, pairs, folds)


def _deal(groups: npt.NDArray[np.int64], folds: int, side: int) -> npt.NDArray[np.int64]:
    """The fold of each group: dealt out by turns from the largest on, so that every fold holds some of each side."""
    sizes = np.bincount(groups)
    rng = np.random.default_rng(np.random.SeedSequence((SEED, 1, side)))
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    fold_of = np.empty(len(sizes), np.int64)
    fold_of[order] = np.arange(len(sizes)) % folds
    return fold_of


def _held_out(
    real: FloatArray, synthetic: FloatArray, real_held: npt.NDArray[np.bool_], synthetic_held: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Scores of the held-out boxes of both sides, by a rule fitted to the others; higher looks more synthetic."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rule = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=L2_C, class_weight="balanced", max_iter=2000),
    )
    known = [real[~real_held], synthetic[~synthetic_held]]
    rule.fit(np.concatenate(known), np.repeat([0, 1], [len(k) for k in known]))
    a, b = (
        np.asarray(rule.decision_function(side), np.float64) for side in (real[real_held], synthetic[synthetic_held])
    )
    return a, b


def _compare(
    real: FloatArray,
    synthetic: FloatArray,
    real_groups: npt.NDArray[np.int64],
    synthetic_groups: npt.NDArray[np.int64],
    won: FloatArray,
    pairs: FloatArray,
) -> None:
    """Add every pair of a real and a synthetic score to the sums of its pair of groups; a tie is half won."""
    wins = (synthetic > real[:, None]) + 0.5 * (synthetic == real[:, None])
    at = np.broadcast_arrays(real_groups[:, None], synthetic_groups)
    np.add.at(won, (at[0], at[1]), wins)
    np.add.at(pairs, (at[0], at[1]), 1.0)


def _interval(scored: _Scored) -> tuple[float | None, float | None]:
    """95 % interval: groups of each side drawn with replacement, rules kept; none of few groups."""
    sizes = scored.pairs.shape
    if min(sizes) < FEW_GROUPS:
        return None, None
    rng = np.random.default_rng(np.random.SeedSequence((SEED, 2)))
    a, b = (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64) for n in sizes)
    won, pairs = (np.einsum("ri,ij,rj->r", a, sums, b, optimize=True) for sums in (scored.won, scored.pairs))
    low, high = np.percentile(won[pairs > 0] / pairs[pairs > 0], (2.5, 97.5)).tolist()
    return low, high


def _single_features(real: Side, synthetic: Side, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each feature alone: share of pairs in which the synthetic box has the higher value; those far from 0.5 first."""
    rows = []
    for k, name in enumerate(names):
        a, b = (side.features[:, k][np.isfinite(side.features[:, k])] for side in (real, synthetic))
        if a.size and b.size:
            medians = {"real_median": float(np.median(a)), "synthetic_median": float(np.median(b))}
            rows.append({"name": name, "auc": _auc(a, b)} | medians)
    return sorted(rows, key=lambda row: (-abs(row["auc"] - 0.5), row["name"]))


def _auc(real: FloatArray, synthetic: FloatArray) -> float:
    below, upto = (
        np.searchsorted(np.sort(real), synthetic, side="left"),
        np.searchsorted(np.sort(real), synthetic, side="right"),
    )
    return float((below + upto).sum() / (2 * real.size * synthetic.size))
