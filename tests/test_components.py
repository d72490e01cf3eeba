"""Components are those of scipy, of arrays of any shape: rows and planes of voxels as well."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.components import connected_components


@pytest.mark.parametrize(("connectivity", "rank"), [(6, 1), (18, 2), (26, 3)])
def test_components_are_those_of_scipy(connectivity: int, rank: int) -> None:
    rng = np.random.default_rng(connectivity)
    neighbours = ndimage.generate_binary_structure(3, rank)
    for _ in range(400):
        shape = np.where(rng.random(3) < 0.5, 1, rng.integers(1, 12, 3))
        mask = rng.random(shape) < rng.random()
        pieces = connected_components(mask, connectivity)
        expected, count = ndimage.label(mask, neighbours)
        assert pieces.shape == mask.shape
        assert len(np.unique(pieces[mask])) == count == pieces.max()
        assert len(set(zip(pieces[mask].tolist(), expected[mask].tolist(), strict=True))) == count
