"""Drawing a patch of an annotated case: at one of the patient's own tumors, or away from all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.case import Case
from pipeline.grid import Index3, crop, index3
from pipeline.organs import tumor_id
from pipeline.spec.patch import one_of, patch_origin

_TRIES = 16  # of a patch without any tumor


def at_lesion(rng: np.random.Generator, case: Case, organ: str, patch: Index3) -> Index3:
    """The corner of a patch at a lesion of the organ, which must have one; every lesion is as likely.

    A voxel of the lesion lies in the patch's middle half; then the patch is moved until all of the lesion is in it,
    along each axis where that is possible.
    """
    lesions = case.lesions[organ]
    number = int(rng.integers(int(lesions[-1, 1]) + 1))
    first, end = np.searchsorted(lesions[:, 1], [number, number + 1])
    voxels = lesions[first:end, 0]
    origin = patch_origin(rng, case, one_of(rng, voxels, case), patch)
    at = np.stack(np.unravel_index(voxels, case.ct.shape), axis=1)
    return index3(
        min(max(o, high + 1 - p), low) if high + 1 - low <= p <= n else o
        for o, p, n, low, high in zip(origin, patch, case.ct.shape, at.min(axis=0), at.max(axis=0), strict=True)
    )


def off_lesions(rng: np.random.Generator, case: Case, organ: str, patch: Index3, organs: Sequence[str]) -> Index3:
    """The corner of a patch at a voxel of `organ` that shows no tumor of `organs`; of some tries the one with least."""
    classes = [tumor_id(name) for name in organs]
    best, least = (0, 0, 0), -1
    for _ in range(_TRIES):
        origin = patch_origin(rng, case, one_of(rng, case.voxels[organ], case), patch)
        shown = int(np.isin(crop(case.organs, origin, patch, 0), classes).sum())
        if least < 0 or shown < least:
            best, least = origin, shown
        if not least:
            break
    return best
