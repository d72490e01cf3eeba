"""Scoring predictions against the truth, from what people have: runs with a dataset or with real cases, two folders of
label maps, two evaluations to compare. Out: a report folder and its metrics. `training.evaluation` has the parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.catalog import open_dataset
from pipeline.description import INFO
from pipeline.errors import InputError
from pipeline.store import Location, open_store
from pipeline.versions import software
from training.evaluation.comparison import compare_folders
from training.evaluation.describe import describe, describe_comparison
from training.evaluation.facts import CONTRAST
from training.evaluation.folders import LabelFolders
from training.evaluation.pairs import Scored
from training.evaluation.predictor import Predictor
from training.evaluation.real import RealCases
from training.evaluation.results import is_evaluation
from training.evaluation.scored import Log, evaluate
from training.evaluation.stored import StoredSamples
from training.predict import OVERLAP, Segmenter, load_segmenter, samples_to_predict
from training.prediction.postprocess import Rules
from training.records import DEFAULTS, ScoreSettings

__all__ = ["compare_evaluations", "describe", "describe_comparison", "evaluate_folders", "evaluate_run"]
_NO_RULES = Rules()


def evaluate_run(
    runs: Path | Sequence[Path],
    data: Location,
    out: Path,
    *,
    split: str | None = None,
    labels: str | None = None,
    healthy: bool = False,
    limit: int | None = None,
    mirror: bool = False,
    overlap: float = OVERLAP,
    rules: Rules = _NO_RULES,
    froc: bool = True,
    settings: ScoreSettings = DEFAULTS,
    log: Log,
) -> dict[str, Any]:
    """Score a run, or several that vote, on a dataset's `split` (test) or on a folder of real cases; the metrics.

    Real cases without a tumor mask say nothing of tumors, unless `healthy` vouches that they have none. `labels` is the
    label map of real masks. `froc` keeps tumor probabilities while a sample is scored.
    """
    segmenter = load_segmenter(runs, overlap=overlap, mirror=mirror)
    predictor = Predictor(segmenter, rules, froc)
    context = _run_context(runs, data, segmenter, rules)
    place = open_store(data)
    scored: Scored
    if place.folder is None or place.exists(INFO):
        _check_unsaid(data, "a dataset", {"labels": labels is not None, "healthy": healthy})
        dataset = open_dataset(place)
        split = split or "test"
        context |= {"split": split, "dataset config digest": dataset.info.config_digest}
        scored = StoredSamples(dataset, predictor, samples_to_predict(segmenter, dataset, split)[:limit])
    else:
        _check_unsaid(data, "a folder of real cases", {"split": split is not None})
        context |= {"contrast of tumors": CONTRAST} | ({"labels": labels} if labels else {})
        scored = RealCases(
            place.folder, predictor, out / "predictions", labels, healthy, limit, settings.connectivity, log
        )
    return evaluate(scored, out, context, settings, log, rules.min_tumor_mm3 or 0.0)


def evaluate_folders(
    truth: Path,
    predictions: Path,
    out: Path,
    *,
    labels: str | None = None,
    prediction_labels: str | None = None,
    limit: int | None = None,
    settings: ScoreSettings = DEFAULTS,
    log: Log,
) -> dict[str, Any]:
    """Score label maps against label maps of the same file names; the metrics.

    `labels` and `prediction_labels` are label maps; without them nnU-Net's `dataset.json` decides, else our class ids.
    """
    scored = LabelFolders(truth, predictions, labels, prediction_labels, limit, log)
    maps = {"labels": labels, "prediction labels": prediction_labels}
    context = {"truth": str(truth), "predictions": str(predictions), "version of phantumor": software()["phantumor"]}
    context |= {name: value for name, value in maps.items() if value is not None}
    return evaluate(scored, out, context, settings, log)


def compare_evaluations(
    a: Path, b: Path, out: Path, *, data: Location | None = None, log: Log, **options: Any
) -> dict[str, Any]:
    """Two evaluations, case by case. Runs are scored on `data` first, into OUT/a and OUT/b, with the options of
    `evaluate_run`. InputError where the two were scored with other settings or on another truth.
    """
    if a.resolve() == b.resolve():
        log(f"note: a and b are both {a}, so nothing differs")
    folders: list[Path] = []
    for side, place in (("a", a), ("b", b)):
        if is_evaluation(place):
            folders.append(place)
            continue
        if data is None:
            raise InputError(f"{place}: is no evaluation's folder; a run is compared on data that it is scored on")
        log(f"scoring {place}")
        evaluate_run(place, data, out / side, **options, log=log)
        folders.append(out / side)
    first, second = folders
    return compare_folders(first, second, out, log)


def _run_context(runs: Path | Sequence[Path], data: Location, segmenter: Segmenter, rules: Rules) -> dict[str, str]:
    """What the report says of how predictions were made."""
    paths = [runs] if isinstance(runs, Path) else runs
    said = {
        "run": ", ".join(map(str, paths)),
        "data": str(data),
        "windows": f"overlap {segmenter.overlap:g}{', 8 flips averaged' if segmenter.mirror else ''}",
    }
    rule = {name.replace("_", " "): f"{value:g}" for name, value in asdict(rules).items() if value is not None}
    return said | rule | {f"version of {name}": version for name, version in software().items()}


def _check_unsaid(data: Location, what: str, said: Mapping[str, bool]) -> None:
    """InputError for options that mean nothing to this kind of data."""
    stray = ", ".join(f"--{name}" for name, given in said.items() if given)
    if stray:
        raise InputError(f"{data}: is {what}, for which {stray} has no meaning; leave it out")
