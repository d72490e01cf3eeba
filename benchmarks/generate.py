"""How fast datasets are made, from the draw to the commit, and what the stages, more workers and Ray add to it.

    python -m benchmarks.generate                       phantom bank, 96^3, one organ mix; minutes on 2 cores
    python -m benchmarks.generate --bank BANK --samples 512 --store delta

Every figure is a median over rounds that take turns, so that other work on the machine meets all rows alike.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.synthesis import phantom_bank
from pipeline.bank import Bank, open_bank
from pipeline.config import GenerateConfig
from pipeline.description import read_info
from pipeline.manifest import open_part
from pipeline.progress import size
from pipeline.store import open_store
from workers.generate import job_for, new_info
from workers.growth import begin
from workers.shard_task import make_shard

COMPUTE = ("draw", "synthesise", "measure")
SHARD = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", choices=("full", "delta", "recipe"), default="full")
    parser.add_argument("--ray", action="store_true", help="also through a local Ray cluster")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phantumor-benchmark-") as scratch:
        bank = open_bank(options.bank) if options.bank else phantom_bank(Path(scratch) / "bank")
        _stages(bank, options, Path(scratch))
        _executors(bank, options, Path(scratch))


def _config(options: argparse.Namespace) -> GenerateConfig:
    return GenerateConfig.model_validate(
        {"samples": options.samples, "patch_shape": [options.edge] * 3, "shard_samples": SHARD, "store": options.store}
    )


def _stages(bank: Bank, options: argparse.Namespace, scratch: Path) -> None:
    """Shards made by this process: each stage's seconds, and how far they overlap."""
    spent: dict[str, list[float]] = {}
    cpu: list[float] = []
    for number in range(options.rounds):
        store = open_store(scratch / f"stages-{number}")
        begin(store, new_info(store, bank, _config(options)))
        info = read_info(store)
        for shard in range(min(info.shards, 4)):
            before = time.process_time()
            make_shard(job_for(store, bank, info, shard, "cpu"))
            part = open_part(store, shard).part()
            samples = min(SHARD, options.samples - shard * SHARD)
            if shard:  # the first one loads code and opens cases
                cpu.append((time.process_time() - before) / samples)
                for stage, seconds in part.timings_s.items():
                    spent.setdefault(stage, []).append(1000 * seconds / samples)
    ms = {stage: statistics.median(values) for stage, values in spent.items()}
    compute = sum(ms[stage] for stage in COMPUTE)
    slowest = max(compute, ms.get("encode", 0.0), ms.get("write", 0.0))
    print("| stage | ms a sample |\n|---|---|")
    for stage in (*COMPUTE, "encode", "write"):
        print(f"| {stage} | {ms.get(stage, 0.0):.2f} |")
    print(f"| **all, side by side** | **{ms['wall']:.2f}** |")
    print(f"| CPU time | {1000 * statistics.median(cpu):.2f} |\n")
    print(f"wall over the slowest of compute, encode, write: {ms['wall'] / slowest:.2f}")
    print(f"one core makes {1 / statistics.median(cpu):.0f} samples/s (CPU time, all stages)")
    print(f"largest memory of this process: {size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)}\n")


def _executors(bank: Bank, options: argparse.Namespace, scratch: Path) -> None:
    """The command as a user types it, with one worker, two, and Ray; start-up included and apart."""
    ways = {"one process": [], "--workers 2": ["--workers", "2"]}
    if options.ray:
        ways["--ray local --workers 2"] = ["--ray", "local", "--workers", "2"]
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way, flags in ways.items():
            out = scratch / f"{number}{len(flags)}"
            rates[way].append(_rate(bank, out, options, flags))
    alone = statistics.median(rates["one process"])
    print("| executor | samples/s between first and last commit | x one process |\n|---|---|---|")
    for way, found in rates.items():
        print(f"| {way} | {statistics.median(found):.1f} | {statistics.median(found) / alone:.2f} |")


def _rate(bank: Bank, out: Path, options: argparse.Namespace, flags: list[str]) -> float:
    """Samples per second from the first commit to the last: without the time that processes need to start."""
    edge = str(options.edge)
    command = [
        *(sys.executable, "-m", "pipeline.cli", "generate", "--bank", bank.place, "--out", str(out), "--device", "cpu"),
        *("--samples", str(options.samples), "--patch-shape", edge, edge, edge, "--shard-samples", str(SHARD)),
        *("--store", options.store, *flags),
    ]
    with _quiet():
        subprocess.run(command, check=True, capture_output=True)
    times = sorted(path.stat().st_mtime for path in (out / "manifest").glob("*.parquet"))
    return (len(times) - 1) * SHARD / (times[-1] - times[0])


@contextmanager
def _quiet() -> Iterator[None]:
    try:
        yield
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr.decode())


if __name__ == "__main__":
    main()
