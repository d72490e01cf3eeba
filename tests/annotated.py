"""Cases with painted tumors, as if a radiologist had outlined them, and banks of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import Case, build_case
from pipeline.organs import CLASS_IDS
from tests.cases import SPACING_MM, make_case
from tests.ct_files import ball

LIVER, TUMOR = CLASS_IDS["liver"], CLASS_IDS["liver_tumor"]
TUMOR_HU = 60
# Centre and radius in voxels, far enough apart for a small patch to miss them all.
LESIONS = (((22, 26, 22), 4.2), ((40, 30, 22), 2.0), ((30, 20, 30), 1.0))


def make_annotated_case(case_id: str = "real", seed: int = 5, split: str = "train", tumors: bool = True) -> Case:
    """A tiny case whose liver of 110 HU has three dark tumors of SD 12, or none."""
    healthy = make_case(case_id, seed)
    ct, organs = healthy.ct.copy(), healthy.organs.copy()
    for center, radius in LESIONS if tumors else ():
        inside = ball(ct.shape, center, radius)  # type: ignore[arg-type]
        assert (organs[inside] == LIVER).all(), "the lesion must lie in the liver"
        organs[inside] = TUMOR
        ct[inside] += np.int16(TUMOR_HU - 110)
    return build_case(case_id, ct, organs, healthy.affine, SPACING_MM, split=split, annotated=[TUMOR])


def make_annotated_bank(folder: Path, *, healthy: int = 0) -> Bank:
    """A bank of one annotated case and of healthy ones, all in `train`."""
    with create_or_open_bank(folder, SPACING_MM) as writer:
        writer.add_case(make_annotated_case())
        for k in range(healthy):
            writer.add_case(make_case(f"tiny_{k}", seed=k))
    return open_bank(folder)
