"""Making one shard: draw, synthesise, measure, write, commit. Stateless and without Ray; any retry is harmless."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline import __version__
from pipeline.bank import Bank, open_bank
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.manifest import Part, commit_part, part_name, sample_id, shard_name
from pipeline.measure import measure_sample
from pipeline.shard import ShardWriter, array_crc32c
from pipeline.spec import draw_sample
from pipeline.synthesis import render
from pipeline.versions import software
from workers.plan import Plan

GENERATOR = f"phantumor {__version__}"


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to make a shard. Small: it travels through the scheduler."""

    dataset: str
    bank: str
    bank_fingerprint: str
    config: GenerateConfig
    shard: int
    device: str = "auto"


@dataclass(frozen=True)
class ShardReport:
    """What became of an attempt. `lost`: another attempt committed the shard first, which is as good."""

    shard: int
    status: Literal["committed", "already", "lost"]
    samples: int
    bytes: int
    seconds: float


def choose_device(device: str) -> str:
    """`auto` becomes the GPU where this process has one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=2)
def _bank(path: str, fingerprint: str) -> Bank:
    """Opened once per process: cases are memory maps, shared by all processes of a node through the page cache."""
    bank = open_bank(Path(path))
    if bank.fingerprint != fingerprint:
        raise InputError(f"{path}: the bank changed while the dataset was being made; run generate again")
    return bank


def make_shard(job: ShardJob) -> ShardReport:
    """Make and commit one shard of the dataset, unless it is committed already."""
    started = time.perf_counter()
    dataset = Path(job.dataset)
    samples = Plan(job.config.samples, job.config.shard_samples).indices(job.shard)
    if (dataset / part_name(job.shard)).exists():
        return ShardReport(job.shard, "already", len(samples), 0, 0.0)
    torch.set_num_threads(1)  # one core a worker: more threads only wait for each other on small boxes
    attempt = uuid.uuid4().hex[:12]
    folder = dataset / shard_name(job.shard, attempt)
    with _removed_unless_committed(folder) as keep:
        rows, part = _write(job, folder, attempt, samples)
        committed = commit_part(dataset, part, rows)
        if committed:
            keep()
    seconds = time.perf_counter() - started
    status: Literal["committed", "lost"] = "committed" if committed else "lost"
    return ShardReport(job.shard, status, len(samples), sum(file.size for file in part.files), seconds)


@contextlib.contextmanager
def _removed_unless_committed(folder: Path) -> Iterator[Any]:
    """An attempt that fails or loses takes its own files away; they must not keep a full disk full."""
    kept = []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _write(job: ShardJob, folder: Path, attempt: str, samples: range) -> tuple[list[dict[str, Any]], Part]:
    clock = _Clock()
    bank = _bank(job.bank, job.bank_fingerprint)
    device = choose_device(job.device)
    rows = []
    with ShardWriter(folder, len(samples), job.config.patch_shape) as writer:
        for number, index in enumerate(samples):
            rows.append(_sample_row(bank, job, device, writer, clock, number, index))
        with clock.measure("write"):
            files = tuple(writer.finish())
    part = Part(
        shard=job.shard,
        attempt=attempt,
        files=files,
        config_digest=job.config.digest(),
        timings_s=clock.seconds,
        host=socket.gethostname(),
        versions={**software(), "device": device, "pid": str(os.getpid())},
    )
    return rows, part


def _sample_row(
    bank: Bank, job: ShardJob, device: str, writer: ShardWriter, clock: _Clock, number: int, index: int
) -> dict[str, Any]:
    with clock.measure("draw"):
        spec = draw_sample(bank, job.config, index)
        case = bank.load(spec.case_id)
    with clock.measure("synthesise"):
        rendered = render(case, spec, device)
    with clock.measure("measure"):
        facts = measure_sample(case, spec, rendered)
    with clock.measure("encode"):
        ranges = writer.append({"image": rendered.image, "label": rendered.label})
    return {
        **facts,
        "sample_id": sample_id(index),
        "index": index,
        "split": spec.split,
        "case_id": spec.case_id,
        "shard": job.shard,
        "row": number,
        "origin_vox": list(spec.origin_vox),
        "image_crc32c": array_crc32c(rendered.image),
        "label_crc32c": array_crc32c(rendered.label),
        "image_range": list(ranges["image"]),
        "label_range": list(ranges["label"]),
        "generator": GENERATOR,
        "spec": spec.model_dump_json(),
    }


class _Clock:
    """Seconds spent in each stage of a shard."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
