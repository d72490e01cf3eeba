"""Making a dataset: plan, choose an executor, run what remains, write the whole manifest at the end.

Running it again with the same settings resumes: committed shards are kept, the others are made.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.bank import Bank, open_bank
from pipeline.catalog import DatasetInfo, check_same, compact, create_info, dataset_classes
from pipeline.config import SPLITS, GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.manifest import committed_shards
from pipeline.progress import Progress, duration, size
from pipeline.shard import encode_chunk
from pipeline.spec import check_bank, draw_sample
from pipeline.synthesis import render
from pipeline.versions import software
from workers.failure import ShardError
from workers.local import run_processes, run_serial
from workers.plan import Plan
from workers.shard_task import ShardJob, ShardReport

_PROBE_SAMPLES = 4
_RESUME = "Committed shards are safe; run the same command again to resume"


@dataclass(frozen=True)
class Estimate:
    """What the remaining samples will cost, measured on a few of them."""

    samples: int
    bytes: int
    core_seconds: float

    def line(self, free: int, workers: int) -> str:
        """For people: how much, how long."""
        span = duration(self.core_seconds / workers)
        return (
            f"{self.samples} samples to make, about {size(self.bytes)} ({size(free)} free), "
            f"about {span} on {workers} worker{'s' if workers > 1 else ''}"
        )


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    samples: int
    made: int
    seconds: float
    complete: bool

    def to_json(self) -> dict[str, float]:
        """For `--json`."""
        return asdict(self)


def generate(
    bank_path: Path,
    out: Path,
    config: GenerateConfig,
    *,
    workers: int = 1,
    ray: str | None = None,
    device: str = "auto",
    dry_run: bool = False,
    log: Callable[[str], None] = print,
) -> Summary:
    """Generate, or resume, the dataset `out` from a bank. `ray`: None for this machine's processes, or an address."""
    started = time.monotonic()
    bank = open_bank(bank_path)
    check_bank(bank, config)
    for notes in (_padding_notes, _split_notes, _missing_notes, _series_notes):
        for note in notes(bank, config):
            log(note)
    plan = Plan(config.samples, config.shard_samples)
    if (out / "dataset.json").exists():
        check_same(out, _info(out, bank, config, plan))
    remaining = plan.remaining(committed_shards(out))
    estimate = estimate_cost(bank, config, plan.samples_in(remaining))
    free = shutil.disk_usage(_existing(out)).free
    log(estimate.line(free, workers))
    if estimate.bytes > free:
        raise PhantumorError(
            f"{out}: the dataset needs about {size(estimate.bytes)}, its disk has {size(free)} free. "
            "Free space, or ask for fewer --samples"
        )
    if dry_run:
        return Summary(config.samples, 0, time.monotonic() - started, not remaining)
    if ray is not None and remaining:
        from workers.ray_executor import connect

        connect(ray, workers)  # before anything is written: the cluster may not be there
    begin(out, bank, config, plan)
    jobs = [job_for(out, bank, config, shard, device) for shard in remaining]
    if len(jobs) < plan.shards:
        log(f"resuming: {plan.shards - len(jobs)} of {plan.shards} shards are there")
    made = _follow(_executor(jobs, workers, ray is not None), plan, jobs, out)
    with writing_to(out, _RESUME):
        compact(out)
    return Summary(config.samples, made, time.monotonic() - started, True)


def _executor(jobs: Sequence[ShardJob], workers: int, ray: bool) -> Iterator[ShardReport]:
    if not jobs:
        return iter(())
    if ray:
        from workers.ray_executor import run_ray

        return run_ray(jobs)
    return run_serial(jobs) if workers == 1 else run_processes(jobs, min(workers, len(jobs)))


def _follow(reports: Iterator[ShardReport], plan: Plan, jobs: Sequence[ShardJob], out: Path) -> int:
    """Wait for all shards, showing progress; turn the first failure into a message. Samples made."""
    todo = plan.samples_in(job.shard for job in jobs)
    progress = Progress(plan.samples, "samples", done=plan.samples - todo)
    made = 0
    try:
        for report in reports:
            made += report.samples if report.status == "committed" else 0
            progress.advance(report.samples)
    except ShardError as failure:
        raise _explained(failure, out) from failure
    return made


def _explained(failure: ShardError, out: Path) -> PhantumorError:
    cause = failure.cause
    if isinstance(cause, PhantumorError):
        return cause
    if isinstance(cause, OSError):
        reason = cause.strerror or str(cause)
        return PhantumorError(f"cannot write shard {failure.shard} to {out}: {reason}. {_RESUME}")
    return PhantumorError(f"shard {failure.shard} failed: {type(cause).__name__}: {cause}. {_RESUME}")


def begin(out: Path, bank: Bank, config: GenerateConfig, plan: Plan) -> None:
    """Create the dataset's folders and `dataset.json`, or check that the ones there are of the same dataset."""
    with writing_to(out, "Choose another --out, or mend the disk"):
        if out.is_dir() and not (out / "dataset.json").exists() and any(out.iterdir()):
            raise InputError(f"{out} exists and is not a dataset; choose an empty or new folder for --out")
        (out / "manifest").mkdir(parents=True, exist_ok=True)
        (out / "shards").mkdir(exist_ok=True)
        create_info(out, _info(out, bank, config, plan))


def _info(out: Path, bank: Bank, config: GenerateConfig, plan: Plan) -> DatasetInfo:
    return DatasetInfo(
        config=config,
        config_digest=config.digest(),
        bank=os.path.relpath(bank.path.resolve(), out.resolve()),
        bank_fingerprint=bank.fingerprint,
        spacing_mm=bank.spacing_mm,
        classes=dataset_classes(config.organs),
        shards=plan.shards,
        software=software(),
    )


def job_for(out: Path, bank: Bank, config: GenerateConfig, shard: int, device: str = "auto") -> ShardJob:
    """The task of one shard."""
    return ShardJob(str(out.resolve()), str(bank.path.resolve()), bank.fingerprint, config, shard, device)


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _padding_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    padded = [r for r in bank.records if any(n < p for n, p in zip(r.shape, config.patch_shape, strict=True))]
    return [
        f"note: the patch {_x(config.patch_shape)} is larger than case {r.case_id} ({_x(r.shape)}): "
        "the rest is padded with air (-1000 HU)"
        for r in padded
    ]


def _series_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    rest = config.samples % config.series.points
    return [f"note: the last series has {rest} of {config.series.points} time points"] if rest else []


def _missing_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    """A trainer takes an organ without a mask for background."""
    notes = []
    for organ in config.organs:
        for split in SPLITS:
            if any(r.split == split for r in bank.records) and not any(
                r.split == split and organ in r.usable_organs for r in bank.records
            ):
                notes.append(f"note: no case of split {split} has a {organ} that takes tumors")
        without = [r.case_id for r in bank.records if organ not in r.stats]
        if without:
            notes.append(
                f"note: {len(without)} of {len(bank.records)} cases have no {organ} mask ({', '.join(without[:4])}"
                f"{', ...' if len(without) > 4 else ''}); in their samples it is background, see annotated_classes"
            )
    return notes


def _split_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    """What a small bank means for training and evaluation."""
    usable = [record for record in bank.records if set(config.organs) & set(record.usable_organs)]
    splits = Counter(record.split for record in usable)
    notes = []
    if splits["train"] == 1:
        notes.append("note: one case is in split train: the network will have seen one patient")
    missing = [split for split in ("val", "test") if not splits[split]]
    if missing:
        notes.append(f"note: no case is in split {' or '.join(missing)}: add cases to the bank to evaluate on others")
    return notes


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def estimate_cost(bank: Bank, config: GenerateConfig, samples: int) -> Estimate:
    """Make a few samples in memory and scale up."""
    count = min(_PROBE_SAMPLES, config.samples)
    _stored_bytes(bank, config, 0)  # loads code and opens cases, which later samples need not pay for
    started = time.perf_counter()
    stored = sum(_stored_bytes(bank, config, index) for index in range(count))
    seconds = time.perf_counter() - started
    return Estimate(samples, round(stored / count * samples), seconds / count * samples)


def _stored_bytes(bank: Bank, config: GenerateConfig, index: int) -> int:
    spec = draw_sample(bank, config, index)
    rendered = render(bank.load(spec.case_id), spec)
    return len(encode_chunk(rendered.image)) + len(encode_chunk(rendered.label))
