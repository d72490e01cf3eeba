"""Which steps of an experiment are done: a step that ended well leaves a note below `done/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.experiments.plan import Step
from pipeline.files import replace_file

DONE = "done"


class Ledger:
    """Which steps are done; the notes also tell how long they took."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def is_done(self, step: Step) -> bool:
        """Whether the same command ended well and what it made is there."""
        note = self._read(step)
        return note is not None and note["command"] == self._command(step) and step.product.exists()

    def add(self, step: Step, seconds: float) -> None:
        """Note that a step ended well."""
        note = {"command": self._command(step), "seconds": round(seconds, 1)}
        file = self._file(step)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(note, indent=1).encode())

    def forget(self, step: Step) -> None:
        """Remove the note of a step that is to run again."""
        self._file(step).unlink(missing_ok=True)

    def _file(self, step: Step) -> Path:
        return self._out / DONE / f"{step.name.replace(' ', '-')}.json"

    def _read(self, step: Step) -> dict[str, object] | None:
        try:
            return dict(json.loads(self._file(step).read_text()))
        except (OSError, ValueError):
            return None

    def _command(self, step: Step) -> list[str]:
        """Without the experiment's own place, so that it may be moved."""
        return [word.replace(str(self._out), "OUT") for word in step.words]


def missing(steps: Sequence[Step], ledger: Ledger) -> list[Step]:
    """The steps that are not done, and those that need one of them."""
    names: set[str] = set()
    for step in steps:
        if names & set(step.needs) or not ledger.is_done(step):
            names.add(step.name)
    return [step for step in steps if step.name in names]
