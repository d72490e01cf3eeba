"""Engines are known by their file names, without loading one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import engine_names as names


def test_every_engine_is_named_and_helpers_are_not() -> None:
    assert names.engine_names() == ("ellipsoid", "growth", "wall")
    assert names.solid_engines() == ("ellipsoid", "growth")


def test_a_file_is_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("__init__.py", "registry.py", "_part.py", "wall.py", "disc.py", "box.py", "notes.txt"):
        (tmp_path / file).touch()
    monkeypatch.setattr(names, "_FOLDER", tmp_path)
    assert names.engine_names() == ("box", "disc", "wall")
    assert names.solid_engines() == ("box", "disc")


def test_names_cost_no_torch() -> None:
    code = (
        "import sys, pipeline.cli, pipeline.config; print('torch' in sys.modules, 'pipeline.synthesis' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]
