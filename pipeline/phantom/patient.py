"""The patient: what the seed decides once, whatever the grid.

In: a seed and a contrast phase. Out: a `Patient`, and `stream`, the generator for every other draw of the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.case import FloatArray
from pipeline.phantom.geometry import Point
from pipeline.phantom.tissues import PHASE_HU, PLAIN_HU

_STREAMS = ("patient", "warp", "texture", "loops", "liver_vessels", "grain")
_MOVABLE = ("stomach", "duodenum", "colon", "pancreas", "gallbladder", "spleen", "kidney_right", "kidney_left")


@dataclass(frozen=True)
class Patient:
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


def draw_patient(seed: int, phase: int) -> Patient:
    """The patient of a seed; `phase` is an index into `tissues.PHASES` and changes nothing but the HU."""
    rng = stream(seed, "patient")
    enhancement = np.exp(rng.normal(0, 0.06))
    hu = PLAIN_HU | {
        name: values[0] + rng.normal(0, 2) + enhancement * (values[phase] - values[0])
        for name, values in PHASE_HU.items()
    }
    turns = np.radians(rng.normal(0, (1.2, 1.2, 2.5)))
    return Patient(
        seed=seed,
        hu={name: float(value) for name, value in hu.items()},
        noise_sd=float(rng.uniform(12.5, 17)),
        to_patient=_rotation(turns) / rng.uniform(0.96, 1.04, 3),
        fat_mm=float(rng.uniform(6, 17)),
        wall_mm=float(rng.uniform(10, 13.5)),
        domes_mm=(float(rng.uniform(74, 85)), float(rng.uniform(60, 70))),
        liver_reach_mm=(float(rng.normal(3, 4)), float(rng.normal(0, 3)), float(rng.normal(8, 8))),
        shift_mm={name: as_point(rng.normal(0, 2.5, 3)) for name in _MOVABLE},
        size={name: float(np.exp(rng.normal(0, 0.05))) for name in _MOVABLE},
        gas_level_mm={name: float(rng.uniform(0, 9)) for name in ("stomach", "colon")},
    )


def stream(seed: int, purpose: str, phase: int = 0) -> np.random.Generator:
    """The generator of one purpose: draws for one never shift those for another."""
    return np.random.default_rng(np.random.SeedSequence((seed, _STREAMS.index(purpose), phase)))


def as_point(v: npt.ArrayLike) -> Point:
    """Three numbers as plain floats."""
    x, y, z = np.asarray(v, np.float64)
    return float(x), float(y), float(z)


def _rotation(turns: npt.ArrayLike) -> FloatArray:
    """The (3, 3) rotation by small turns (radians) about x, y, z, in this order."""
    a, b, c = as_point(turns)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)
