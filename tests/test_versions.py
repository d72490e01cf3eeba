"""The software that a result names."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata

import pytest

from pipeline import __version__, versions
from pipeline.versions import software


def test_the_versions_are_those_installed() -> None:
    found = software()
    assert found["phantumor"] == __version__
    assert found["python"] == platform.python_version()
    for name in ("numpy", "torch", "zarr", "numcodecs", "pyarrow"):
        assert found[name] == metadata.version(name)


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata.version("phantumor") == __version__


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "ray":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(versions, "_software", versions._software.__wrapped__)  # what was asked before is kept
    assert "ray" not in software()
    assert software()["numpy"] == "1.0"


def test_asking_imports_none_of_them() -> None:
    script = "import json, sys; from pipeline.versions import software; software(); print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded.isdisjoint({"numpy", "torch", "scipy", "zarr", "pyarrow", "monai", "ray"})
