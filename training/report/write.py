"""Writing a report folder: `metrics.json`, `cases.parquet`, `lesions.parquet`, `report.html`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import replace_file, writing_to
from training.report.examples import Example, picture
from training.report.page import page
from training.scoring import CaseScore, LesionRecord

_RESUME = "Free the space or choose another --out, then run the same command again"
_ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def write_report(
    out: Path,
    metrics: Mapping[str, Any],
    scores: Sequence[CaseScore],
    lesions: Sequence[LesionRecord],
    examples: Sequence[Example],
    context: Mapping[str, str],
) -> Path:
    """Write the four files into the folder `out` and return the path of `report.html`, which is written last.

    `metrics` is what `training.summary.aggregate` gave for these scores and lesions; `context` says what was
    evaluated (run, dataset, versions, config digest) and is stored with the metrics. Each file is replaced in one step.
    """
    pictures = [(f"{example.caption}. Sample {example.case_id}.", picture(example)) for example in examples]
    html = page(metrics, scores, lesions, pictures, context)
    report = out / "report.html"
    with writing_to(out, _RESUME):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "metrics.json", _json_bytes({**metrics, "context": dict(context)}))
        replace_file(out / "cases.parquet", _parquet_bytes(CaseScore, scores))
        replace_file(out / "lesions.parquet", _parquet_bytes(LesionRecord, lesions))
        replace_file(report, html.encode())
    return report


def _json_bytes(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _parquet_bytes(kind: type, rows: Sequence[Any]) -> bytes:
    """A table with one column for each field of the record type, also when there are no rows."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema(kind))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _schema(kind: type) -> pa.Schema:
    hints = get_type_hints(kind)
    return pa.schema([(field.name, _arrow_type(hints[field.name])) for field in fields(kind)])


def _arrow_type(hint: Any) -> pa.DataType:
    """`float` and `float | None` are both a nullable float64 column."""
    options = [option for option in getattr(hint, "__args__", (hint,)) if option is not type(None)]
    return _ARROW[options[0]]
