"""The checkpoints of a run: `last.pt`, `best.pt`, and `step-NNNNNNN.pt` for those before the last that are kept.

A checkpoint is everything that the next step depends on and everything that inference needs (classes, spacing, window,
patch shape). Random numbers and the learning rate need no state: they are functions of (seed, step). Written whole or
not at all, and read with `torch.load(weights_only=True)` alone: a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import InputError
from pipeline.files import replace_file
from pipeline.settings import to_yaml
from pipeline.train_config import TrainConfig
from training.network import ClassTable, Shape3, build_network

FORMAT = "phantumor checkpoint"
FORMAT_VERSION = 2
LAST, BEST, CONFIG = "last.pt", "best.pt", "config.yaml"
RESUME = "Run the same command with --resume to go on from the last checkpoint"  # after whatever ends a training
_KEPT = "step-{:07d}.pt"


@dataclass(frozen=True)
class RunMeta:
    """What a run was trained with and on."""

    step: int  # optimizer steps done
    config: TrainConfig
    classes: dict[str, int]  # name -> class id
    spacing_mm: float
    patch_shape: Shape3  # voxels (X, Y, Z) that the network saw: the crop, or the whole patch
    dataset: str
    dataset_digest: str  # decides on resume whether it is the same dataset, wherever it lies now
    processes: int  # that trained together
    software: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A training between two steps. Tensors are on the CPU after reading."""

    meta: RunMeta
    model: dict[str, Any]
    averaged: dict[str, Any] | None  # moving average of the weights, of runs with `ema`
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None  # of the loss, of runs in fp16
    stream: dict[str, Any]
    best_score: float | None  # of the validations so far; None before the first
    validated_step: int  # the step of the last validation, 0 before the first


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, replacing an older one in one step; a crash leaves the old one or the new one."""
    meta = {field.name: getattr(checkpoint.meta, field.name) for field in fields(RunMeta)}
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **{field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)},
        "meta": meta | {"config": checkpoint.meta.config.model_dump(mode="json")},
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    replace_file(path, buffer.getvalue())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint to the CPU; one clear InputError when it is none, cut, changed, or of another format."""
    document = _load(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(
            f"{path}: not a phantumor checkpoint, though torch can read it. Give a folder that `phantumor train` made"
        )
    if document.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: checkpoint format {document.get('format_version')}, this phantumor reads {FORMAT_VERSION}. "
            "Use the version that wrote it, or train again"
        )
    try:
        meta = dict(document["meta"])
        meta["config"] = TrainConfig.model_validate(meta["config"])
        meta["patch_shape"] = tuple(meta["patch_shape"])
        rest = {field.name: document[field.name] for field in fields(Checkpoint) if field.name != "meta"}
        return Checkpoint(meta=RunMeta(**meta), **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a checkpoint with missing or invalid entries: {error}. Train again") from error


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            # torch does not compare the archive's checksums when it reads: a changed byte would be a changed weight.
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken:
                raise InputError(f"{path}: damaged, the checksum of {broken} differs. Copy the checkpoint again")
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except InputError:
        raise
    except Exception as error:  # zipfile, pickle and torch raise a dozen types for files that are not theirs
        reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0][:100]
        raise InputError(
            f"{path}: not a checkpoint, cut off, or holding more than plain data ({reason}). "
            "Copy it again, or give a folder that `phantumor train` made; exported networks are not for phantumor"
        ) from error


def save_last(run: Path, checkpoint: Checkpoint, keep: int = 1, replaced: int = 0) -> None:
    """Write `last.pt`; of those before it, the `keep - 1` newest stay as `step-NNNNNNN.pt`.

    `replaced` is the step of the one that is replaced; 0 for one from before the first step, which is not kept.
    """
    last = run / LAST
    if keep > 1 and 0 < replaced < checkpoint.meta.step:
        _copy_aside(last, run / _KEPT.format(replaced))
    save_checkpoint(last, checkpoint)
    for old in kept_checkpoints(run)[: -(keep - 1) or None]:
        old.unlink()


def kept_checkpoints(run: Path) -> list[Path]:
    """The checkpoints before the last one, oldest first."""
    return sorted(run.glob("step-*.pt"))


def _copy_aside(file: Path, target: Path) -> None:
    """A second name for a file that is about to be replaced."""
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # a disk without hard links
        shutil.copyfile(file, target)


def checkpoint_file(path: Path) -> Path:
    """The checkpoint that a user means: a file, or of a run's folder the best one, or the last before a validation."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such run. Give the --out folder of `phantumor train`, or one of its .pt files")
    found = [path / name for name in (BEST, LAST) if (path / name).is_file()]
    if not found:
        raise InputError(
            f"{path} is not a run: it holds no {BEST} or {LAST}. Give the --out folder of `phantumor train`"
        )
    return found[0]


def load_for_inference(path: Path) -> tuple[torch.nn.Module, ClassTable, RunMeta]:
    """The network of a run or checkpoint in evaluation mode on the CPU, its classes, and what it was trained with.

    Weights are the moving average where the run has one.
    """
    file = checkpoint_file(path)
    checkpoint = read_checkpoint(file)
    meta = checkpoint.meta
    if meta.step == 0:
        raise InputError(f"{file} is from before the first step, its network knows nothing yet. Train it further")
    table = ClassTable(meta.classes)
    network = build_network(meta.config.network, len(table), meta.patch_shape)
    load_state(network, checkpoint.model if checkpoint.averaged is None else checkpoint.averaged, file)
    return network.eval(), table, meta


def load_state(network: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a network, InputError when they belong to another one."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = str(error).strip().splitlines()
        raise InputError(f"{path}: its weights do not fit the network of its settings: {lines[-1].strip()}") from error


def write_config(run: Path, config: TrainConfig, data: str) -> None:
    """`config.yaml`: the resolved settings in the form that `--config` reads, under the dataset's path as a comment."""
    replace_file(run / CONFIG, f"# data: {data!r}\n{to_yaml(config)}".encode())
