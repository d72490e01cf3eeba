from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import InputError, PhantumorError
from pipeline.train_config import NetworkConfig, TrainConfig
from training import export_network as module
from training.checkpoint import RunMeta
from training.export_network import export_network
from training.network import ClassTable, build_network

CLASSES = {"background": 0, "kidney_tumor": 6, "kidney": 5}
CONFIG = TrainConfig(network=NetworkConfig(channels=(2, 4)), window=(-100.0, 300.0))
RUN = Path("run")


def make_network(seed: int = 1) -> torch.nn.Module:
    return build_network(CONFIG.network, 3, (8, 8, 8), seed).eval()


def serve(monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module) -> None:
    """Let every run hold `network`."""
    meta = RunMeta(7, CONFIG, CLASSES, 1.5, (8, 8, 8), "data", "digest", 1, {})
    monkeypatch.setattr(module, "load_for_inference", lambda path: (network, ClassTable(CLASSES), meta))


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def described(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(out.with_name(f"{out.name}.json").read_text())
    assert document["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert document["file"] == out.name
    return document


def check_description(result: dict[str, Any]) -> None:
    given, gives = result["input"], result["output"]
    assert (given["spacing_mm"], given["window_hu"], given["patch_shape"]) == (1.5, [-100.0, 300.0], [8, 8, 8])
    assert (given["multiple_of_vox"], given["free_axes"]) == (2, ["B", "X", "Y", "Z"])
    windowed = eval(given["windowing"], {"clip": np.clip, "hu": np.array([-1000, -100, 100, 300])})
    assert windowed.tolist() == [-1, -1, 0, 1]
    classes = [(entry["channel"], entry["name"], entry["id"]) for entry in gives["classes"]]
    assert classes == [(0, "background", 0), (1, "kidney", 5), (2, "kidney_tumor", 6)]
    assert gives["shape"] == ["B", 3, "X", "Y", "Z"]
    assert (result["steps"], result["network"]["channels"]) == (7, [2, 4])
    assert result["software"]["torch"] == torch.__version__


def test_a_torch_program_gives_what_the_network_gives_for_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network()
    serve(monkeypatch, network)
    out = tmp_path / "new" / "network.pt2"
    lines: list[str] = []
    result = export_network(RUN, out, "torch", lines.append)
    assert sorted(path.name for path in out.parent.iterdir()) == ["network.pt2", "network.pt2.json"]
    program = torch.export.load(out).module()
    for image in (noise(1, 1, 8, 8, 8), noise(5, 1, 4, 12, 6)):
        assert torch.equal(program(image), network(image))
    assert described(out) == result
    check_description(result)
    assert [check["shape"] for check in result["checked"]] == [[1, 1, 8, 8, 8], [2, 1, 6, 4, 4]]
    assert all(check["largest_difference"] == 0 for check in result["checked"])
    assert len(lines) == 3


@pytest.mark.slow
def test_an_onnx_graph_gives_what_the_network_gives_for_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    network = make_network()
    serve(monkeypatch, network)
    out = tmp_path / "network.onnx"
    result = export_network(RUN, out, "onnx", lambda line: None)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for image in (noise(1, 1, 8, 8, 8), noise(5, 1, 4, 12, 6)):
        (found,) = session.run(["logits"], {"image": image.numpy()})
        assert found == pytest.approx(network(image).detach().numpy(), abs=1e-4)
    assert described(out) == result
    assert "onnxruntime" in result["software"]


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, make_network())
    monkeypatch.setattr(module, "_to_torch", lambda network, example, dimensions: b"")
    monkeypatch.setattr(module, "_caller", lambda data, format: make_network(seed=2))
    with pytest.raises(PhantumorError, match=r"differs from the network by .* nothing was written"):
        export_network(RUN, tmp_path / "network.pt2", "torch", lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_exported_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(network: Any, example: Any, dimensions: Any) -> bytes:
        raise NotImplementedError("no such operator\nmany more lines")

    serve(monkeypatch, make_network())
    monkeypatch.setattr(module, "_to_torch", refuse)
    with pytest.raises(PhantumorError, match=r"torch cannot express network unet: no such operator\. Try the other"):
        export_network(RUN, tmp_path / "network.pt2", "torch", lambda line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("network.onnx", "torch", "writes a .pt2 file. Name it network.pt2"),
        ("network", "onnx", "writes a .onnx file. Name it network.onnx"),
        ("taken.pt2", "torch", "is already there"),
        ("network.onnx", "onnx", r"pip install 'phantumor\[onnx\]'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_network_is_read(
    name: str, format: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken.pt2").touch()
    monkeypatch.setattr(module, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=message):
        export_network(tmp_path / "no run", tmp_path / name, format, lambda line: None)


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        export_network(tmp_path / "no run", tmp_path / "network.pt2", "torch", lambda line: None)
