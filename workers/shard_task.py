"""Making one shard: draw, synthesise, measure, write, commit. Stateless and without Ray; any retry is harmless."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline import __version__
from pipeline.bank import Bank, open_bank
from pipeline.case import Case
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.manifest import Part, commit_part, part_name, read_part, sample_id, shard_name
from pipeline.measure import measure_sample
from pipeline.shard import ShardWriter, array_crc32c
from pipeline.spec import SampleSpec, draw_sample
from pipeline.synthesis import Rendered, render_batch
from pipeline.versions import software
from workers.plan import Plan

GENERATOR = f"phantumor {__version__}"
GPU_BATCH = 64  # samples that a GPU renders with one sequence of kernels


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
    with _removed_unless_committed(folder, lambda: _names(dataset, job.shard, attempt)) as keep:
        rows, part = _write(job, folder, attempt, samples)
        committed = commit_part(dataset, part, rows)
        if committed:
            keep()
    seconds = time.perf_counter() - started
    status: Literal["committed", "lost"] = "committed" if committed else "lost"
    return ShardReport(job.shard, status, len(samples), sum(file.size for file in part.files), seconds)


def _names(dataset: Path, shard: int, attempt: str) -> bool:
    """Whether the manifest names this attempt at a shard."""
    return (dataset / part_name(shard)).exists() and read_part(dataset, shard)[0].attempt == attempt


@contextlib.contextmanager
def _removed_unless_committed(folder: Path, committed: Callable[[], bool]) -> Iterator[Any]:
    """An attempt that fails or loses takes its own files away; they must not keep a full disk full.

    One that is interrupted just after its commit has not said `keep` yet: then the manifest is asked.
    """
    kept = []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept and not committed():
            shutil.rmtree(folder, ignore_errors=True)


def _write(job: ShardJob, folder: Path, attempt: str, samples: range) -> tuple[list[dict[str, Any]], Part]:
    clock = _Clock()
    bank = _bank(job.bank, job.bank_fingerprint)
    device = choose_device(job.device)
    rows = []
    batch = 1 if device == "cpu" else GPU_BATCH
    with ShardWriter(folder, len(samples), job.config.patch_shape) as writer:
        for start in range(0, len(samples), batch):
            rows += _rows(bank, job, device, writer, clock, samples[start : start + batch])
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


def _rows(
    bank: Bank, job: ShardJob, device: str, writer: ShardWriter, clock: _Clock, samples: range
) -> list[dict[str, Any]]:
    """Make samples that are rendered together; their manifest rows."""
    with clock.measure("draw"):
        specs = [draw_sample(bank, job.config, index) for index in samples]
        cases = [bank.load(spec.case_id) for spec in specs]
    with clock.measure("synthesise"):
        rendered = render_batch(cases, specs, device)
    return [_row(job, writer, clock, *made) for made in zip(cases, specs, rendered, strict=True)]


def _row(
    job: ShardJob, writer: ShardWriter, clock: _Clock, case: Case, spec: SampleSpec, rendered: Rendered
) -> dict[str, Any]:
    with clock.measure("measure"):
        facts = measure_sample(case, spec, rendered)
    with clock.measure("encode"):
        ranges = writer.append({"image": rendered.image, "label": rendered.label})
    return {
        **facts,
        "sample_id": sample_id(spec.index),
        "index": spec.index,
        "split": spec.split,
        "case_id": spec.case_id,
        "shard": job.shard,
        "row": spec.index - Plan(job.config.samples, job.config.shard_samples).indices(job.shard).start,
        "origin_vox": list(spec.origin_vox),
        "image_crc32c": array_crc32c(rendered.image),
        "label_crc32c": array_crc32c(rendered.label),
        "image_range": list(ranges["image"]),
        "label_range": list(ranges["label"]),
        "generator": GENERATOR,
        "spec": spec.model_dump_json(exclude_none=True),
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
