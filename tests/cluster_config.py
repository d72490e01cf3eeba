"""cluster.yaml for the tests of it, and the Ray whose inside they look at."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
RAY = "2.60.0"  # of the images that cluster.yaml names
FOUND = metadata.version("ray")
needs_this_ray = pytest.mark.skipif(
    FOUND != RAY, reason=f"looks inside Ray {RAY}, {FOUND} is installed: check cluster.yaml and its tests for that one"
)
# The driver's smallest window, and its tasks on one GPU (workers/ray_executor.py).
WINDOW, GPU_TASKS = 64, 4

Config = dict[str, Any]


def read_cluster() -> Config:
    """The file as it is; merged parts are shared between node types."""
    document: Config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return document
