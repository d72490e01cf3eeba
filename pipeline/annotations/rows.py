"""Annotations as rows of a Parquet file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.annotations.findings import Finding
from pipeline.annotations.records import SampleAnnotation, TumorAnnotation

SCHEMA_VERSION = 1
VERSION_KEY = b"phantumor.annotations_version"
_VOXEL, _BOX = pa.list_(pa.int32(), 3), pa.list_(pa.int32(), 6)
_TUMOR = pa.struct(
    [
        ("instance", pa.int32()),
        ("organ", pa.string()),
        ("class_id", pa.uint8()),
        ("box_vox", _BOX),
        ("point_vox", _VOXEL),
        ("long_axis_vox", _BOX),
        ("short_axis_vox", _BOX),
        ("long_mm", pa.float64()),
        ("short_mm", pa.float64()),
        ("height_mm", pa.float64()),
        ("volume_mm3", pa.float64()),
    ]
)
_FINDING = pa.struct(
    [
        ("organ", pa.string()),
        ("region", pa.string()),
        ("count", pa.int32()),
        ("diameters_mm", pa.list_(pa.float64())),
        ("attenuation", pa.string()),
        ("margin", pa.string()),
        ("phase", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("sample_id", pa.string()),
        ("label_crc32c", pa.uint32()),  # of the label that this was derived from, as in the manifest
        ("tags", pa.list_(pa.struct([("organ", pa.string()), ("tumor", pa.bool_())]))),
        ("tumors", pa.list_(_TUMOR)),
        ("scribbles", pa.list_(pa.struct([("class_id", pa.uint8()), ("voxels", pa.list_(pa.int32()))]))),
        ("findings", pa.list_(_FINDING)),
        ("report", pa.string()),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)


def row_of(annotation: SampleAnnotation, label_crc32c: int) -> dict[str, Any]:
    """The row of a sample's annotations."""
    return {
        "index": annotation.index,
        "sample_id": annotation.sample_id,
        "label_crc32c": label_crc32c,
        "tags": [{"organ": organ, "tumor": shown} for organ, shown in annotation.tags.items()],
        "tumors": [asdict(tumor) for tumor in annotation.tumors],
        "scribbles": [{"class_id": c, "voxels": voxels} for c, voxels in annotation.scribbles.items()],
        "findings": [asdict(finding) for finding in annotation.findings],
        "report": annotation.report,
    }


def annotation_of(row: Mapping[str, Any]) -> SampleAnnotation:
    """The annotations in a row; ValueError, TypeError or KeyError where they make no sense."""
    return SampleAnnotation(
        index=row["index"],
        sample_id=row["sample_id"],
        tags={tag["organ"]: tag["tumor"] for tag in row["tags"]},
        tumors=tuple(TumorAnnotation(**_with_tuples(tumor)) for tumor in row["tumors"]),
        scribbles={drawn["class_id"]: np.array(drawn["voxels"], np.int32) for drawn in row["scribbles"]},
        findings=tuple(Finding(**_with_tuples(finding)) for finding in row["findings"]),
        report=row["report"],
    )


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
