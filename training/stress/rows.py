"""Every tumor as a row of `tumors.parquet`. In: the steps of the suites, with their outcomes. Out: Parquet bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.case import Case
from training.stress.edit import depth_of
from training.stress.score import Outcome
from training.stress.suites import Step, Variant

SCHEMA = pa.schema(
    [
        ("suite", pa.string()),
        ("k", pa.int8()),
        ("value", pa.float64()),  # of the suite's factor
        ("clipped", pa.bool_()),
        ("sample", pa.int32()),  # the same sample at every level of a suite
        ("case_id", pa.string()),
        ("split", pa.string()),
        ("organ", pa.string()),
        ("kind", pa.string()),
        ("requested_diameter_mm", pa.float64()),
        ("requested_contrast_hu", pa.float64()),
        ("depth_mm", pa.float64()),  # of the centre below the organ's surface
        ("texture_sd_hu", pa.float64()),
        ("noise_sd_hu", pa.float64()),  # added
        ("thickness_mm", pa.float64()),  # null: the grid's
        ("truth_voxels", pa.int64()),
        ("diameter_mm", pa.float64()),  # measured, as the next one
        ("contrast_hu", pa.float64()),
        ("found", pa.bool_()),
        ("covered", pa.bool_()),
        ("dice", pa.float64()),
        ("false_tumors", pa.int32()),
        ("false_ml", pa.float64()),
        ("predicted_ml", pa.float64()),
        ("spec", pa.string()),  # JSON: with the bank, the sample before noise and thick slices
    ]
)


def tumor_rows(
    suite: str, steps: Sequence[Step], outcomes: Mapping[Variant, Outcome], cases: Mapping[str, Case]
) -> Iterator[dict[str, Any]]:
    """The rows of one suite, by level and sample."""
    for step in steps:
        for number, (level, variant) in enumerate(zip(step.levels, step.variants, strict=True)):
            own = {"suite": suite, "k": step.k, "value": level.value, "clipped": level.clipped, "sample": number}
            spec = variant.spec
            yield own | _of_variant(variant, cases[spec.case_id]) | asdict(outcomes[variant])


def _of_variant(variant: Variant, case: Case) -> dict[str, Any]:
    spec, tumor = variant.spec, variant.spec.tumors[0]
    return {
        "case_id": spec.case_id,
        "split": spec.split,
        "organ": tumor.organ,
        "kind": tumor.kind,
        "requested_diameter_mm": tumor.diameter_mm,
        "requested_contrast_hu": tumor.contrast_hu,
        "depth_mm": depth_of(tumor, case),
        "texture_sd_hu": tumor.texture_sd_hu,
        "noise_sd_hu": variant.noise_sd_hu,
        "thickness_mm": variant.thickness_mm,
        "spec": spec.model_dump_json(),
    }


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The table of all rows."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()
