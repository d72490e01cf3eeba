"""Two evaluations of the same samples, pair by pair: how much they differ, and whether chance would do that.

In: the records of both. Out: one JSON-ready dict; a figure that does not exist is None, with its n of 0 beside it.

    format_version: 1
    settings      the fields of `ScoreSettings`
    definitions   {word: meaning}
    pairs         {samples, source_cases}
    measures      [{class, measure, unit, better: "higher" or "lower", n, groups, mean_a, mean_b,
                    difference: b minus a, {mean, low, high, n, groups, note (if any)},
                    wilcoxon_p, permutation_p, wilcoxon_p_holm, permutation_p_holm}]
    shares        [{class, measure, better, n, groups, a: share, b: share, both, only_a, only_b, neither, mcnemar_p,
                    mcnemar_p_holm}]

Classes stand by id, then `all_tumors` where there are several tumor classes. A share is that of
`training.intervals.proportion`, a difference that of `training.intervals.cluster_mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from training.hypothesis_tests import holm, mcnemar_p, sign_flip_p, wilcoxon_p
from training.intervals import cluster_mean, proportion
from training.lesions import RULES, matches
from training.records import DEFAULTS, CaseScore, LesionRecord, ScoreSettings
from training.summary import by_sample

FORMAT_VERSION = 1
ALL = "all_tumors"
Record = dict[str, Any]
Value = Callable[[CaseScore], float | None]
Pairs = list[tuple[CaseScore, CaseScore]]
_Outcome = tuple[str, bool, bool]  # source case; whether a and b got it right

DEFINITIONS = {
    "difference": "Mean of b minus mean of a, over the samples for which both have the figure. Its 95 % interval draws "
    "whole source cases with replacement.",
    "Wilcoxon p": "Two-sided signed-rank test on the mean difference of each source case (Wilcoxon 1945); differences "
    "of 0 are left out.",
    "permutation p": "Two-sided: how often a mean difference as large comes about when the labels a and b are swapped "
    "at random for all samples of a source case together. All ways to swap are tried where there are up to 14 source "
    "cases, 16384 random ones where there are more.",
    "McNemar p": "Exact two-sided test of the tumors (samples) that only one of the two gets right (McNemar 1947). It "
    "takes them as independent, so it holds where each comes from a source case of its own.",
    "p after Holm": "Corrected for the number of rows of the table (Holm 1979): below 0.05, the chance that any row of "
    "the table is called different by accident is at most 5 %.",
    "few source cases": "n source cases can give no permutation p below 2 / 2^n: with 5, never less than 0.06.",
}


@dataclass(frozen=True)
class _Measure:
    name: str
    unit: str
    better: str
    value: Value


_OUTLINE = (
    _Measure("dice", "", "higher", lambda score: score.dice),
    _Measure("nsd_2mm", "", "higher", lambda score: score.nsd_2mm),
    _Measure("hd95_mm", "mm", "lower", lambda score: score.hd95_mm),
    _Measure("absolute_volume_error_ml", "ml", "lower", lambda score: abs(score.predicted_ml - score.truth_ml)),
)
_FALSE = (
    _Measure("false_positive_lesions", "tumors a sample", "lower", lambda score: score.false_positive_lesions),
    _Measure("false_positive_ml", "ml", "lower", lambda score: score.false_positive_ml),
    _Measure("false_negative_ml", "ml", "lower", lambda score: score.false_negative_ml),
)


def compare(
    a: Sequence[CaseScore],
    b: Sequence[CaseScore],
    lesions_a: Sequence[LesionRecord],
    lesions_b: Sequence[LesionRecord],
    settings: ScoreSettings = DEFAULTS,
) -> Record:
    """Compare two evaluations with equal settings, in the form above.

    InputError when only one has a sample (or a class of it), or when the truths differ.
    """
    pairs = _paired(a, b)
    tumors = list(_true_pairs(lesions_a, lesions_b))
    measures, shares = [], []
    for name, own in _by_class(pairs):
        outlines = _tumors(pairs) if name == ALL else own  # outlines of several classes do not add up
        present = [pair for pair in outlines if pair[0].truth_voxels > 0]
        measures += [_row(name, measure, present, settings) for measure in _OUTLINE]
        if own[0][0].tumor:
            measures += [_row(name, measure, own, settings) for measure in _FALSE]
            shares += _share_rows(name, own, [pair for pair in tumors if name in (ALL, pair[0].class_name)])
    return {
        "format_version": FORMAT_VERSION,
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()},
        "definitions": dict(DEFINITIONS),
        "pairs": {
            "samples": len({one.case_id for one, _ in pairs}),
            "source_cases": len({one.group for one, _ in pairs}),
        },
        "measures": _with_holm(measures, ("wilcoxon_p", "permutation_p")),
        "shares": _with_holm(shares, ("mcnemar_p",)),
    }


def _paired(a: Sequence[CaseScore], b: Sequence[CaseScore]) -> Pairs:
    by_key_a, by_key_b = ({(s.case_id, s.class_name): s for s in scores} for scores in (a, b))
    for one, other, names in ((by_key_a, by_key_b, "a but not b"), (by_key_b, by_key_a, "b but not a")):
        alone = [f"{case_id} ({class_name})" for case_id, class_name in sorted(one.keys() - other.keys())]
        if alone:
            more = f" and {len(alone) - 8} more" if len(alone) > 8 else ""
            raise InputError(f"{names} was scored on {', '.join(alone[:8])}{more}; evaluate both on the same samples")
    for key, score in sorted(by_key_a.items()):
        found = by_key_b[key].truth_voxels
        if score.truth_voxels != found:
            raise InputError(
                f"{key[0]}: the truth of {key[1]} has {score.truth_voxels} voxels in a and {found} in b; evaluate both "
                "on the same data"
            )
    return [(score, by_key_b[key]) for key, score in sorted(by_key_a.items())]


def _true_pairs(a: Iterable[LesionRecord], b: Iterable[LesionRecord]) -> Iterator[tuple[LesionRecord, LesionRecord]]:
    """The true tumors as both sides saw them."""
    of_a, of_b = ({(t.case_id, t.class_name, t.lesion_id): t for t in side if t.source == "truth"} for side in (a, b))
    different = sorted({key[0] for key in of_a.keys() ^ of_b.keys()})
    if different:
        raise InputError(
            f"a and b do not have the same true tumors in {', '.join(different[:8])}; evaluate both on the same data, "
            "with the same settings"
        )
    return ((of_a[key], of_b[key]) for key in sorted(of_a))


def _by_class(pairs: Pairs) -> Iterator[tuple[str, Pairs]]:
    """Pairs of each class, then those of all tumors, added up by sample, where there are several tumor classes."""
    names = sorted({one.class_name for one, _ in pairs}, key=CLASS_IDS.__getitem__)
    for name in names:
        yield name, [pair for pair in pairs if pair[0].class_name == name]
    tumors = _tumors(pairs)
    if len({one.class_name for one, _ in tumors}) > 1:
        sides = by_sample([one for one, _ in tumors]), by_sample([other for _, other in tumors])
        yield ALL, list(zip(*sides, strict=True))


def _tumors(pairs: Pairs) -> Pairs:
    return [pair for pair in pairs if pair[0].tumor]


def _row(class_name: str, measure: _Measure, pairs: Pairs, settings: ScoreSettings) -> Record:
    known = [
        (one.group, float(x), float(y))
        for one, other in pairs
        if (x := measure.value(one)) is not None and (y := measure.value(other)) is not None
    ]
    groups, differences = [group for group, _, _ in known], [y - x for _, x, y in known]
    difference = cluster_mean(differences, groups, seed=settings.seed, resamples=settings.resamples)
    n = len(known)
    return {
        "class": class_name,
        "measure": measure.name,
        "unit": measure.unit,
        "better": measure.better,
        "n": n,
        "groups": difference["groups"],
        "mean_a": sum(x for _, x, _ in known) / n if n else None,
        "mean_b": sum(y for _, _, y in known) / n if n else None,
        "difference": difference,
        "wilcoxon_p": wilcoxon_p(differences, groups),
        "permutation_p": sign_flip_p(differences, groups, seed=settings.seed),
    }


def _share_rows(name: str, scores: Pairs, tumors: Sequence[tuple[LesionRecord, LesionRecord]]) -> list[Record]:
    found: dict[str, list[_Outcome]] = {
        f"tumors found ({rule})": [
            (one.group, matches(rule, one.iou), matches(rule, other.iou)) for one, other in tumors
        ]
        for rule in RULES
    }
    found["samples with tumor flagged"] = [
        (a.group, bool(a.predicted_lesions), bool(b.predicted_lesions)) for a, b in scores if a.truth_lesions
    ]
    found["samples without tumor left clean"] = [
        (a.group, not a.predicted_lesions, not b.predicted_lesions) for a, b in scores if not a.truth_lesions
    ]
    return [_share_row(name, measure, outcomes) for measure, outcomes in found.items()]


def _share_row(class_name: str, measure: str, counted: Sequence[_Outcome]) -> Record:
    outcomes = [(a, b) for _, a, b in counted]
    n, only_a, only_b = len(outcomes), outcomes.count((True, False)), outcomes.count((False, True))
    both = outcomes.count((True, True))
    return {
        "class": class_name,
        "measure": measure,
        "better": "higher",
        "n": n,
        "groups": len({group for group, _, _ in counted}),
        "a": proportion(both + only_a, n),
        "b": proportion(both + only_b, n),
        "both": both,
        "only_a": only_a,
        "only_b": only_b,
        "neither": n - both - only_a - only_b,
        "mcnemar_p": mcnemar_p(only_a, only_b) if n else None,
    }


def _with_holm(rows: Sequence[Record], names: Sequence[str]) -> list[Record]:
    """The rows with each p corrected for the number of rows that have one."""
    corrected = {f"{name}_holm": holm([row[name] for row in rows]) for name in names}
    return [row | {name: values[k] for name, values in corrected.items()} for k, row in enumerate(rows)]
