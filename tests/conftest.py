"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.bank import Bank
from tests.specs import make_abdomens


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT for tests, kept beside the checkout and never copied into it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real CT not available: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def abdomens(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank of one abdomen in each contrast phase."""
    return make_abdomens(tmp_path_factory.mktemp("abdomens") / "bank")
