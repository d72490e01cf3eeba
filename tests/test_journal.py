from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import InputError
from training.curve import write_curve
from training.journal import Journal, SilentJournal, read_metrics

STEP = {"step": 1, "loss": 0.5, "lr": 1e-3}
VALIDATION = {"step": 1, "val": {"dice": {"liver": 0.9, "liver_tumor": None}, "false_positive_voxels": 3.0}}


def open_journal(run: Path, **options: Any) -> tuple[Journal, list[dict[str, Any]]]:
    shown: list[dict[str, Any]] = []
    journal = Journal(run, lambda _: None, shown.append, options.pop("tensorboard", False))
    journal.open(options.pop("step", -1))
    return journal, shown


def test_records_are_kept_and_shown(tmp_path: Path) -> None:
    journal, shown = open_journal(tmp_path)
    for record in (STEP, VALIDATION):
        journal.add(record)
    assert read_metrics(tmp_path) == shown == [STEP, VALIDATION]


def test_records_after_the_checkpoint_and_a_cut_line_are_dropped(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    for step in (1, 3, 4):
        journal.add(STEP | {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    kept = [STEP, STEP | {"step": 3}]
    assert SilentJournal(tmp_path).open(3) == kept
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4  # others only look
    assert Journal(tmp_path, print, print, tensorboard=False).open(3) == kept
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == kept


def test_processes_beside_the_first_write_nothing(tmp_path: Path) -> None:
    journal = SilentJournal(tmp_path)
    assert journal.open(0) == []
    journal.add(STEP)
    journal.draw()
    journal.say("a line")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_figure(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    journal, _ = open_journal(tmp_path, tensorboard=True)
    journal.add(STEP)
    journal.add(VALIDATION)
    journal.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "val/dice/liver", "val/false_positive_voxels"}
    (loss,) = events.Scalars("loss")
    assert (loss.step, loss.value) == (1, 0.5)


def test_tensorboard_that_is_not_installed_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'phantumor\[tensorboard\]'"):
        Journal(tmp_path, print, print, tensorboard=True)


def test_the_curve_is_a_picture_that_changes_with_the_records(tmp_path: Path) -> None:
    write_curve([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    pictures = []
    for name, records in (("a", [STEP]), ("b", [STEP, VALIDATION]), ("c", [STEP, STEP | {"step": 2}, VALIDATION])):
        write_curve(records, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            pictures.append(picture.convert("RGB").tobytes())
    assert len(set(pictures)) == 3
