"""What a training tells of itself: `metrics.jsonl` always, TensorBoard when asked, and the curve as a picture."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import replace_file, writing_to
from training.checkpoint import RESUME
from training.curve import write_curve

METRICS, CURVE, TENSORBOARD = "metrics.jsonl", "curve.png", "tensorboard"
_CURVE_EVERY_S = 60.0
Record = dict[str, Any]
Show = Callable[[Record], None]


class Journal:
    """Of one run, from one process. Lines for people go to `log`, records to `show`."""

    def __init__(self, run: Path, log: Callable[[str], None], show: Show, tensorboard: bool) -> None:
        self.say, self._show, self._run = log, show, run
        self._tensorboard = _summary_writer() if tensorboard else None
        self._writer: Any = None
        self._drawn = time.monotonic()

    def open(self, step: int) -> list[Record]:
        """Begin to write after `step`; what the run has told so far."""
        if self._tensorboard is not None:
            self._writer = self._tensorboard(str(self._run / TENSORBOARD), purge_step=step + 1)
        with self._writing():
            return trim_metrics(self._run, step)

    def add(self, record: Record) -> None:
        """Keep a record and show it."""
        with self._writing(), (self._run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer is not None:
            for name, value in _scalars(record):
                self._writer.add_scalar(name, value, record["step"])
        self._show(record)
        if "val" in record and time.monotonic() - self._drawn > _CURVE_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Write the curve so far."""
        with self._writing():
            write_curve(read_metrics(self._run), self._run / CURVE)
        self._drawn = time.monotonic()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing_to(self._run, RESUME)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class SilentJournal(Journal):
    """Of the processes beside the first: they tell nothing."""

    def __init__(self, run: Path) -> None:
        super().__init__(run, lambda _: None, lambda _: None, tensorboard=False)

    def open(self, step: int) -> list[Record]:
        return [record for record in read_metrics(self._run) if record["step"] <= step]

    def add(self, record: Record) -> None:
        pass

    def draw(self) -> None:
        pass


def _summary_writer() -> Callable[..., Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard is set but not installed: pip install 'phantumor[tensorboard]', or leave it out "
            f"({METRICS} and {CURVE} are always written)"
        ) from error
    writer: Callable[..., Any] = SummaryWriter
    return writer


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            yield prefix + name, value


def read_metrics(run: Path) -> list[Record]:
    """The records of `metrics.jsonl`, without a last line that a crash cut."""
    file = run / METRICS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [record for line in lines if (record := _record(line)) is not None]


def trim_metrics(run: Path, step: int) -> list[Record]:
    """Drop the records after `step`, which a resumed run writes again, and a line that a crash cut; what is left."""
    kept = [record for record in read_metrics(run) if record["step"] <= step]
    replace_file(run / METRICS, "".join(f"{json.dumps(record)}\n" for record in kept).encode())
    return kept


def _record(line: str) -> Record | None:
    try:
        record = json.loads(line)
        float(record["step"])
    except (ValueError, KeyError, TypeError):
        return None
    return dict(record)
