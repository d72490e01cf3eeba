"""Tiny cases and banks for tests: a box of body with an ellipsoid liver, and an abdomen with every tumor organ."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import spatial

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import AIR_HU, Case, build_case
from pipeline.organs import CLASS_IDS

SPACING_MM = 3.0

# fmt: off
_ABDOMEN_MM = (300.0, 240.0, 180.0)
# Mean HU by phase, as in pipeline.phantom.tissues.
_HU = {
    "native": {"liver": 50, "pancreas": 40, "kidney": 32, "wall": 36, "aorta": 40, "ivc": 40, "vessel": 42},
    "arterial": {"liver": 65, "pancreas": 100, "kidney": 150, "wall": 80, "aorta": 300, "ivc": 85, "vessel": 75},
    "portal_venous": {"liver": 110, "pancreas": 95, "kidney": 170, "wall": 85, "aorta": 150, "ivc": 135, "vessel": 175},
}
_FAT, _MUSCLE, _BONE, _STOOL, _GAS = -95, 55, 300, 20, -900
# Centre lines, mm from the centre: x to the right, y to the front, z upwards.
_PANCREAS = ((40, 10, -25), (25, 20, -10), (-10, 28, -5), (-45, 10, 5), (-70, -10, 12))
_COLON = ((105, -10, -120), (105, -5, -45), (60, 55, -45), (-60, 60, -40), (-105, 0, -30), (-105, -20, -120))
_LIVER_VESSEL = ((10, 10, 30), (60, 5, 35), (115, 20, 45))
PANCREAS_RADIUS_MM, COLON_RADIUS_MM, WALL_MM = 11.0, 20.0, 3.0
# fmt: on


def make_case(
    case_id: str = "tiny",
    seed: int = 0,
    shape: tuple[int, int, int] = (60, 52, 44),
    spacing_mm: float = SPACING_MM,
    split: str = "train",
) -> Case:
    """A case of about 1 litre of liver at 110 HU with noise of SD 12, a bright vessel, body fat and air around."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 77)))
    size_mm = np.array(shape) * spacing_mm
    grid = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * spacing_mm for n in shape], indexing="ij"), axis=-1)
    at = (grid - size_mm / 2 - rng.uniform(-4, 4, 3)) / (size_mm * np.array([0.36, 0.36, 0.38]))
    liver = (at**2).sum(axis=-1) < 1
    body = (((grid - size_mm / 2) / (size_mm * 0.48)) ** 2).sum(axis=-1) < 1
    vessel = liver & (np.hypot(at[..., 1] - 0.2, at[..., 2]) < 0.1)
    hu = np.where(body, -90.0, AIR_HU)
    hu[liver] = 110.0
    hu[vessel] = 175.0
    hu += rng.normal(0, 12, shape) * body
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -size_mm / 2
    organs = np.where(liver, CLASS_IDS["liver"], 0).astype(np.uint8)
    return build_case(case_id, np.rint(hu).astype(np.int16), organs, affine, spacing_mm, split=split)


def make_abdomen(
    case_id: str = "abdomen", seed: int = 0, spacing_mm: float = SPACING_MM, phase: str = "portal_venous"
) -> Case:
    """A case in which every tumor organ is usable: 100 x 80 x 60 voxels at 3 mm, with noise of SD 10.

    Ellipsoids of liver (with a vessel) and kidneys in fat; the pancreas a bent tube of PANCREAS_RADIUS_MM, its head at
    the right; the colon a frame-like tube of COLON_RADIUS_MM with WALL_MM of wall, stool, and gas above it; aorta,
    inferior vena cava, a block of spine, muscle around the cavity.
    """
    shape = tuple(round(size / spacing_mm) for size in _ABDOMEN_MM)
    at = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * spacing_mm for n in shape], indexing="ij"), axis=-1)
    hu, organs = _paint_abdomen(at, _HU[phase])
    rng = np.random.default_rng(np.random.SeedSequence((seed, 78)))
    hu += rng.normal(0, 10, shape) * (hu > AIR_HU)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = at[0, 0, 0]
    return build_case(case_id, np.rint(hu).clip(-1024, 3071).astype(np.int16), organs, affine, spacing_mm)


def _paint_abdomen(
    at: npt.NDArray[np.float64], hu_of: dict[str, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """HU and class ids at points (X, Y, Z, 3) in mm."""
    hu, organs = np.full(at.shape[:3], float(AIR_HU)), np.zeros(at.shape[:3], np.uint8)

    def paint(where: npt.NDArray[np.bool_], value: float, organ: str = "") -> None:
        hu[where] = value
        organs[where] = CLASS_IDS[organ] if organ else 0

    trunk = np.sqrt((at[..., 0] / 140) ** 2 + (at[..., 1] / 105) ** 2)
    paint(trunk < 1, _FAT)
    paint((trunk > 0.94) & (trunk < 0.98), _MUSCLE)
    paint(_ellipsoid(at, (65, 10, 40), (60, 62, 45)), hu_of["liver"], "liver")
    paint(_tube(at, _LIVER_VESSEL)[0] < 4.5, hu_of["vessel"], "liver")
    for side in (-1, 1):
        paint(_ellipsoid(at, (60 * side, -50, -30), (24, 22, 45)), hu_of["kidney"], "kidney")
    paint(_tube(at, _PANCREAS)[0] < PANCREAS_RADIUS_MM, hu_of["pancreas"], "pancreas")
    distance, height = _tube(at, _COLON)
    paint(distance < COLON_RADIUS_MM, hu_of["wall"], "colon")
    paint(distance < COLON_RADIUS_MM - WALL_MM, _STOOL, "colon")
    paint((distance < COLON_RADIUS_MM - WALL_MM) & (height > 0), _GAS, "colon")  # the patient lies on the back
    paint(np.hypot(at[..., 0] + 8, at[..., 1] + 38) < 10, hu_of["aorta"], "aorta")
    paint(np.hypot(at[..., 0] - 18, at[..., 1] + 38) < 10, hu_of["ivc"], "inferior_vena_cava")
    paint((np.abs(at[..., 0]) < 20) & (np.abs(at[..., 1] + 72) < 18), _BONE, "bone")
    return hu, organs


def _ellipsoid(
    at: npt.NDArray[np.float64], center: tuple[float, ...], half_axes: tuple[float, ...]
) -> npt.NDArray[np.bool_]:
    return np.asarray((((at - center) / np.array(half_axes)) ** 2).sum(axis=-1) < 1, np.bool_)


def _tube(
    at: npt.NDArray[np.float64], line: tuple[tuple[float, ...], ...]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distance to a polyline, and how far a point lies in front of the nearest point on it, mm."""
    points = np.concatenate([np.linspace(a, b, 60) for a, b in pairwise(line)])
    distance, nearest = spatial.cKDTree(points).query(at)
    return distance, at[..., 1] - points[nearest][..., 1]


def make_bank(folder: Path, cases: int = 3, spacing_mm: float = SPACING_MM) -> Bank:
    """A bank of tiny cases: the last is `test`, the one before it `val` where there are three, the others `train`."""
    splits = ["train"] * max(1, cases - 2) + ["val", "test"]
    with create_or_open_bank(folder, spacing_mm) as writer:
        for k in range(cases):
            writer.add_case(make_case(f"tiny_{k}", seed=k, spacing_mm=spacing_mm, split=splits[k]))
    return open_bank(folder)
