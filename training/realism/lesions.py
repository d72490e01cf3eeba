"""Lesions cut out of images: each with its surroundings, its depth and its parenchyma.

In: image (HU) and class ids `(X, Y, Z)` at one isotropic spacing. Out: `Lesion` values, and what was left out and why.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cc3d
import edt
import numpy as np
import numpy.typing as npt

from pipeline.components import connected_components
from pipeline.grid import Slices3, bounding_box, index3, slices3
from pipeline.organs import organ_id, tumor_id
from training.metrics import equivalent_diameter_mm
from training.realism.definitions import MARGIN_MM, MIN_DIAMETER_MM, MIN_PARENCHYMA_MM3, SHELL, SOFT_EDGE_MM
from training.realism.pictures import Tile, tile

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

CUT, SMALL, BARE = "cut by the edge of the image", "below 3 mm", "no parenchyma around it"


@dataclass(frozen=True)
class Scan:
    """One image with its class ids, both (X, Y, Z): a real case, or the patch of a synthetic sample."""

    name: str
    case_id: str
    image: npt.NDArray[np.int16]  # HU
    label: npt.NDArray[np.uint8]
    spacing_mm: float


@dataclass(frozen=True)
class Lesion:
    """One lesion in a box that holds it and its margin; all arrays (X, Y, Z) of that box."""

    name: str
    case_id: str
    hu: Float32Array
    mask: BoolArray
    organ: BoolArray  # the organ with this lesion, away from other lesions
    spacing_mm: float
    picture: Tile

    @cached_property
    def depth_mm(self) -> Float32Array:
        """Distance to the lesion's surface, positive inside, negative outside; the surface lies between voxels."""
        inside, outside = _distance_to(~self.mask, self.spacing_mm), _distance_to(self.mask, self.spacing_mm)
        return np.where(self.mask, inside - self.spacing_mm / 2, self.spacing_mm / 2 - outside).astype(np.float32)

    @cached_property
    def deep(self) -> BoolArray:
        """The lesion region without what lies near the surface of the organ and lesion together, or near others."""
        away = _distance_to(~self.organ, self.spacing_mm) > SOFT_EDGE_MM
        return away & (self.depth_mm >= -MARGIN_MM)

    @cached_property
    def tissue(self) -> BoolArray:
        """Healthy organ of the lesion region, right up to the lesion but away from the organ's surface."""
        return self.deep & ~self.mask

    @cached_property
    def parenchyma(self) -> BoolArray:
        """Where the local parenchyma is measured: tissue without the lesion's own soft edge."""
        return self.tissue & (self.depth_mm <= -SHELL[0]) & (self.depth_mm >= -SHELL[1])

    @cached_property
    def relative_hu(self) -> Float32Array:
        """HU minus the mean of the lesion's parenchyma."""
        return self.hu - np.float32(self.hu[self.parenchyma].mean(dtype=np.float64))

    @property
    def contrast_hu(self) -> float:
        """Mean of the lesion minus mean of its parenchyma."""
        return float(self.relative_hu[self.mask].mean(dtype=np.float64))


def find_lesions(scan: Scan, organ: str, left_out: Counter[str]) -> Iterator[Lesion]:
    """Every lesion of an organ that can be measured; `left_out` counts the others by reason."""
    pieces, boxes = _pieces(scan.label == tumor_id(organ))
    for number, box in boxes:
        mask = pieces[box] == number
        reason = _reason(mask, box, pieces.shape, scan.spacing_mm)
        lesion = None if reason else _cut(scan, organ, pieces, number, box)
        if lesion is not None and np.count_nonzero(lesion.parenchyma) * scan.spacing_mm**3 < MIN_PARENCHYMA_MM3:
            reason = BARE
        if reason:
            left_out[reason] += 1
        elif lesion is not None:
            yield lesion


def lesion_in(scan: Scan, organ: BoolArray, mask: BoolArray, name: str) -> Lesion:
    """A lesion from its mask in a scan, cut out with its margin. `organ` (X, Y, Z) must hold the mask."""
    box = _grown(slices3(*bounding_box(mask)), mask.shape, scan.spacing_mm)
    return _lesion(scan, box, mask[box].copy(), organ[box].copy(), name)


def _lesion(scan: Scan, box: Slices3, mask: BoolArray, organ: BoolArray, name: str) -> Lesion:
    hu = scan.image[box].astype(np.float32)
    picture = tile(scan.image, mask, index3(side.start for side in box), scan.spacing_mm)
    return Lesion(name, scan.case_id, hu, mask, organ, scan.spacing_mm, picture)


def _pieces(mask: BoolArray) -> tuple[npt.NDArray[Any], list[tuple[int, Slices3]]]:
    """Connected pieces as numbers, and the box of each."""
    pieces = connected_components(mask, 26)
    boxes = cc3d.statistics(pieces, no_slice_conversion=False)["bounding_boxes"]
    return pieces, [(number, box) for number, box in enumerate(boxes) if number]


def _reason(mask: BoolArray, box: Slices3, shape: tuple[int, ...], spacing_mm: float) -> str | None:
    """Why a piece is left out; None when it is not."""
    if equivalent_diameter_mm(int(np.count_nonzero(mask)) * spacing_mm**3) < MIN_DIAMETER_MM:
        return SMALL
    cut = any(side.start == 0 or side.stop == size for side, size in zip(box, shape, strict=True))
    return CUT if cut else None


def _cut(scan: Scan, organ: str, pieces: npt.NDArray[Any], number: int, box: Slices3) -> Lesion:
    grown = _grown(box, pieces.shape, scan.spacing_mm)
    label, near = scan.label[grown], pieces[grown]
    mask, others = near == number, (near > 0) & (near != number)
    region = mask | (label == organ_id(organ))
    region &= _distance_to(others, scan.spacing_mm) > SOFT_EDGE_MM  # the soft edge of a neighbour is no parenchyma
    return _lesion(scan, grown, mask, region | mask, f"{scan.name} #{number}")


def _grown(box: Slices3, shape: tuple[int, ...], spacing_mm: float) -> Slices3:
    """A box with the margin around it, within the image; a little more, so that distances at its edge are true."""
    more = math.ceil((MARGIN_MM + SOFT_EDGE_MM) / spacing_mm) + 1
    low = [max(0, side.start - more) for side in box]
    high = [min(size, side.stop + more) for side, size in zip(box, shape, strict=True)]
    return slices3(low, high)


def _distance_to(mask: BoolArray, spacing_mm: float) -> Float32Array:
    """Distance in mm of every voxel to the nearest voxel of `mask`; infinite without one."""
    distance = edt.edt(np.ascontiguousarray(~mask), anisotropy=(spacing_mm,) * 3, black_border=False, parallel=1)
    return np.asarray(distance, np.float32)
