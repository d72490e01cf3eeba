"""Fixtures of the fault experiments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lab import Lab, running_lab

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # processes are looked up in /proc


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A bank and a process that starts commands."""
    with running_lab(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture
def out(lab: Lab, request: pytest.FixtureRequest) -> Path:
    """Where a test makes its dataset: beside the bank, as the reference."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return lab.folder / name
