"""A training on a terminal: one block that is rewritten, under the lines that stay. Plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.progress import duration
from training.clock import metrics_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class View:
    """Shows the newest record of a training and its newest validation."""

    def __init__(self, steps: int, say: Callable[[str], None], draw: Callable[[Table], None] | None) -> None:
        self.say, self._steps, self._draw = say, steps, draw
        self._validation: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None

    def show(self, record: dict[str, Any]) -> None:
        """A record of `metrics.jsonl`, of steps or of a validation."""
        if "val" in record:
            self._validation = record
        else:
            self._last = record
            if self._draw is None:
                self.say(metrics_line(record, self._steps))
        if self._draw is not None and self._last is not None:
            self._draw(block(self._last, self._validation, self._steps))


@contextlib.contextmanager
def open_view(steps: int, say: Callable[[str], None], console: Console | None = None) -> Iterator[View]:
    """A view of a training of `steps` steps on the terminal, if standard output is one; else lines go to `say`."""
    from rich.console import Console
    from rich.live import Live

    console = console or Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield View(steps, say, None)
        return
    with Live(console=console, auto_refresh=False) as live:
        # Markup is off: a line may hold [brackets] of a user's paths.
        yield View(
            steps,
            lambda line: console.print(line, markup=False, highlight=False),
            lambda table: live.update(table, refresh=True),
        )


def block(record: dict[str, Any], validation: dict[str, Any] | None, steps: int) -> Table:
    """The figures of a training as a small table."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows(record, validation, steps):
        table.add_row(name, value)
    return table


def rows(record: dict[str, Any], validation: dict[str, Any] | None, steps: int) -> list[tuple[str, str]]:
    """Names and values of a training's figures."""
    gpu = f", GPU {record['gpu_mb']:.0f} MB" if "gpu_mb" in record else ""
    found = [
        ("step", f"{record['step']}/{steps}, {duration(record['eta_s'])} left"),
        ("loss", f"{record['loss']:.4f} at a learning rate of {record['lr']:.2e}"),
        ("tumor Dice", _tumor_dice(validation)),
        ("speed", f"{record['samples_per_s']:.1f} samples/s, {record['voxels_per_s'] / 1e6:.2f} Mvoxels/s"),
        (
            "data wait",
            f"{100 * record['data_wait_frac']:.1f} %, {record['data_wait_ms']:.1f} of {record['step_ms']:.0f} ms",
        ),
        ("memory", f"{record['rss_mb']:.0f} MB{gpu}"),
    ]
    if record.get("skipped_samples"):
        found.append(("skipped", f"{record['skipped_samples']} samples that cannot be read"))
    return found


def _tumor_dice(validation: dict[str, Any] | None) -> str:
    if validation is None:
        return "no validation yet"
    scores = validation["val"]
    means = [f"{name} {mean:.3f}" for name, mean in scores["dice"].items() if mean is not None and "tumor" in name]
    false = scores["false_positive_voxels"]
    healthy = "" if false is None else f", {false:.1f} false voxels per healthy sample"
    return f"{', '.join(means) or 'no tumor in the validation samples'}{healthy} (step {validation['step']})"
