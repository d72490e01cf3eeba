"""`phantumor export` on datasets and on runs: each format is of one of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.command import run as command
from tests.datasets import make_dataset
from tests.segmenters import make_run


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    made = {
        "DATA": make_dataset(tmp_path / "data", samples=2).path,
        "RUN": make_run(tmp_path / "run"),
        "FILE": tmp_path / "run" / "best.pt",
        "NONE": tmp_path / "none",
        "OUT": tmp_path / "out",
    }
    return {name: str(place) for name, place in made.items()}


@pytest.mark.parametrize("source", ["RUN", "FILE"])
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_network_is_exported_from_a_run(
    source: str,
    format: str,
    places: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def export_network(run: Path, out: Path, format: str, log: Any) -> dict[str, Any]:
        asked.append((run, out, format))
        log("compared")
        return {"largest_difference": 0.0}

    room = ModuleType("training.export_network")
    room.export_network = export_network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training.export_network", room)
    words = ["export", places[source], "--format", format, "--out", places["OUT"]]
    assert command(capsys, *words) == (0, f"{places['OUT']}\n", "compared\n")
    code, out, _ = command(capsys, *words, "--json")
    assert (code, json.loads(out)) == (0, {"largest_difference": 0.0})
    assert asked == [(Path(places[source]), Path(places["OUT"]), format)] * 2


def test_samples_are_exported_from_a_dataset(places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "export", places["DATA"], "--format", "nifti", "--out", places["OUT"], "--json")
    assert code == 0, err
    assert json.loads(out)
    assert (Path(places["OUT"]) / "dataset.json").is_file()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["DATA", "--format", "onnx"], ["network of a run, this is a dataset", "--format nifti"]),
        (["RUN", "--format", "nnunet"], ["samples of a dataset, this is a run", "--format onnx"]),
        (["FILE", "--format", "nifti"], ["samples of a dataset, this is a run", "--format torch"]),
        (["RUN", "--format", "torch", "--limit", "3"], ["--limit choose samples of a dataset"]),
        (["RUN", "--format", "torch", "--split", "test"], ["--split and --limit choose samples"]),
        (["DATA", "--format", "tiff"], ["tiff", "nifti", "nnunet", "torch", "onnx"]),
        (["NONE", "--format", "nifti"], ["none"]),
    ],
)
def test_formats_of_the_other_kind_are_refused(
    words: list[str], parts: list[str], places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [places.get(word, word) for word in words]
    code, out, err = command(capsys, "export", *given, "--out", places["OUT"])
    assert (code, out) == (2, ""), err
    assert all(part in err for part in parts), err
    assert not Path(places["OUT"]).exists()
