"""Tiny datasets that show a liver and a kidney with a tumor each, and annotate one of the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.catalog import Dataset
from pipeline.organs import organ_id, tumor_id
from tests.datasets import Made, Shape, make_dataset

PATCH = (24, 16, 16)
ORGANS = ("liver", "kidney")
_HU = {"liver": (100, 200), "kidney": (-20, -120)}  # of the organ and its tumor, in soft tissue of 30


def make_of(annotated: str, place: Path, samples: int = 12, seed: int = 0) -> Dataset:
    """A dataset whose labels and rows know of one organ; the images show both."""

    def make(seed: int, index: int, shape: Shape) -> Made:
        image, label = show_both(seed, index, shape)
        number, tumor = organ_id(annotated), tumor_id(annotated)
        known = np.where((label == number) | (label == tumor), label, 0).astype(np.uint8)
        return image, known, [_facts(annotated, known == tumor)] if (known == tumor).any() else []

    return make_dataset(place, samples, PATCH, shard_samples=6, seed=seed, organ=annotated, make=make)


def show_both(seed: int, index: int, shape: Shape) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Image HU and label of both organs, on sides that change; every fourth sample has no tumors."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index, 7))))
    image, label = np.full(shape, 30.0), np.zeros(shape, np.uint8)
    for side, organ in zip((0.25, 0.75), rng.permutation(ORGANS).tolist(), strict=True):
        center = np.array(shape) * (side, 0.5, 0.5)
        off = rng.uniform(-0.15, 0.15, 3) * min(shape)
        balls = [(center, 0.34, organ_id(organ))] + [(center + off, 0.17, tumor_id(organ))] * (index % 4 != 3)
        for (at, radius, number), hu in zip(balls, _HU[organ], strict=False):
            inside = _distance(shape, at) < radius * min(shape)
            label[inside], image[inside] = number, hu
    return (image + rng.normal(0, 10, shape)).round().astype(np.int16), label


def _distance(shape: Shape, center: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    distance: npt.NDArray[np.float64] = np.linalg.norm(np.indices(shape).transpose(1, 2, 3, 0) - center, axis=-1)
    return distance


def _facts(organ: str, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """What a manifest row says of a tumor, as far as annotations need it."""
    voxels = np.argwhere(mask)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    return {
        "instance": 1,
        "organ": organ,
        "kind": "made up",
        "center_mm": voxels.mean(axis=0).tolist(),
        "diameter_mm": (6 * len(voxels) / np.pi) ** (1 / 3),
        "volume_mm3": float(len(voxels)),
        "contrast_hu": float(_HU[organ][1] - _HU[organ][0]),
        "bbox_vox": [*low.tolist(), *high.tolist()],
    }
