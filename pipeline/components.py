"""Connected components of masks."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt


def connected_components(mask: npt.NDArray[Any], connectivity: int) -> npt.NDArray[np.integer[Any]]:
    """Numbers 1, 2, ... of the pieces of a mask (X, Y, Z), 0 outside; connected by faces (6), edges (18), corners (26).

    cc3d 4.1 reserves too few numbers for a row of voxels (two axes of length 1) and fails: such a mask gets a margin.
    """
    row = sum(edge == 1 for edge in mask.shape) > 1
    padded = np.pad(mask, 1) if row else np.ascontiguousarray(mask)
    pieces: npt.NDArray[np.integer[Any]] = cc3d.connected_components(padded, connectivity=connectivity)
    return np.ascontiguousarray(pieces[1:-1, 1:-1, 1:-1]) if row else pieces
