"""Drawing where a patch lies in its case."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.case import BODY_HU, Case
from pipeline.grid import Index3, index3


def body_voxel(rng: np.random.Generator, case: Case) -> Index3:
    """A voxel of the body anywhere in the case (the last one tried where a case is nearly all air)."""
    tried = rng.integers(0, case.ct.shape, size=(256, 3))
    inside = np.flatnonzero(case.ct[tried[:, 0], tried[:, 1], tried[:, 2]] > BODY_HU)
    return index3(tried[inside[0] if inside.size else -1])


def patch_origin(rng: np.random.Generator, case: Case, anchor: Index3, patch: Index3) -> Index3:
    """A patch with the anchor in its middle half, inside the case where it fits, centred on it where it does not."""
    return index3(
        min(max(a - p // 4 - int(rng.integers(p // 2)), 0), n - p) if n >= p else (n - p) // 2
        for a, p, n in zip(anchor, patch, case.ct.shape, strict=True)
    )


def one_of(rng: np.random.Generator, voxels: npt.NDArray[np.int32], case: Case) -> Index3:
    """One of some voxels, given as flat indices."""
    return index3(np.unravel_index(int(voxels[int(rng.integers(len(voxels)))]), case.ct.shape))
