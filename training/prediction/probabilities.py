"""The probabilities behind a prediction, for curves over all thresholds: of the tumor classes alone, in half precision.

In: the slabs that `training.predict` finishes. Out: float16 (X, Y, Z) by class id, 2 bytes a voxel and tumor class.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.case import Float16Array, UInt8Array
from pipeline.image import Volume
from pipeline.resample import isotropic_grid
from training.network import ClassTable
from training.predict import Segmenter, predict_shown, shown
from training.prediction.postprocess import Rules, far_from_organ
from training.prediction.regrid import values_onto
from training.prediction.sliding import Slab

Spacing = tuple[float, float, float]
Probabilities = dict[int, Float16Array]  # by class id


class TumorProbabilities:
    """A `watch` of predictions that keeps what every tumor class got, of one batch of images."""

    def __init__(self, classes: ClassTable) -> None:
        self._channels = {class_id: classes.ids.index(class_id) for class_id in classes.tumors.values()}
        self._parts: dict[int, list[torch.Tensor]] = {class_id: [] for class_id in self._channels}
        self._axis = 0

    def __call__(self, slab: Slab) -> None:
        """Keep a slab, which follows the one before it."""
        self._axis = slab.axis
        for class_id, channel in self._channels.items():
            self._parts[class_id].append(slab.probabilities[:, channel].to(torch.float16).cpu())

    def of(self, image: int) -> Probabilities:
        """The probabilities of one image of the batch, by its position."""
        return {
            class_id: torch.cat([part[image] for part in parts], self._axis).numpy()
            for class_id, parts in self._parts.items()
        }


def predict_with_probabilities(
    segmenter: Segmenter, ct: Volume, name: str | None = None
) -> tuple[UInt8Array, Probabilities]:
    """Class ids as `predict_grid` gives them, and tumor probabilities, both (X, Y, Z) on the CT's own grid.

    With a `name`, progress is shown.
    """
    seen = TumorProbabilities(segmenter.classes)
    body = shown(ct)
    labels = predict_shown(segmenter, body, ct.shape, ct.affine, name, seen)
    _, grid = isotropic_grid(body.shape, body.affine, segmenter.spacing_mm)
    found = seen.of(0)
    del seen
    return labels, {class_id: values_onto(found.pop(class_id), grid, ct.shape, ct.affine) for class_id in list(found)}


def within_rules(found: Probabilities, labels: UInt8Array, spacing_mm: Spacing, rules: Rules) -> Probabilities:
    """Probabilities with 0 where the rule of distance leaves no tumor; `labels` are those before any rule.

    The rule of size takes whole components, so it is for whoever makes components of a threshold.
    """
    if rules.within_organ_mm is None:
        return found
    return {
        class_id: np.where(
            far_from_organ(labels, spacing_mm, class_id, rules.within_organ_mm), np.float16(0), probability
        )
        for class_id, probability in found.items()
    }
