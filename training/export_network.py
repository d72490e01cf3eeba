"""A trained network as one file for other programs: torch.export (.pt2) or ONNX, with a description beside it.

In: a run, or one of its checkpoints. Out: FILE, whose input is the windowed image (B, 1, X, Y, Z) float32 and whose
output are logits (B, n_classes, X, Y, Z), and FILE.json, which says how to make the one and read the other. What is
written has been compared with the network; windows, resampling and overlap stay with whoever calls it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import InputError, PhantumorError
from pipeline.files import replace_file, writing_to
from pipeline.versions import software
from training.checkpoint import RunMeta, load_for_inference
from training.network import ClassTable, Shape3
from training.networks.architectures import factor_of

Format = Literal["torch", "onnx"]
Call = Callable[[Tensor], Tensor]
SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx"}
FORMAT, FORMAT_VERSION = "phantumor network", 1
INPUT, OUTPUT = "image", "logits"
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_AXES = ("B", "X", "Y", "Z")
# Of the largest logit. float32 sums in another order differ by 1e-5 or less; a wrong graph by the logits themselves.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Graph:
    """A network as bytes, and which axes of its input may have any size (multiples of the network's factor)."""

    data: bytes
    free_axes: tuple[str, ...]


def export_network(run: Path, out: Path, format: Format, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Write the network of `run` to `out` and its description to `out`.json; returns the description.

    Image size and batch are free. SwinUNETR's windows depend on the image's size: its graph takes one patch of the
    training's shape, and the description says so. InputError when `out` exists or has another suffix, or a package
    is missing; PhantumorError when the graph does not give what the network gives, and then nothing is written.
    """
    _check_out(out, format)
    network, classes, meta = load_for_inference(run)
    log(f"exporting {meta.config.network.name} of {run} to {format}")
    try:
        with _without_chatter():
            graph = _graph(network, meta, format)
    except Exception as error:  # both exporters raise whatever the layer that they cannot follow raises
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise PhantumorError(
            f"{run}: {format} cannot express network {meta.config.network.name}: {reason}. Try the other --format"
        ) from error
    checked = [_compare(network, _caller(graph.data, format), shape) for shape in _shapes(meta, graph.free_axes)]
    for check in checked:
        log(f"{'x'.join(map(str, check['shape']))}: largest difference {check['largest_difference']:.2g}")
    description = _describe(classes, meta, graph, format, out.name, checked)
    with writing_to(out.parent, "Run the same command again"):
        out.parent.mkdir(parents=True, exist_ok=True)
        # The graph last: where it lies, all of it is there.
        replace_file(out.with_name(f"{out.name}.json"), f"{json.dumps(description, indent=2)}\n".encode())
        replace_file(out, graph.data)
    return description


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """The exporters tell of packages that they would use for networks of other fields."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_out(out: Path, format: Format) -> None:
    if out.suffix != SUFFIXES[format]:
        raise InputError(
            f"{out}: --format {format} writes a {SUFFIXES[format]} file. Name it {out.stem}{SUFFIXES[format]}"
        )
    if out.exists():
        raise InputError(f"{out} is already there. Remove it, or choose another --out")
    if format == "onnx" and any(find_spec(package) is None for package in _ONNX_PACKAGES):
        raise InputError("--format onnx needs packages that are not here: pip install 'phantumor[onnx]'")


# -- the graph --------------------------------------------------------------------------------------------------------


def _graph(network: nn.Module, meta: RunMeta, format: Format) -> _Graph:
    factor = factor_of(meta.config.network)
    any_size = meta.config.network.name != "swinunetr"
    free_axes = _AXES if any_size else ()
    # Edges that differ, as an exporter takes equal ones for the same number; and two images, as it takes a 1 for fixed.
    shape = (2, 1, 2 * factor, 3 * factor, 4 * factor) if any_size else (1, 1, *meta.patch_shape)
    export = _to_torch if format == "torch" else _to_onnx
    return _Graph(export(network, torch.zeros(shape), _dimensions(free_axes, factor)), free_axes)


def _dimensions(free_axes: tuple[str, ...], factor: int) -> dict[int, Any]:
    """The free dimensions of the input: a batch of any size, edges of any multiple of the factor."""
    found: dict[int, Any] = {}
    for axis in free_axes:
        size = torch.export.Dim(axis.lower())
        found[0 if axis == "B" else 1 + _AXES.index(axis)] = size if axis == "B" or factor == 1 else factor * size
    return found


def _to_torch(network: nn.Module, example: Tensor, dimensions: dict[int, Any]) -> bytes:
    program = torch.export.export(network, (example,), dynamic_shapes=(dimensions,))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _to_onnx(network: nn.Module, example: Tensor, dimensions: dict[int, Any]) -> bytes:
    program = torch.onnx.export(
        network,
        (example,),
        dynamic_shapes=(dimensions,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    data: bytes = program.model_proto.SerializeToString()
    return data


# -- the check --------------------------------------------------------------------------------------------------------


def _shapes(meta: RunMeta, free_axes: tuple[str, ...]) -> list[tuple[int, Shape3]]:
    """Batch and image size of the comparisons: a training patch and, where sizes are free, two other images."""
    if not free_axes:
        return [(1, meta.patch_shape)]
    factor = factor_of(meta.config.network)
    other = (3 * factor, 2 * factor, 2 * factor)
    return [(1, meta.patch_shape), (2, other if other != meta.patch_shape else (2 * factor, 3 * factor, 2 * factor))]


def _caller(data: bytes, format: Format) -> Call:
    """The graph as somebody else would run it, from its bytes."""
    if format == "torch":
        module: Call = torch.export.load(io.BytesIO(data)).module()
        return module
    onnxruntime = import_module("onnxruntime")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def _compare(network: nn.Module, graph: Call, size: tuple[int, Shape3]) -> dict[str, Any]:
    """What both make of noise in [-1, 1]; PhantumorError when they differ."""
    shape = (size[0], 1, *size[1])
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, found = network(image), graph(image)
    if expected.shape != found.shape:
        raise PhantumorError(f"the exported graph gives {tuple(found.shape)} for {shape}, the network another shape")
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise PhantumorError(
            f"the exported graph differs from the network by {difference:.3g} for {shape}: nothing was written. "
            "Try the other --format"
        )
    return {"shape": list(shape), "largest_difference": difference}


# -- the description --------------------------------------------------------------------------------------------------


def _describe(
    classes: ClassTable, meta: RunMeta, graph: _Graph, format: Format, name: str, checked: list[dict[str, Any]]
) -> dict[str, Any]:
    low, high = meta.config.window
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "file": name,
        "sha256": hashlib.sha256(graph.data).hexdigest(),
        "graph": format,
        "input": {
            "name": INPUT,
            "shape": ["B", 1, "X", "Y", "Z"],
            "dtype": "float32",
            "axes": "X to the patient's right, Y to the front, Z to the head (RAS+)",
            "free_axes": list(graph.free_axes),
            "multiple_of_vox": factor_of(meta.config.network),
            "spacing_mm": meta.spacing_mm,
            "window_hu": [low, high],
            "windowing": f"clip(2 * (hu - {low:g}) / {high - low:g} - 1, -1, 1)",
            "patch_shape": list(meta.patch_shape),
            "inference": "windows of patch_shape that overlap by half, "
            f"{meta.config.network.heads} of the logits averaged with Gaussian weights: "
            "normalisation depends on the size of the input, so a whole CT at once gives other results",
        },
        "output": {
            "name": OUTPUT,
            "shape": ["B", len(classes), "X", "Y", "Z"],
            "dtype": "float32",
            "meaning": "logits; the largest is the class",
            "classes": [
                {"channel": channel, "name": name, "id": number}
                for channel, (name, number) in enumerate(zip(classes.names, classes.ids, strict=True))
            ],
        },
        "network": meta.config.network.model_dump(mode="json"),
        "steps": meta.step,
        "dataset": meta.dataset,
        "checked": checked,
        "software": software() | _versions(format),
    }


def _versions(format: Format) -> dict[str, str]:
    return {package: metadata.version(package) for package in _ONNX_PACKAGES} if format == "onnx" else {}
