"""From a seed to a phantom: check what is asked, draw the patient, paint from the outside in, add noise.

In: a seed, a grid and a contrast phase. Out: a `Phantom`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.case import HU_RANGE, FloatArray, Int16Array, UInt8Array
from pipeline.errors import InputError
from pipeline.phantom.bones import paint_bones
from pipeline.phantom.canvas import Canvas
from pipeline.phantom.gut import paint_guts, paint_small_bowel
from pipeline.phantom.liver import paint_gallbladder, paint_liver
from pipeline.phantom.noise import grain, noise_sd
from pipeline.phantom.patient import draw_patient, stream
from pipeline.phantom.solid_organs import paint_kidneys, paint_pancreas, paint_spleen
from pipeline.phantom.tissues import PHASES
from pipeline.phantom.trunk import paint_chest, paint_muscles, paint_trunk
from pipeline.phantom.vessels import paint_vessels

MIN_FIELD_OF_VIEW_MM = (150.0, 120.0, 80.0)

# Later ones lie over earlier ones.
_PAINTERS = (
    paint_trunk,
    paint_chest,
    paint_small_bowel,
    paint_liver,
    paint_guts,
    paint_spleen,
    paint_kidneys,
    paint_gallbladder,
    paint_pancreas,
    paint_muscles,
    paint_vessels,
    paint_bones,
)


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
    patient = draw_patient(seed, PHASES.index(phase))
    canvas = Canvas(patient, shape, spacing_mm)
    for paint in _PAINTERS:
        paint(canvas)
    noise = grain(stream(seed, "grain", PHASES.index(phase)), shape, spacing_mm)
    canvas.hu += noise * noise_sd(patient.noise_sd, canvas.rim)
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
