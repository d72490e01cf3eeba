"""One field of a drawn tumor changed, with what has to follow it. Pure functions of records."""

from __future__ import annotations

import math

import numpy as np

from pipeline.case import Case
from pipeline.organs import organ_id
from pipeline.spec.records import TumorSpec, Vector
from pipeline.synthesis.engines.ellipsoid import EllipsoidForm
from pipeline.synthesis.location import Rules, ranked_centers

_WIDEST_EDGE = 0.8  # radii, as drawn tumors have
_THICKEST_RIM = 0.6
_CORE_EDGE = 0.15
_SAME_RATIO = 1e-5


def resized(tumor: TumorSpec, diameter_mm: float) -> TumorSpec:
    """The tumor at another diameter: outline and core scale; edge and rim stay in mm as far as the radius allows."""
    factor, radius = diameter_mm / tumor.diameter_mm, diameter_mm / 2
    form = _ellipsoid(tumor)
    x, y, z = (round(axis * factor, 6) for axis in form.half_axes_mm)
    scaled = {
        "half_axes_mm": (x, y, z),
        "deformation_mm": form.deformation_mm * factor,
        "deformation_grid_mm": form.deformation_grid_mm * factor,
    }
    changes: dict[str, object] = {
        "diameter_mm": diameter_mm,
        "form": form.model_copy(update=scaled),
        "edge_mm": min(tumor.edge_mm, _WIDEST_EDGE * radius),
    }
    if tumor.rim:
        changes["rim"] = tumor.rim.model_copy(update={"mm": min(tumor.rim.mm, _THICKEST_RIM * radius)})
    if tumor.core:
        edge = max(_CORE_EDGE * radius, 1.0)
        changes["core"] = tumor.core.model_copy(update={"depth_mm": tumor.core.depth_mm * factor, "edge_mm": edge})
    if tumor.calcification:
        grain = min(tumor.calcification.grain_mm, diameter_mm / 4)
        changes["calcification"] = tumor.calcification.model_copy(update={"grain_mm": grain})
    return tumor.model_copy(update=changes)


def elongated(tumor: TumorSpec, ratio: float) -> TumorSpec:
    """The tumor with its first half axis `ratio` times the other two, of the same volume; lobes stay."""
    form = _ellipsoid(tumor)
    longest, *others = form.half_axes_mm
    if all(abs(longest / other - ratio) < _SAME_RATIO for other in others):
        return tumor  # setting it again would move the last digit
    radius = math.prod(form.half_axes_mm) ** (1 / 3)
    long, short = round(radius * ratio ** (2 / 3), 6), round(radius * ratio ** (-1 / 3), 6)
    return tumor.model_copy(update={"form": form.model_copy(update={"half_axes_mm": (long, short, short)})})


def moved(tumor: TumorSpec, case: Case, depth_mm: float, vessel_clearance: float) -> TumorSpec:
    """The tumor at the place of that depth below the organ's surface which is nearest to where it was.

    Among such places those clear of vessels come first: `vessel_clearance` radii, as tumors of datasets keep.
    """
    voxels = np.stack(np.unravel_index(case.voxels[tumor.organ], case.ct.shape), axis=1)
    away = np.abs(case.surface_distance_mm[tuple(voxels.T)].astype(np.float64) - depth_mm)
    slack = max(case.spacing_mm / 2, float(away.min()))  # on coarse grids no voxel may be as near as half of one
    fitting = voxels[away <= slack]
    nearest_first = np.argsort(((fitting - np.array(tumor.center_vox)) ** 2).sum(axis=1), kind="stable")
    rules = Rules(0.0, math.inf, vessel_clearance * tumor.diameter_mm / 2, reach=0.0)
    found = ranked_centers(case, fitting[nearest_first], rules, ())[0]
    rest = np.array(tumor.center_vox) - np.rint(tumor.center_vox)
    return tumor.model_copy(update={"center_vox": _vector(found + rest)})


def depth_of(tumor: TumorSpec, case: Case) -> float:
    """Depth of a tumor's centre below the surface of its organ, mm; 0 outside of it."""
    at = tuple(np.clip(np.rint(tumor.center_vox).astype(int), 0, np.array(case.ct.shape) - 1))
    inside = case.organs[at] == organ_id(tumor.organ)
    return float(case.surface_distance_mm[at]) if inside else 0.0


def _ellipsoid(tumor: TumorSpec) -> EllipsoidForm:
    if not isinstance(tumor.form, EllipsoidForm):
        raise TypeError(f"tumor {tumor.instance} is of engine {tumor.form.engine}")
    return tumor.form


def _vector(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Vector:
    x, y, z = values.tolist()
    return x, y, z
