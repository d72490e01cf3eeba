"""A made-up abdominal CT with organ labels, from a seed: the built-in source for demos, tests and first steps.

In: a seed, a grid and a contrast phase. Out: a `Phantom`. Pure, no files, numpy only.

All anatomy is implicit: an organ is a signed distance (mm, negative inside) of bent patient coordinates, painted over
what lies there with a soft edge of one voxel (partial volume). Abdominal organs keep inside the `room` under the
diaphragm and within the wall, and most clear a thin layer of fat around themselves, so none overlap. What is drawn from
the seed does not depend on the grid or the phase: the same seed at another spacing or phase is the same patient.
Positions are mm from the centre of the field of view: x to the patient's right, y anterior, z superior. They are our
own, set by eye and by organ volumes. No model of any person, and no stand-in for real CT in a study.

One file although long: it has one reason to change, how the made-up patient looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.case import AIR_HU, HU_RANGE, FloatArray, Int16Array, UInt8Array
from pipeline.errors import InputError
from pipeline.organs import organ_id

PHASES: tuple[str, ...] = ("native", "arterial", "portal_venous")
MIN_FIELD_OF_VIEW_MM = (150.0, 120.0, 80.0)

# Mean HU by phase (native, late arterial, portal venous): round, typical values as radiology texts give them, not the
# statistics of a cohort. Checked against: portal venous liver 89-118 and portal vein 131-146 in three public scans
# (LiTS 117, 3D-IRCADb 17, a TotalSegmentator test case), kidney 30-50 plain and its cortex 170-200 enhanced, and the
# mixed-phase organ ranges of MAISI's training CT: liver 10-162, spleen 17-184, pancreas -29-146, kidney -40-255.
PHASE_HU: dict[str, tuple[float, float, float]] = {
    "liver": (50, 65, 110),
    "spleen": (48, 120, 120),
    "pancreas": (40, 100, 95),
    "kidney_cortex": (32, 170, 180),
    "kidney_medulla": (32, 80, 150),
    "bowel_wall": (36, 80, 88),
    "aorta": (40, 300, 150),
    "inferior_vena_cava": (40, 85, 135),
    "portal_vein": (40, 100, 165),
    "hepatic_vein": (40, 68, 160),
    "heart": (40, 230, 145),
    "muscle": (52, 58, 62),
}
# Tissues that take up no contrast, or too little to matter; same kind of source.
PLAIN_HU: dict[str, float] = {
    "gallbladder": 8,
    "fluid": 18,
    "stool": 25,
    "gas": -950,
    "fat": -102,
    "skin": 20,
    "lung": -845,
    "marrow": 165,
    "cortical": 480,
    "disc": 85,
    "cartilage": 95,
    "spinal_canal": 22,
}

Field = npt.NDArray[np.floating]  # float32 on (X, Y, Z) or a box of it
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
Points = tuple[Field, Field, Field]  # x, y, z of many
Curve = tuple[tuple[float, float, float, float], ...]  # x, y, z, radius; mm

# fmt: off
STOMACH: Curve = ((-35, -2, 62, 24), (-44, 22, 42, 26), (-47, 40, 16, 24), (-37, 48, -8, 21), (-10, 49, -18, 18),
                  (16, 41, -12, 14), (32, 32, -5, 9))
DUODENUM: Curve = ((34, 32, -4, 9), (56, 22, -10, 11), (62, 8, -30, 12), (54, 0, -52, 12), (25, 0, -64, 11),
                   (-10, 2, -62, 11), (-30, 12, -48, 10))
COLON: Curve = ((86, 10, -260, 20), (88, 8, -96, 20), (90, 9, -78, 20), (84, 20, -66, 19), (66, 44, -65, 18),
                (36, 60, -64, 18), (0, 66, -62, 18), (-40, 62, -46, 17), (-72, 42, -14, 17), (-91, 26, -8, 16),
                (-100, 2, -26, 14), (-98, -10, -50, 13), (-94, -10, -90, 13), (-90, -8, -260, 13))
PANCREAS: Curve = ((38, 11, -34, 12), (32, 14, -18, 16), (15, 23, -5, 12), (-8, 25, 2, 12), (-30, 16, 8, 12.5),
                   (-50, -1, 14, 12), (-64, -13, 18, 9))
GALLBLADDER: Curve = ((47, 20, -9, 6), (52, 30, -16, 12), (57, 43, -26, 14))
ESOPHAGUS: Curve = ((-8, -4, 60, 6), (-8, -8, 250, 6))
AORTA: Curve = ((-9, -22, 200, 11), (-10, -21, 96, 11), (-8, -16, 0, 10), (-4, -14, -90, 9), (-4, -14, -260, 9))
VENA_CAVA: Curve = ((21, -19, -260, 10), (21, -18, -60, 10.5), (20, -15, 0, 10.5), (19, -9, 42, 11.5), (17, 0, 76, 13),
                    (13, 8, 120, 13))
HEPATIC_CONFLUENCE: Point = (18, 2, 70)
SPLENIC_VEIN: Curve = ((-68, -20, 20, 3.2), (-50, -10, 12, 4), (-30, 6, 7, 4.5), (-5, 13, 0, 5), (10, 14, -6, 6))
PORTAL_VEIN: Curve = ((10, 14, -6, 6.5), (24, 13, 7, 6.5), (40, 14, 20, 6.5))
MESENTERIC_VEIN: Curve = ((10, 22, -260, 4), (12, 19, -60, 5), (10, 14, -6, 6))
ARTERIES: tuple[Curve, ...] = (
    ((-8, -10, -2, 4), (-7, 4, -14, 3.6), (-3, 12, -60, 3.5), (0, 16, -260, 3)),  # superior mesenteric
    ((-8, -10, 14, 3.5), (-6, 4, 18, 3.2), (-34, 2, 17, 2.6), (-66, -20, 25, 2.2)),  # celiac and splenic
    ((-6, 4, 18, 3), (14, 10, 16, 2.6), (36, 12, 22, 2.2)),  # common hepatic
    ((-10, -17, -18, 3.2), (-24, -26, -22, 3), (-38, -28, -26, 2.6)),  # left renal
    ((-6, -17, -20, 3.2), (20, -31, -28, 3), (38, -29, -36, 2.6)),  # right renal
)
RENAL_VEINS: tuple[Curve, ...] = (
    ((-40, -22, -25, 3.6), (-18, -4, -20, 4), (6, -3, -21, 4), (18, -13, -22, 4.5)),
    ((40, -24, -38, 4), (22, -16, -35, 4.5)),
)
# Paired: the right one; the left is its mirror image.
PSOAS: Curve = ((23, -44, 12, 5), (29, -43, -30, 12), (37, -41, -80, 18), (46, -36, -260, 22))
CRUS: Curve = ((13, -24, 66, 4), (13, -26, 20, 5), (11, -29, -34, 3))
# fmt: on
_END_MM = 260.0  # above and below the centre there is only the trunk, no organs


@dataclass(frozen=True)
class Phantom:
    """Axes `(X, Y, Z)` in RAS+ order."""

    ct: Int16Array  # HU
    organs: UInt8Array  # class ids of pipeline.organs
    affine: FloatArray  # (4, 4), voxel index to RAS mm; the origin is the centre of the field of view
    phase: str


def make_phantom(
    seed: int,
    shape: tuple[int, int, int] = (160, 128, 96),
    spacing_mm: float = 2.0,
    phase: str = "portal_venous",
) -> Phantom:
    """An abdomen on a grid of `shape` (X, Y, Z) voxels of `spacing_mm`; the same arguments give the same bytes.

    The default shows liver dome to lower kidney poles. A field of view below about 310 x 250 x 190 mm cuts the body off
    as a small reconstruction does. Raises InputError for an unknown phase, a negative seed, or a field of view below
    `MIN_FIELD_OF_VIEW_MM`. Needs about 100 bytes of memory a voxel.
    """
    _check(seed, shape, spacing_mm, phase)
    patient = _draw_patient(seed, PHASES.index(phase))
    canvas = _Canvas(patient, shape, spacing_mm)
    for paint in _PAINTERS:
        paint(canvas)
    canvas.hu += _grain(_stream(seed, "grain", PHASES.index(phase)), shape, spacing_mm) * _noise_sd(canvas)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [-spacing_mm * (n - 1) / 2 for n in shape]
    ct = np.clip(np.rint(canvas.hu), *HU_RANGE).astype(np.int16)
    return Phantom(ct, canvas.labels, affine, phase)


def _check(seed: int, shape: tuple[int, int, int], spacing_mm: float, phase: str) -> None:
    if phase not in PHASES:
        raise InputError(f"phantom: unknown phase {phase!r}; use one of {', '.join(PHASES)}")
    if seed < 0:
        raise InputError(f"phantom: the seed must be 0 or more, not {seed}")
    if len(shape) != 3 or not 0 < spacing_mm < math.inf:
        raise InputError(f"phantom: needs a shape of 3 sizes and a spacing above 0 mm, not {shape} and {spacing_mm}")
    field = tuple(n * spacing_mm for n in shape)
    if any(have < need for have, need in zip(field, MIN_FIELD_OF_VIEW_MM, strict=True)):
        need, have = (" x ".join(f"{v:g}" for v in sides) for sides in (MIN_FIELD_OF_VIEW_MM, field))
        raise InputError(
            f"phantom: the field of view must be at least {need} mm, or organs are missing; shape {tuple(shape)} at "
            f"{spacing_mm:g} mm gives {have} mm. Ask for more voxels or a larger spacing"
        )


# ---------------------------------------------------------------- what is drawn

_STREAMS = ("patient", "warp", "texture", "loops", "liver_vessels", "grain")


def _stream(seed: int, purpose: str, phase: int = 0) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, _STREAMS.index(purpose), phase)))


@dataclass(frozen=True)
class _Patient:
    """What the seed decides once. Lengths mm."""

    seed: int
    hu: dict[str, float]
    noise_sd: float  # HU, soft tissue halfway between skin and centre
    to_patient: FloatArray  # (3, 3): how the patient lies (small turns) and how large they are
    fat_mm: float  # subcutaneous, at the flank
    wall_mm: float  # muscle, at the flank
    domes_mm: tuple[float, float]  # rise of the right and left diaphragm above its rim
    liver_reach_mm: tuple[float, float, float]  # down, back, to the left, beyond the usual
    shift_mm: dict[str, Point]
    size: dict[str, float]  # factor on radii
    gas_level_mm: dict[str, float]  # above the middle of stomach and colon


_MOVABLE = ("stomach", "duodenum", "colon", "pancreas", "gallbladder", "spleen", "kidney_right", "kidney_left")


def _draw_patient(seed: int, phase: int) -> _Patient:
    rng = _stream(seed, "patient")
    enhancement = np.exp(rng.normal(0, 0.06))
    hu = PLAIN_HU | {
        name: values[0] + rng.normal(0, 2) + enhancement * (values[phase] - values[0])
        for name, values in PHASE_HU.items()
    }
    turns = np.radians(rng.normal(0, (1.2, 1.2, 2.5)))
    return _Patient(
        seed=seed,
        hu={name: float(value) for name, value in hu.items()},
        noise_sd=float(rng.uniform(12.5, 17)),
        to_patient=_rotation(turns) / rng.uniform(0.96, 1.04, 3),
        fat_mm=float(rng.uniform(6, 17)),
        wall_mm=float(rng.uniform(10, 13.5)),
        domes_mm=(float(rng.uniform(74, 85)), float(rng.uniform(60, 70))),
        liver_reach_mm=(float(rng.normal(3, 4)), float(rng.normal(0, 3)), float(rng.normal(8, 8))),
        shift_mm={name: _point(rng.normal(0, 2.5, 3)) for name in _MOVABLE},
        size={name: float(np.exp(rng.normal(0, 0.05))) for name in _MOVABLE},
        gas_level_mm={name: float(rng.uniform(0, 9)) for name in ("stomach", "colon")},
    )


def _point(v: npt.ArrayLike) -> Point:
    x, y, z = np.asarray(v, np.float64)
    return float(x), float(y), float(z)


def _rotation(turns: npt.ArrayLike) -> FloatArray:
    """The (3, 3) rotation by small turns (radians) about x, y, z, in this order."""
    a, b, c = _point(turns)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


# ---------------------------------------------------------------- smooth fields and noise

_LATTICE = 32  # knots per axis; fields repeat after 32 knots, which no organ is large enough to show


def _smooth_field(rng: np.random.Generator, axes: Sequence[FloatArray], scale_mm: float) -> Field:
    """Noise of mean 0 and variance 1 with features of about `scale_mm`, at the grid points of three axes (mm).

    Cubic B-spline interpolation of white noise on knots `scale_mm` apart: a function of position, whatever the grid.
    """
    field: Field = rng.standard_normal((_LATTICE,) * 3, np.float32)
    for axis in (2, 1, 0):
        knot, t = np.divmod(axes[axis] / scale_mm, 1.0)
        weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        shape = [1, 1, 1]
        shape[axis] = -1
        field = _weighted(field, axis, knot.astype(np.int64), weights.astype(np.float32).reshape(4, *shape))
    field *= np.float32((315 / 151) ** 1.5)  # the mean of sum(weights^2) over t is 151/315, per axis
    return field


def _weighted(knots: Field, axis: int, first: npt.NDArray[np.int64], weights: Field) -> Field:
    """The sum over k of `weights[k]` times the knots `first + k` along an axis."""
    total: Field = knots.take(first % _LATTICE, axis) * weights[0]
    for k in (1, 2, 3):
        near = knots.take((first + k) % _LATTICE, axis)
        near *= weights[k]
        total += near
    return total


def _grain(rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float) -> Field:
    """CT noise of variance 1: neighbours correlate by 0.36 within a slice, by 0.21 across, falling off exponentially.

    Measured in liver parenchyma of 3D-IRCADb-01 no. 17 (0.74 x 0.74 x 1.6 mm): 0.36 and 0.16 at one and two pixels,
    0.21 at one slice. Coarser grids keep the value per voxel, since resampling widens the kernel along with the voxel
    (0.43 on that scan at 2 mm); finer grids keep it per mm. A recursion x[i] = r x[i-1] + sqrt(1 - r^2) w[i].
    """
    noise: Field = rng.standard_normal(shape, np.float32)
    for axis, per_pixel in ((0, 0.36), (1, 0.36), (2, 0.21)):
        r = per_pixel ** min(1.0, spacing_mm / 0.74)
        planes = np.moveaxis(noise, axis, 0)
        planes[1:] *= np.float32((1 - r * r) ** 0.5)
        for before, here in pairwise(planes):
            here += np.float32(r) * before
    return noise


def _noise_sd(canvas: _Canvas) -> Field:
    """HU; the middle of a body is noisier than its rim."""
    depth = np.clip(1 - canvas.rim**2, -0.5, 1)
    return np.float32(canvas.patient.noise_sd) * (np.float32(0.85) + np.float32(0.3) * depth)


# ---------------------------------------------------------------- distances, mm, negative inside


def _ramp(x: Field) -> Field:
    ramp: Field = np.clip(x, 0, 1)
    return ramp


def _both(a: Field, b: Field, round_mm: float = 0.0) -> Field:
    """Distance to the intersection, its edge rounded over `round_mm` (polynomial smooth maximum)."""
    larger: Field = np.maximum(a, b)
    if round_mm:
        larger += np.maximum(round_mm - np.abs(a - b), 0) ** 2 / (4 * round_mm)
    return larger


def _either(first: Field, *others: Field) -> Field:
    """Distance to the union."""
    for other in others:
        first = np.minimum(first, other)
    return first


def _ellipsoid(dx: Field, dy: Field, dz: Field, radii: Point) -> Field:
    """First-order distance (g - 1) g / |grad g| with g the norm of the offsets over the radii."""
    u, v, w = dx / radii[0], dy / radii[1], dz / radii[2]
    g = np.sqrt(u * u + v * v + w * w + 1e-6)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2 + 1e-6 / max(radii) ** 2)
    distance: Field = g * (g - 1) / slope
    return distance


def _rim(x: Field, y: Field) -> Field:
    """From 0 in the middle of the cavity to 1 at its wall, a superellipse of 122 x 81 mm half axes."""
    u, v = np.abs(x / 122), np.abs((y - 6) / 81)
    rim: Field = (u * u * np.sqrt(u) + v * v * np.sqrt(v) + 1e-6) ** 0.4
    return rim


def _cavity(x: Field, y: Field, rim: Field) -> Field:
    distance: Field = np.hypot(x, y - 6) * (1 - 1 / rim)
    return distance


def _above_diaphragm(patient: _Patient, x: Field, y: Field, z: Field, rim: Field) -> Field:
    """Two domes, a hollow for the heart between them, that fall to a rim, which is lowest at the back."""
    right, left = patient.domes_mm
    rise = (
        (right + left) / 2
        + (right - left) / 2 * np.tanh(x / 25)
        - 22 * np.exp(-((x + 18) ** 2 + 0.3 * (y - 36) ** 2) / 1300)
    )
    floor = 13 + 0.22 * y + 0.3 * np.maximum(y - 20, 0)
    above: Field = z - floor - rise * (1 - np.minimum(rim, 1) ** 3)
    return above * 0.72  # the nearest point of a dome is not straight below


def _room(patient: _Patient, x: Field, y: Field, z: Field) -> Field:
    """Where abdominal organs may be: within the wall, under the diaphragm."""
    rim = _rim(x, y)
    return _both(_cavity(x, y, rim), _above_diaphragm(patient, x, y, z, rim), 14)


def _liver(patient: _Patient, x: Field, y: Field, z: Field, room: Field) -> Field:
    """A wedge under the right dome; its edge runs from low on the right to high on the left, the left lobe in front."""
    down, back, left = patient.liver_reach_mm
    under = (-102 - down + (108 - x) * (1.45 - 0.0054 * (108 - x)) - 0.1 * y - z) / 1.4
    under += 14 * np.exp(-((x - 62) ** 2 + (y - 46) ** 2) / 1000)  # the colon's impression
    behind = (-44 - back + (24 - x) * 0.8 + 0.016 * np.minimum(x - 5 + left + 0.3 * (z - 40), 0) ** 2 - y) / 1.4
    wedge = _both(under, behind, 20)
    hollow = _ellipsoid(x - 8, y + 6, z + 28, (34, 32, 36))  # the visceral surface bends around what lies under it
    return _both(_both(wedge, -hollow, 16), room + 2.2, 10)


# ---------------------------------------------------------------- the canvas


_BEND_MM = 9.0  # how far a point is moved at most


class _Canvas:
    """The image in the making: patient coordinates of every voxel, HU and labels. Axes (X, Y, Z), lengths mm."""

    def __init__(self, patient: _Patient, shape: tuple[int, int, int], spacing_mm: float) -> None:
        self.patient = patient
        self.from_patient = np.linalg.inv(patient.to_patient)
        self.shape = shape
        self.spacing_mm = spacing_mm
        self.edge_mm = float(np.hypot(spacing_mm, 0.8))  # a voxel's width and a little of the scanner's blur
        axes = [np.asarray(spacing_mm * (np.arange(n) - (n - 1) / 2), np.float64) for n in shape]
        self.x, self.y, self.z = self._coordinates(axes)
        texture = _stream(patient.seed, "texture")
        self.coarse, self.blotch, self.strand, self.fine = (_smooth_field(texture, axes, mm) for mm in (24, 12, 12, 5))
        self.rim = _rim(self.x, self.y)
        self.cavity = _cavity(self.x, self.y, self.rim)
        self.chest = _above_diaphragm(patient, self.x, self.y, self.z, self.rim)
        self.room = _both(self.cavity, self.chest, 14)
        self.fat = np.float32(patient.hu["fat"]) + 5 * self.coarse + 5 * self.blotch
        self.hu: Field = np.full(shape, AIR_HU, np.float32)
        self.labels: UInt8Array = np.zeros(shape, np.uint8)

    def _coordinates(self, axes: Sequence[FloatArray]) -> list[Field]:
        """Turned, scaled and bent: no organ keeps a geometric shape."""
        warp = _stream(self.patient.seed, "warp")
        x, y, z = (
            a.astype(np.float32).reshape(s) for a, s in zip(axes, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
        )
        bent = []
        for row in self.patient.to_patient.astype(np.float32):
            moved = 3.2 * _smooth_field(warp, axes, 65) + 1.0 * _smooth_field(warp, axes, 16)
            bent.append(_BEND_MM * np.tanh(moved / _BEND_MM) + row[0] * x + (row[1] * y + row[2] * z))
        return bent

    def box(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Box:
        """The voxels that hold the patient's box `low` to `high`, cut at the grid (possibly empty)."""
        a, b = np.asarray(low, np.float64), np.asarray(high, np.float64)
        middle = self.from_patient @ (a + b) / 2
        half = np.abs(self.from_patient) @ ((b - a) / 2 + _BEND_MM)
        size = np.array(self.shape)
        start = np.clip(np.floor((middle - half) / self.spacing_mm + (size - 1) / 2), 0, size).astype(int)
        stop = np.clip(np.ceil((middle + half) / self.spacing_mm + (size + 1) / 2), start, size).astype(int)
        i, j, k = (slice(int(s), int(e)) for s, e in zip(start, stop, strict=True))
        return i, j, k

    def at(self, box: Box) -> Points:
        return self.x[box], self.y[box], self.z[box]

    def paint(self, box: Box, distance: Field, hu: float | Field, label: int | None = None) -> None:
        """Cover what lies inside `distance`; its voxels get `label` unless that is None."""
        self.hu[box] += _ramp(0.5 - distance / self.edge_mm) * (np.float32(hu) - self.hu[box])
        if label is not None:
            self.labels[box][distance < 0] = label

    def organ(self, box: Box, distance: Field, hu: float | Field, label: int, clear_mm: float = 2.0) -> Field:
        """Paint an organ held within the room, `clear_mm` of fat around it; returns its distance there."""
        kept = _both(distance, self.room[box] + 2.5, 3)
        self.paint(box, np.maximum(distance - clear_mm, self.room[box] + 1), self.fat[box], 0)
        self.paint(box, kept, hu, label)
        return kept


_WHOLE = (slice(None), slice(None), slice(None))


# ---------------------------------------------------------------- tubes


@dataclass(frozen=True)
class _Tube:
    """What is near a tube: its box, the distance to its wall, and the height above its centre line (along y)."""

    box: Box
    distance: Field
    above: Field


def _smooth_line(curve: Curve, step_mm: float, shift: Point = (0, 0, 0), size: float = 1.0) -> FloatArray:
    """(n, 4) points and radii of the smooth line (Catmull-Rom) through a curve, about `step_mm` apart."""
    knots = np.array(curve, np.float64)
    ends = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    line = [knots[:1]]
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        steps = max(1, round(float(np.sqrt(((c - b)[:3] ** 2).sum())) / step_mm))
        t = np.arange(1, steps + 1)[:, None] / steps
        line.append(b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * b - a - 3 * c + d))))
    return np.concatenate(line) * (1, 1, 1, size) + (*shift, 0)


def _tube(canvas: _Canvas, line: FloatArray, reach_mm: float, haustra: float = 0.0) -> _Tube:
    """A tube along (n, 4) points and radii; `haustra` is the depth of its folds as a share of the radius."""
    return _segments(canvas, np.hstack([line[:-1], line[1:]]), reach_mm, haustra)


def _segments(canvas: _Canvas, segments: FloatArray, reach_mm: float, haustra: float = 0.0) -> _Tube:
    """The union of tapered rods (n, 8): start x y z radius, end x y z radius; exact up to `reach_mm` outside."""
    starts, ends = segments[:, :4], segments[:, 4:]
    pad = np.maximum(starts[:, 3:], ends[:, 3:]) * (1 + haustra) + reach_mm
    lows, highs = np.minimum(starts, ends)[:, :3] - pad, np.maximum(starts, ends)[:, :3] + pad
    box = canvas.box(lows.min(0), highs.max(0))
    tube = _Tube(box, np.full(canvas.x[box].shape, reach_mm, np.float32), np.zeros(canvas.x[box].shape, np.float32))
    walked = 0.0
    for start, end, low, high in zip(starts, ends, lows, highs, strict=True):
        part = canvas.box(low, high)
        length = float(np.sqrt(((end - start)[:3] ** 2).sum()))
        inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
        distance, above = _rod(canvas.at(part), start, end, haustra, walked)
        closer = distance < tube.distance[inner]
        np.copyto(tube.distance[inner], distance, where=closer)
        np.copyto(tube.above[inner], above, where=closer)
        walked += length
    return tube


def _rod(at: Points, start: FloatArray, end: FloatArray, haustra: float, walked: float) -> tuple[Field, Field]:
    """Distance to one rod, and height above it; folds every 27 mm of the way from the tube's beginning."""
    along = (end - start)[:3]
    length = max(float(np.sqrt((along**2).sum())), 1e-6)
    dx, dy, dz = (p - float(s) for p, s in zip(at, start[:3], strict=True))
    ux, uy, uz = (float(v) for v in along)
    t = _ramp((dx * ux + dy * uy + dz * uz) / length**2)
    dx, dy, dz = dx - t * ux, dy - t * uy, dz - t * uz
    radius = float(start[3]) + t * float(end[3] - start[3])
    if haustra:
        radius = radius * (1 + haustra * np.cos((2 * np.pi / 27) * (walked + t * length)))
    return np.sqrt(dx * dx + dy * dy + dz * dz) - radius, dy


# ---------------------------------------------------------------- painting, from the outside in


def _paint_trunk(canvas: _Canvas) -> None:
    """Skin, subcutaneous fat, muscle wall with its fat planes, and the fat that fills the cavity."""
    patient, x, y = canvas.patient, canvas.x, canvas.y
    back = np.exp(-((x / 78) ** 4)) * _ramp((-10 - y) / 50)
    wall = patient.wall_mm + 24 * back - 3 * _ramp((y - 40) / 40)
    front = _ramp(y / 80)
    fat = patient.fat_mm * (1 + 0.35 * front - 0.35 * back)
    skin = canvas.cavity - wall - fat
    layer = canvas.cavity / wall
    planes = _ramp(np.cos(layer * (2 * np.pi / 0.36)) * 4 - 3) * _ramp((np.abs(x) - 45) / 30)
    erector = np.abs(np.hypot((np.abs(x) - 31) / 29, (y + 87) / 17) - 1)
    planes = np.maximum(planes, _ramp(2 - erector * 16) * _ramp(-y - 60))
    muscle = patient.hu["muscle"] + 3 * canvas.blotch - 60 * planes - 25 * _ramp(canvas.fine - 1.0)
    canvas.paint(_WHOLE, skin, patient.hu["skin"])
    canvas.paint(_WHOLE, skin + 2, canvas.fat)
    canvas.paint(_WHOLE, canvas.cavity - wall, muscle)
    canvas.paint(_WHOLE, canvas.cavity, canvas.fat + 75 * _threads(canvas, _WHOLE, 0.14))


def _threads(canvas: _Canvas, box: Box, width: float) -> Field:
    """Thin branching lines, 0 to 1: where two smooth fields are both near 0. Small vessels of lung and mesentery."""
    return _ramp(1.6 - np.hypot(canvas.blotch[box], canvas.strand[box]) / width)


def _paint_chest(canvas: _Canvas) -> None:
    """The diaphragm, and above it lungs, the fat of the mediastinum, heart and esophagus; the vessels come later."""
    hu = canvas.patient.hu
    box = canvas.box((-130, -90, -40), (130, 100, _END_MM))
    x, y, z = canvas.at(box)
    cavity, chest = canvas.cavity[box], canvas.chest[box]
    lung = _both(cavity + 2, 3 - chest)
    mediastinum = _ellipsoid(x + 2, y + 14, 0 * z, (26, 34, 1000))
    heart = _ellipsoid(x + 22, y - 36, z - 117, (58, 42, 52))
    canvas.paint(box, _both(cavity, -chest), hu["muscle"])
    canvas.paint(box, lung, hu["lung"] + 15 * canvas.coarse[box] + 750 * _threads(canvas, box, 0.16))
    canvas.paint(box, np.maximum(lung, mediastinum), canvas.fat[box])
    canvas.paint(box, np.maximum(lung + 2, heart - 5), canvas.fat[box])
    canvas.paint(box, np.maximum(lung + 4, heart), hu["muscle"] + 30)
    canvas.paint(box, np.maximum(lung + 8, heart + 9), hu["heart"])
    tube = _tube(canvas, _smooth_line(ESOPHAGUS, 60), 4)
    canvas.paint(tube.box, np.maximum(tube.distance, 3 - canvas.chest[tube.box]), hu["bowel_wall"])


def _paint_liver(canvas: _Canvas) -> None:
    """Parenchyma, its vessels (which keep the liver's label), and the fissure of the round ligament."""
    patient = canvas.patient
    box = canvas.box((-100, -85, -105), (125, 100, 115))
    x, y, z = canvas.at(box)
    liver = _liver(patient, x, y, z, canvas.room[box])
    parenchyma = patient.hu["liver"] + 2.5 * canvas.coarse[box] + 1.5 * canvas.blotch[box]
    canvas.paint(box, liver, parenchyma, organ_id("liver"))
    for vessel, segments in _liver_vessels(patient).items():
        tree = _segments(canvas, segments, 3)
        inside = _liver(patient, *canvas.at(tree.box), canvas.room[tree.box])
        canvas.paint(tree.box, np.maximum(tree.distance, inside + 1.5), patient.hu[vessel])
    sheet = np.abs(x - 2 - 0.2 * (y - 40) + 2 * canvas.blotch[box]) - 0.06 * (y - 22)
    fissure = _both(sheet, _both(26 - y, z - 18 + 0.2 * y, 6), 3)
    canvas.paint(box, np.maximum(fissure, liver - 2), canvas.fat[box], 0)


def _paint_spleen(canvas: _Canvas) -> None:
    patient = canvas.patient
    (sx, sy, sz), size = patient.shift_mm["spleen"], patient.size["spleen"]
    box = canvas.box((-130, -100, -50), (-25, 50, 115))
    x, y, z = canvas.at(box)
    long = z - 30 - sz
    spleen = _ellipsoid(x + 84 - sx - 0.15 * long, y + 33 - sy + 0.25 * long, long, (38 * size, 48 * size, 60 * size))
    hollow = _ellipsoid(x + 38, y - 8, z - 28, (26, 34, 46))
    canvas.organ(box, _both(spleen, -hollow, 8), patient.hu["spleen"] + 2 * canvas.coarse[box], organ_id("spleen"))


def _paint_guts(canvas: _Canvas) -> None:
    for name, curve in (("duodenum", DUODENUM), ("stomach", STOMACH), ("colon", COLON)):
        _paint_gut(canvas, name, curve)


def _paint_small_bowel(canvas: _Canvas) -> None:
    """Short bent loops packed into the middle, each clearing a little fat from those painted before."""
    patient = canvas.patient
    rng = _stream(patient.seed, "loops")
    for _ in range(170):
        middle = rng.uniform((-68, 2, -250), (58, 62, -38))
        ahead, aside = rng.normal(0, (1, 1, 0.5), (2, 3))
        ahead, aside = ahead / np.abs(ahead).max() * 26, aside / np.abs(aside).max() * 18
        radius, content = rng.uniform(9, 12.5), rng.uniform(8, 45)
        arc = [(*_point(middle + t * ahead + (1 - abs(t)) * aside), radius) for t in (-1.0, 0.0, 1.0)]
        loop = _tube(canvas, _smooth_line(tuple(arc), 9), 3)
        if loop.distance.size:
            kept = canvas.organ(loop.box, loop.distance, patient.hu["bowel_wall"], organ_id("small_bowel"), 1.2)
            canvas.paint(loop.box, kept + 2.2, content + 8 * canvas.fine[loop.box])


def _paint_gut(canvas: _Canvas, name: str, curve: Curve) -> None:
    """Wall, content, and gas that rises to the front of a patient lying on the back."""
    patient = canvas.patient
    colon = name == "colon"
    tube = _tube(canvas, _smooth_line(curve, 9, patient.shift_mm[name], patient.size[name]), 4, 0.12 if colon else 0.0)
    box, fine = tube.box, canvas.fine[tube.box]
    kept = canvas.organ(box, tube.distance, patient.hu["bowel_wall"], organ_id(name))
    lumen = kept + (2.4 if colon else 3.5 + 0.9 * canvas.blotch[box])
    stool = patient.hu["stool"] + 40 * fine - 260 * _ramp(fine - 0.8)
    canvas.paint(box, lumen, stool if colon else patient.hu["fluid"] + 5 * fine)
    if name in patient.gas_level_mm:
        level = patient.gas_level_mm[name]
        gas = level + 6 * canvas.coarse[box] - tube.above if colon else level + 22 - canvas.y[box]
        canvas.paint(box, np.maximum(lumen, gas), patient.hu["gas"])


def _paint_kidneys(canvas: _Canvas) -> None:
    for name, side, height in (("kidney_right", 1.0, -37.0), ("kidney_left", -1.0, -27.0)):
        _paint_kidney(canvas, name, side, height)


def _paint_kidney(canvas: _Canvas, name: str, side: float, height: float) -> None:
    """A bean along the psoas, its hilum to the front and the middle; cortex, pyramids, sinus fat, pelvis."""
    patient = canvas.patient
    (sx, sy, sz), size = patient.shift_mm[name], patient.size[name]
    box = canvas.box((side * 58 - 50, -85, height - 75), (side * 58 + 50, 30, height + 75))
    x, y, z = canvas.at(box)
    w = z - height - sz
    across, front = side * (x - sx) - 58 + 0.2 * w, y - sy + 31 + 0.12 * w  # upper poles lie further in and back
    u, v = 0.87 * across - 0.5 * front, 0.5 * across + 0.87 * front
    radii = (28 * size, 24.5 * size, 54 * size)
    bed = _ellipsoid(u, np.maximum(v, 0.4 * v), 1.06 * w, radii) - 4 - 1.5 * canvas.coarse[box]  # fat, thick behind
    canvas.paint(box, np.maximum(bed, canvas.room[box] + 1), canvas.fat[box], 0)
    bean = _ellipsoid(u, v, w, radii) + 0.6 * canvas.blotch[box]
    sinus = _ellipsoid(u + 17 * size, v, w, (17, 8, 21)) + 1.2 * canvas.blotch[box]
    pyramids = np.cos(w * (2 * np.pi / 19)) + 0.8 * np.cos(3 * np.arctan2(v, u + 6) + canvas.blotch[box]) + 0.3
    medulla = _ramp((-bean - 5) / 2) * _ramp(pyramids * 2)
    cortex_hu, medulla_hu = patient.hu["kidney_cortex"], patient.hu["kidney_medulla"]
    parenchyma = cortex_hu + (medulla_hu - cortex_hu) * medulla
    kept = canvas.organ(box, _both(bean, -sinus, 4), parenchyma, organ_id("kidney"))
    pelvis = _ellipsoid(u + 15 * size, v, w + 2, (10, 4, 9))
    canvas.paint(box, np.maximum(pelvis, 1 - kept), patient.hu["fluid"])


def _paint_pancreas(canvas: _Canvas) -> None:
    """Lobulated, with fat between the lobules."""
    patient = canvas.patient
    tube = _tube(canvas, _smooth_line(PANCREAS, 7, patient.shift_mm["pancreas"], patient.size["pancreas"]), 12)
    lobules = 1.1 * canvas.fine[tube.box] + 0.8 * canvas.blotch[tube.box]
    hu = patient.hu["pancreas"] + 4 - 14 * _ramp(canvas.fine[tube.box] - 0.3)
    canvas.organ(tube.box, tube.distance + lobules, hu, organ_id("pancreas"), 1.5)


def _paint_gallbladder(canvas: _Canvas) -> None:
    patient = canvas.patient
    tube = _tube(canvas, _smooth_line(GALLBLADDER, 7, patient.shift_mm["gallbladder"], patient.size["gallbladder"]), 4)
    canvas.organ(tube.box, tube.distance, patient.hu["gallbladder"], organ_id("gallbladder"), 1.0)


def _paint_vessels(canvas: _Canvas) -> None:
    """The large vessels in front of the spine; small ones count as background."""
    for curve in (SPLENIC_VEIN, MESENTERIC_VEIN, PORTAL_VEIN):
        _paint_vessel(canvas, curve, "portal_vein", organ_id("portal_vein"))
    for curve in RENAL_VEINS:
        _paint_vessel(canvas, curve, "inferior_vena_cava", 0)
    for curve in ARTERIES:
        _paint_vessel(canvas, curve, "aorta", 0)
    _paint_vessel(canvas, VENA_CAVA, "inferior_vena_cava", organ_id("inferior_vena_cava"))
    _paint_vessel(canvas, AORTA, "aorta", organ_id("aorta"))


def _paint_vessel(canvas: _Canvas, curve: Curve, blood: str, label: int) -> None:
    tube = _tube(canvas, _smooth_line(curve, 9), 3)
    canvas.paint(tube.box, tube.distance, canvas.patient.hu[blood], label)


def _paint_muscles(canvas: _Canvas) -> None:
    """Psoas beside the spine, the crura of the diaphragm beside the aorta."""
    for curve, middle in ((PSOAS, 0.0), (CRUS, -9.0)):
        for side in (1, -1):
            tube = _tube(canvas, _smooth_line(curve, 12) * (side, 1, 1, 1) + (middle, 0, 0, 0), 3)
            canvas.paint(tube.box, tube.distance, canvas.patient.hu["muscle"] + 3 * canvas.blotch[tube.box], 0)


def _paint_bones(canvas: _Canvas) -> None:
    _paint_vertebrae(canvas)
    _paint_ribs(canvas)


_VERTEBRA_MM = 36.0  # body and disc


def _paint_vertebrae(canvas: _Canvas) -> None:
    hu = canvas.patient.hu
    box = canvas.box((-60, -125, -_END_MM), (60, -15, _END_MM))
    x, y, z = canvas.at(box)
    level = (z - 6) - _VERTEBRA_MM * np.rint((z - 6) / _VERTEBRA_MM)  # height above the middle of the nearest vertebra
    side = np.abs(x)
    column = _ellipsoid(x, y + 45, 0 * z, (23, 17, 1000)) + 1.6 * (1 - (level / 13) ** 2)  # bodies have a waist
    body = _both(column, np.abs(level) - 13.5, 3)
    roof = 0.82 * (y + 81 - 0.65 * side)  # laminae run from the spinous process to the front and the side
    lamina = _both(_both(np.abs(roof) - 3.5, np.abs(level + 5) - 12, 2), side - 16, 2)
    pedicle = _both(np.hypot(side - 13.5, 0.7 * (level - 3)) - 4.5, np.abs(y + 66) - 9, 2)
    spinous = _both(_both(side - 2.8, np.abs(y + 90) - 12, 2), np.abs(level + 8) - 9, 2)
    transverse = _both(np.hypot(y + 72 + 0.15 * side, level) - 4, side - 37, 2)
    joint = _ellipsoid(side - 15, y + 74, level + 17, (6.5, 7, 9))
    arch = _either(pedicle, lamina, spinous, transverse, joint)
    canvas.paint(box, np.maximum(column, np.abs(level) - 30), hu["disc"], 0)
    _paint_bone(canvas, box, arch, hu["cortical"])
    _paint_bone(canvas, box, body, 0.65 * hu["cortical"])
    canvas.paint(box, _ellipsoid(x, y + 69, 0 * z, (9, 7, 1000)), hu["spinal_canal"], 0)


def _paint_bone(canvas: _Canvas, box: Box, bone: Field, shell_hu: float) -> None:
    """Marrow in a shell of about 1.5 mm."""
    hu = canvas.patient.hu
    shell = _ramp((bone + 2.2) / 1.2)
    marrow = hu["marrow"] + 18 * canvas.fine[box]
    canvas.paint(box, bone, marrow + (shell_hu - marrow) * shell, organ_id("bone"))


def _paint_ribs(canvas: _Canvas) -> None:
    """Rings in the wall that fall towards the front, down to the costal margin; cartilage in front."""
    box = canvas.box((-150, -110, -90), (150, 120, _END_MM))
    x, y, z = canvas.at(box)
    turn = np.arctan2(np.abs(x) / 122, (6 - y) / 81)  # 0 at the spine, pi in front
    fall = z + 55 * turn + 8
    level = fall - 27 * np.rint(fall / 27)
    ring = np.sqrt((level / 6.5) ** 2 + ((canvas.cavity[box] - 5.5) / 3.4) ** 2 + 1e-6)
    rib = _both((ring - 1) * 3.4, 48 * turn - 105 - z, 3)  # the costal margin rises to the front
    rib = _both(rib, (0.3 - turn) * 60, 2)
    front = (turn - 2.35) * 60
    canvas.paint(box, _both(rib, -front), canvas.patient.hu["cartilage"], 0)
    _paint_bone(canvas, box, _both(rib, front), canvas.patient.hu["cortical"])


# ---------------------------------------------------------------- vessels of the liver


def _liver_vessels(patient: _Patient) -> dict[str, FloatArray]:
    """Portal and hepatic veins as (n, 8) rods, grown towards points spread over the liver."""
    rng = _stream(patient.seed, "liver_vessels")
    portal = _spread(rng, patient, 30)
    hepatic = _spread(rng, patient, 27)
    hepatic = hepatic[np.argsort(hepatic[:, 0], kind="stable")]
    hilum, confluence = np.array(PORTAL_VEIN[-1][:3], np.float64), np.array(HEPATIC_CONFLUENCE, np.float64)
    right_to_left = [_grow(confluence, third, 2.0) for third in np.array_split(hepatic, 3)]
    return {
        "portal_vein": np.array(_grow(hilum, portal, 2.0)),
        "hepatic_vein": np.array([rod for tree in right_to_left for rod in tree]),
    }


def _spread(rng: np.random.Generator, patient: _Patient, count: int) -> FloatArray:
    """(count, 3) points at least 7 mm deep in the liver, each as far from the others as can be."""
    points = rng.uniform((-60, -75, -75), (118, 85, 85), (4000, 3))
    x, y, z = points.astype(np.float32).T
    inside = points[_liver(patient, x, y, z, _room(patient, x, y, z)) < -7]
    chosen = [inside[0]]
    gap = np.full(len(inside), np.inf)
    for _ in range(count - 1):
        gap = np.minimum(gap, ((inside - chosen[-1]) ** 2).sum(1))
        chosen.append(inside[int(gap.argmax())])
    return np.array(chosen)


def _grow(start: FloatArray, targets: FloatArray, leaf_radius: float) -> list[FloatArray]:
    """Rods from `start` to all targets: go part of the way to their middle, split them along their longest side, go on.

    The radius follows Murray's law: its cube is proportional to the number of targets served.
    """
    radius = leaf_radius * len(targets) ** (1 / 3)
    if len(targets) == 1:
        return [np.array([*start, radius, *(start + 0.9 * (targets[0] - start)), 0.7 * leaf_radius])]
    fork = start + 0.42 * (targets.mean(0) - start)
    order = np.argsort(targets[:, int(np.ptp(targets, axis=0).argmax())], kind="stable")
    halves = np.array_split(targets[order], 2)
    thinner = leaf_radius * len(halves[0]) ** (1 / 3)
    rods = [np.array([*start, radius, *fork, thinner])]
    return rods + [rod for half in halves for rod in _grow(fork, half, leaf_radius)]


# Later ones lie over earlier ones.
_PAINTERS = (
    _paint_trunk,
    _paint_chest,
    _paint_small_bowel,
    _paint_liver,
    _paint_guts,
    _paint_spleen,
    _paint_kidneys,
    _paint_gallbladder,
    _paint_pancreas,
    _paint_muscles,
    _paint_vessels,
    _paint_bones,
)
