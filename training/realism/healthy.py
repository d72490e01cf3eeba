"""Balls of healthy organ, taken for lesions: the floor that any comparison of real with synthetic lesions stands on.

In: a `Scan` with its class ids and a seeded generator. Out: `Lesion` values whose mask is a ball without a lesion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import edt
import numpy as np
import numpy.typing as npt

from pipeline.grid import bounding_box, overlap, slices3
from pipeline.organs import organ_id, tumor_id
from training.realism.definitions import MARGIN_MM, MIN_PARENCHYMA_MM3, SOFT_EDGE_MM
from training.realism.lesions import BoolArray, Lesion, Scan, lesion_in

APART_MM = 4.0  # between the surfaces of two balls of one scan


def healthy_balls(scan: Scan, organ: str, diameters_mm: Sequence[float], rng: np.random.Generator) -> Iterator[Lesion]:
    """Balls of these diameters within the organ, at least 10 mm from lesions and 2 mm below the surface.

    One that does not fit is passed over.
    """
    scan = _near_organ(scan, organ)
    healthy = np.ascontiguousarray(scan.label == organ_id(organ))
    room = _room_mm(scan, healthy, organ)
    for number, diameter_mm in enumerate(diameters_mm):
        radius = diameter_mm / 2
        places = np.flatnonzero(room >= radius)
        if not places.size:
            continue
        center = np.array(np.unravel_index(int(rng.choice(places)), room.shape))
        _occupy(room, center, radius + APART_MM, scan.spacing_mm)
        ball = lesion_in(
            scan, healthy, _ball(room.shape, center, radius / scan.spacing_mm), f"{scan.name} ball {number}"
        )
        if np.count_nonzero(ball.parenchyma) * ball.spacing_mm**3 >= MIN_PARENCHYMA_MM3:
            yield ball


def _near_organ(scan: Scan, organ: str) -> Scan:
    """The part of a scan that holds the organ, and enough around it to tell where its surface is."""
    organ_voxels = scan.label == organ_id(organ)
    if not organ_voxels.any():
        return scan
    low, high = bounding_box(organ_voxels)
    more = int(np.ceil(2 * SOFT_EDGE_MM / scan.spacing_mm))
    ends = [min(size, end + more) for size, end in zip(scan.label.shape, high, strict=True)]
    box = slices3([max(0, start - more) for start in low], ends)
    return replace(scan, image=scan.image[box], label=scan.label[box])


def _room_mm(scan: Scan, healthy: BoolArray, organ: str) -> npt.NDArray[np.float32]:
    """Radius of the largest ball around each voxel (X, Y, Z): it may reach neither surface, lesion nor edge."""
    size = (scan.spacing_mm,) * 3
    room = edt.edt(healthy, anisotropy=size, black_border=True, parallel=1) - np.float32(SOFT_EDGE_MM)
    lesion = scan.label == tumor_id(organ)
    if lesion.any():
        away = edt.edt(np.ascontiguousarray(~lesion), anisotropy=size, black_border=False, parallel=1)
        room = np.minimum(room, away - np.float32(MARGIN_MM))
    return np.asarray(room, np.float32)


def _occupy(room: npt.NDArray[np.float32], center: npt.NDArray[np.int64], reach_mm: float, spacing_mm: float) -> None:
    """Take the ball of `reach_mm` around `center` out of the room that is left for others."""
    grid = np.ogrid[tuple(slice(0, n) for n in room.shape)]
    squared = sum((axis - c) ** 2 for axis, c in zip(grid, center, strict=True))
    np.minimum(room, np.sqrt(squared, dtype=np.float32) * spacing_mm - reach_mm, out=room)


def _ball(shape: tuple[int, ...], center: npt.NDArray[np.int64], radius: float) -> BoolArray:
    """A ball of `radius` voxels, False elsewhere."""
    reach = int(np.ceil(radius))
    edge = 2 * reach + 1
    low = tuple(int(c) - reach for c in center)
    grid = np.ogrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
    inside = np.asarray(sum(axis**2 for axis in grid) <= radius**2)
    mask = np.zeros(shape, np.bool_)
    here, there = overlap((low[0], low[1], low[2]), (edge, edge, edge), shape)
    mask[here] = inside[there]
    return mask
