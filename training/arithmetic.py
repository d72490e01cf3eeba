"""What a training computes with: the device, the type of its numbers, and the random numbers of layers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.errors import InputError
from training.distributed import Ranks
from training.network import resolve_device

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def training_device(setting: str, ranks: Ranks) -> torch.device:
    """The device of this process: of several on one machine, each has its own GPU."""
    if not ranks.together or setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return resolve_device(setting)
    if setting not in ("auto", "cuda"):
        raise InputError(
            f"device {setting}: processes that train together each take a GPU of their own; give auto, cuda or cpu"
        )
    device = resolve_device(f"cuda:{ranks.local_rank}")
    torch.cuda.set_device(device)
    return device


def precision_of(setting: str, device: torch.device) -> torch.dtype:
    """The type that the network computes in."""
    if setting == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if setting == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 needs a GPU; on a CPU use float32, or bf16 where the CPU has it")
    return _TYPES[setting]


@contextlib.contextmanager
def arithmetic(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Switch torch to algorithms that repeat, if wanted; leave it and its random numbers as they were."""
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(_CUBLAS)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if deterministic:
                os.environ.setdefault(_CUBLAS, ":4096:8")  # cuBLAS asks for it
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            if workspace is None:
                os.environ.pop(_CUBLAS, None)


def seed_dropout(device: torch.device, *key: int) -> None:
    """Set the random numbers that layers draw on `device` to those of a place in a training."""
    word = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(word)
    else:
        torch.default_generator.manual_seed(word)
