"""Writing a report folder: the figures as JSON, `report.md`, `report.html`; of an evaluation its records as Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import replace_file, writing_to
from training.records import CaseScore, LesionRecord
from training.report.comparison import comparison
from training.report.examples import Example, picture
from training.report.markdown_page import markdown_page
from training.report.opening import opening
from training.report.page import CLOSING, evaluation
from training.report.sections import html_page
from training.report.verdict import comparison_opening

_RESUME = "Free the space or choose another --out, then run the same command again"
_ARROW = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def write_report(
    out: Path,
    metrics: Mapping[str, Any],
    scores: Sequence[CaseScore],
    lesions: Sequence[LesionRecord],
    examples: Iterable[Example],
    context: Mapping[str, str],
) -> Path:
    """Write the five files into the folder `out` and return the path of `report.html`, which is written last.

    `metrics` is what `training.summary.aggregate` gave for these scores and lesions; `context` says what was
    evaluated (run, dataset, versions, config digest) and is stored with the metrics. Examples are drawn one after
    another, so a generator holds one in memory at a time. Each file is replaced in one step.
    """
    pictures = [picture(example) for example in examples]
    sections, top = evaluation(metrics, scores, lesions, pictures, context), opening(metrics)
    report = out / "report.html"
    with writing_to(out, _RESUME):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "metrics.json", _json_bytes({**metrics, "context": dict(context)}))
        replace_file(out / "cases.parquet", _parquet_bytes(CaseScore, scores))
        replace_file(out / "lesions.parquet", _parquet_bytes(LesionRecord, lesions))
        replace_file(out / "report.md", markdown_page(top, sections, CLOSING).encode())
        replace_file(report, html_page(top, sections, CLOSING).encode())
    return report


def write_comparison(out: Path, record: Mapping[str, Any], context: Mapping[str, str]) -> Path:
    """Write comparison.json, report.md and, last, report.html into the folder `out`; the path of the latter.

    `record` is what `training.comparison.compare` gave; `context` says what a and b are and is stored with it.
    """
    sections, top = comparison(record, context), comparison_opening(record)
    report = out / "report.html"
    with writing_to(out, _RESUME):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "comparison.json", _json_bytes({**record, "context": dict(context)}))
        replace_file(out / "report.md", markdown_page(top, sections, CLOSING).encode())
        replace_file(report, html_page(top, sections, CLOSING).encode())
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
