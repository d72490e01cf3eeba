"""Where a tumor may sit: inside its organ, away from vessels, apart from other tumors. Pure, numpy, no draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.case import Case
from pipeline.grid import Index3, index3

GAP_VOXELS = 2  # between tumors, so that connected components are tumors
VESSEL_CLEARANCE_MM = 10.0  # a larger tumor asks for no more: in a liver, no place is farther from all vessels


class Ball(NamedTuple):
    """What a placed tumor may cover."""

    center_vox: tuple[float, float, float]
    reach_mm: float


def best_center(
    case: Case,
    candidates: npt.NDArray[np.integer],
    organ: str,
    radius_mm: float,
    reach_mm: float,
    others: Sequence[Ball],
) -> Index3 | None:
    """The first candidate voxel (of shape (n, 3), in the organ) that meets all rules; None when none does.

    Rules: half a radius deep in the organ (or as deep as the organ allows), clear of other tumors, and with no vessel
    within the radius. Where vessels leave no such place, the candidate farthest from them is taken.
    """
    depth = min(radius_mm / 2, 0.5 * case.stats[organ].max_depth_mm)
    at = tuple(candidates.T)
    fits = case.surface_distance_mm[at].astype(np.float64) >= depth
    for other in others:
        apart = np.linalg.norm((candidates - np.array(other.center_vox)) * case.spacing_mm, axis=1)
        # 1.5 voxels more: both centres are jittered by up to half a voxel after the choice
        fits &= apart >= reach_mm + other.reach_mm + (GAP_VOXELS + 1.5) * case.spacing_mm
    rows = np.flatnonzero(fits)
    if rows.size == 0:
        return None
    vessel = case.vessel_distance_mm[tuple(candidates[rows].T)].astype(np.float64)
    clear = np.flatnonzero(vessel >= min(radius_mm, VESSEL_CLEARANCE_MM))
    return index3(candidates[rows[clear[0] if clear.size else int(np.argmax(vessel))]])
