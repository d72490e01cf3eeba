"""Reading the two sides of a study: real cases with lesion masks, and samples of a dataset in their bank cases.

In: paths. Out: candidates, and what was left out by reason. One scan is in memory at a time. A synthetic sample is a
patch; it is put back into its bank case, so that its crop reaches as far as that of a real lesion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.case import Case
from pipeline.catalog import Dataset, Sample
from pipeline.errors import InputError
from pipeline.grid import Slices3, index3, overlap, slices3
from pipeline.intake import read_case, source_digests
from pipeline.organs import CLASS_NAMES, LabelMap, is_tumor, label_map
from pipeline.progress import Progress
from pipeline.sources import CaseSource, find_cases
from pipeline.study.lesions import Candidate, Scan, candidates
from pipeline.study.matching import CALIPER

PER_REAL, AT_LEAST = 12, 200  # synthetic samples read for each real lesion, and in all (choice: about 0.1 s each)
ANNOTATED = "annotated"  # the kind of true tumors in a dataset's manifest


@dataclass
class Found:
    """Candidates of one side, and lesions that are none."""

    candidates: list[Candidate] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def reasons(self) -> str:
        """`2 below 5 mm, 1 cut by ...`."""
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items())) or "none left out"


def real_candidates(folder: Path, labels: str | None, organ: str, spacing_mm: float, edge_vox: int) -> Found:
    """Lesions of real cases at the study's spacing, resampled as `prepare` resamples; InputError without any."""
    known = label_map(labels) if labels else None
    sources = find_cases(folder, None, None, known).cases
    found, held, progress = Found(), set[int](), Progress(len(sources), "real cases read")
    for source in sources:
        read = partial(_real_scan, source, known, spacing_mm)
        scan = read()
        held |= set(np.flatnonzero(np.bincount(scan.label.reshape(-1))).tolist())
        found.candidates += candidates(scan, read, organ, edge_vox, found.left_out)
        progress.advance(1)
    if not found.candidates:
        classes = ", ".join(CLASS_NAMES[i] for i in sorted(held) if i) or "only background"
        raise InputError(
            f"--real {folder}: no lesion of the {organ} can be shown: {found.reasons()}; the masks hold {classes}. "
            "Name their ids with --labels, e.g. --labels lits, or choose another --crop-mm"
        )
    return found


def synthetic_candidates(
    dataset: Dataset, organ: str, real: Sequence[Candidate], edge_vox: int, rng: np.random.Generator
) -> Found:
    """Synthetic lesions of like size for each real one, of different samples and of all bank cases by turns."""
    found, chosen = Found(), _samples_of_like_size(dataset, organ, [one.facts.diameter_mm for one in real], rng)
    progress = Progress(len(chosen), "synthetic samples read")
    for index in chosen:
        read = partial(_synthetic_scan, dataset, index)
        of_size = [one for one in candidates(read(), read, organ, edge_vox, found.left_out) if _like_any(one, real)]
        found.candidates += of_size[:1]  # two of one sample would show the same surroundings twice
        progress.advance(1)
    return found


def _real_scan(source: CaseSource, labels: LabelMap | None, spacing_mm: float) -> Scan:
    image, label, _ = read_case(source, labels, spacing_mm, allow_tumors=True)
    whole = slices3((0, 0, 0), image.shape)
    return Scan("real", source.case_id, _scan_id(source_digests(source)), image, label, spacing_mm, whole)


def _synthetic_scan(dataset: Dataset, index: int) -> Scan:
    sample = dataset.sample(index)
    return whole_scan(sample, dataset.case(sample.row))


def whole_scan(sample: Sample, case: Case) -> Scan:
    """The bank case with the sample put back into it."""
    origin, shape = index3(sample.row["origin_vox"]), index3(sample.image.shape)
    in_scan, in_patch = overlap(origin, shape, case.ct.shape)
    image, label = np.array(case.ct), np.array(case.organs)
    changed = sample.image[in_patch] != case.ct[in_scan]
    image[in_scan], label[in_scan] = sample.image[in_patch], sample.label[in_patch]
    return Scan(
        "synthetic",
        str(sample.row["sample_id"]),
        _scan_id(case.sources),
        image,
        label,
        case.spacing_mm,
        excluded=np.isin(case.organs, [i for i in CLASS_NAMES if is_tumor(i)]),
        usable=_usable(changed, in_scan, case.ct.shape),
    )


def _usable(changed: npt.NDArray[np.bool_], patch: Slices3, scan: tuple[int, ...]) -> Slices3:
    """The scan without what lies beyond a side of the patch where it ends within what it changed: a seam would show."""
    low, high = [], []
    for axis, (side, size) in enumerate(zip(patch, scan, strict=True)):
        first, last = (bool(np.take(changed, end, axis).any()) for end in (0, -1))
        low.append(side.start if first else 0)
        high.append(side.stop if last else size)
    return slices3(low, high)


def _samples_of_like_size(
    dataset: Dataset, organ: str, diameters_mm: Sequence[float], rng: np.random.Generator
) -> list[int]:
    """Indices of samples, `PER_REAL` for each real lesion and `AT_LEAST` in all where there are so many."""
    by_case: dict[str, list[tuple[int, float]]] = {}
    for index, case_id, diameter in _manifest_lesions(dataset, organ):
        by_case.setdefault(case_id, []).append((index, diameter))
    if not by_case:
        raise InputError(f"{dataset.path}: no synthetic lesion of the {organ}; choose another --organ or dataset")
    drawn: dict[int, None] = {}
    each = max(PER_REAL, AT_LEAST // len(diameters_mm))
    for wanted in diameters_mm:
        near = [
            [index for index, diameter in lesions if max(diameter / wanted, wanted / diameter) <= CALIPER]
            for lesions in by_case.values()
        ]
        drawn |= dict.fromkeys(_by_turns([[ks[k] for k in rng.permutation(len(ks))] for ks in near], drawn, each))
    return list(drawn)


def _by_turns(lists: Sequence[list[int]], taken: dict[int, None], count: int) -> list[int]:
    """The first `count` not taken yet: one of each list, then the second of each."""
    longest = max((len(one) for one in lists), default=0)
    fresh = [one[k] for k in range(longest) for one in lists if len(one) > k and one[k] not in taken]
    return list(dict.fromkeys(fresh))[:count]


def _manifest_lesions(dataset: Dataset, organ: str) -> Iterator[tuple[int, str, float]]:
    names = ["index", "case_id", "tumors.organ", "tumors.kind", "tumors.diameter_mm"]
    rows: list[dict[str, Any]] = dataset.columns(names).to_pylist()
    for row in rows:
        for tumor in row["tumors"]:
            if tumor["organ"] == organ and tumor["kind"] != ANNOTATED:
                yield row["index"], row["case_id"], tumor["diameter_mm"]


def _like_any(one: Candidate, real: Sequence[Candidate]) -> bool:
    a = one.facts.diameter_mm
    return any(max(a / b.facts.diameter_mm, b.facts.diameter_mm / a) <= CALIPER for b in real)


def _scan_id(digests: Any) -> str:
    """The same for the same image files, whatever they are called."""
    images = {name: digest for name, digest in digests.items() if _is_image(name)} or dict(digests)
    return "+".join(sorted(digest[:16] for digest in images.values()))


def _is_image(name: str) -> bool:
    return name.rpartition("/")[2] in ("ct.nii.gz", "ct.nii", "dicom")
