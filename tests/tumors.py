"""Hand-made specs, windows and a case without noise, for tests of synthesis."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from pipeline.case import Case, build_case
from pipeline.grid import Index3
from pipeline.organs import CLASS_IDS
from pipeline.spec.records import SampleSpec, TumorSpec
from pipeline.synthesis.engines.ellipsoid import EllipsoidForm
from pipeline.synthesis.window import Window
from tests.cases import make_abdomen, make_case

CPU = torch.device("cpu")
STRAIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
BLOCK_HU, MARGIN = 100, 4


@cache
def tiny() -> Case:
    return make_case()


@cache
def abdomen(seed: int = 0) -> Case:
    return make_abdomen(f"abdomen_{seed}", seed)


@cache
def block(n: int = 44, spacing_mm: float = 3.0) -> Case:
    """A cube of liver at exactly BLOCK_HU in fat, MARGIN voxels from the border; no noise, no vessels."""
    inside = np.zeros((n, n, n), bool)
    inside[(slice(MARGIN, -MARGIN),) * 3] = True
    hu = np.where(inside, BLOCK_HU, -90).astype(np.int16)
    organs = np.where(inside, CLASS_IDS["liver"], 0).astype(np.uint8)
    return build_case("block", hu, organs, np.diag([spacing_mm] * 3 + [1.0]), spacing_mm, allow_implausible=True)


def ellipsoid(*half_axes_mm: float, **changes: Any) -> EllipsoidForm:
    return EllipsoidForm.model_validate({"half_axes_mm": half_axes_mm, "rotation": STRAIGHT} | changes)


def tumor(**changes: Any) -> TumorSpec:
    """A plain ball of 30 mm near the middle of `tiny`; with another `diameter_mm`, a ball of that."""
    radius = changes.get("diameter_mm", 30.0) / 2
    plain = {
        "instance": 1,
        "organ": "liver",
        "kind": "metastasis",
        "center_vox": (30.2, 26.1, 21.7),
        "diameter_mm": 30.0,
        "form": ellipsoid(radius, radius, radius),
        "edge_mm": 2.0,
        "contrast_hu": -50.0,
        "key": 7,
    }
    return TumorSpec.model_validate(plain | changes)


def sample(
    *tumors: TumorSpec,
    origin: tuple[int, ...] = (8, 6, 6),
    patch: tuple[int, ...] = (44, 40, 32),
    organs: tuple[str, ...] = ("liver",),
    distractors: tuple[TumorSpec, ...] = (),
) -> SampleSpec:
    return SampleSpec.model_validate(
        {
            "index": 0,
            "seed": 0,
            "split": "train",
            "case_id": "tiny",
            "origin_vox": origin,
            "patch_shape": patch,
            "organs": organs,
            "tumors": tumors,
            "distractors": distractors,
        }
    )


def whole(case: Case, *tumors: TumorSpec, **changes: Any) -> SampleSpec:
    """A sample that shows all of a case."""
    return sample(*tumors, origin=(0, 0, 0), patch=case.ct.shape, **changes)


def window(case: Case, corner: Index3 = (0, 0, 0), size: Index3 | None = None) -> Window:
    """One box of a case, all of it unless told."""
    shape: Any = case.ct.shape
    return Window((case,), np.array([corner], np.int64), size or shape, CPU)
