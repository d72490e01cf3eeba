"""Engine `wall`: growth along the wall of a hollow organ, for tumors that are rings, plaques and lumps, not balls.

The tumor is a layer on the organ's outer surface. Its thickness is greatest at the middle and falls off to steep
shoulders along the lumen and around it; `inward` of it lies inside the surface, the rest outside. The lumen is followed
along a parabola, so that the layer bends with the organ. All is measured in a box that the record alone decides, so a
voxel gets the same depth whatever the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.case import Case
from pipeline.grid import Index3, index3, overlap
from pipeline.presets.kinds import WallGrowth
from pipeline.synthesis.engines import _lumen as lumen
from pipeline.synthesis.engines._layer import ANNULAR, WIDE, Floats, Grid, Place, Vector, WallForm, depth_in_layer
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import TumorSpec

__all__ = ["Form", "WallForm", "depth_mm", "draw_form", "extent_mm", "is_coarse", "reach_mm"]

Form = WallForm

_NOWHERE_MM = -100.0

# Choices, set by eye on a phantom and a real colon.
_CHANNEL = 0.2  # radius of what a wide tumor leaves open over the radius of the lumen
_TALLEST = 1.5  # a narrow tumor's height over the radius of the lumen, at most
_OUTSIDE_MM = 7.0  # no tumor grows farther out of the organ, without the roughness
_BROADEST = 0.75  # share of the circumference that a tumor grows to for want of room in the lumen
_OVAL = 1.5  # base around the lumen over base along it, and the reverse, at most
_LONGEST_MM = 95.0  # colon cancers are shorter than 10 cm (Abdominal Radiology 2024, s00261-024-04219-6)
_LARGEST_MM = 120.0  # no tumor is thicker than that

_SMALL_MM = 16.0  # diameter of tumors that every voxel is looked at for
_COARSE_MM = 1.2  # spacing, and of cases whose every second voxel says too little
_PRECISE = 0.004  # of the thickness; the volume goes with its square or cube
_WHOLE = 0.96  # least share of a tumor that is in one piece, and in its own loop
_STRAY = 1.9  # radii from the lumen's middle; what lies farther is a loop that touches, or the course is wrong


def extent_mm(tumor: TumorSpec) -> Vector:
    """How far from the centre, along each axis of the case, the tumor can be."""
    x, y, z = (r + tumor.edge_mm / 2 for r in _form(tumor).reach_mm)
    return x, y, z


def reach_mm(tumor: TumorSpec) -> float:
    """How far from the centre, in any direction, the tumor can be."""
    x, y, z = extent_mm(tumor)
    return float((x * x + y * y + z * z) ** 0.5)


def is_coarse(tumor: TumorSpec, spacing_mm: float) -> bool:
    """All are measured at the voxels, one by one: large and small ones can be in one call of `depth_mm`."""
    return False


def _form(tumor: TumorSpec) -> WallForm:
    if not isinstance(tumor.form, WallForm):
        raise TypeError(f"tumor {tumor.instance} is of engine {tumor.form.engine}")
    return tumor.form


def depth_mm(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Depth below each tumor's surface in mm, negative outside, (B, X, Y, Z) float32.

    Where nothing of the tumor is, nor of its soft edge, it is -100: in other organs and loops, and away from the wall.
    """
    out = np.full((len(tumors), *window.size), _NOWHERE_MM, np.float32)
    for box, tumor, case, corner in zip(out, tumors, window.cases, window.corners, strict=True):
        low, depth = _whole_depth(case, tumor)
        of_tumor, of_window = overlap(index3(corner - low), window.size, depth.shape)
        box[of_window] = depth[of_tumor]
    return torch.from_numpy(out).to(window.device)


def _whole_depth(case: Case, tumor: TumorSpec) -> tuple[Index3, Floats]:
    """First voxel and depth of the box that holds the whole tumor."""
    form = _form(tumor)
    grid = Grid(case, tumor.center_vox, form.reach_mm, 1)
    layer = form.thickness_mm * form.swell
    inside, outside = form.inward * layer + tumor.edge_mm / 2, (1 - form.inward) * layer + tumor.edge_mm / 2
    depth = np.full(grid.shape, _NOWHERE_MM, np.float32)
    if found := grid.place(tumor.organ, form, (-outside, inside), extent_mm(tumor)):
        where, place = found
        deep = depth_in_layer(place, form)
        seen = deep > -tumor.edge_mm / 2
        where, deep = where[seen], deep[seen]
        if where.size:
            whole = grid.largest_piece(where)
            depth.reshape(-1)[where[whole]] = deep[whole]
    return grid.corner, depth


# ---- drawing ----


def draw_form(
    rng: np.random.Generator, growth: WallGrowth, case: Case, organ: str, anchor_vox: Index3, diameter_mm: float
) -> tuple[WallForm, Vector] | None:
    """A form around the wall voxel `anchor_vox`, and its centre: the lumen's middle there, in voxels.

    Its volume, of the whole tumor on an endless scan, is that of a ball of `diameter_mm`, or the largest that the lumen
    has room for. None where the lumen is collapsed or its course cannot be told. The same numbers are drawn either way.
    """
    from pipeline.spec.distributions import draw

    around, slimness = draw(rng, growth.around), draw(rng, growth.slimness)
    inward, roughness = draw(rng, growth.inward), draw(rng, growth.roughness)
    key = int(rng.integers(2**63))
    course = lumen.find_lumen(case, organ, anchor_vox)
    if course is None:
        return None
    open_mm = round(max(1.5, _CHANNEL * course.radius_mm), 3) if course.radius_mm > 4 and around >= WIDE else 0.0
    start = WallForm(
        axis=course.axis,
        outward=course.outward,
        bend=course.bend,
        radius_mm=course.radius_mm,
        around=around,
        thickness_mm=1.0,
        length_mm=slimness,
        inward=inward,
        channel_mm=open_mm,
        roughness=roughness,
        roughness_grain_mm=max(3.0, diameter_mm / 3),
        roughness_key=key,
        reach_mm=(_LONGEST_MM / 2 + 5,) * 3,
    )
    form = _solved(start, case, organ, course.middle_vox, diameter_mm)
    return None if form is None else (form, course.middle_vox)


def _solved(start: WallForm, case: Case, organ: str, center_vox: Vector, diameter_mm: float) -> WallForm | None:
    """The form at the size that has the volume: first in a wide box, then in the one that will be its own.

    None where it would be in pieces or run over into another loop.
    """
    widest = min(_LONGEST_MM / 2, 1.5 * diameter_mm) + 1.3 * start.radius_mm + 5
    reach: Vector = (widest, widest, widest)
    sizes = (0.2, _LARGEST_MM)
    every = diameter_mm < _SMALL_MM or case.spacing_mm > _COARSE_MM
    for step in (lumen.stride(case.spacing_mm), 1 if every else lumen.stride(case.spacing_mm)):
        grid = Grid(case, center_vox, reach, step)
        thickest = min(_thickest(start), sizes[1]) * start.swell
        found = grid.place(organ, start, (-_OUTSIDE_MM * start.swell - 1, thickest + 1), reach)
        if found is None:
            return None
        where, place = found
        size = _bisected(start, place, math.pi / 6 * diameter_mm**3, grid.step_mm, sizes)
        form = _sized(start, size).model_copy(update={"reach_mm": reach})
        inside = depth_in_layer(place, form) > 0
        if not inside.any():
            return None
        reach, sizes = grid.reach_mm(where[inside]), (size / 2, 1.5 * size)
    stray = place.aside[inside] > _STRAY * start.radius_mm + np.maximum(-place.below[inside], 0)
    whole = grid.largest_piece(where[inside])
    good = whole.mean() >= _WHOLE and stray.mean() < 1 - _WHOLE
    return form if good else None


def _bisected(start: WallForm, place: Place, volume_mm3: float, step_mm: float, sizes_mm: tuple[float, float]) -> float:
    """The size, of those between two ends, that has the volume; else the nearer end."""
    low, high = sizes_mm
    while high - low > _PRECISE * high:
        middle = (low + high) / 2
        small = _volume(depth_in_layer(place, _sized(start, middle)), step_mm) < volume_mm3
        low, high = (middle, high) if small else (low, middle)
    return (low + high) / 2


def _thickest(form: WallForm) -> float:
    """What fits inside: all but the channel, or of a narrow tumor all but a crescent beside it."""
    if form.around >= WIDE:
        return form.radius_mm - form.channel_mm
    return form.radius_mm * (1 + (_TALLEST - 1) * min(max((WIDE - form.around) / 0.2, 0.0), 1.0))


def _sized(start: WallForm, size_mm: float) -> WallForm:
    """The form at a thickness; where that is more than there is room for, its base grows instead.

    The length of `start` is that of 1 mm of thickness.
    """
    inward = max(start.inward, 1 - _OUTSIDE_MM / size_mm)
    thickness = min(size_mm, _thickest(start) / max(inward, 0.1))
    length = min(start.length_mm * size_mm, _LONGEST_MM)
    around = start.around
    if around < ANNULAR:
        girth = 2 * math.pi * start.radius_mm
        around = max(around * size_mm / thickness, length / (_OVAL * girth))
        around = max(min(around, max(start.around, _BROADEST), _OVAL * length / girth), 1e-3)
    change = {"thickness_mm": thickness, "length_mm": length, "inward": max(start.inward, 1 - _OUTSIDE_MM / thickness)}
    return start.model_copy(update={k: round(v, 4) for k, v in (change | {"around": around}).items()})


def _volume(depth: Floats, step_mm: float) -> float:
    """mm3 of the points with positive depth, those at the surface by their share."""
    share = np.rint(256 * np.clip(depth / np.float32(step_mm) + np.float32(0.5), 0, 1)).astype(np.int64)
    return int(share.sum()) / 256 * step_mm**3
