"""What the arguments of a stream may be; an InputError names the rule and what was given."""

from __future__ import annotations

import math
import os
from typing import get_args

import torch

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.object_cache import ObjectCache
from pipeline.store import Location
from training.order import Shuffle, Tail
from training.reader import Window
from training.selection import Weights
from training.sources import Endless, Mixture, Source, Stored

SHUFFLES: dict[bool | str, Shuffle] = {True: "full", "full": "full", "shard": "shard", False: "index"}
FLOAT_DTYPES = (torch.float32, torch.float16, torch.float64)


def source_of(dataset: Dataset | Location | Source, split: str, where: str | None, weights: Weights | None) -> Source:
    """The source that the arguments of a stream describe."""
    if not isinstance(dataset, str | os.PathLike | Dataset | Stored | Endless | Mixture):
        raise InputError(
            f"ShardStream: a dataset is a path, a URL, an opened Dataset or a source, got {type(dataset).__name__}. "
            "Several datasets go into Mixture([(Stored(a), 0.5), (Stored(b), 0.5)]) of training.sources"
        )
    if not isinstance(dataset, Stored | Endless | Mixture):
        return Stored(dataset, split, where, weights)
    if split != "train" or where is not None or weights is not None:
        kind = type(dataset).__name__
        raise InputError(f"ShardStream: split, where and weights of a {kind} stand within it: give them there")
    return dataset


def check_counts(**counts: int | None) -> None:
    """Each, where there is one, is at least 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"ShardStream: {name} must be at least 1, got {count}")


def check_rank(rank: int, world_size: int, seed: int) -> None:
    """The rank is one of the ranks, the seed one that SeedSequence takes."""
    if not 0 <= rank < world_size:
        raise InputError(f"ShardStream: rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
    if seed < 0:
        raise InputError(f"ShardStream: seed must be at least 0, got {seed}")


def check_skipping(on_broken: str, world_size: int) -> None:
    """Samples may be skipped in one rank alone."""
    if on_broken == "skip" and world_size > 1:
        raise InputError(
            f"ShardStream: on_broken='skip' with world_size={world_size}: a rank that passes over a batch would drift "
            "apart from the others. Repair the dataset with `phantumor verify DATASET --repair`, or read it in one "
            "process"
        )


def check_cache(cache: object) -> None:
    """A cache is one that is open."""
    if cache is not None and not isinstance(cache, ObjectCache):
        raise InputError(
            f"ShardStream: cache must be an ObjectCache(folder, limit_bytes) of pipeline.object_cache, got {cache!r}"
        )


def check_choices(shuffle: object, tail: object, on_broken: object) -> None:
    """Each is one of those there are."""
    for name, given, allowed in (
        ("shuffle", shuffle, (*SHUFFLES,)),
        ("tail", tail, get_args(Tail)),
        ("on_broken", on_broken, ("raise", "skip")),
    ):
        if given not in allowed:
            raise InputError(f"ShardStream: {name} must be one of {', '.join(map(repr, allowed))}, got {given!r}")


def image_dtype(window: Window | None, dtype: torch.dtype | None) -> torch.dtype:
    """The type of images: int16 HU, or a floating-point one with a window."""
    if window is None:
        if dtype not in (None, torch.int16):
            raise InputError(
                f"ShardStream: dtype={dtype} needs a window=(low, high) in HU; without one images are int16"
            )
        return torch.int16
    low, high = window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"ShardStream: window must be (low, high) in HU with low < high, got {window}")
    if dtype is not None and dtype not in FLOAT_DTYPES:
        raise InputError(f"ShardStream: dtype with a window must be one of {FLOAT_DTYPES}, got {dtype}")
    return dtype or torch.float32
