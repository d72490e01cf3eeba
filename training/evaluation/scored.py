"""From something to score to a report folder: score every sample, aggregate, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.progress import Progress
from training.evaluation.pairs import Scored
from training.records import CaseResult, ScanCandidates, ScoreSettings
from training.report import choose_examples, write_report
from training.scoring import score_case
from training.summary import aggregate

Log = Callable[[str], None]


def evaluate(
    scored: Scored,
    out: Path,
    context: Mapping[str, str],
    settings: ScoreSettings,
    log: Log,
    least_candidate_mm3: float = 0.0,
) -> dict[str, Any]:
    """Score all samples and write the report into `out`; the metrics, with the context.

    FROC candidates below `least_candidate_mm3` are left out: the rule that gives small tumors back would remove them.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    if (out / "metrics.json").exists():
        log(f"note: the report in {out} will be replaced")
    results = _score(scored, settings)
    scores = [score for result in results for score in result.scores]
    lesions = [lesion for result in results for lesion in result.lesions]
    candidates = [_of_volume(found, least_candidate_mm3) for result in results for found in result.candidates]
    metrics = aggregate(scores, lesions, candidates, settings=settings)
    chosen = (scored.example(case_id, caption) for case_id, caption in choose_examples(scores).items())
    shown = (example for example in chosen if example is not None)
    report = write_report(out, metrics, scores, lesions, shown, context)
    log(f"wrote {report}")
    return {**metrics, "context": dict(context)}


def _score(scored: Scored, settings: ScoreSettings) -> list[CaseResult]:
    progress = Progress(len(scored), "samples scored")
    results = []
    for pair in scored.pairs():
        result = score_case(
            pair.case_id,
            pair.truth,
            pair.prediction,
            pair.spacing_mm,
            pair.classes,
            pair.group,
            pair.split,
            settings=settings,
            facts=pair.facts,
            probabilities=pair.probabilities,
        )
        results.append(result)
        progress.advance(1)
    return results


def _of_volume(found: ScanCandidates, least_mm3: float) -> ScanCandidates:
    return replace(found, candidates=tuple(one for one in found.candidates if one.volume_mm3 >= least_mm3))
