"""From the records of all samples to the figures of `metrics.json`.

In: `CaseScore`, `LesionRecord` and `ScanCandidates` of `training.records`. Out: one JSON-ready dict; a figure that does
not exist is None (`null`), with its n of 0 beside it. The result does not depend on the order of the records.

    format_version: 2
    settings        the fields of `ScoreSettings`
    definitions     {word: meaning}
    counts          {samples, source_cases, healthy_samples, tumor_samples, tumors, found_tumors, predicted_tumors,
                     false_tumors}
    classes         {name: {kind: "organ", organ, presence, ...overlap} or {kind: "tumor", organ, presence, ...overlap,
                     ...tumor}}, by class id
    all_tumors      {...overlap, ...tumor}

    presence   {both, missed, only_predicted, correctly_empty}: samples
    overlap    dice: mean, nsd_2mm: mean (at the tolerance of the settings), hd95_mm: mean, volume_error_ml: mean
    tumor      lesions:  {sensitivity: share, sensitivity_iou_0.1: share, precision: share,
                          by_rule: {overlap | iou_0.1 | iou_0.5: {sensitivity: share, precision: share, f1}},
                          by_diameter: [{from_mm, below_mm (null: no end), ...share, iou_0.1: share}]}
               froc:     null, or {scans, tumors, points: [{threshold, false_per_scan, sensitivity}],
                          at: {"0.125": sensitivity, ...}, mean}
               strata:   {organ | kind | contrast_hu | texture: [{name, ...share}]}; without what nobody knows
               volumes:  {false_positive_ml: mean over all samples, false_negative_ml: mean over those with the class}
               healthy:  {n, without_false_tumor: share, false_lesions_per_sample: mean, false_ml_per_sample: mean}
               samples, patients: {sensitivity: share, specificity: share}
    share      {count, n, value, low, high}                  `training.intervals.proportion`
    mean       {mean, low, high, n, groups, note (if any)}   `training.intervals.cluster_mean`
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from training.definitions import CONTRAST_BIN_HU, definitions
from training.froc import froc
from training.intervals import cluster_mean, proportion
from training.lesions import RULES, matches
from training.records import DEFAULTS, CaseScore, LesionRecord, ScanCandidates, ScoreSettings

FORMAT_VERSION = 2
Record = dict[str, Any]


def aggregate(
    scores: Iterable[CaseScore],
    lesions: Iterable[LesionRecord],
    candidates: Iterable[ScanCandidates] = (),
    *,
    settings: ScoreSettings = DEFAULTS,
) -> Record:
    """All figures of an evaluation, in the form above; `settings` are those that the samples were scored with."""
    ordered = sorted(scores, key=lambda score: (score.case_id, score.class_name))
    _check_unique(ordered)
    found, scans = list(lesions), list(candidates)
    figures = _Figures(settings)
    tumors = [score for score in ordered if score.tumor]
    return {
        "format_version": FORMAT_VERSION,
        "settings": _json_ready(settings),
        "definitions": definitions(settings),
        "counts": _counts(ordered, found),
        "classes": {
            name: figures.of_class(
                [score for score in ordered if score.class_name == name],
                [lesion for lesion in found if lesion.class_name == name],
                [scan for scan in scans if scan.class_name == name],
            )
            for name in _names_in_order(ordered)
        },
        "all_tumors": figures.overlap(tumors) | figures.tumor(by_sample(tumors), found, scans),
    }


def _json_ready(settings: ScoreSettings) -> Record:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


def _check_unique(scores: Sequence[CaseScore]) -> None:
    repeated = [key for key, n in Counter((s.case_id, s.class_name) for s in scores).items() if n > 1]
    if repeated:
        raise InputError(f"{repeated[0][0]}: class {repeated[0][1]} was scored twice; every sample needs its own id")


def _names_in_order(scores: Sequence[CaseScore]) -> list[str]:
    """Class names by class id: each organ before its tumor."""
    return sorted({score.class_name for score in scores}, key=CLASS_IDS.__getitem__)


def _counts(scores: Sequence[CaseScore], lesions: Sequence[LesionRecord]) -> Record:
    healthy = {score.case_id: score.healthy for score in scores if score.tumor}  # the others nobody judged
    true = [lesion for lesion in lesions if lesion.source == "truth"]
    predicted = [lesion for lesion in lesions if lesion.source == "prediction"]
    return {
        "samples": len({score.case_id for score in scores}),
        "source_cases": len({score.group for score in scores}),
        "healthy_samples": sum(healthy.values()),
        "tumor_samples": len(healthy) - sum(healthy.values()),
        "tumors": len(true),
        "found_tumors": sum(lesion.matched for lesion in true),
        "predicted_tumors": len(predicted),
        "false_tumors": sum(not lesion.matched for lesion in predicted),
    }


def _presence(scores: Sequence[CaseScore]) -> Record:
    """In how many samples truth and prediction have the class."""
    seen = Counter((score.truth_voxels > 0, score.predicted_voxels > 0) for score in scores)
    return {
        "both": seen[True, True],
        "missed": seen[True, False],
        "only_predicted": seen[False, True],
        "correctly_empty": seen[False, False],
    }


@dataclass(frozen=True)
class _Figures:
    """Figures of a set of records under the settings."""

    settings: ScoreSettings

    def mean(self, scores: Sequence[CaseScore], value: Callable[[CaseScore], float | None]) -> Record:
        """Mean and interval of a value over the scores that have it."""
        known = [(score.group, found) for score in scores if (found := value(score)) is not None]
        groups, values = [group for group, _ in known], [float(found) for _, found in known]
        return cluster_mean(values, groups, seed=self.settings.seed, resamples=self.settings.resamples)

    def of_class(
        self, scores: Sequence[CaseScore], lesions: Sequence[LesionRecord], scans: Sequence[ScanCandidates]
    ) -> Record:
        first = scores[0]
        figures = {"kind": "tumor" if first.tumor else "organ", "organ": first.organ, "presence": _presence(scores)}
        return figures | self.overlap(scores) | (self.tumor(scores, lesions, scans) if first.tumor else {})

    def overlap(self, scores: Sequence[CaseScore]) -> Record:
        present = _with_class(scores)
        return {
            "dice": self.mean(present, lambda score: score.dice),
            "nsd_2mm": self.mean(present, lambda score: score.nsd_2mm),
            "hd95_mm": self.mean(present, lambda score: score.hd95_mm),
            "volume_error_ml": self.mean(present, lambda score: score.predicted_ml - score.truth_ml),
        }

    def tumor(
        self, scores: Sequence[CaseScore], lesions: Sequence[LesionRecord], scans: Sequence[ScanCandidates]
    ) -> Record:
        true = [lesion for lesion in lesions if lesion.source == "truth"]
        return {
            "lesions": _lesion_figures(lesions, self.settings.diameter_cuts_mm),
            "froc": froc(scans, self.settings),
            "strata": {name: rows for name, named in _STRATA.items() if (rows := _stratum(true, named))},
            "volumes": {
                "false_positive_ml": self.mean(scores, lambda score: score.false_positive_ml),
                "false_negative_ml": self.mean(_with_class(scores), lambda score: score.false_negative_ml),
            },
            "healthy": self.healthy([score for score in scores if score.healthy]),
            "samples": _flagged([[score] for score in scores]),
            "patients": _flagged(_by_group(scores)),
        }

    def healthy(self, scores: Sequence[CaseScore]) -> Record:
        clean = sum(not score.predicted_lesions for score in scores)
        return {
            "n": len(scores),
            "without_false_tumor": proportion(clean, len(scores)),
            "false_lesions_per_sample": self.mean(scores, lambda score: score.false_positive_lesions),
            "false_ml_per_sample": self.mean(scores, lambda score: score.false_positive_ml),
        }


def _with_class(scores: Sequence[CaseScore]) -> list[CaseScore]:
    return [score for score in scores if score.truth_voxels > 0]


def _by_group(scores: Sequence[CaseScore]) -> list[list[CaseScore]]:
    ordered = sorted(scores, key=lambda score: score.group)
    return [list(rows) for _, rows in groupby(ordered, key=lambda score: score.group)]


def _flagged(units: Sequence[Sequence[CaseScore]]) -> Record:
    """Of samples, or of the samples of each patient: flagged where there is a tumor, and left clean where not."""
    seen = Counter(
        (any(score.truth_lesions for score in unit), any(score.predicted_lesions for score in unit)) for unit in units
    )
    return {
        "sensitivity": proportion(seen[True, True], seen[True, True] + seen[True, False]),
        "specificity": proportion(seen[False, False], seen[False, False] + seen[False, True]),
    }


def _lesion_figures(lesions: Sequence[LesionRecord], cuts_mm: Sequence[float]) -> Record:
    true = [lesion for lesion in lesions if lesion.source == "truth"]
    predicted = [lesion for lesion in lesions if lesion.source == "prediction"]
    by_rule = {rule: _rule_figures(_matched(true, rule), _matched(predicted, rule)) for rule in RULES}
    return {
        "sensitivity": by_rule["overlap"]["sensitivity"],
        "sensitivity_iou_0.1": by_rule["iou_0.1"]["sensitivity"],
        "precision": by_rule["overlap"]["precision"],
        "by_rule": by_rule,
        "by_diameter": [_size_row(true, low, high) for low, high in pairwise((0, *cuts_mm, None))],
    }


def _size_row(true: Sequence[LesionRecord], low: float | None, high: float | None) -> Record:
    inside = [lesion for lesion in true if (low or 0) <= lesion.diameter_mm < (math.inf if high is None else high)]
    row = {"from_mm": low, "below_mm": high} | _matched(inside, "overlap")
    return row | {"iou_0.1": _matched(inside, "iou_0.1")}


def _matched(lesions: Sequence[LesionRecord], rule: str) -> Record:
    return proportion(sum(matches(rule, lesion.iou) for lesion in lesions), len(lesions))


def _rule_figures(sensitivity: Record, precision: Record) -> Record:
    return {"sensitivity": sensitivity, "precision": precision, "f1": _f1(sensitivity, precision)}


def _f1(sensitivity: Record, precision: Record) -> float | None:
    """Harmonic mean. None when there is nothing to find and nothing was predicted, 0 when only one of the two."""
    if not sensitivity["n"] and not precision["n"]:
        return None
    if not sensitivity["count"] or not precision["count"]:
        return 0.0
    return float(2 / (1 / sensitivity["value"] + 1 / precision["value"]))


def _stratum(true: Sequence[LesionRecord], named: Callable[[LesionRecord], tuple[float, str] | None]) -> list[Record]:
    """A row for each name that tumors have, by its rank; tumors without are left out."""
    known = [(name, lesion) for lesion in true if (name := named(lesion)) is not None]
    return [
        {"name": name} | _matched([lesion for other, lesion in known if other == (rank, name)], "overlap")
        for rank, name in sorted({key for key, _ in known})
    ]


def _contrast_bin(lesion: LesionRecord) -> tuple[float, str] | None:
    if lesion.contrast_hu is None:
        return None
    low = math.floor(lesion.contrast_hu / CONTRAST_BIN_HU) * CONTRAST_BIN_HU
    return low, f"{low} to {low + CONTRAST_BIN_HU} HU"


_STRATA: dict[str, Callable[[LesionRecord], tuple[float, str] | None]] = {
    "organ": lambda lesion: (CLASS_IDS[lesion.class_name], lesion.organ),
    "kind": lambda lesion: None if lesion.kind is None else (0, lesion.kind),
    "contrast_hu": _contrast_bin,
    "texture": lambda lesion: None if lesion.texture is None else (0, lesion.texture),
}


def by_sample(tumor_scores: Sequence[CaseScore]) -> list[CaseScore]:
    """One score a sample with the tumors of all classes added up, of scores in the order of samples.

    Overlap figures do not add up, and are left out.
    """
    pooled = []
    for _, rows in groupby(tumor_scores, key=lambda score: score.case_id):
        parts = list(rows)
        sums: Record = {name: sum(getattr(part, name) or 0 for part in parts) for name in _ADDED_UP}
        pooled.append(replace(parts[0], class_name="all_tumors", dice=None, nsd_2mm=None, hd95_mm=None, **sums))
    return pooled


_ADDED_UP = (
    "truth_voxels",
    "predicted_voxels",
    "truth_ml",
    "predicted_ml",
    "truth_lesions",
    "found_lesions",
    "predicted_lesions",
    "false_positive_lesions",
    "false_positive_ml",
    "false_negative_ml",
)
