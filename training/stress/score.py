"""Variants made, predicted and scored. In: variants, a network. Out: one `Outcome` each; images are dropped at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.bank import Bank
from pipeline.case import Int16Array, UInt8Array
from pipeline.grid import bounding_box, index3
from pipeline.measure import measure_sample
from pipeline.organs import tumor_id
from pipeline.synthesis import render
from training.lesions import lesion_table, matches
from training.metrics import dice
from training.predict import Segmenter, predict_batch
from training.stress.degrade import with_noise, with_thick_slices
from training.stress.suites import Variant

BATCH = 4  # patches predicted at once


@dataclass(frozen=True)
class Outcome:
    """One tumor as it came out and as it was found; of a control, as if the tumor were there."""

    truth_voxels: int  # 0: the organ cut the tumor to nothing, and nothing else here counts
    diameter_mm: float | None  # measured, of the ball of equal volume; None where there is no tumor
    contrast_hu: float | None  # measured, before noise and thick slices
    found: bool  # at least one voxel of it is predicted as tumor of its organ
    covered: bool  # IoU with the predicted tumors that touch it of 0.1 or more
    dice: float | None
    false_tumors: int  # predicted tumors that touch no true one
    false_ml: float
    predicted_ml: float


@dataclass(frozen=True)
class Scored:
    """A variant's outcome with the arrays that it was scored on, all (X, Y, Z): HU, class ids, class ids."""

    variant: Variant
    outcome: Outcome
    image: Int16Array
    truth: UInt8Array
    prediction: UInt8Array


@dataclass(frozen=True)
class _Made:
    variant: Variant
    image: Int16Array
    truth: UInt8Array
    diameter_mm: float | None
    contrast_hu: float | None


def predicted(
    bank: Bank, segmenter: Segmenter, variants: Sequence[Variant], advance: Callable[[int], None]
) -> Iterator[Scored]:
    """Each variant once, in the given order, made a few at a time; `advance` hears of finished ones."""
    for start in range(0, len(variants), BATCH):
        made = [_make(bank, variant) for variant in variants[start : start + BATCH]]
        images = torch.from_numpy(np.stack([one.image for one in made])[:, None]).to(segmenter.device)
        labels = predict_batch(segmenter, images).cpu().numpy()[:, 0]
        for one, prediction in zip(made, labels, strict=True):
            outcome = _outcome(one, prediction, bank.spacing_mm)
            yield Scored(one.variant, outcome, one.image, one.truth, prediction)
        advance(len(made))


def _make(bank: Bank, variant: Variant) -> _Made:
    spec = variant.spec
    case = bank.load(spec.case_id)
    rendered = render(case, spec)
    tumors = measure_sample(case, spec, rendered)["tumors"]
    diameter, contrast = (tumors[0]["diameter_mm"], tumors[0]["contrast_hu"]) if tumors else (None, None)
    image = render(case, spec.model_copy(update={"tumors": ()})).image if variant.hidden else rendered.image
    if variant.thickness_mm is not None:
        image = with_thick_slices(image, variant.thickness_mm, bank.spacing_mm)
    image = with_noise(image, variant.noise_sd_hu, spec.seed, spec.index)
    return _Made(variant, image, rendered.label, diameter, contrast)


def _outcome(made: _Made, prediction: UInt8Array, spacing_mm: float) -> Outcome:
    class_id = tumor_id(made.variant.spec.tumors[0].organ)
    truth, marked = made.truth == class_id, prediction == class_id
    lesions = lesion_table(truth, marked, spacing_mm)
    false = [lesion for lesion in lesions.predicted if not lesion.matched]
    return Outcome(
        truth_voxels=int(np.count_nonzero(truth)),
        diameter_mm=made.diameter_mm,
        contrast_hu=made.contrast_hu,
        found=any(lesion.matched for lesion in lesions.truth),
        covered=any(matches("iou_0.1", lesion.iou) for lesion in lesions.truth),
        dice=dice(truth, marked),
        false_tumors=len(false),
        false_ml=sum(lesion.volume_mm3 for lesion in false) / 1000,
        predicted_ml=int(np.count_nonzero(marked)) * spacing_mm**3 / 1000,
    )


@dataclass(frozen=True)
class Slice:
    """The axial slice of a sample in which its tumor is largest, around the tumor: HU, truth, prediction, (X, Y)."""

    hu: Int16Array
    truth: npt.NDArray[np.bool_]
    prediction: npt.NDArray[np.bool_]


def slice_of(scored: Scored, edge_vox: int) -> Slice | None:
    """The slice, `edge_vox` wide where the patch is; None without a tumor."""
    class_id = tumor_id(scored.variant.spec.tumors[0].organ)
    truth = scored.truth == class_id
    if not truth.any():
        return None
    z = int(truth.sum(axis=(0, 1)).argmax())
    low, high = bounding_box(truth)
    middle = np.add(low, high) // 2
    size = np.minimum(edge_vox, truth.shape)
    x, y, _ = index3(np.clip(middle - size // 2, 0, np.array(truth.shape) - size))
    box = np.s_[x : x + size[0], y : y + size[1], z]
    return Slice(scored.image[box].copy(), truth[box].copy(), (scored.prediction == class_id)[box].copy())
