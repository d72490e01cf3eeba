"""Samples of made-up tumors: blobs of any form in a liver beside a kidney, and what their manifest rows would say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.grid import bounding_box
from pipeline.organs import organ_id, tumor_id

SPACING_MM = 1.5
CELL, PATCH = 15, (30, 30, 30)  # a tumor in each cell, GAP voxels from the next
GAP = 2
Mask = npt.NDArray[np.bool_]
Label = npt.NDArray[np.uint8]


def blob(rng: np.random.Generator, size: int) -> Mask:
    """A few ellipsoids in a cube, some of them cut by its faces; rarely a single voxel."""
    grid = np.indices((size,) * 3) + 0.5
    mask = np.zeros((size,) * 3, bool)
    for _ in range(rng.integers(1, 4)):
        center, radii = rng.uniform(0, size, (3, 1, 1, 1)), rng.uniform(0.6, size / 2.2, (3, 1, 1, 1))
        mask |= (((grid - center) / radii) ** 2).sum(axis=0) <= 1
    mask[tuple(rng.integers(size, size=3))] |= not mask.any()
    return mask


def facts(instance: int, mask: Mask, organ: str = "liver", spacing_mm: float = SPACING_MM) -> dict[str, Any]:
    """What a manifest says of a tumor, as far as annotations need it."""
    low, high = bounding_box(mask)
    volume = int(mask.sum()) * spacing_mm**3
    box = [*low, *high]
    return {"instance": instance, "organ": organ, "bbox_vox": box, "volume_mm3": volume, "contrast_hu": -30.0}


def row_of(label: Label, tumors: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    return {
        "index": index,
        "sample_id": f"s{index:09d}",
        "spacing_mm": SPACING_MM,
        "shape_vox": list(label.shape),
        "origin_vox": [0, 0, 0],
        "organs": ["liver", "kidney"],
        "annotated_classes": [0, 1, 2, 5, 6],
        "spec": "{}",
        "tumors": tumors,
    }


def made_up(index: int) -> tuple[Label, dict[str, Any], list[Mask]]:
    """A liver beside a kidney with some tumors each, which reach to the end of the patch but not to each other."""
    rng = np.random.default_rng((index, 5))
    label = np.full(PATCH, organ_id("liver"), np.uint8)
    label[PATCH[0] // 2 :] = organ_id("kidney")
    tumors, masks = [], []
    for cell in np.ndindex(2, 2, 2):
        if rng.random() < 0.1:
            continue
        mask = np.zeros(PATCH, bool)
        x, y, z = (np.array(cell) * CELL).tolist()
        mask[x : x + CELL - GAP, y : y + CELL - GAP, z : z + CELL - GAP] = blob(rng, CELL - GAP)
        mask = np.roll(mask, GAP * np.array(cell), axis=(0, 1, 2))
        organ = ("liver", "kidney")[cell[0]]
        label[mask] = tumor_id(organ)
        masks.append(mask)
        tumors.append(facts(len(masks), mask, organ))
    return label, row_of(label, tumors, index), masks
