"""boxes.json: 3D boxes of tumors in the manner of COCO, with a third axis and places in RAS mm.

    {"info": {...},
     "categories": [{"id": 2, "name": "liver_tumor", "supercategory": "liver"}],
     "images": [{"id": 0, "file_name": "s000000000/image.nii.gz", "width": 96, "height": 96, "depth": 96, ...}],
     "annotations": [{"id": 1, "image_id": 0, "category_id": 2, "bbox": [40, 38, 51, 12, 14, 11], ...}]}

`bbox` is the first voxel (x, y, z) and the extent along each axis, in voxels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.annotations.export.sheet import SAMPLE, Row, affine_of, one_by_one, place_mm, rounded
from pipeline.annotations.records import SampleAnnotation, TumorAnnotation
from pipeline.files import Replacement
from pipeline.organs import CLASS_NAMES, is_tumor

BOXES = "boxes.json"
_INFO = {
    "description": "boxes of tumors, derived from the masks of synthetic or annotated CT samples by phantumor",
    "version": 1,
    "bbox": "[x, y, z, extent along x, along y, along z] in voxels, the first voxel and how many there are",
    "axes": "x, y, z are the array axes of the image file, which run closest to right, anterior, superior",
    "mm": "RAS; affine (4 x 4, by rows) takes a voxel's index to its centre; size_mm is along the array axes",
    "images": "file_name is that of `phantumor export --format nifti`",
}


class Boxes:
    """Writes boxes.json: what is known of all samples at once, their tumors one by one."""

    def __init__(self, out: Path, classes: Mapping[str, int], rows: pa.Table) -> None:
        self._tumors = sorted(number for number in classes.values() if is_tumor(number))
        self._written = 0
        self._file = Replacement(out / BOXES)
        categories = [_category(number) for number in self._tumors]
        self._file.write(f'{{"info": {json.dumps(_INFO)},\n "categories": {json.dumps(categories)},\n'.encode())
        self._file.write(b' "images": [')
        for k, row in enumerate(one_by_one(rows)):
            self._entry(k, self._image(row))
        self._file.write(b'],\n "annotations": [')

    def add(self, row: Row, annotation: SampleAnnotation) -> None:
        """Write the boxes of a sample's tumors."""
        for tumor in annotation.tumors:
            self._entry(self._written, _box(self._written + 1, row, tumor))
            self._written += 1

    def close(self) -> None:
        """End the file."""
        self._file.write(b"]}\n")
        self._file.finish()

    def _entry(self, number: int, entry: Mapping[str, Any]) -> None:
        self._file.write(f"{',' if number else ''}\n  {json.dumps(entry)}".encode())

    def _image(self, row: Row) -> dict[str, Any]:
        width, height, depth = row["shape_vox"]
        annotated = set(row["annotated_classes"])
        return {
            "id": row["index"],
            "file_name": f"{row['sample_id']}/image.nii.gz",
            "width": width,
            "height": height,
            "depth": depth,
            **{name: row[name] for name in SAMPLE},
            "affine": affine_of(row).tolist(),
            "annotated_category_ids": [number for number in self._tumors if number in annotated],
        }


def _category(number: int) -> dict[str, Any]:
    return {"id": number, "name": CLASS_NAMES[number], "supercategory": CLASS_NAMES[number - 1]}


def _box(number: int, row: Row, tumor: TumorAnnotation) -> dict[str, Any]:
    low, high = tumor.box_vox[:3], tumor.box_vox[3:]
    extent = [b - a for a, b in zip(low, high, strict=True)]
    affine = affine_of(row)
    sizes_mm = [float(sum(a * a for a in axis)) ** 0.5 for axis in affine[:3, :3].T.tolist()]
    return {
        "id": number,
        "image_id": row["index"],
        "category_id": tumor.class_id,
        "instance": tumor.instance,
        "bbox": [*low, *extent],
        "center_mm": place_mm(affine, [(a + b - 1) / 2 for a, b in zip(low, high, strict=True)]),
        "size_mm": [rounded(n * mm) for n, mm in zip(extent, sizes_mm, strict=True)],
        "iscrowd": 0,
    }
