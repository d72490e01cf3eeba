"""Drawing what lies behind a blocked duct: the way of the duct to the far end of the gland."""

from __future__ import annotations

import numpy as np

from pipeline.case import Case
from pipeline.presets import Upstream
from pipeline.spec.distributions import draw
from pipeline.spec.records import TumorSpec, UpstreamSpec, Vector

_STEP = 12  # of the 256 positions along the gland, between points of the duct
_LEAST_POINTS = 3
_TO_THE_END = 245  # the duct thins out before the tail's tip
_ATROPHY_DEPTH = 0.6  # of the gland's largest depth: typical half thickness, which atrophy takes a share of


def draw_upstream(rng: np.random.Generator, case: Case, tumor: TumorSpec, effect: Upstream) -> UpstreamSpec | None:
    """The gland behind a placed tumor; None where there is hardly any, or the tumor does not block."""
    there = rng.random() < effect.share
    duct_mm, duct_hu, atrophy = draw(rng, effect.duct_mm), draw(rng, effect.duct_hu), draw(rng, effect.atrophy)
    if not there or tumor.organ not in case.along:
        return None
    points = _duct(case, tumor)
    if len(points) < _LEAST_POINTS:
        return None
    thickness = _ATROPHY_DEPTH * case.stats[tumor.organ].max_depth_mm
    return UpstreamSpec(duct=points, duct_mm=duct_mm, duct_hu=duct_hu, atrophy_mm=atrophy * thickness)


def _duct(case: Case, tumor: TumorSpec) -> tuple[Vector, ...]:
    """Middles of the gland from the tumor to the far end, voxels of the case."""
    voxels, along = case.voxels[tumor.organ], case.along[tumor.organ].astype(int)
    at = np.stack(np.unravel_index(voxels, case.ct.shape), axis=1)
    own = (np.abs(at - np.array(tumor.center_vox)) <= 1.5).all(axis=1)
    if not own.any():
        return ()
    here = int(np.median(along[own]))
    points: list[Vector] = [tumor.center_vox]
    for start in range(here + _STEP, _TO_THE_END, _STEP):
        slab = at[(along >= start - _STEP // 2) & (along < start + _STEP // 2)]
        if len(slab):
            x, y, z = (round(float(v), 2) for v in slab.mean(axis=0))
            points.append((x, y, z))
    return tuple(points)
