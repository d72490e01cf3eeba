"""From two populations to the figures of the report. Pure: populations in, JSON-ready records out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.realism.classifier import Side, two_sample_auc
from training.realism.definitions import AUC_TARGET, CONTRAST_TARGET_HU, DEFINITIONS, DEFINITIONS_VERSION, SEED
from training.realism.distances import FloatArray, compared, summary, wasserstein
from training.realism.examine import PROFILE_EDGES_MM, Examined
from training.realism.features import FEATURES
from training.realism.matching import capped, matched_counts, nearest_in_size
from training.realism.populations import Population
from training.realism.regions import KINDS, Kind
from training.realism.shape import Shape

SHAPE_FIGURES = ("diameter_mm", "sphericity", "box_fill", "extent_ratio")
HISTOGRAM_EDGES_HU = np.arange(-200.0, 201.0, 5.0)
MAX_BOXES = 2000  # of a side (choice: more changes no second digit)
SAMPLING_DRAWS = 50  # (choice) the median moves by a few per cent
FEW_LESIONS = 20  # below it a distribution of real lesions is hardly known (choice)

Record = dict[str, Any]


def compare(
    real: Population, synthetic: Population, references: Mapping[str, Sequence[Shape]], organ: str, spacing_mm: float
) -> Record:
    """All figures of `realism.json` but the context."""
    like = _of_like_size(real.lesions, synthetic.lesions)
    contrast = _contrast(real.lesions, synthetic.lesions, like)
    classifier = {kind: _classify(real.lesions, synthetic.lesions, kind) for kind in KINDS}
    most = {kind: record["real"]["boxes"] for kind, record in classifier.items()}
    floor = {kind: _classify(real.healthy, synthetic.healthy, kind, most[kind]) for kind in KINDS}
    for kind, record in classifier.items():
        record["target"] = auc_target(record["auc"], floor[kind]["auc"])
    return {
        "definitions_version": DEFINITIONS_VERSION,
        "organ": organ,
        "spacing_mm": spacing_mm,
        "seed": SEED,
        "targets": _targets(contrast, classifier, floor),
        "notes": [*_notes(real, synthetic), *_floor_notes(floor)],
        "counts": {"real": _counts(real), "synthetic": _counts(synthetic) | {"lesions_of_like_size": len(like)}},
        "contrast": contrast,
        "profile": _profiles(real.lesions, like),
        "texture": _texture(real, synthetic),
        "shape": _shapes([x.shape for x in real.lesions], [x.shape for x in synthetic.lesions], references),
        "classifier": classifier,
        "classifier_floor": floor,
        "definitions": DEFINITIONS,
        "lesions": {"real": [x.to_json() for x in real.lesions], "synthetic": [x.to_json() for x in synthetic.lesions]},
    }


def _sampling_floor(synthetic: Sequence[Examined], count: int) -> float | None:
    """Median contrast W1 of `count` synthetic lesions against all the others; None where there are too few."""
    if len(synthetic) < 4 * count:
        return None
    rng = np.random.default_rng(np.random.SeedSequence((SEED, count)))
    distances: list[float] = []
    for _ in range(SAMPLING_DRAWS):
        order = rng.permutation(len(synthetic))
        drawn, rest = ([synthetic[k] for k in part] for part in (order[:count], order[count:]))
        distances.append(wasserstein(_pooled(drawn), _pooled(rest)) or 0.0)
    return float(np.median(distances))


def _of_like_size(real: Sequence[Examined], synthetic: Sequence[Examined]) -> list[Examined]:
    """The synthetic lesions that some real one is compared with in size."""
    diameters = [lesion.shape.diameter_mm for lesion in synthetic]
    chosen = {k for lesion in real for k in nearest_in_size(lesion.shape.diameter_mm, diameters)}
    return [synthetic[k] for k in sorted(chosen)]


def _contrast(real: Sequence[Examined], synthetic: Sequence[Examined], like: Sequence[Examined]) -> Record:
    means = compared([x.contrast_hu for x in real], [x.contrast_hu for x in synthetic])
    return {
        "w1_voxels_hu": wasserstein(_pooled(real), _pooled(synthetic)),
        "w1_voxels_like_size_hu": wasserstein(_pooled(real), _pooled(like)),
        "w1_means_hu": means["w1"],
        "w1_means_like_size_hu": wasserstein([x.contrast_hu for x in real], [x.contrast_hu for x in like]),
        "w1_parenchyma_hu": wasserstein(_pooled(real, True), _pooled(synthetic, True)),
        "w1_sampling_hu": _sampling_floor(synthetic, len(real)),
        "real": means["real"],
        "synthetic": means["synthetic"],
        "like_size": summary([x.contrast_hu for x in like]),
        "histogram": {
            "edges_hu": HISTOGRAM_EDGES_HU.tolist(),
            "real": _density(_pooled(real)),
            "synthetic": _density(_pooled(synthetic)),
            "real_parenchyma": _density(_pooled(real, True)),
            "synthetic_parenchyma": _density(_pooled(synthetic, True)),
        },
    }


def _pooled(lesions: Sequence[Examined], parenchyma: bool = False) -> FloatArray:
    """HU minus parenchyma mean of all lesions, or of their parenchyma; each lesion has the same number of values."""
    return np.concatenate([x.parenchyma if parenchyma else x.voxels for x in lesions])


def _density(values: FloatArray) -> list[float]:
    """Share of the values in each bin of `HISTOGRAM_EDGES_HU`."""
    counts = np.histogram(values, HISTOGRAM_EDGES_HU)[0]
    return [int(count) / len(values) for count in counts]


def _profiles(real: Sequence[Examined], synthetic: Sequence[Examined]) -> Record:
    """Mean over lesions of HU minus parenchyma by depth below the lesion's surface; None where no lesion reaches."""
    centers = (PROFILE_EDGES_MM[:-1] + PROFILE_EDGES_MM[1:]) / 2
    return {"depth_mm": centers.tolist(), "real": _mean_profile(real), "synthetic": _mean_profile(synthetic)}


def _mean_profile(lesions: Sequence[Examined]) -> list[float | None]:
    by_depth = zip(*(lesion.profile for lesion in lesions), strict=True)
    return [summary(values)["mean"] for values in by_depth]


def _texture(real: Population, synthetic: Population) -> Record:
    sides = {"real": real, "synthetic": synthetic}
    return {
        "lesion_mm": compared(*([x.length_mm for x in side.lesions] for side in sides.values())),
        "parenchyma_mm": compared(*([x.parenchyma_length_mm for x in side.lesions] for side in sides.values())),
        "ratio": compared(*([x.length_ratio for x in side.lesions] for side in sides.values())),
        "not_measured": {name: sum(x.length_ratio is None for x in side.lesions) for name, side in sides.items()},
    }


def _shapes(
    real: Sequence[Shape], synthetic: Sequence[Shape], references: Mapping[str, Sequence[Shape]]
) -> dict[str, Record]:
    """By reference (the real cases first) and figure: both summaries, W1 and KS."""
    sets = {"real cases": real, **references}
    return {
        name: {figure: _one_shape(shapes, synthetic, figure) for figure in SHAPE_FIGURES}
        for name, shapes in sets.items()
    }


def _one_shape(real: Sequence[Shape], synthetic: Sequence[Shape], figure: str) -> Record:
    a, b = ([getattr(shape, figure) for shape in shapes] for shapes in (real, synthetic))
    return compared(a, b)


def _classify(real: Sequence[Examined], synthetic: Sequence[Examined], kind: Kind, most: int = MAX_BOXES) -> Record:
    """Both sides with the same number of boxes, `most` at most, from lesions of like size."""
    there = capped([len(x.features[kind]) for x in real], most)
    diameters = [x.shape.diameter_mm for x in real]
    others = [(x.shape.diameter_mm, len(x.features[kind])) for x in synthetic]
    taken = matched_counts(list(zip(diameters, there, strict=True)), others)
    return two_sample_auc(_side(real, taken[0], kind), _side(synthetic, taken[1], kind), FEATURES[kind])


def _side(lesions: Sequence[Examined], counts: Sequence[int], kind: Kind) -> Side:
    """The first boxes of each lesion; boxes are in random order."""
    chosen = [(x, n) for x, n in zip(lesions, counts, strict=True) if n]
    vectors = [np.empty((0, len(FEATURES[kind]))), *(x.features[kind][:n] for x, n in chosen)]
    names, cases = ([getattr(x, field) for x, n in chosen for _ in range(n)] for field in ("name", "case_id"))
    return Side(np.concatenate(vectors), tuple(names), tuple(cases))


def _targets(contrast: Record, classifier: Mapping[Kind, Record], floor: Mapping[Kind, Record]) -> dict[str, Record]:
    aucs, floors = ([r["auc"] for r in side.values() if r["auc"] is not None] for side in (classifier, floor))
    return {
        "contrast_w1_hu": _target(contrast["w1_voxels_hu"], CONTRAST_TARGET_HU),
        "auc": auc_target(max(aucs, default=None), max(floors, default=None)),
    }


def auc_target(auc: float | None, floor: float | None) -> Record:
    """Below a floor that is above the target nothing is told: what finds healthy tissue apart must find something."""
    target = _target(auc, AUC_TARGET)
    blind = target["met"] and floor is not None and floor > AUC_TARGET
    return target | {"met": None} if blind else target


def _target(value: float | None, target: float) -> Record:
    """`met` is None where it cannot be told, as without a value."""
    return {"value": value, "at_most": target, "met": None if value is None else value <= target}


def _counts(side: Population) -> Record:
    return {
        "cases": len(side.cases),
        "scans": side.scans,
        "lesions": len(side.lesions),
        "left_out": dict(sorted(side.left_out.items())),
        "healthy_regions": len(side.healthy),
    }


def _notes(real: Population, synthetic: Population) -> list[str]:
    """What a reader must not conclude."""
    notes = []
    lesions, cases = len(real.lesions), len(real.cases)
    if lesions < FEW_LESIONS or cases < 2:
        notes.append(
            f"Only {lesions} real lesion{'s' if lesions != 1 else ''} of {cases} case{'s' if cases != 1 else ''}: the "
            "figures say how far the synthetic lesions are from these, not from real lesions at large."
        )
    if len(synthetic.cases) < 2:
        notes.append("All synthetic lesions lie in one healthy case: its scanner and its patient are in every figure.")
    return [*notes, *(note[0].upper() + note[1:] for note in (*real.notes, *synthetic.notes))]


def _floor_notes(floor: Mapping[Kind, Record]) -> list[str]:
    """Where healthy tissue alone is told apart better than the target allows."""
    high = [kind for kind, record in floor.items() if record["auc"] is not None and record["auc"] > AUC_TARGET]
    if not high:
        return []
    return [
        f"Healthy organ alone is told apart better than the AUC target allows ({' and '.join(high)} boxes): scanners "
        "and patients differ, so better lesions can hardly meet the target here. Compare with cases of more scanners."
    ]
