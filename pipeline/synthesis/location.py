"""Where a tumor may sit: at its depth in the organ, away from vessels and other tumors. Pure, numpy, no draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.case import Case

GAP_VOXELS = 2  # between tumors, so that connected components are tumors
VESSEL_CLEARANCE_MM = 10.0  # a larger tumor asks for no more: in a liver, no place is farther from all vessels
# Both centres are jittered by up to half a voxel an axis after the choice.
JITTER_VOXELS = 1.5


class Ball(NamedTuple):
    """What a placed tumor may touch."""

    center_vox: tuple[float, float, float]
    reach_mm: float


class Rules(NamedTuple):
    """What a place must meet, mm."""

    least_depth: float  # of the centre below the organ's surface
    most_depth: float
    vessel_clearance: float  # of the centre from any vessel
    reach: float  # how far the tumor may touch anything


def ranked_centers(
    case: Case, candidates: npt.NDArray[np.integer], rules: Rules, others: Sequence[Ball]
) -> npt.NDArray[np.integer]:
    """The candidate voxels, (n, 3) of the organ, that meet the rules, (m, 3).

    First come those clear of vessels, as they were drawn, then the others by their distance from vessels.
    """
    at = tuple(candidates.T)
    depth = case.surface_distance_mm[at].astype(np.float64)
    fits = (depth >= rules.least_depth) & (depth <= rules.most_depth)
    for other in others:
        apart = np.linalg.norm((candidates - np.array(other.center_vox)) * case.spacing_mm, axis=1)
        fits &= apart >= rules.reach + other.reach_mm + (GAP_VOXELS + JITTER_VOXELS) * case.spacing_mm
    fitting = candidates[fits]
    vessel = case.vessel_distance_mm[tuple(fitting.T)].astype(np.float64)
    clear = vessel >= min(rules.vessel_clearance, VESSEL_CLEARANCE_MM)
    order = np.argsort(np.where(clear, -np.inf, -vessel), kind="stable")
    return np.asarray(fitting[order])
