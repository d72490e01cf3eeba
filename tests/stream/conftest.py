"""Datasets for the tests of the stream; after each test no thread reads on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalog import Dataset, open_dataset
from tests.datasets import make_dataset
from tests.stream.helpers import SHAPE, reading_threads


@pytest.fixture(autouse=True)
def nothing_left_behind(no_hang: None) -> Iterator[None]:
    yield
    assert reading_threads() == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """25 samples in 7 shards, 15 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("stream") / "dataset", samples=25, patch_shape=SHAPE)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("pristine") / "dataset", samples=40, patch_shape=SHAPE).path


@pytest.fixture
def own_dataset(pristine: Path, tmp_path: Path) -> Dataset:
    """A dataset of its own to break: 40 samples, 4 in each of 10 shards."""
    return open_dataset(shutil.copytree(pristine, tmp_path / "dataset"))
