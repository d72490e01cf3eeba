"""Two evaluations of the same samples against each other: read, compared, written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from training.comparison import compare
from training.evaluation.results import read_evaluation, same_settings
from training.report import write_comparison

Log = Callable[[str], None]
_TOLD = ("run", "data", "split", "truth", "predictions")  # of what was evaluated


def compare_folders(a: Path, b: Path, out: Path, log: Log) -> dict[str, Any]:
    """Compare the evaluations in two folders into `out`; the record of `compare`, with what was compared."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    first, second = read_evaluation(a), read_evaluation(b)
    settings = same_settings(first, second)
    record = compare(first.scores, second.scores, first.lesions, second.lesions, settings)
    context = {"a": str(a), "b": str(b)}
    for side, evaluation in (("a", first), ("b", second)):
        context |= {f"{name} of {side}": evaluation.context[name] for name in _TOLD if name in evaluation.context}
    report = write_comparison(out, record, context)
    log(f"wrote {report}")
    return {**record, "context": context}
