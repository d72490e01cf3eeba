"""What all files of annotations have in common: one entry a sample or a tumor, places in voxels and in RAS mm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.annotations.records import SampleAnnotation

Row = Mapping[str, Any]  # of the manifest: sample_id, index, split, case_id, shape_vox, affine, annotated_classes
SAMPLE = ("sample_id", "index", "split", "case_id")  # what every entry tells of its sample
MM_DECIMALS = 3  # a micrometre
_BATCH = 4096  # rows


class Sheet(Protocol):
    """A file, or a folder of them, that takes the samples one by one."""

    def add(self, row: Row, annotation: SampleAnnotation) -> None:
        """Write what is said of a sample."""

    def close(self) -> None:
        """End the file."""


def one_by_one(rows: pa.Table) -> Iterator[Row]:
    """The rows as Python objects, a few at a time."""
    for batch in rows.to_batches(_BATCH):
        yield from batch.to_pylist()


def affine_of(row: Row) -> npt.NDArray[np.float64]:
    """(4, 4), from a voxel's index to the RAS mm of its centre."""
    return np.array(row["affine"], np.float64).reshape(4, 4)


def place_mm(affine: npt.NDArray[np.float64], voxel: Sequence[float]) -> list[float]:
    """RAS mm of a place given in voxels; that of a voxel is its centre."""
    return [rounded(value) for value in (affine[:3, :3] @ np.asarray(voxel, np.float64) + affine[:3, 3]).tolist()]


def rounded(length_mm: float) -> float:
    """A length or place as it is written."""
    return round(length_mm, MM_DECIMALS) + 0.0  # no -0.0
