from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from pipeline.course import along

SHAPE = (64, 48, 40)
BEND = ((52.0, 8.0, 20.0), (46.0, 34.0, 20.0), (20.0, 34.0, 24.0), (8.0, 10.0, 12.0))  # right end first, voxels


@cache
def bent_tube(radius: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a tube around BEND, and how far along the line each lies, 0 to 1."""
    points = np.concatenate([np.linspace(a, b, 80) for a, b in pairwise(BEND)])
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    indices = np.stack(np.indices(SHAPE), -1).reshape(-1, 1, 3)
    distance = np.concatenate([np.linalg.norm(part - points, axis=-1) for part in np.array_split(indices, 40)])
    inside = np.flatnonzero(distance.min(axis=1) <= radius)
    return inside.astype(np.int32), (way / way[-1])[distance[inside].argmin(axis=1)]


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5, 3.0])
def test_positions_follow_a_bent_tube(spacing_mm: float) -> None:
    voxels, truth = bent_tube()
    found = along(voxels, SHAPE, spacing_mm)
    assert found.dtype == np.uint8
    assert (found.min(), found.max()) == (0, 255)
    assert np.abs(found / 255 - truth).max() < 0.15
    assert np.abs(found / 255 - truth).mean() < 0.06


def test_the_end_at_the_right_is_zero_whichever_way_the_organ_runs() -> None:
    voxels, _ = bent_tube()
    x, y, z = np.unravel_index(voxels, SHAPE)
    mirrored = np.ravel_multi_index((SHAPE[0] - 1 - x, y, z), SHAPE).astype(np.int32)
    order = np.argsort(mirrored)
    for flat in (voxels, mirrored[order]):
        found, at_x = along(flat, SHAPE, 1.0), np.unravel_index(flat, SHAPE)[0]
        assert at_x[found < 20].mean() > at_x[found > 235].mean() + 20


def test_pieces_apart_take_the_nearest_position() -> None:
    voxels, _ = bent_tube()
    crumbs = np.ravel_multi_index(([62, 2], [2, 2], [20, 6]), SHAPE)  # beyond the right end, and beyond the left
    flat = np.sort(np.concatenate([voxels, crumbs])).astype(np.int32)
    found = along(flat, SHAPE, 1.0)
    assert found[flat == crumbs[0]] < 25
    assert found[flat == crumbs[1]] > 230
    np.testing.assert_array_equal(found[np.isin(flat, voxels)], along(voxels, SHAPE, 1.0))


def test_one_voxel_is_an_organ_too() -> None:
    assert along(np.array([77], np.int32), SHAPE, 1.0).tolist() == [0]
