from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from training.view import View, open_view, rows

RECORD: dict[str, Any] = {
    "step": 20,
    "lr": 1e-3,
    "loss": 0.25,
    "samples_per_s": 40.0,
    "voxels_per_s": 3e6,
    "data_wait_ms": 1.5,
    "data_wait_frac": 0.03,
    "step_ms": 50.0,
    "eta_s": 90.0,
    "rss_mb": 800.0,
}
VALIDATION = {"step": 10, "val": {"dice": {"liver": 0.9, "liver_tumor": 0.5}, "false_positive_voxels": 2.0}}


def test_the_block_holds_every_figure() -> None:
    before = dict(rows(RECORD, None, 100))
    assert before["tumor Dice"] == "no validation yet"
    assert before["step"] == "20/100, 1 min 30 s left"
    assert "skipped" not in before
    after = dict(rows(RECORD | {"gpu_mb": 900.0, "skipped_samples": 3}, VALIDATION, 100))
    assert after["tumor Dice"] == "liver_tumor 0.500, 2.0 false voxels per healthy sample (step 10)"
    assert after["speed"] == "40.0 samples/s, 3.00 Mvoxels/s"
    assert after["data wait"] == "3.0 %, 1.5 of 50 ms"
    assert after["memory"] == "800 MB, GPU 900 MB"
    assert after["skipped"].startswith("3 samples")


def test_a_terminal_shows_the_newest_figures_under_the_lines() -> None:
    out = io.StringIO()
    with open_view(100, print, Console(file=out, force_terminal=True, width=120)) as view:
        view.say("a path [bold]data")
        view.show(VALIDATION)
        view.show(RECORD)
        view.show(VALIDATION | {"step": 30})
    text = out.getvalue()
    assert "(step 30)" in text
    assert "a path [bold]data" in text
    assert "0.2500 at a learning rate of 1.00e-03" in text
    assert "liver_tumor 0.500" in text


def test_elsewhere_every_record_of_steps_is_a_plain_line() -> None:
    lines: list[str] = []
    view = View(100, lines.append, None)
    view.show(VALIDATION)
    view.show(RECORD)
    assert len(lines) == 1
    assert lines[0].startswith("step 20/100: loss 0.2500")
