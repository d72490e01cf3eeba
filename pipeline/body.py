"""Where the patient is in a scan: what a bank keeps of a CT, and what a network is shown of one."""

from __future__ import annotations

import math

import cc3d

from pipeline.case import BODY_HU, UInt8Array
from pipeline.grid import Slices3, bounding_box, shifted_affine
from pipeline.image import Volume

BODY_MARGIN_MM = 8.0
BODY_SEARCH_MM = 4.0  # the body is looked for on a grid this coarse


def body_box(image: Volume, organs: UInt8Array | None = None) -> Slices3:
    """The box of the largest piece of tissue, and of all organs, with a margin: air, arms apart and table fall away.

    The whole scan where there is neither.
    """
    steps = [max(1, round(BODY_SEARCH_MM / size)) for size in image.spacing_mm]
    coarse = tuple(slice(None, None, step) for step in steps)
    tissue = cc3d.largest_k(image.data[coarse] > BODY_HU, k=1, connectivity=6) > 0
    boxes = [(bounding_box(tissue), steps)] if tissue.any() else []
    boxes += [(bounding_box(organs), [1, 1, 1])] if organs is not None and organs.any() else []
    if not boxes:
        return (slice(0, image.shape[0]), slice(0, image.shape[1]), slice(0, image.shape[2]))
    x, y, z = (
        slice(
            max(0, min(low[a] * step[a] for (low, _), step in boxes) - margin),
            min(image.shape[a], max(high[a] * step[a] for (_, high), step in boxes) + margin),
        )
        for a, margin in enumerate(math.ceil(BODY_MARGIN_MM / size) for size in image.spacing_mm)
    )
    return x, y, z


def cropped_to(image: Volume, box: Slices3) -> Volume:
    """A part of a volume, where it was in the world."""
    return Volume(image.data[box], shifted_affine(image.affine, (box[0].start, box[1].start, box[2].start)))
