"""Sub-regions: boxes of 16 mm on a lesion's border and in its inside, so that few lesions give enough to compare.

In: a `Lesion` and a seeded generator. Out: boxes as slices of the lesion's arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.grid import Index3, Slices3, index3, slices3
from training.realism.definitions import BOX_APART_MM, BOX_MM, BOXES_PER_LESION
from training.realism.lesions import BoolArray, Float32Array, Lesion

Kind = Literal["border", "inside"]
KINDS: tuple[Kind, ...] = ("border", "inside")

MIN_ORGAN_SHARE = 0.6  # of a border box: less is mostly what lies outside the organ (choice)
MIN_TISSUE_MM3 = 250.0  # healthy organ in a border box, for the outer half of the edge profile (choice)
MIN_LESION_SHARE = 0.95  # of an inside box


def boxes(lesion: Lesion, kind: Kind, rng: np.random.Generator) -> list[Slices3]:
    """Boxes of a kind in random order, their centers at least `BOX_APART_MM` apart."""
    edge = round(BOX_MM / lesion.spacing_mm)
    centers = np.argwhere(_centers(lesion, kind, edge))
    apart = _apart(centers[rng.permutation(len(centers))], BOX_APART_MM / lesion.spacing_mm)
    return [_around(center, edge, lesion.mask.shape) for center in itertools.islice(apart, BOXES_PER_LESION)]


def _centers(lesion: Lesion, kind: Kind, edge: int) -> BoolArray:
    """Voxels that may be the center of a box: of the lesion's outermost layer, or with lesion all around."""
    if kind == "inside":
        return lesion.mask & (_share(lesion.mask, edge) >= MIN_LESION_SHARE)
    tissue_mm3 = _share(lesion.tissue, edge) * (edge * lesion.spacing_mm) ** 3
    enough = (_share(lesion.organ, edge) >= MIN_ORGAN_SHARE) & (tissue_mm3 >= MIN_TISSUE_MM3)
    return lesion.mask & (lesion.depth_mm < lesion.spacing_mm) & enough


def _share(mask: BoolArray, edge: int) -> Float32Array:
    """Share of the box around each voxel that is in `mask`; beyond the array nothing is."""
    return np.asarray(ndimage.uniform_filter(mask.astype(np.float32), edge, mode="constant"), np.float32)


def _apart(points: npt.NDArray[np.int64], apart: float) -> Iterator[Index3]:
    """Points in the given order, without those closer than `apart` to an earlier one along every axis."""
    while len(points):
        first = points[0]
        yield index3(first)
        points = points[np.abs(points - first).max(axis=1) >= apart]


def _around(center: Index3, edge: int, shape: tuple[int, ...]) -> Slices3:
    low = [max(0, c - edge // 2) for c in center]
    high = [min(n, c - edge // 2 + edge) for c, n in zip(center, shape, strict=True)]
    return slices3(low, high)
