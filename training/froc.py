"""Free-response ROC: what share of the true tumors is found at how many false candidates a scan.

In: tumor probabilities, or the candidates made of them. Out: candidates of a scan, or the curve over scans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.lesions import Box, Components, components
from training.metrics import FloatArray, Mask, Spacing, as_masks, bounding_box, spacing_xyz
from training.records import Candidate, ScanCandidates, ScoreSettings

FLOOR = 0.1  # probability below which nothing is a candidate
Record = dict[str, Any]
Probability = npt.NDArray[np.floating[Any]]


def froc_candidates(
    probability: Probability,
    truth: Mask,
    spacing_mm: Spacing,
    connectivity: int = 26,
    floor: float = FLOOR,
    min_mm3: float = 0.0,
) -> list[Candidate]:
    """The connected pieces of `probability >= floor`, (X, Y, Z), each scored by its largest probability.

    A candidate hits the true tumors that it shares a voxel with; their ids are those of `training.lesions`. Candidates
    and true tumors below `min_mm3` are left out, and a candidate that touches only such tumors is neither right nor
    false. A piece that spans several tumors hits all of them with its one score: candidates are made once, at the
    floor, not anew for each threshold. ValueError for arrays of different shape.
    """
    raised, inside = as_masks(probability >= floor, truth)
    if not raised.any():
        return []
    box = bounding_box(raised)
    found, true = components(raised[box], connectivity), components(inside, connectivity)
    voxel_mm3 = math.prod(spacing_xyz(spacing_mm))
    hits, scores = _hits(found, true, box), component_peaks(found, probability[box])
    candidates = []
    for i in np.flatnonzero(_large(found, voxel_mm3, min_mm3)).tolist():
        counted = [k for k in hits.get(i, ()) if true.voxels[k] * voxel_mm3 >= min_mm3]
        if counted or i not in hits:
            candidates.append(Candidate(float(scores[i]), tuple(counted), int(found.voxels[i]) * voxel_mm3))
    return candidates


def _large(parts: Components, voxel_mm3: float, min_mm3: float) -> npt.NDArray[np.bool_]:
    large = parts.voxels * voxel_mm3 >= min_mm3
    large[0] = False
    return large


def _hits(found: Components, true: Components, box: Box) -> dict[int, list[int]]:
    """The components of the truth that each candidate shares a voxel with."""
    below = true.labels[box]
    shared = (found.labels > 0) & (below > 0)
    pairs = np.unique(np.stack([found.labels[shared], below[shared]]).astype(np.int64), axis=1)
    hits: dict[int, list[int]] = {}
    for candidate, lesion in pairs.T.tolist():
        hits.setdefault(candidate, []).append(lesion)
    return hits


def component_peaks(found: Components, probability: Probability) -> FloatArray:
    """Largest probability of each component, by label; both (X, Y, Z)."""
    inside = found.labels > 0
    peaks = np.zeros(len(found.voxels))
    np.maximum.at(peaks, found.labels[inside], probability[inside].astype(np.float64))
    return peaks


def froc(scans: Sequence[ScanCandidates], settings: ScoreSettings) -> Record | None:
    """The curve over scans as `training.summary` shows it; None without scans or without true tumors in them.

    `points` are the corners of the stepped curve, by falling threshold: where a tumor more is found, and the last.
    `at` is the largest sensitivity at no more than so many false candidates a scan, 0 below the first point;
    `mean` is the mean of these (the score of LUNA16, Setio et al. 2017).
    """
    n, lesions = len({scan.case_id for scan in scans}), sum(scan.truth_lesions for scan in scans)
    if not lesions:
        return None
    points = _corners(scans, n, lesions)
    at = {f"{rate:g}": _sensitivity_at(points, rate) for rate in settings.froc_false_per_scan}
    return {"scans": n, "tumors": lesions, "points": points, "at": at, "mean": sum(at.values()) / len(at)}


def _corners(scans: Sequence[ScanCandidates], n: int, lesions: int) -> list[Record]:
    hits, false = _best_scores(scans), _false_scores(scans)
    thresholds = np.unique(np.concatenate([hits, false]))[::-1]
    found = len(hits) - np.searchsorted(hits, thresholds)
    rising = np.flatnonzero(np.diff(found, prepend=0) > 0).tolist()
    shown = sorted({*rising, *([len(thresholds) - 1] if len(thresholds) else [])})
    return [
        {
            "threshold": float(thresholds[k]),
            "false_per_scan": float(len(false) - np.searchsorted(false, thresholds[k])) / n,
            "sensitivity": float(found[k]) / lesions,
        }
        for k in shown
    ]


def _best_scores(scans: Sequence[ScanCandidates]) -> FloatArray:
    """Score of the best candidate of each true tumor that any touches, ascending."""
    best: list[float] = []
    for scan in scans:
        of_lesion: dict[int, float] = {}
        for candidate in scan.candidates:
            for lesion in candidate.lesions:
                of_lesion[lesion] = max(of_lesion.get(lesion, 0.0), candidate.score)
        best += of_lesion.values()
    return np.sort(np.array(best, np.float64))


def _false_scores(scans: Sequence[ScanCandidates]) -> FloatArray:
    found = [candidate.score for scan in scans for candidate in scan.candidates if not candidate.lesions]
    return np.sort(np.array(found, np.float64))


def _sensitivity_at(points: Sequence[Record], false_per_scan: float) -> float:
    return max((point["sensitivity"] for point in points if point["false_per_scan"] <= false_per_scan), default=0.0)
