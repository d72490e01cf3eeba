"""Reading the records of an evaluation back from its folder, to compare two of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from training.records import CaseScore, LesionRecord, ScoreSettings

CASES, LESIONS, METRICS = "cases.parquet", "lesions.parquet", "metrics.json"
_AGAIN = "Run `phantumor evaluate` into that folder again"
_T = TypeVar("_T", CaseScore, LesionRecord)


@dataclass(frozen=True)
class Evaluation:
    """What `phantumor evaluate` wrote."""

    folder: Path
    scores: list[CaseScore]
    lesions: list[LesionRecord]
    settings: dict[str, Any]
    context: dict[str, str]


def is_evaluation(path: Path) -> bool:
    """Whether a path is the folder of an evaluation, not a run; InputError when there is nothing."""
    if not path.exists():
        raise InputError(f"{path}: no such run or folder of an evaluation")
    return (path / CASES).is_file()


def read_evaluation(folder: Path) -> Evaluation:
    """InputError for files that are damaged or of another version."""
    metrics = folder / METRICS
    try:
        document = json.loads(metrics.read_text())
        settings, context = dict(document["settings"]), dict(document["context"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{metrics}: not the metrics of this version ({error!r}). {_AGAIN}") from error
    scores, lesions = _records(folder / CASES, CaseScore), _records(folder / LESIONS, LesionRecord)
    return Evaluation(folder, scores, lesions, settings, context)


def same_settings(a: Evaluation, b: Evaluation) -> ScoreSettings:
    """The settings of both; InputError when they are not the same, or another version's."""
    differing = [name for name in sorted({*a.settings, *b.settings}) if a.settings.get(name) != b.settings.get(name)]
    if differing:
        found = ", ".join(f"{name} {a.settings.get(name)} and {b.settings.get(name)}" for name in differing)
        raise InputError(f"{a.folder} and {b.folder} were scored with other settings: {found}. Evaluate both alike")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in a.settings.items()
    }
    unknown = sorted({field.name for field in fields(ScoreSettings)} ^ set(values))
    if unknown:
        raise InputError(f"{a.folder}: its settings differ from this version's in {', '.join(unknown)}. {_AGAIN}")
    return ScoreSettings(**values)


def _records(file: Path, kind: type[_T]) -> list[_T]:
    try:
        with pq.ParquetFile(file) as opened:
            table = opened.read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{file}: not readable as Parquet ({error}). {_AGAIN}") from error
    expected = {field.name for field in fields(kind)}
    if set(table.column_names) != expected:
        differing = ", ".join(sorted(expected ^ set(table.column_names))[:8])
        raise InputError(f"{file}: written by another version, its columns differ in {differing}. {_AGAIN}")
    return [kind(**row) for row in table.to_pylist()]
