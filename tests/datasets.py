"""A tiny dataset on disk without bank and generator: noisy soft tissue, a liver ball, bright tumor balls in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import DatasetInfo, create_info, dataset_classes, recipe_digest
from pipeline.manifest import Part, commit_part, sample_id, shard_name
from pipeline.shard import ShardWriter, array_crc32c
from pipeline.store import Location, Store, open_store

Shape = tuple[int, int, int]
Made = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], list[dict[str, Any]]]  # image, label, facts of tumors
Make = Callable[[int, int, Shape], Made]  # of seed, index and shape
LIVER, TUMOR = 1, 2
TISSUE_HU, LIVER_HU, TUMOR_HU, NOISE_HU = 30, 100, 200, 10
# Splits are by case: each case id belongs to one split.
CASES = (("case-a", "train"), ("case-b", "train"), ("case-c", "train"), ("case-d", "val"), ("case-e", "test"))


def make_dataset(
    place: Location | Store,
    samples: int = 10,
    patch_shape: Shape = (16, 16, 16),
    shard_samples: int = 4,
    seed: int = 0,
    organ: str = "liver",
    make: Make | None = None,
) -> Dataset:
    """Write and open a complete dataset; sample i is of case i % 5, so every fifth is `val` and every fifth `test`.

    Samples come from `make` (default `make_sample`) and annotate one organ with its tumors.
    """
    store = open_store(place)
    config = GenerateConfig(
        samples=samples, seed=seed, patch_shape=patch_shape, shard_samples=shard_samples, organs=(organ,)
    )
    shards = -(-samples // shard_samples)
    create_info(store, _info(config, shards))
    for shard in range(shards):
        first = shard * shard_samples
        _write_shard(store, config, shard, range(first, min(first + shard_samples, samples)), make or make_sample)
    compact(store)
    return open_dataset(store)


class Rows:
    """Manifest rows in memory, in place of a file of them."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.rows = table.num_rows

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        return self._table if names is None else self._table.select([name.partition(".")[0] for name in names])

    def row(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
        return found


def with_manifest(dataset: Dataset, manifest: pa.Table) -> Dataset:
    """The dataset with other rows."""
    return dataclasses.replace(dataset, _files=[Rows(manifest)])


def object_file(dataset: Dataset, shard: int, name: str) -> Path:
    """The file of a shard's array `name`."""
    store, key = dataset.object_key(shard, name)
    assert store.folder is not None
    return store.folder / key


def open_files_below(folder: Path) -> list[Path]:
    """The files of a folder that this process has open."""
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("open files are only counted where there is /proc/self/fd")
    return [
        file for file in (handle.resolve() for handle in handles.iterdir()) if file.is_relative_to(folder.resolve())
    ]


def _info(config: GenerateConfig, shards: int) -> DatasetInfo:
    return DatasetInfo(
        config=config,
        config_digest=recipe_digest(config),
        bank="no-bank",
        bank_fingerprint="0" * 64,
        spacing_mm=1.0,
        classes=dataset_classes(config.organs),
        shards=shards,
        software={"phantumor": "tests"},
    )


def _write_shard(store: Store, config: GenerateConfig, shard: int, indices: range, make: Make) -> None:
    attempt = hashlib.sha256(f"{config.seed}/{shard}".encode()).hexdigest()[:8]
    rows = []
    with ShardWriter(store, shard_name(shard, attempt), len(indices), config.patch_shape) as writer:
        for row, index in enumerate(indices):
            image, label, tumors = make(config.seed, index, config.patch_shape)
            ranges = writer.append(writer.encode({"image": image, "label": label}))
            stored = {"shard": shard, "row": row, "image_range": ranges["image"], "label_range": ranges["label"]}
            rows.append(_row(config, index, image, label, tumors) | stored)
        files = writer.finish()
    part = Part(shard, attempt, tuple(files), recipe_digest(config), {"total": 0.0}, "tests", {"phantumor": "tests"})
    assert commit_part(store, part, rows)


def make_sample(seed: int, index: int, shape: Shape) -> Made:
    """Image HU and label, both (X, Y, Z), and the facts of 0 to 2 tumors (every seventh sample has none)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))
    centre = np.array(shape) / 2
    label = np.where(_distance(shape, centre) < 0.48 * min(shape), LIVER, 0).astype(np.uint8)
    image = np.where(label == LIVER, LIVER_HU, TISSUE_HU) + rng.normal(0, NOISE_HU, shape)
    count = 0 if index % 7 == 6 else 1 + index % 2
    balls = [_draw_ball(rng, shape, side) for side in rng.permutation([-1, 1])[:count]]
    for ball in balls:
        label[ball] = TUMOR
        image[ball] += TUMOR_HU - LIVER_HU
    image = image.round().astype(np.int16)
    return image, label, [_tumor_facts(number, ball, image, label) for number, ball in enumerate(balls, 1)]


def _distance(shape: Shape, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return np.sqrt(((grid - centre) ** 2).sum(axis=-1))


def _draw_ball(rng: np.random.Generator, shape: Shape, side: int) -> npt.NDArray[np.bool_]:
    edge = min(shape)
    radius = rng.uniform(0.1, 0.15) * edge
    offset = np.array([side * 0.2, *rng.uniform(-0.12, 0.12, 2)]) * edge  # within the liver, two balls never touch
    return _distance(shape, np.round(np.array(shape) / 2 + offset)) <= radius


def _tumor_facts(
    number: int, ball: npt.NDArray[np.bool_], image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Facts as a manifest row has them, in a patch with 1 mm voxels and voxel (0, 0, 0) at the origin."""
    voxels = np.argwhere(ball)
    volume, mean = float(len(voxels)), float(image[ball].mean())
    parenchyma = float(image[label == LIVER].mean())
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    return {
        "instance": number,
        "organ": "liver",
        "kind": "bright",
        "requested_diameter_mm": (6 * volume / np.pi) ** (1 / 3),
        "requested_contrast_hu": float(TUMOR_HU - LIVER_HU),
        "center_mm": voxels.mean(axis=0).tolist(),
        "diameter_mm": (6 * volume / np.pi) ** (1 / 3),
        "recist_long_mm": float((high - low)[:2].max()),
        "recist_short_mm": float((high - low)[:2].min()),
        "volume_mm3": volume,
        "mean_hu": mean,
        "parenchyma_hu": parenchyma,
        "contrast_hu": mean - parenchyma,
        "bbox_vox": [*low.tolist(), *high.tolist()],
        "vessel_distance_mm": 5.0,
        "surface_distance_mm": 5.0,
    }


def _row(
    config: GenerateConfig,
    index: int,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
    tumors: list[dict[str, Any]],
) -> dict[str, Any]:
    case, split = CASES[index % len(CASES)]
    return {
        "sample_id": sample_id(index),
        "index": index,
        "split": split,
        "case_id": case,
        "organs": list(config.organs),
        "spacing_mm": 1.0,
        "shape_vox": list(image.shape),
        "origin_vox": [0, 0, 0],
        "affine": np.eye(4).ravel().tolist(),
        "n_tumors": len(tumors),
        "tumor_voxels": int(((label > 0) & (label % 2 == 0)).sum()),
        "image_crc32c": array_crc32c(image),
        "label_crc32c": array_crc32c(label),
        "annotated_classes": sorted(dataset_classes(config.organs).values()),
        "series_id": None,
        "time_days": None,
        "generator": "tests",
        "spec": json.dumps({"seed": config.seed, "index": index}),
        "tumors": tumors,
    }
