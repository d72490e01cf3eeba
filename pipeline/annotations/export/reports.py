"""reports/<sample_id>.txt, the text of each report, and reports.jsonl: one line a sample, text and structured form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pipeline.annotations.export.sheet import SAMPLE, Row
from pipeline.annotations.records import SampleAnnotation
from pipeline.files import Replacement, replace_file

TEXTS, LINES = "reports", "reports.jsonl"


class Reports:
    """Writes the reports of all samples."""

    def __init__(self, out: Path) -> None:
        self._texts = out / TEXTS
        self._texts.mkdir()
        self._lines = Replacement(out / LINES)

    def add(self, row: Row, annotation: SampleAnnotation) -> None:
        """Write the report of a sample."""
        replace_file(self._texts / f"{row['sample_id']}.txt", f"{annotation.report.rstrip()}\n".encode())
        document = {
            **{name: row[name] for name in SAMPLE},
            "machine_generated": True,
            "report": annotation.report,
            "findings": [dataclasses.asdict(finding) for finding in annotation.findings],
        }
        self._lines.write(f"{json.dumps(document, ensure_ascii=False)}\n".encode())

    def close(self) -> None:
        """End the file."""
        self._lines.finish()
