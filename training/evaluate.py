"""Scoring predictions against the truth, from the three things people have: a run and a dataset, a run and real cases,
two folders of label maps. Out: a report folder and its metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.case import UInt8Array
from pipeline.catalog import Dataset, open_dataset
from pipeline.description import INFO
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.image import Volume, check_same_grid
from pipeline.intake import read_native
from pipeline.organs import CLASS_NAMES, LabelMap, is_tumor, label_map
from pipeline.progress import Progress
from pipeline.sources import CaseSource, find_cases
from pipeline.store import Location, open_store
from pipeline.versions import software
from pipeline.volume import read_nifti, write_nifti
from training.predict import Segmenter, load_segmenter, predict_grid, predict_samples, samples_to_predict
from training.prediction.images import nifti_by_name
from training.report import Example, choose_examples, write_report
from training.scoring import CaseResult, score_case
from training.summary import aggregate

_BATCH = 2
_RESUME = "Run the same command again"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Pair:
    """One sample with its truth and prediction, uint8 class ids (X, Y, Z) on one grid."""

    case_id: str
    group: str  # source case
    split: str | None
    truth: UInt8Array
    prediction: UInt8Array
    spacing_mm: tuple[float, float, float]
    classes: Mapping[str, int]  # what is scored


class Scored(Protocol):
    """Something to score: how many samples, the samples, and one of them again with its CT for a picture."""

    def __len__(self) -> int: ...
    def pairs(self) -> Iterator[Pair]: ...
    def example(self, case_id: str, caption: str) -> Example | None: ...


def evaluate_run(
    run: Path,
    data: Location,
    out: Path,
    *,
    split: str = "test",
    labels: str | None = None,
    healthy: bool = False,
    limit: int | None,
    log: Log,
) -> dict[str, Any]:
    """Score a run on the samples of a dataset, or on a folder of real cases; the metrics.

    Real cases without a tumor mask say nothing of tumors, unless `healthy` vouches that they have none.
    """
    segmenter = load_segmenter(run)
    context = {"run": str(run), "data": str(data), **{f"version of {k}": v for k, v in software().items()}}
    place = open_store(data)
    if place.folder is None or place.exists(INFO):
        dataset = open_dataset(place)
        context |= {"split": split, "dataset config digest": dataset.info.config_digest}
        samples = StoredSamples(dataset, segmenter, samples_to_predict(segmenter, dataset, split)[:limit])
        return _evaluate(samples, out, context, log)
    cases = RealCases(place.folder, labels, healthy, limit, segmenter, out / "predictions")
    if cases.unjudged:
        unjudged = ", ".join(cases.unjudged)
        log(f"note: no tumor mask, so tumors are not judged (--healthy says that there are none): {unjudged}")
    return _evaluate(cases, out, context, log)


def evaluate_folders(
    truth: Path, predictions: Path, out: Path, *, labels: str | None = None, limit: int | None, log: Log
) -> dict[str, Any]:
    """Score label maps against label maps of the same file names; the metrics. `labels` maps the ids of the truth."""
    context = {"truth": str(truth), "predictions": str(predictions), "version of phantumor": software()["phantumor"]}
    return _evaluate(LabelFolders(truth, predictions, labels, limit, log), out, context, log)


def _evaluate(scored: Scored, out: Path, context: Mapping[str, str], log: Log) -> dict[str, Any]:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    results = _score(scored)
    scores = [score for result in results for score in result.scores]
    lesions = [lesion for result in results for lesion in result.lesions]
    metrics = aggregate(scores, lesions)
    shown = (scored.example(case_id, caption) for case_id, caption in choose_examples(scores).items())
    report = write_report(out, metrics, scores, lesions, [e for e in shown if e is not None], context)
    log(f"wrote {report}")
    return {**metrics, "context": dict(context)}


def _score(scored: Scored) -> list[CaseResult]:
    progress = Progress(len(scored), "samples scored")
    results = []
    for pair in scored.pairs():
        results.append(
            score_case(pair.case_id, pair.truth, pair.prediction, pair.spacing_mm, pair.classes, pair.group, pair.split)
        )
        progress.advance(1)
    return results


class StoredSamples:
    """Samples of a dataset, predicted by a network."""

    def __init__(self, dataset: Dataset, segmenter: Segmenter, indices: list[int]) -> None:
        self._dataset, self._segmenter, self._indices = dataset, segmenter, indices

    def __len__(self) -> int:
        return len(self._indices)

    def pairs(self) -> Iterator[Pair]:
        """Samples by ascending index; the group is the source case, which several samples share."""
        known = self._segmenter.classes.classes
        annotated = {name: number for name, number in self._dataset.info.classes.items() if name in known}
        for predicted in predict_samples(self._segmenter, self._dataset, self._indices, _BATCH):
            row = self._dataset.row(predicted.sample)
            here = {name: number for name, number in annotated.items() if number in row["annotated_classes"]}
            spacing = (float(row["spacing_mm"]),) * 3
            yield Pair(
                row["sample_id"], row["case_id"], row["split"], predicted.truth, predicted.prediction, spacing, here
            )

    def example(self, case_id: str, caption: str) -> Example:
        """The sample again, with its CT."""
        index = int(case_id.removeprefix("s"))
        sample = self._dataset.sample(index)
        predicted = next(predict_samples(self._segmenter, self._dataset, [index], 1))
        spacing = float(sample.row["spacing_mm"])
        return Example(case_id, sample.image, sample.label, predicted.prediction, spacing, caption)


class RealCases:
    """Case folders with a CT and a true mask, predicted on the CT's own grid; predictions are kept as NIfTI."""

    def __init__(
        self, data: Path, labels: str | None, healthy: bool, limit: int | None, segmenter: Segmenter, kept: Path
    ) -> None:
        self._healthy = healthy
        self._labels: LabelMap | None = label_map(labels) if labels else None
        found = find_cases(data, None, None, self._labels)
        self._cases = {case.case_id: case for case in found.cases[:limit]}
        self._segmenter, self._kept = segmenter, kept

    def __len__(self) -> int:
        return len(self._cases)

    @property
    def unjudged(self) -> list[str]:
        """Cases whose masks name no tumor class of the network."""
        scored = {case_id: self._classes(source).values() for case_id, source in self._cases.items()}
        return [case_id for case_id, ids in scored.items() if not any(map(is_tumor, ids))]

    def pairs(self) -> Iterator[Pair]:
        """Cases in the order found."""
        for case_id, source in self._cases.items():
            image, truth = read_native(source, self._labels)
            prediction = predict_grid(self._segmenter, image, image.data.shape, image.affine)
            with writing_to(self._kept, _RESUME):
                self._kept.mkdir(parents=True, exist_ok=True)
                write_nifti(self._kept / f"{case_id}.nii.gz", prediction, image.affine)
            yield Pair(case_id, case_id, None, truth, prediction, image.spacing_mm, self._classes(source))

    def _classes(self, source: CaseSource) -> dict[str, int]:
        """Classes of the network that this case's mask can judge: those that it can hold."""
        ids = set(self._labels.classes.values() if source.label_file and self._labels else source.masks.values())
        if self._healthy:
            ids |= {i + 1 for i in ids if i and not is_tumor(i)}
        return {name: i for name, i in self._segmenter.classes.classes.items() if i in ids}

    def example(self, case_id: str, caption: str) -> Example:
        """The case again, with the prediction that was kept."""
        image, truth = read_native(self._cases[case_id], self._labels)
        kept = read_nifti(self._kept / f"{case_id}.nii.gz", "mask")
        return Example(case_id, image.data, truth, kept.data, image.spacing_mm, caption)


class LabelFolders:
    """Pairs of NIfTI label maps with the same file name in two folders."""

    def __init__(self, truth: Path, predictions: Path, labels: str | None, limit: int | None, log: Log) -> None:
        self._truth, self._predictions = nifti_by_name(truth), nifti_by_name(predictions)
        missing = sorted(set(self._truth) - set(self._predictions))
        if missing:
            raise InputError(f"{predictions}: no prediction for {', '.join(missing[:8])}; files are matched by name")
        extra = sorted(set(self._predictions) - set(self._truth))
        if extra:
            log(f"note: predictions without a truth are left out: {', '.join(extra[:8])}")
        self._names = sorted(self._truth)[:limit]
        self._map, self._ours = label_map(labels or "phantumor"), label_map("phantumor")

    def __len__(self) -> int:
        return len(self._names)

    def pairs(self) -> Iterator[Pair]:
        """Pairs by name; a class is scored when any truth or prediction holds it."""
        classes = self._classes()
        for name in self._names:
            truth, prediction = self._read(name)
            yield Pair(name, name, None, truth.data, prediction.data, truth.spacing_mm, classes)

    def _read(self, name: str) -> tuple[Volume, Volume]:
        truth, prediction = (read_nifti(folder[name], "mask") for folder in (self._truth, self._predictions))
        check_same_grid(truth, prediction, str(self._truth[name]), str(self._predictions[name]))
        ids = self._map.apply(truth.data, str(self._truth[name]))
        ours = self._ours.apply(prediction.data, str(self._predictions[name]))
        return Volume(ids, truth.affine), Volume(ours, prediction.affine)

    def _classes(self) -> dict[str, int]:
        ids: set[int] = {0}
        for name in self._names:
            ids.update(*(map(int, np.unique(volume.data)) for volume in self._read(name)))
        if ids == {0}:
            raise InputError("all label maps are empty: there is nothing to score")
        return {CLASS_NAMES[i]: i for i in sorted(ids | {i + 1 for i in ids if i % 2 and i + 1 in ids})}

    def example(self, case_id: str, caption: str) -> None:
        """No CT is at hand for a picture."""
        return None


def describe(metrics: Mapping[str, Any], out: Path) -> list[str]:
    """What was found, in five lines."""
    counts, tumors = metrics["counts"], metrics["all_tumors"]
    dice = tumors["dice"]
    sizes = ", ".join(_stratum(row) for row in tumors["lesions"]["by_diameter"] if row["n"])
    healthy = tumors["healthy"]
    clean = f"{healthy['without_false_tumor']['count']} of {healthy['n']} healthy samples are clean"
    clean = clean if healthy["n"] else "no healthy samples"
    return [
        f"found (touched) {counts['found_tumors']} of {counts['tumors']} tumors in {counts['tumor_samples']} samples, "
        f"{tumors['lesions']['sensitivity_iou_0.1']['count']} of them with an IoU of 0.1 or more",
        f"by size: {sizes or 'no tumors'}",
        f"outline: Dice {_number(dice['mean'])}, surface Dice at 2 mm {_number(tumors['nsd_2mm']['mean'])}",
        f"false alarms: {counts['false_tumors']} in {counts['samples']} samples; {clean}",
        f"report: {out / 'report.html'}",
    ]


def _stratum(row: Mapping[str, Any]) -> str:
    size = f">{row['from_mm']:g} mm" if row["below_mm"] is None else f"{row['from_mm']:g}-{row['below_mm']:g} mm"
    return f"{size} {row['count']} of {row['n']}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"
