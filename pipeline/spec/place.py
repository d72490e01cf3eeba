"""Finding a place for a tumor in its organ and patch: candidates are drawn, rules choose among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.anatomy import WALL_HU
from pipeline.case import AIR_HU, Case
from pipeline.grid import Index3, crop, index3, slices3
from pipeline.organs import organ_id
from pipeline.presets import Exophytic, OrganPreset, TumorKind, Uniform, WallGrowth
from pipeline.spec.direction import direction_of
from pipeline.spec.distributions import weighted
from pipeline.spec.records import MassEffectSpec, TumorSpec, Vector
from pipeline.synthesis.engines import ellipsoid, wall
from pipeline.synthesis.location import GAP_VOXELS, JITTER_VOXELS, Ball, Rules, ranked_centers
from pipeline.synthesis.render import touched_mm
from pipeline.synthesis.shape import FAT_RANGE_HU

_CANDIDATES = 512  # centres tried
_SCANNED = 1 << 21  # voxels of a box that is searched for organ voxels; in a larger one they are drawn
_DRAWN = 1 << 15
_WALL_TRIES = 16
_TRIES = 12  # of candidates that meet the rules of the voxel alone
_BLOCKED_SHARE = 0.1  # of an exophytic tumor's ball that may lie in muscle, bowel or other organs, which cut it
_BALL_STEPS = 6  # points a radius in which that is looked at
_BONE_HU = 250
_BONE_STEP = 2  # voxels between those that are looked at
_LEAST_MASS_REACH = 1.25  # radii; a warp that ends nearer moves nothing that shows
_MOST_OUTSIDE = 0.85  # of an exophytic tumor's surface


@dataclass(frozen=True)
class Site:
    """Where a tumor may be placed."""

    case: Case
    organ: str
    preset: OrganPreset
    low: Index3  # case voxels, half open
    high: Index3
    off: frozenset[str]
    region: str | None = None  # of the organ


def draw_region(rng: np.random.Generator, case: Case, organ: str, kind: TumorKind, off: frozenset[str]) -> str | None:
    """A region of the organ by the kind's weights; None where the kind or the case knows none."""
    regions = kind.place.regions
    if regions is None or organ not in case.along or "regions" in off:
        return None
    return list(regions)[weighted(rng, list(regions.values()))]


def region_voxels(site: Site) -> npt.NDArray[np.int32]:
    """Flat indices of the organ's voxels, of its region where there is one."""
    voxels = site.case.voxels[site.organ]
    if site.region is None:
        return voxels
    low, high = site.preset.regions[site.region]
    along = site.case.along[site.organ]
    inside = (along >= low * 255) & (along <= high * 255)
    return voxels[inside] if inside.any() else voxels


def draw_candidates(rng: np.random.Generator, site: Site) -> npt.NDArray[np.int64]:
    """Voxels of the organ (or of its region) within the site, (n, 3), at random; none where there are none."""
    inner = site.case.organs[slices3(site.low, site.high)]
    if site.region is None and inner.size <= _SCANNED:
        found = np.flatnonzero(inner == organ_id(site.organ))
        if not len(found):
            return np.empty((0, 3), np.int64)
        chosen = found[rng.integers(len(found), size=_CANDIDATES)]
        return np.stack(np.unravel_index(chosen, inner.shape), axis=1) + site.low
    voxels = region_voxels(site)
    if len(voxels) > _DRAWN:
        voxels = voxels[rng.integers(len(voxels), size=_DRAWN)]
    at = np.stack(np.unravel_index(voxels, site.case.ct.shape), axis=1)
    within = at[((at >= site.low) & (at < site.high)).all(axis=1)]
    return within[rng.integers(len(within), size=_CANDIDATES)] if len(within) else within


def place(
    rng: np.random.Generator, site: Site, tumor: TumorSpec, kind: TumorKind, others: Sequence[TumorSpec]
) -> TumorSpec | None:
    """The tumor at a place that meets the rules; None where there is no room."""
    candidates = draw_candidates(rng, site)
    if not len(candidates):
        return None
    if isinstance(kind.form, WallGrowth):
        return _on_wall(rng, site, tumor, kind.form, candidates, others)
    if kind.place.lumen:
        candidates = candidates[~_soft_tissue(site.case, candidates)]
    wanted = _wanted_depth(rng, kind.place.exophytic, tumor.diameter_mm)
    if "depth" in site.off:
        wanted = None
    for version in (tumor, tumor.model_copy(update={"mass_effect": None})):
        rules = _rules(site, version, kind, wanted)
        ranked = ranked_centers(site.case, candidates, rules, [_ball(other) for other in others])
        for found in ranked[:_TRIES]:
            center = _outward(rng, site, index3(found), wanted)
            if center is None or (wanted is not None and not _has_fat_around(site, center, tumor.diameter_mm / 2)):
                continue
            placed = _along_organ(site, version.model_copy(update={"center_vox": center}))
            if _apart(site.case, placed, others):
                return _kept_off_bone(site.case, placed)
        if version.mass_effect is None:
            return None  # the second version would be the same
    return None


def _along_organ(site: Site, tumor: TumorSpec) -> TumorSpec:
    """The tumor, with its longest axis along a thin organ where it is thicker than that."""
    if site.organ not in site.case.along or not isinstance(tumor.form, ellipsoid.EllipsoidForm):
        return tumor
    along = direction_of(site.case, site.organ, tumor.center_vox)
    return tumor if along is None else tumor.model_copy(update={"form": ellipsoid.laid_along(tumor.form, along)})


def _ball(tumor: TumorSpec) -> Ball:
    return Ball(tumor.center_vox, touched_mm(tumor))


def _apart(case: Case, tumor: TumorSpec, others: Sequence[TumorSpec], gap_voxels: float = GAP_VOXELS) -> bool:
    """Whether nothing that the placed tumor touches is touched by another, nor is within `gap_voxels` of that."""
    reach = touched_mm(tumor) + gap_voxels * case.spacing_mm
    return all(
        math.dist(tumor.center_vox, other.center_vox) * case.spacing_mm >= reach + touched_mm(other) for other in others
    )


def _wanted_depth(rng: np.random.Generator, exophytic: Exophytic | None, diameter: float) -> float | None:
    """Depth of an exophytic tumor's centre below the organ's surface, mm; None where only a least depth is asked for.

    A plane at distance c from a ball's centre leaves (1 - c / r) / 2 of its surface on the other side.
    """
    if exophytic is None:
        return None
    mean = exophytic.base + exophytic.per_mm * max(0.0, diameter - exophytic.above_mm)
    share = min(max(float(rng.normal(mean, exophytic.sd)), 0.0), _MOST_OUTSIDE)
    return diameter / 2 * (1 - 2 * share)


def _rules(site: Site, tumor: TumorSpec, kind: TumorKind, wanted_depth: float | None) -> Rules:
    radius, deepest = tumor.diameter_mm / 2, site.case.stats[site.organ].max_depth_mm
    step = site.case.spacing_mm
    least, most = min(radius / 2, 0.5 * deepest), math.inf
    if wanted_depth is not None:
        aim = min(max(wanted_depth, 0.0), 0.9 * deepest)
        slack = max(1.5 * step, 0.15 * radius)
        least, most = aim - slack, aim + slack
    elif kind.place.subcapsular:
        least, most = 0.0, max(0.6 * radius, 2 * step)
    elif kind.place.lumen:
        least = min(radius, 0.5 * deepest)
    if "depth" in site.off:
        least, most = 0.0, math.inf
    clearance = 0.0 if "vessels" in site.off else kind.place.vessel_clearance
    return Rules(least, most, clearance * radius, touched_mm(tumor))


def _outward(rng: np.random.Generator, site: Site, found: Index3, wanted_depth: float | None) -> Vector | None:
    """The centre: in the found voxel, or for a tumor that sits outside, off the organ from there."""
    jitter = rng.uniform(-0.5, 0.5, size=3)
    center = np.array(found) + jitter
    if wanted_depth is not None and wanted_depth < 0:
        away = np.array(found) - _centroid_near(site, found)
        length = float(np.sqrt((away**2).sum()))
        if length < 1e-6:
            return None
        center = center - away / length * wanted_depth / site.case.spacing_mm
        voxel = index3(np.rint(center))
        limits = site.case.organs.shape
        if not all(0 <= v < n for v, n in zip(voxel, limits, strict=True)) or site.case.organs[voxel] != 0:
            return None
    x, y, z = (float(v) for v in center)
    return x, y, z


def _has_fat_around(site: Site, center: Vector, radius_mm: float) -> bool:
    """Whether what a ball would have outside its organ is mostly fat, which it may take."""
    case = site.case
    step = max(1, round(radius_mm / case.spacing_mm / _BALL_STEPS))
    reach = math.ceil(radius_mm / case.spacing_mm / step) * step
    corner = index3(np.rint(center).astype(int) - reach)
    size, thin = (2 * reach + 1,) * 3, (slice(None, None, step),) * 3
    at = np.arange(-reach, reach + 1, step) * case.spacing_mm
    ball = at[:, None, None] ** 2 + at[:, None] ** 2 + at**2 <= radius_mm**2
    organs = crop(case.organs, corner, size, 0)[thin]
    smooth = crop(case.ct, corner, size, AIR_HU)[thin] - crop(case.noise, corner, size, 0)[thin]
    free = (organs == organ_id(site.organ)) | (
        (organs == 0) & (smooth >= FAT_RANGE_HU[0]) & (smooth <= FAT_RANGE_HU[1])
    )
    return bool(np.count_nonzero(ball & ~free) <= _BLOCKED_SHARE * np.count_nonzero(ball))


def _centroid_near(site: Site, voxel: Index3) -> npt.NDArray[np.float64]:
    around = max(2, round(6 / site.case.spacing_mm))
    corner = index3(np.subtract(voxel, around))
    inside = crop(site.case.organs, corner, (2 * around + 1,) * 3, 0) == organ_id(site.organ)
    centroid: npt.NDArray[np.float64] = np.argwhere(inside).mean(axis=0) + corner
    return centroid


def _kept_off_bone(case: Case, placed: TumorSpec) -> TumorSpec:
    """The placed tumor, with a mass effect that ends before it would move bone."""
    effect, center = placed.mass_effect, placed.center_vox
    if effect is None:
        return placed
    reach = math.ceil(effect.reach_mm / case.spacing_mm)
    corner = index3(np.rint(center).astype(int) - reach)
    size = (2 * reach + 1,) * 3
    coarse = (slice(None, None, _BONE_STEP),) * 3
    organs, ct = crop(case.organs, corner, size, 0)[coarse], crop(case.ct, corner, size, AIR_HU)[coarse]
    bone = np.argwhere((organs == organ_id("bone")) | ((organs == 0) & (ct > _BONE_HU)))
    if not len(bone):
        return placed
    apart = (bone * _BONE_STEP + corner - np.array(center)) * case.spacing_mm
    nearest = float(np.sqrt((apart**2).sum(axis=1).min())) - 2 * _BONE_STEP * case.spacing_mm
    if nearest >= effect.reach_mm:
        return placed
    shorter = MassEffectSpec(strength=effect.strength, reach_mm=nearest) if nearest > 0 else None
    enough = nearest >= _LEAST_MASS_REACH * placed.diameter_mm / 2
    return placed.model_copy(update={"mass_effect": shorter if enough else None})


def _soft_tissue(case: Case, at: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    hu = case.ct[tuple(at.T)].astype(np.int32) - case.noise[tuple(at.T)]
    inside: npt.NDArray[np.bool_] = (hu >= WALL_HU[0]) & (hu <= WALL_HU[1])
    return inside


def _on_wall(
    rng: np.random.Generator,
    site: Site,
    tumor: TumorSpec,
    growth: WallGrowth,
    candidates: npt.NDArray[np.int64],
    others: Sequence[TumorSpec],
) -> TumorSpec | None:
    case, step = site.case, site.case.spacing_mm
    if "deformation" in site.off:
        growth = replace(growth, roughness=Uniform(0.0, 0.0))
    depth = case.surface_distance_mm[tuple(candidates.T)]
    near_others = np.zeros(len(candidates), bool)
    for other in others:  # before the costly look at the lumen: at least its own half would be too near
        apart = np.linalg.norm((candidates - np.array(other.center_vox)) * step, axis=1)
        near_others |= apart < touched_mm(other) + tumor.diameter_mm / 2
    for anchor in candidates[(depth <= 2 * step) & ~near_others][:_WALL_TRIES]:
        found = wall.draw_form(rng, growth, case, site.organ, index3(anchor), tumor.diameter_mm)
        if found is None:
            continue
        form, center = found
        placed = tumor.model_copy(update={"form": form, "center_vox": center})
        return placed if _apart(case, placed, others, GAP_VOXELS + JITTER_VOXELS) else None
    return None
