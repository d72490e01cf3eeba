"""Making one shard: draw, synthesise, measure, write, commit. Stateless and without Ray; any retry is harmless."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from pipeline import __version__
from pipeline.bank import Bank
from pipeline.config import GenerateConfig
from pipeline.description import recipe_digest
from pipeline.errors import InputError
from pipeline.manifest import Part, sample_id
from pipeline.measure import measure_sample
from pipeline.shard import array_crc32c
from pipeline.spec import SampleSpec, draw_sample
from pipeline.synthesis import Rendered, render_batch
from pipeline.versions import software
from workers.attempt import Attempt, ShardJob, ShardReport, attempt_at, check_case, is_made, opened_bank
from workers.failure import SampleError
from workers.kept import Arrays, kept_arrays
from workers.stages import Clock, ShardSink
from workers.time_limit import cpu_limit

__all__ = ["ShardJob", "ShardReport", "choose_device", "make_shard"]

GENERATOR = f"phantumor {__version__}"
GPU_BATCH = 64  # samples that a GPU renders with one sequence of kernels


def choose_device(device: str) -> str:
    """`auto` becomes the GPU where this process has one, else the CPU."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: no CUDA device on {socket.gethostname()}; use --device auto or cpu")
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_shard(job: ShardJob) -> ShardReport:
    """Make and commit one shard of the dataset, unless it is committed already."""
    made = is_made(job)
    if made is not None:
        return made
    torch.set_num_threads(1)  # one core a worker: more threads only wait for each other on small boxes
    with attempt_at(job) as attempt:
        rows, part = _write(attempt)
        attempt.commit(part, rows)
    return attempt.report(part)


def _write(attempt: Attempt) -> tuple[list[dict[str, Any]], Part]:
    clock, job = Clock(), attempt.job
    bank = opened_bank(job.bank, job.bank_fingerprint)
    device = choose_device(job.device)
    batch = 1 if device == "cpu" else GPU_BATCH
    config = job.config
    with ShardSink(attempt.dataset, attempt.group, len(job.samples), config, clock) as sink:
        for start in range(0, len(job.samples), batch):
            _make(bank, job, device, sink, clock, job.samples[start : start + batch])
        rows, files = sink.finish()
    part = Part(
        shard=job.shard,
        attempt=attempt.name,
        files=tuple(files),
        config_digest=recipe_digest(config),
        timings_s=clock.seconds(),
        host=socket.gethostname(),
        versions={**software(), "device": device, "pid": str(os.getpid())},
    )
    return rows, part


def _make(bank: Bank, job: ShardJob, device: str, sink: ShardSink, clock: Clock, samples: range) -> None:
    """Make samples that are rendered together and hand them on to be encoded and written."""
    with clock.measure("draw"):
        specs = [_drawn(bank, job.config, index) for index in samples]
        for spec in specs:
            check_case(bank, spec.case_id)
        cases = [bank.load(spec.case_id) for spec in specs]
    with clock.measure("synthesise"), _blamed_on(specs), cpu_limit():
        rendered = render_batch(cases, specs, device)
    for case, spec, made in zip(cases, specs, rendered, strict=True):
        with _blamed_on([spec]):
            with clock.measure("measure"), cpu_limit():
                facts = measure_sample(case, spec, made)
            row = facts | _row(job, spec, made)
            arrays: Arrays = {"image": made.image, "label": made.label}
            sink.put(row, partial(kept_arrays, job.config, case, spec, arrays))


def _drawn(bank: Bank, config: GenerateConfig, index: int) -> SampleSpec:
    try:
        with cpu_limit():
            return draw_sample(bank, config, index)
    except (OSError, InputError):
        raise
    except Exception as error:
        raise SampleError(index, "", error) from error


@contextlib.contextmanager
def _blamed_on(specs: list[SampleSpec]) -> Iterator[None]:
    """Name the sample that a fault of the generator came up with; of many that are rendered together, the first."""
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:
        raise SampleError(specs[0].index, specs[0].model_dump_json(exclude_none=True), error) from error


def _row(job: ShardJob, spec: SampleSpec, made: Rendered) -> dict[str, Any]:
    """The manifest columns that do not follow from measuring, nor from where the sample will lie."""
    return {
        "sample_id": sample_id(spec.index),
        "index": spec.index,
        "split": spec.split,
        "case_id": spec.case_id,
        "shard": job.shard,
        "row": spec.index - job.samples.start,
        "shape_vox": list(spec.patch_shape),
        "origin_vox": list(spec.origin_vox),
        "image_crc32c": array_crc32c(made.image),
        "label_crc32c": array_crc32c(made.label),
        "generator": GENERATOR,
        "spec": spec.model_dump_json(exclude_none=True),
    }
