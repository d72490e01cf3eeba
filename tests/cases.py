"""Tiny cases and banks for tests: a box of body with an ellipsoid liver and a vessel through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import AIR_HU, Case, build_case
from pipeline.organs import CLASS_IDS

SPACING_MM = 3.0


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


def make_bank(folder: Path, cases: int = 3, spacing_mm: float = SPACING_MM) -> Bank:
    """A bank of tiny cases: the last is `test`, the one before it `val` where there are three, the others `train`."""
    splits = ["train"] * max(1, cases - 2) + ["val", "test"]
    with create_or_open_bank(folder, spacing_mm) as writer:
        for k in range(cases):
            writer.add_case(make_case(f"tiny_{k}", seed=k, spacing_mm=spacing_mm, split=splits[k]))
    return open_bank(folder)
