"""Size and shape of a lesion mask, as the published statistics of real lesions have them. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.metrics import equivalent_diameter_mm, surface_distances
from training.realism.lesions import BoolArray


@dataclass(frozen=True)
class Shape:
    """Size and shape of one lesion."""

    diameter_mm: float  # of the ball of equal volume
    sphericity: float | None  # surface of that ball over the lesion's, 1 for a ball
    box_fill: float | None  # volume over that of the axis-parallel bounding box
    extent_ratio: float | None  # longest over shortest edge of that box


def measure_shape(mask: BoolArray, spacing_mm: float) -> Shape:
    """Shape of a mask (X, Y, Z) with at least one voxel. The surface is the subvoxel one of the surface Dice."""
    surfaces = surface_distances(mask, mask, spacing_mm)
    if surfaces is None:
        raise ValueError("an empty mask has no shape")
    voxels = np.argwhere(mask)
    volume = len(voxels) * spacing_mm**3
    extents = (np.ptp(voxels, axis=0) + 1) * spacing_mm
    ball = math.pi ** (1 / 3) * (6 * volume) ** (2 / 3)
    area = float(surfaces.truth_area_mm2.sum())
    return Shape(
        diameter_mm=equivalent_diameter_mm(volume),
        sphericity=ball / area,
        box_fill=float(volume / extents.prod()),
        extent_ratio=float(extents.max() / extents.min()),
    )
