"""Scribbles as a raw dataset folder of nnU-Net v2: what no stroke says is its `ignore` label, the highest of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import nnunet
from pipeline.annotations.records import IntArray, SampleAnnotation
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.files import replace_file
from pipeline.sample_files import source_of, write_samples

FOLDER = "Dataset501_Scribbles"


def write_scribbles(
    dataset: Dataset, rows: pa.Table, annotation_of: Callable[[int], SampleAnnotation], out: Path, remedy: str
) -> None:
    """Write image and scribbles of each row below `out`; `remedy` ends the message of a full disk."""
    folder = out / FOLDER
    for name in nnunet.FOLDERS:
        (folder / name).mkdir(parents=True)
    classes = dataset.info.classes

    def scribbled(row: Mapping[str, Any], label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return _painted(
            annotation_of(row["index"]).scribbles, label.shape, classes, f"{dataset.path}: sample {row['index']}"
        )

    write_samples(dataset, rows, folder, nnunet.files, scribbled, remedy)
    samples = list(zip(rows["sample_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    documents = nnunet.documents(classes, samples, ignore=True)
    documents[nnunet.DATASET] |= {"source": source_of(dataset)}
    for name, document in documents.items():
        replace_file(folder / name, f"{json.dumps(document, indent=1)}\n".encode())


def _painted(
    scribbles: Mapping[int, IntArray], shape: tuple[int, ...], classes: Mapping[str, int], where: str
) -> npt.NDArray[np.uint8]:
    """The label image (X, Y, Z) of strokes given as flat C-order voxel indices by class id."""
    ids = nnunet.class_ids(classes)
    label = np.full(shape, nnunet.ignore_id(classes), np.uint8)
    for number, voxels in scribbles.items():
        if number not in ids or (voxels.size and not 0 <= voxels.min() <= voxels.max() < label.size):
            raise InputError(
                f"{where}: its scribbles of class {number} do not fit {'x'.join(map(str, shape))} voxels and "
                f"the classes {sorted(ids)}. Remove annotations.parquet and run `phantumor annotate` again"
            )
        label.reshape(-1)[voxels] = ids[number]
    return label
