"""Facts of true tumors: from a manifest row, and measured in a real case's CT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.image import Volume
from tests.datasets import make_dataset
from training.evaluation.facts import facts_of_case, facts_of_row, texture_name

LIVER, TUMOR, KIDNEY = 1, 2, 5


def test_a_row_tells_kind_contrast_and_where_the_center_lies(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=4)
    row = dict(dataset.row(3))
    turned = np.diag([-1.0, 2.0, 1.0, 1.0])
    turned[:3, 3] = (5, -7, 11)
    centers = [turned[:3, :3] @ tumor["center_mm"] + turned[:3, 3] for tumor in row["tumors"]]
    moved = [{**tumor, "center_mm": list(center)} for tumor, center in zip(row["tumors"], centers, strict=True)]
    second = row["tumors"][1]
    drawn = {"diameter_mm": second["requested_diameter_mm"], "contrast_hu": second["requested_contrast_hu"]}
    spec = {"tumors": [{"organ": "liver", "kind": "bright", **drawn, "texture_sd_hu": 9.0, "texture_grain_mm": 4.0}]}
    facts = facts_of_row({**row, "affine": turned.ravel().tolist(), "tumors": moved, "spec": json.dumps(spec)})
    assert [(fact.instance, fact.class_id, fact.kind) for fact in facts] == [(1, TUMOR, "bright"), (2, TUMOR, "bright")]
    assert [fact.texture for fact in facts] == [None, "fine (grain < 6 mm)"]
    label = dataset.sample(3).label
    for fact, tumor in zip(facts, row["tumors"], strict=True):
        assert fact.center_vox == pytest.approx(tumor["center_mm"])  # the dataset's own affine is the identity
        assert label[tuple(round(at) for at in fact.center_vox)] == TUMOR
        assert fact.contrast_hu == tumor["contrast_hu"]


@pytest.mark.parametrize(
    ("sd_hu", "grain_mm", "name"),
    [
        (0.0, 4.0, "homogeneous (SD < 3 HU)"),
        (2.99, 12.0, "homogeneous (SD < 3 HU)"),
        (3.0, 5.9, "fine (grain < 6 mm)"),
        (20.0, 6.0, "coarse (grain >= 6 mm)"),
        (None, 6.0, None),
    ],
)
def test_textures_have_names(sd_hu: float | None, grain_mm: float, name: str | None) -> None:
    assert texture_name({"texture_sd_hu": sd_hu, "texture_grain_mm": grain_mm}) == name


def scan(tumors: dict[tuple[int, int, int], int], liver_hu: int = 100) -> tuple[Volume, Any]:
    """A liver of 60 x 60 x 40 mm in voxels of 1 x 1 x 2 mm, with cubes of 8 mm at corners, at their HU."""
    hu = np.full((70, 70, 30), -1000, np.int16)
    truth = np.zeros(hu.shape, np.uint8)
    hu[5:65, 5:65, 5:25], truth[5:65, 5:65, 5:25] = liver_hu, LIVER
    for (x, y, z), value in tumors.items():
        hu[x : x + 8, y : y + 8, z : z + 4], truth[x : x + 8, y : y + 8, z : z + 4] = value, TUMOR
    return Volume(hu, np.diag([1.0, 1.0, 2.0, 1.0])), truth


def test_contrast_of_a_real_tumor_is_to_the_organ_around_it() -> None:
    ct, truth = scan({(20, 20, 10): 40, (50, 20, 10): 160})
    ct.data[:, 40:] -= 500  # more than 10 mm away
    ct.data[19, 20:28, 10:14] = 900  # within 2 mm: the soft edge
    facts = facts_of_case(ct, truth, 26)
    assert [(fact.instance, fact.class_id, fact.kind, fact.texture) for fact in facts] == [
        (1, TUMOR, None, None),
        (2, TUMOR, None, None),
    ]
    assert [fact.contrast_hu for fact in facts] == [-60, 60]
    assert facts[0].center_vox == (23.5, 23.5, 11.5)


def test_the_soft_edge_of_a_neighbour_is_no_parenchyma() -> None:
    ct, truth = scan({(20, 20, 10): 40, (32, 20, 10): 160})
    ct.data[31, 20:28, 10:14] = 900
    assert [fact.contrast_hu for fact in facts_of_case(ct, truth, 26)] == [-60, 60]


def test_where_no_organ_is_near_all_of_it_counts_and_without_one_nothing_is_known() -> None:
    ct, truth = scan({(20, 20, 10): 40})
    truth[5:40, 5:40] = np.where(truth[5:40, 5:40] == LIVER, 0, truth[5:40, 5:40])
    ct.data[5:40, 5:40][truth[5:40, 5:40] == 0] = 700
    assert [fact.contrast_hu for fact in facts_of_case(ct, truth, 26)] == [-60]
    truth[truth == LIVER] = 0
    assert [fact.contrast_hu for fact in facts_of_case(ct, truth, 26)] == [None]
    truth[truth == TUMOR] = KIDNEY
    assert facts_of_case(ct, truth, 26) == []


def test_connectivity_decides_what_is_one_tumor() -> None:
    ct, truth = scan({(20, 20, 10): 40, (28, 28, 14): 40})  # they share a corner
    assert [len(facts_of_case(ct, truth, connectivity)) for connectivity in (6, 18, 26)] == [2, 2, 1]
