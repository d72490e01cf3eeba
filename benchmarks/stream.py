"""How fast samples stream from shards, beside what bounds it and what people use today.

    python -m benchmarks.stream [--samples 512 --patch 96 --batch 8 --threads 2 --rounds 5 --bank BANK --json FILE]

The peers are optional: a row is left out, with a line that says so, where one is not installed. They want an older
NumPy than we do, so give them an environment of their own:

    python -m venv peers && peers/bin/pip install -c constraints.txt -e '.[peers]'
    peers/bin/python -m benchmarks.stream

Generates a dataset from a bank (a phantom without --bank), keeps it as `full` and as `delta`, and hands its samples to
the peers as raw pixels. Then times every reader once per round, one after another, on a warm page cache, each shuffled.
Printed are medians over the rounds. Where others use the machine, times mean nothing by themselves; ratios within one
run mean something, CPU time the most. At last the first batch of a manifest with a million rows.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import zarr
from torch.utils.data import Dataset as TorchDataset

from benchmarks.peers import PEERS, WORKERS, Batches, open_peers
from benchmarks.synthesis import phantom_bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import Source, create_info, recipe_digest
from pipeline.manifest import SCHEMA, sample_id
from pipeline.reader import column_names, located
from pipeline.shard import DTYPES, decode_sample
from pipeline.store import absolute, open_store
from pipeline.whole_manifest import write_rows
from training.stream import ShardStream
from workers.convert import convert
from workers.execution import How
from workers.generate import generate

SEED = 0
RAM_SAMPLES = 64  # held in memory for the copies: more than a processor's caches
RING = 5  # reused batch buffers of the memcpy floor, as many as a stream with prefetch 4 uses
MANIFEST_ROWS = (10_000, 1_000_000)
OURS, DELTA, ZARR = "ShardStream", "ShardStream, delta", "torch DataLoader, zarr-python"
MEMCPY, DECODE = "memcpy of RAM arrays into reused buffers, 1 thread", "raw decode (pread, crc32c, blosc), 1 thread"

Arrays = dict[str, npt.NDArray[Any]]
Reader = Callable[[], int]  # reads all samples once, and tells how many


# -- data -------------------------------------------------------------------------------------------------------------


def make_datasets(folder: Path, asked: argparse.Namespace) -> dict[str, Dataset]:
    """The same samples in full and as differences."""
    bank = asked.bank or phantom_bank(folder / "bank").path
    config = GenerateConfig(samples=asked.samples, seed=SEED, patch_shape=(asked.patch,) * 3, organs=("liver",))
    how = How(workers=min(2, os.cpu_count() or 1))
    generate(bank, folder / "full", config, how=how)
    convert(folder / "full", folder / "delta", "delta", how=how)
    return {kind: open_dataset(folder / kind) for kind in ("full", "delta")}


def many_rows(source: Dataset, folder: Path, rows: int) -> Path:
    """A view of `rows` rows: those of `source` again and again, under other indices and checksums."""
    store, base = open_store(folder), source.manifest.combine_chunks()
    digest = recipe_digest(source.info.config)
    origin = Source(
        place=absolute(source.store),
        config_digest=digest,
        bank_fingerprint=source.info.bank_fingerprint,
        first_index=0,
        first_shard=0,
    )
    config = source.info.config.model_copy(update={"samples": rows})
    create_info(store, source.info.model_copy(update={"config": config, "sources": (origin,)}))
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((SEED, rows))))

    def tables() -> Iterator[pa.Table]:
        for first in range(0, rows, 1 << 14):
            index = np.arange(first, min(rows, first + (1 << 14)))
            table = base.take(pa.array(index % len(base)))
            new = {"index": index, "sample_id": [sample_id(k) for k in index.tolist()]}
            new |= {f"{name}_crc32c": rng.integers(0, 2**32, len(index), np.uint32) for name in DTYPES}
            for name, values in new.items():
                at, field = SCHEMA.get_field_index(name), SCHEMA.field(name)
                table = table.set_column(at, field, pa.array(values, field.type))
            yield table

    write_rows(store, tables(), lambda: source.parts)
    return folder


# -- readers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What every reader has to do."""

    dataset: Dataset
    order: npt.NDArray[np.int64]
    batch: int
    threads: int

    def batches(self) -> Iterator[npt.NDArray[np.int64]]:
        for start in range(0, len(self.order), self.batch):
            yield self.order[start : start + self.batch]


class RamSamples(TorchDataset[dict[str, torch.Tensor]]):
    """Samples that lie in memory; index i is sample i modulo their number."""

    def __init__(self, task: Task) -> None:
        held = min(RAM_SAMPLES, len(task.order))
        self.samples = [task.dataset.sample(index) for index in range(held)]

    def arrays(self, index: int) -> Arrays:
        sample = self.samples[index % len(self.samples)]
        return {"image": sample.image, "label": sample.label}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.arrays(index).items()}


class ZarrSamples(TorchDataset[dict[str, torch.Tensor]]):
    """Samples read by zarr-python, its arrays opened once in each process."""

    def __init__(self, task: Task) -> None:
        self.dataset = task.dataset
        table = task.dataset.columns(["shard", "row"])
        self.shard, self.row = table["shard"].to_numpy(), table["row"].to_numpy()
        self.opened: dict[int, Any] | None = None

    def arrays(self, index: int) -> Arrays:
        self.opened = {} if self.opened is None else self.opened
        shard = int(self.shard[index])
        if shard not in self.opened:
            group = zarr.open_group(object_file(self.dataset, shard, "image").parents[5], mode="r")
            self.opened[shard] = {name: group[name] for name in DTYPES}
        return {name: array[int(self.row[index])] for name, array in self.opened[shard].items()}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.arrays(index).items()}


def object_file(dataset: Dataset, shard: int, name: str) -> Path:
    store, key = dataset.object_key(shard, name)
    if store.folder is None:
        raise ValueError(f"{store.url} is no folder")
    return store.folder / key


def memcpy_reader(task: Task, ram: RamSamples) -> Reader:
    shape = task.dataset.info.config.patch_shape
    ring = [{name: np.empty((task.batch, 1, *shape), dtype) for name, dtype in DTYPES.items()} for _ in range(RING)]

    def read() -> int:
        for number, indices in enumerate(task.batches()):
            for slot, index in enumerate(indices.tolist()):
                for name, array in ram.arrays(index).items():
                    np.copyto(ring[number % RING][name][slot, 0], array)
        return len(task.order)

    return read


def decode_reader(task: Task) -> Reader:
    """The same chunks, one thread, into as many reused arrays as a stream has."""
    rows = located(task.dataset, task.dataset.columns(column_names(task.dataset)))
    slots = RING * task.batch
    out = {name: np.empty((slots, *task.dataset.info.config.patch_shape), dtype) for name, dtype in DTYPES.items()}
    opened = lru_cache(maxsize=None)(lambda shard, name: os.open(object_file(task.dataset, shard, name), os.O_RDONLY))

    def read() -> int:
        for number, index in enumerate(task.order.tolist()):
            for name in DTYPES:
                offset, length = rows.ranges[name][index].tolist()
                data = os.pread(opened(int(rows.shard[index]), name), length, offset)
                decode_sample(data, out[name][number % slots])
        return len(task.order)

    return read


def threaded_decode_reader(task: Task) -> Reader:
    """Raw decoding shared between threads that need nothing of each other: the bound of a stream with as many."""
    parts = [decode_reader(replace(task, order=task.order[k :: task.threads])) for k in range(task.threads)]

    def read() -> int:
        threads = [threading.Thread(target=part) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(task.order)

    return read


def stream_reader(dataset: Dataset, task: Task, **options: Any) -> Reader:
    stream = ShardStream(dataset, task.batch, split="all", seed=SEED, epochs=1, threads=task.threads, **options)
    return batch_reader(stream)


def batch_reader(batches: Batches) -> Reader:
    """What a consumer does at least: touch each sample's image and label."""

    def read() -> int:
        samples = 0
        for batch in batches:
            for name in DTYPES:
                batch[name].flatten(1)[:, 0].sum()
            samples += len(batch["image"])
        return samples

    return read


def loader_reader(task: Task, samples: TorchDataset[dict[str, torch.Tensor]]) -> Reader:
    loader = torch.utils.data.DataLoader(
        samples,
        task.batch,
        sampler=task.order.tolist(),
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="fork",
        timeout=120,
    )
    return batch_reader(loader)


def zarr_reader(task: Task, samples: ZarrSamples) -> Reader:
    def read() -> int:
        for index in task.order.tolist():
            samples.arrays(index)
        return len(task.order)

    return read


def readers(task: Task, delta: Dataset, peers: dict[str, Batches]) -> dict[str, Reader]:
    """All readers by name. Those with processes come first: their warm-up must fork before there are threads."""
    ram = RamSamples(task)
    return {
        **{name: batch_reader(batches) for name, batches in peers.items()},
        "torch DataLoader, copies of RAM arrays": loader_reader(task, ram),
        ZARR: loader_reader(task, ZarrSamples(task)),
        MEMCPY: memcpy_reader(task, ram),
        DECODE: decode_reader(task),
        f"raw decode, {task.threads} threads": threaded_decode_reader(task),
        OURS: stream_reader(task.dataset, task),
        f"{OURS}, window to float32": stream_reader(task.dataset, task, window=(-175, 250), dtype=torch.float32),
        DELTA: stream_reader(delta, task),
        "zarr-python, sample by sample": zarr_reader(task, ZarrSamples(task)),
    }


# -- timing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Of one pass over all samples, in ms a sample."""

    wall_ms: float
    cpu_ms: float  # of this process and of the loaders' processes


def cpu_seconds() -> float:
    """CPU time of this process and of its living children. Unlike wall time, others on the machine hardly change it."""
    ticks = 0
    for child in multiprocessing.active_children():
        user, system = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def timed(read: Reader) -> Cost:
    cpu, began = cpu_seconds(), time.perf_counter()
    samples = read()
    wall = time.perf_counter() - began
    return Cost(1000 * wall / samples, 1000 * (cpu_seconds() - cpu) / samples)


def measure(named: dict[str, Reader], rounds: int) -> dict[str, list[Cost]]:
    """The cost of each reader, one figure a round."""
    for read in named.values():
        read()
    costs: dict[str, list[Cost]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, read in named.items():
            costs[name].append(timed(read))
    return costs


def report(costs: dict[str, list[Cost]], sample_mb: float) -> list[dict[str, Any]]:
    """Medians over the rounds, fastest first; ratios are medians of the ratios within a round."""
    rows = []
    for name, own in costs.items():
        wall = statistics.median(cost.wall_ms for cost in own)
        rows.append(
            {
                "reader": name,
                "samples_per_s": round(1000 / wall, 1),
                "raw_mb_per_s": round(1000 * sample_mb / wall),
                "cpu_ms": round(statistics.median(cost.cpu_ms for cost in own), 2),
                "of_memcpy": ratio(own, costs[MEMCPY]),
                "of_raw_decode": ratio(own, costs[DECODE]),
                "stream_is_faster": ratio(costs[OURS], own),
                "stream_cpu_less": ratio(costs[OURS], own, "cpu_ms"),
            }
        )
    return sorted(rows, key=lambda row: -row["samples_per_s"])


def ratio(own: list[Cost], other: list[Cost], of: str = "wall_ms") -> float:
    """How many times as fast `own` is as `other`."""
    return round(statistics.median(getattr(b, of) / getattr(a, of) for a, b in zip(own, other, strict=True)), 2)


# -- the first batch --------------------------------------------------------------------------------------------------


def resident_mb(which: str = "VmRSS") -> float:
    """Resident memory of this process, or its highest (VmHWM; that of getrusage counts what started it as well)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1e3


def first_batch(small: str, large: str, batch: int) -> None:
    """In a process of its own: seconds to the first shuffled batch of a dataset, and MB that the stream then holds."""
    kept = [next(iter(ShardStream(small, batch, split="all", seed=SEED)))]  # what every stream needs once
    gc.collect()
    before, began = resident_mb(), time.perf_counter()
    dataset = open_dataset(large)
    opened = time.perf_counter() - began
    stream = ShardStream(dataset, batch, split="all", seed=SEED)
    kept.append(next(iter(stream)))
    seconds = time.perf_counter() - began
    gc.collect()
    figures = {"rows": dataset.rows, "open_s": opened, "first_batch_s": seconds}
    print(json.dumps(figures | {"held_mb": resident_mb() - before, "peak_mb": resident_mb("VmHWM") - before}))


def first_batches(datasets: dict[str, Dataset], folder: Path, asked: argparse.Namespace) -> list[dict[str, float]]:
    """Of manifests with few and with many rows, the median of the rounds each."""
    places = [many_rows(datasets["full"], folder / f"rows-{rows}", rows) for rows in MANIFEST_ROWS]
    medians = []
    for place in places:
        command = [sys.executable, "-m", "benchmarks.stream", "--first", datasets["full"].path, str(place)]
        found = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            for _ in range(asked.rounds)
        ]
        medians.append({key: round(statistics.median(f[key] for f in found), 3) for key in found[0]})
    return medians


# -- output -----------------------------------------------------------------------------------------------------------


def print_table(rows: list[dict[str, Any]]) -> None:
    heads = ("samples/s", "raw MB/s", "CPU ms", "/ memcpy", "/ decode", "stream x", "CPU x")
    width = max(len(row["reader"]) for row in rows)
    print(f"{'reader':{width}}", *(f"{head:>10}" for head in heads))
    for row in rows:
        name, *figures = row.values()
        print(f"{name:{width}}", *(f"{figure:>10}" for figure in figures))


def print_targets(costs: dict[str, list[Cost]]) -> None:
    """What was asked of the stream."""
    found = {name: (ratio(costs[OURS], costs[name]), ratio(costs[OURS], costs[name], "cpu_ms")) for name in costs}
    peers = [name for name in PEERS if name in costs]
    if peers:
        best = min(peers, key=lambda name: found[name][0])
        print(f"of the best peer ({best}): {found[best][0]} x in time, {found[best][1]} x in CPU time (asked 4.5)")
    print(f"of {ZARR}: {found[ZARR][0]} x in time, {found[ZARR][1]} x in CPU time (asked 7)")
    print(
        f"delta: {ratio(costs[DELTA], costs[OURS])} of full, in CPU time {ratio(costs[DELTA], costs[OURS], 'cpu_ms')}"
    )


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {"torch": torch.__version__, "zarr": zarr.__version__, "numpy": np.__version__},
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("samples", 512), ("patch", 96), ("batch", 8), ("threads", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bank", type=Path, help="a prepared bank; a phantom without")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--first", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    asked = parse()
    torch.set_num_threads(1)
    if asked.first:
        first_batch(*asked.first, asked.batch)
        return
    before = machine()
    with tempfile.TemporaryDirectory(prefix="phantumor-stream-") as scratch:
        folder = Path(scratch)
        datasets = make_datasets(folder, asked)
        full, raw = datasets["full"], 3 * asked.patch**3 * asked.samples
        stored = {kind: dataset.parts.file_bytes / raw for kind, dataset in datasets.items()}
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence(SEED))).permutation(asked.samples)
        peers, missing = open_peers(folder, lambda: pixels(full), asked.batch)
        costs = measure(readers(Task(full, order, asked.batch, asked.threads), datasets["delta"], peers), asked.rounds)
        first = first_batches(datasets, folder, asked)
    rows, after = report(costs, 3 * asked.patch**3 / 1e6), machine()["load"]
    print(f"{asked.samples} samples of {asked.patch}³, batch {asked.batch}, {asked.rounds} rounds")
    print(f"{before['cores']} cores, load before {before['load']} and after {after}, {before['versions']}\n")
    print_table(rows)
    print("", *missing, sep="\n")
    print_targets(costs)
    print("on disk, of the raw pixels:", ", ".join(f"{kind} {share:.3f}" for kind, share in stored.items()))
    print("first batch:", *first, sep="\n  ")
    if asked.json:
        settings = {name: str(value) for name, value in vars(asked).items() if name not in ("json", "first")}
        document = {"settings": settings, "machine": before | {"load_after": after}, "readers": rows, "of_raw": stored}
        asked.json.write_text(json.dumps(document | {"missing": missing, "first_batch": first}, indent=1))


def pixels(dataset: Dataset) -> Iterator[Arrays]:
    for index in range(dataset.rows):
        sample = dataset.sample(index)
        yield {"image": sample.image, "label": sample.label}


if __name__ == "__main__":
    main()
