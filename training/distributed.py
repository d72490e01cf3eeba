"""Processes that train together: who this one is, and what all of them have to agree on.

`torchrun` and Ray Train start them; each reads its own share of every global batch, and gradients are averaged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among the processes of this machine: its GPU

    @property
    def first(self) -> bool:
        """Whether this process writes the run and speaks to the user."""
        return self.rank == 0

    @property
    def together(self) -> bool:
        return self.world_size > 1


def ranks_here(environment: Mapping[str, str] = os.environ) -> Ranks:
    """What `torchrun` says that this process is; alone where it says nothing."""
    if "WORLD_SIZE" not in environment:
        return Ranks()
    try:
        ranks = Ranks(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except (KeyError, ValueError) as error:
        raise InputError(
            f"WORLD_SIZE is set but RANK or LOCAL_RANK is not a number ({error}): start with torchrun, or unset it"
        ) from error
    if not 0 <= ranks.rank < ranks.world_size:
        raise InputError(f"RANK {ranks.rank} does not lie below WORLD_SIZE {ranks.world_size}: start with torchrun")
    return ranks


@contextlib.contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Connect the processes: nccl between GPUs, gloo between CPUs. Uses the group of whoever has made one already."""
    if not ranks.together or dist.is_initialized():
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def mean_over(ranks: Ranks, values: Sequence[float], device: torch.device) -> list[float]:
    """The mean of each value over all processes, the same on each."""
    if not ranks.together:
        return list(values)
    # float32: gloo and nccl both have it, and sums of a handful of losses need no more.
    tensor = torch.tensor(values, dtype=torch.float32, device=device)
    dist.all_reduce(tensor)
    return [float(value) for value in tensor / ranks.world_size]


def gathered(ranks: Ranks, part: Sequence[Any]) -> list[Any]:
    """The parts of all processes in one list, the same on each."""
    if not ranks.together:
        return list(part)
    parts: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(parts, list(part))
    return [item for of_rank in parts for item in of_rank]


def wait_for_all(ranks: Ranks) -> None:
    """Nobody goes on before everybody is here."""
    if ranks.together:
        dist.barrier()
