"""Reading the two sides: real cases with lesion masks, and samples of a dataset with their healthy twins.

In: paths. Out: two `Population`s. One scan is in memory at a time; of each lesion only its measured facts stay.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.intake import read_case
from pipeline.organs import CLASS_NAMES, label_map, organ_id, tumor_id
from pipeline.progress import Progress
from pipeline.sources import find_cases
from pipeline.where import positions
from training.realism.definitions import SEED
from training.realism.examine import Examined, examine
from training.realism.healthy import healthy_balls
from training.realism.lesions import Scan, find_lesions

HEALTHY_BALLS = 60  # looked for on each side, over all its scans (choice)
# Small ones fit beside lesions and surface, those of 30 mm have room for boxes inside (choice).
BALL_DIAMETERS_MM = (30.0, 14.0, 20.0, 30.0, 24.0)


@dataclass
class Population:
    """One side of the comparison."""

    scans: int = 0
    cases: set[str] = field(default_factory=set)
    lesions: list[Examined] = field(default_factory=list)
    healthy: list[Examined] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)  # ids that the labels hold
    notes: list[str] = field(default_factory=list)

    def take(self, scan: Scan, organ: str) -> None:
        """Measure the lesions of a scan."""
        self.scans += 1
        self.cases.add(scan.case_id)
        self.classes |= set(np.flatnonzero(np.bincount(scan.label.reshape(-1))).tolist())
        self.lesions += map(examine, find_lesions(scan, organ, self.left_out))

    def take_healthy(self, scan: Scan, organ: str, diameters_mm: list[float]) -> None:
        """Measure balls of healthy organ in a scan."""
        rng = np.random.default_rng(np.random.SeedSequence((SEED, 3, zlib.crc32(scan.name.encode()))))
        self.healthy += map(examine, healthy_balls(scan, organ, diameters_mm, rng))


def real_population(folder: Path, labels: str | None, organ: str, spacing_mm: float) -> Population:
    """Lesions of real cases, and healthy balls away from them; InputError when no case has a lesion to measure."""
    known = label_map(labels) if labels else None
    sources = find_cases(folder, None, None, known).cases
    found, progress = Population(), Progress(len(sources), "real cases measured")
    each = -(-HEALTHY_BALLS // len(sources))
    diameters = itertools.cycle(BALL_DIAMETERS_MM)
    for source in sources:
        ct, label, _ = read_case(source, known, spacing_mm, allow_tumors=True)
        scan = Scan(source.case_id, source.case_id, ct, label, spacing_mm)
        found.take(scan, organ)
        found.take_healthy(scan, organ, list(itertools.islice(diameters, each)))
        progress.advance(1)
    _check_lesions(found, str(folder), organ, "Name the classes of the masks with --labels, e.g. --labels lits")
    return found


def synthetic_population(dataset: Dataset, organ: str, limit: int) -> Population:
    """Lesions of up to `limit` samples, spread evenly over the dataset; healthy balls from their healthy twins.

    Without its bank a dataset has no healthy twins: a note says so. InputError when no sample has a lesion to measure.
    """
    indices = _chosen_samples(dataset, organ, limit)
    found, progress = Population(), Progress(len(indices), "synthetic samples measured")
    with_balls = dict(zip(_spread(indices, HEALTHY_BALLS), itertools.cycle(BALL_DIAMETERS_MM), strict=False))
    for scan, twin in _sample_scans(dataset, indices, with_balls, found.notes):
        found.take(scan, organ)
        if twin is not None:
            index, healthy = twin
            found.take_healthy(healthy, organ, [with_balls[index]])
        progress.advance(1)
    _check_lesions(found, str(dataset.path), organ, "Generate more samples, or larger patches")
    return found


def _chosen_samples(dataset: Dataset, organ: str, limit: int) -> list[int]:
    """Samples with a tumor in the organ."""
    held = ", ".join(name for name in dataset.info.classes if name.endswith("_tumor")) or "no tumor class"
    if f"{organ}_tumor" not in dataset.info.classes:
        raise InputError(f"{dataset.path}: has no tumors of the {organ}, only {held}; choose --organ among these")
    rows = positions(dataset, f"organ = '{organ}'")
    indices = [int(index) for index in dataset.columns(["index"])["index"].to_numpy()[rows]]
    if not indices:
        raise InputError(f"{dataset.path}: none of its {dataset.rows} samples has a tumor of the {organ}")
    return _spread(indices, limit)


def _spread(indices: list[int], count: int) -> list[int]:
    """At most `count` of them, evenly spaced, the first among them."""
    return [indices[k * len(indices) // count] for k in range(count)] if len(indices) > count else indices


def _sample_scans(
    dataset: Dataset, indices: list[int], with_twin: Iterable[int], notes: list[str]
) -> Iterator[tuple[Scan, tuple[int, Scan] | None]]:
    """Samples, and the healthy twin of those that are asked for. A twin has its sample's labels: its lesions' places
    are known and avoided."""
    wanted = set(with_twin)
    for index in indices:
        sample = dataset.sample(index)
        name, case_id = str(sample.row["sample_id"]), str(sample.row["case_id"])
        spacing_mm = float(sample.row["spacing_mm"])
        twin = None
        if index in wanted and not notes:
            try:
                image = dataset.healthy(index)
                twin = index, Scan(f"{name} healthy", case_id, image, sample.label, spacing_mm)
            except InputError as error:
                notes.append(f"the floor of healthy organ was not measured: {error}")
        yield Scan(name, case_id, sample.image, sample.label, spacing_mm), twin


def _check_lesions(found: Population, where: str, organ: str, remedy: str) -> None:
    if found.lesions:
        return
    if tumor_id(organ) not in found.classes:
        held = ", ".join(CLASS_NAMES[i] for i in sorted(found.classes) if i) or "only background"
        raise InputError(f"{where}: no lesion of the {organ} in {_cases(found)}: the masks hold {held}. {remedy}")
    missing = "" if organ_id(organ) in found.classes else f"; the masks do not hold the {organ} itself"
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.left_out.items()))
    raise InputError(
        f"{where}: no lesion of the {organ} can be measured in {_cases(found)}: {reasons}{missing}. {remedy}"
    )


def _cases(found: Population) -> str:
    return f"{len(found.cases)} case{'s' if len(found.cases) != 1 else ''}"
