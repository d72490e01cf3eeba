"""The layer of tumor on a hollow organ's wall: its record, its box of a case, its depth there.

In: a case, a centre and a `WallForm`. Out: points near the wall, and how deep in the layer each lies. Host arrays, in
float32 and with nothing but + - * / and square roots, so the same on any machine.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import edt
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from pipeline.case import Case
from pipeline.components import connected_components
from pipeline.grid import crop, index3
from pipeline.organs import organ_id
from pipeline.synthesis.engines import _lumen as lumen
from pipeline.synthesis.engines._form import EngineForm
from pipeline.synthesis.fields import FIELD_LIMIT, FieldGrid

Vector = tuple[float, float, float]
Floats = npt.NDArray[np.float32]

ANNULAR = 0.95  # share of the circumference from which a tumor closes around the lumen
WIDE = 0.5  # smaller ones grow into the lumen from one side
_ECCENTRIC = 0.3  # an annular tumor is that much thinner on the far side
_OTHER = 2.2  # radii from the lumen's middle; what lies farther is another part of the organ


class WallForm(EngineForm):
    """Drawn parameters of the form. Directions in case axes, lengths in mm."""

    engine: Literal["wall"] = "wall"
    axis: Vector  # unit, direction of the lumen at the tumor
    outward: Vector  # unit, perpendicular to the axis: from the lumen's middle to the middle of the tumor
    bend: Vector = (0.0, 0.0, 0.0)  # 1/mm: the lumen's middle at s mm along the axis lies s^2 / 2 * bend beside it
    radius_mm: Annotated[float, Field(gt=0)]  # of the lumen with its wall, at the tumor
    around: Annotated[float, Field(gt=0, le=1)]  # share of the circumference
    thickness_mm: Annotated[float, Field(gt=0)]  # greatest, without the roughness
    length_mm: Annotated[float, Field(gt=0)]  # along the lumen
    inward: Annotated[float, Field(ge=0, le=1)]  # share of the thickness that narrows the lumen
    channel_mm: Annotated[float, Field(ge=0)] = 0.0  # radius of what stays open
    roughness: Annotated[float, Field(ge=0, le=0.25)] = 0.0  # SD of the thickness, as a share of it
    roughness_grain_mm: Annotated[float, Field(gt=0)] = 1.0
    roughness_key: Annotated[int, Field(ge=0, lt=2**63)] = 0
    reach_mm: Vector  # along each axis of the case; what lies farther from the centre is cut off

    @property
    def swell(self) -> float:
        """The roughness makes the layer nowhere thicker than this times the thickness."""
        return 1 + FIELD_LIMIT * self.roughness


class Place(NamedTuple):
    """What the depth of points near the wall depends on, each (n,) float32, in mm."""

    along: Floats  # position along the lumen
    aside: Floats  # distance from the lumen's middle
    towards: Floats  # the same in direction `outward`
    below: Floats  # depth below the organ's surface, negative outside
    rough: Floats  # the field, SD 1


class Grid:
    """The points of a case, every `step` voxels, that a box around a point holds.

    Which loop is the tumor's own depends on the box but not on the step.
    """

    def __init__(self, case: Case, center_vox: Vector, half_mm: Vector, step: int) -> None:
        self._case, self._step, self.step_mm = case, step, step * case.spacing_mm
        middle = index3(round(c) for c in center_vox)
        self._coarser = lumen.stride(case.spacing_mm) // step
        half = [self._coarser * math.ceil(h / (self._coarser * self.step_mm) + 2) for h in half_mm]
        self.corner = index3(m - step * h for m, h in zip(middle, half, strict=True))
        self.shape = index3(2 * h + 1 for h in half)
        self._start = index3(half)
        self._axes = [
            (low + step * np.arange(n) - c) * case.spacing_mm
            for low, n, c in zip(self.corner, self.shape, center_vox, strict=True)
        ]

    def _volume(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        k = self._step
        return np.ascontiguousarray(
            crop(volume, self.corner, index3(k * (n - 1) + 1 for n in self.shape), 0)[::k, ::k, ::k]
        )

    def place(
        self, organ: str, form: WallForm, layer_mm: tuple[float, float], reach_mm: Vector
    ) -> tuple[npt.NDArray[np.int64], Place] | None:
        """Flat indices of the points in a layer at the organ's surface, and where they lie; None off the organ."""
        ids = self._volume(self._case.organs)
        own = np.asarray(ids == organ_id(organ))
        piece = own & self._own_loop(own, form.radius_mm)
        if not piece.any():
            return None
        below = _signed_distance(piece, self.step_mm)
        near = (below > layer_mm[0]) & (below < layer_mm[1]) & (piece | (ids == 0))
        for axis, (positions, limit) in enumerate(zip(self._axes, reach_mm, strict=True)):
            near &= (np.abs(positions) <= limit).reshape([-1 if a == axis else 1 for a in range(3)])
        x, y, z = (a.astype(np.float32)[i] for a, i in zip(self._axes, np.nonzero(near), strict=True))
        along, aside, towards = _follow(x, y, z, form)
        below = below[near]
        here = aside + np.minimum(below, 0) <= np.float32(_OTHER * form.radius_mm)
        rough = self._rough(form)[near]
        place = Place(along[here], aside[here], towards[here], below[here], rough[here])
        return np.flatnonzero(near)[here], place

    def _own_loop(self, own: npt.NDArray[np.bool_], radius_mm: float) -> npt.NDArray[np.bool_]:
        """Where the loop around the centre is, told from the points that a grid of any step has."""
        k = self._coarser
        surface = np.asarray(self._volume(self._case.surface_distance_mm), np.float16)
        start = index3(s // k for s in self._start)
        loop = lumen.own_loop(
            np.ascontiguousarray(surface[::k, ::k, ::k]),
            np.ascontiguousarray(own[::k, ::k, ::k]),
            start,
            radius_mm,
            k * self.step_mm,
        )
        for axis in range(3 if k > 1 else 0):
            loop = loop.repeat(k, axis=axis)
        x, y, z = self.shape
        return loop[:x, :y, :z]

    def reach_mm(self, flat: npt.NDArray[np.int64]) -> Vector:
        """How far from the centre, along each axis, these points are, and three steps more."""
        at = np.unravel_index(flat, self.shape)
        x, y, z = (round(float(np.abs(a[i]).max()) + 3 * self.step_mm, 3) for a, i in zip(self._axes, at, strict=True))
        return x, y, z

    def largest_piece(self, flat: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these points, at least one, are in the largest piece that they make up."""
        mask = np.zeros(self.shape, np.bool_)
        mask.reshape(-1)[flat] = True
        pieces = connected_components(mask, 26).reshape(-1)[flat]
        return np.asarray(pieces == np.bincount(pieces).argmax(), np.bool_)

    def _rough(self, form: WallForm) -> Floats:
        if not form.roughness:
            return np.zeros(self.shape, np.float32)
        x, y, z = (np.asarray(a[None], np.float64) for a in self._axes)
        field = FieldGrid((x, y, z), [form.roughness_grain_mm], torch.device("cpu"))
        return np.asarray(field.field([form.roughness_key])[0].numpy(), np.float32)


def _signed_distance(piece: npt.NDArray[np.bool_], step_mm: float) -> Floats:
    """Depth below the surface, which lies half a step from the points beside it.

    The squares are whole numbers, exact whatever the machine.
    """
    far = np.sqrt(np.rint(edt.edtsq(piece + np.uint8(1))))
    return np.asarray((far - np.float32(0.5)) * np.where(piece, np.float32(step_mm), np.float32(-step_mm)), np.float32)


def _follow(x: Floats, y: Floats, z: Floats, form: WallForm) -> tuple[Floats, Floats, Floats]:
    """Position along the lumen, distance from its middle, and the part of that in direction `outward`.

    The nearest point of the parabola, by one step of Newton's method from the projection on the axis.
    """
    a, b, o = (np.array(v, np.float32) for v in (form.axis, form.bend, form.outward))
    along = x * a[0] + y * a[1] + z * a[2]
    if b.any():
        squared = b[0] * b[0] + b[1] * b[1] + b[2] * b[2]
        leaning = x * b[0] + y * b[1] + z * b[2] - along * along * (squared / 2)
        along = along + along * leaning / (1 + along * along * squared - np.minimum(leaning, np.float32(0.5)))
    half = along * along / 2
    x, y, z = (p - along * a[k] - half * b[k] for k, p in enumerate((x, y, z)))
    aside = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    return along, aside, x * o[0] + y * o[1] + z * o[2]


class _Base(NamedTuple):
    """What the tumor stands on, for each point."""

    off2: Floats  # squared distance from the middle of the base, in units of where its rim is
    to_rim: Floats  # mm, negative beyond
    share: Floats  # of the thickness that the tumor has here, but for its falling off
    below: Floats  # depth below the surface that the base is on
    round: np.float32  # 0: flat with steep shoulders, 1: a dome


def depth_in_layer(place: Place, form: WallForm) -> Floats:
    """Depth below the tumor's inner surface, its outer surface or its rim, whichever is nearest; (n,) mm."""
    rough = 1 + np.float32(form.roughness) * place.rough
    base = _ring(place, form, rough) if form.around >= ANNULAR else _patch(place, form, rough)
    off2 = np.minimum(base.off2, 1)
    falling = np.sqrt(1 - off2 * (base.round + (1 - base.round) * off2))
    thickness = np.float32(form.thickness_mm) * falling * base.share
    inner = np.float32(form.inward) * thickness - base.below
    outer = np.float32(1 - form.inward) * thickness + place.below
    depth = np.minimum(np.minimum(inner, outer), base.to_rim)
    if form.channel_mm:
        depth = np.minimum(depth, place.aside - np.float32(form.channel_mm))
    return np.asarray(depth, np.float32)


def _ring(place: Place, form: WallForm, rough: Floats) -> _Base:
    """All around the lumen, thinner on the far side."""
    # The rim is half as rough as the surface.
    half = np.asarray(np.float32(form.length_mm / 2) * (1 + rough) / 2, np.float32)
    off = np.abs(place.along) / half
    turn2 = (1 - place.towards / place.aside) / 2
    share = np.asarray(rough * (1 - np.float32(_ECCENTRIC) * turn2), np.float32)
    off2, to_rim = np.asarray(off * off, np.float32), np.asarray((1 - off) * half, np.float32)
    return _Base(off2, to_rim, share, place.below, np.float32(0))


def _patch(place: Place, form: WallForm, rough: Floats) -> _Base:
    """On one side: an ellipse on the wall."""
    sine = _sine_of_quarter_turns(form.around)
    half_length = np.float32(form.length_mm / 2)
    half_width = np.float32(math.pi * form.around * form.radius_mm)
    narrow = np.float32(min(max((WIDE - form.around) / (WIDE / 2), 0.0), 1.0))
    inside = np.maximum(place.below, 0)
    turn = np.sqrt(np.maximum((1 - place.towards / place.aside) / 2, 0))  # sine of half the angle to `outward`
    swell = (1 + rough) / 2
    along = np.abs(place.along) / (half_length * swell)
    # Of a narrow tumor the sides are parallel, of a wide one radial.
    across = turn / (np.float32(sine) * swell) * (1 - narrow * inside / (place.aside + inside))
    off2: Floats = along * along + across * across
    off = np.sqrt(off2)
    steepness = np.sqrt(np.square(along / half_length) + np.square(across / half_width))
    small = np.float32(1e-3)  # keeps the middle finite
    to_rim: Floats = (1 - off) * (off + small) / (steepness + small / half_length)
    # Past the lumen's middle, the surface on the tumor's own side is meant, not the one across.
    blunt = np.float32(max(2 * sine * sine - 1, 0.0))
    below: Floats = place.below + 2 * np.maximum(-place.towards - blunt * place.aside, 0)
    # What stands high is a dome, lest it end in a plane.
    dome = max(float(narrow), min(form.inward * form.thickness_mm / form.radius_mm, 1.0))
    return _Base(off2, to_rim, rough, below, np.float32(dome))


def _sine_of_quarter_turns(share: float) -> float:
    """Sine of `share` quarter turns, 0 to 1, by its series: the mathematical libraries of machines differ."""
    x = share * math.pi / 2
    term = total = x
    for k in (2, 4, 6, 8, 10, 12, 14, 16):
        term *= -x * x / (k * (k + 1))
        total += term
    return min(total, 1.0)
