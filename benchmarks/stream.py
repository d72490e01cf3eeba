"""How fast samples stream from shards, beside what bounds it and what people use today.

    python benchmarks/stream.py [--samples 512 --patch 96 --batch 8 --threads 2 --rounds 5 --json FILE]

Writes a temporary dataset of CT-like noise with our shard writer, then times every reader once per round, one after
another, on a warm page cache and in the same shuffled order. Printed are medians over the rounds: samples per second
with the ratio to memcpy and to raw decoding, and CPU milliseconds per sample with the ratio to raw decoding. Where
others use the machine, times mean nothing by themselves, ratios within one run something, CPU time the most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
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
import torch
import zarr
from scipy.ndimage import gaussian_filter
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import DatasetInfo, create_info, dataset_classes
from pipeline.manifest import Part, commit_part, sample_id, shard_name
from pipeline.shard import DTYPES, ShardWriter, array_crc32c, decode_chunk
from training.order import epoch_permutation
from training.reader import split_samples
from training.stream import ShardStream

SEED = 0
RAM_SAMPLES = 64  # held in memory for the copies: more than a processor's caches
RING = 5  # reused batch buffers of the memcpy floor, as many as a stream with prefetch 4 uses
WORKERS = 2  # processes of the torch DataLoaders
MANIFEST_ROWS = 1_000_000
NOISE_SD_HU, AIR_SD_HU, IN_PLANE_SIGMA_VOX = 14.0, 7.7, 0.6  # abdominal CT, 1 mm voxels, soft kernel
ANATOMY_SD_HU, ANATOMY_SIGMA_VOX = 50.0, 6.0  # fat, muscle and organs in turns

Arrays = dict[str, npt.NDArray[Any]]


# -- data -------------------------------------------------------------------------------------------------------------


class Patches:
    """Draws CT-like patches: tissue and air with noise correlated in plane, two organs and up to three tumors."""

    def __init__(self, edge: int) -> None:
        self.edge = edge
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((SEED, edge))))
        white = self.rng.standard_normal((2 * edge,) * 3, np.float32)
        self.noise = unit_sd(gaussian_filter(white, (IN_PLANE_SIGMA_VOX, IN_PLANE_SIGMA_VOX, 0)))
        self.anatomy = unit_sd(gaussian_filter(white, ANATOMY_SIGMA_VOX))
        self.grid = np.indices((edge,) * 3, dtype=np.float32)

    def draw(self) -> Arrays:
        edge = self.edge
        inside = self._ball(self.rng.uniform(0.4, 0.6, 3) * edge, 0.75 * edge)
        label = np.zeros((edge,) * 3, np.uint8)
        label[self._ball(self.rng.uniform(0.3, 0.7, 3) * edge, 0.25 * edge)] = 1
        label[self._ball(self.rng.uniform(0.2, 0.8, 3) * edge, 0.15 * edge)] = 5
        for _ in range(self.rng.integers(0, 4)):
            centre = self.rng.uniform(0.3, 0.7, 3) * edge
            label[self._ball(centre, self.rng.uniform(0.03, 0.12) * edge)] = 2
        tissue = ANATOMY_SD_HU * self._part(self.anatomy) + np.array([20, 105, 60, 0, 0, 150], np.float32)[label]
        hu = np.where(inside, tissue, -1000) + self._part(self.noise) * np.where(inside, NOISE_SD_HU, AIR_SD_HU)
        return {"image": hu.round().astype(np.int16), "label": label}

    def _ball(self, centre: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.bool_]:
        x, y, z = ((self.grid[axis] - centre[axis]) ** 2 for axis in range(3))
        mask: npt.NDArray[np.bool_] = x + y + z < radius**2
        return mask

    def _part(self, field: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        corner = self.rng.integers(0, self.edge, 3)
        part = field[tuple(slice(c, c + self.edge) for c in corner)]
        return part[:: self.rng.choice((-1, 1)), :: self.rng.choice((-1, 1))]


def unit_sd(field: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return field / field.std()


def write_dataset(folder: Path, samples: int, edge: int) -> Dataset:
    """A complete dataset of one split, written as the generator writes it."""
    config = GenerateConfig(samples=samples, seed=SEED, patch_shape=(edge,) * 3, organs=("liver", "kidney"))
    shards = -(-samples // config.shard_samples)
    info = DatasetInfo(
        config=config,
        config_digest=config.digest(),
        bank="none",
        bank_fingerprint="0" * 64,
        spacing_mm=1.0,
        classes=dataset_classes(config.organs),
        shards=shards,
        software={},
    )
    (folder / "manifest").mkdir(parents=True)
    create_info(folder, info)
    patches = Patches(edge)
    for shard in range(shards):
        first = shard * config.shard_samples
        write_shard(folder, config, shard, range(first, min(first + config.shard_samples, samples)), patches)
    compact(folder)
    return open_dataset(folder)


def write_shard(folder: Path, config: GenerateConfig, shard: int, indices: range, patches: Patches) -> None:
    attempt, rows = f"{shard:08x}", []
    with ShardWriter(folder / shard_name(shard, attempt), len(indices), config.patch_shape) as writer:
        for row, index in enumerate(indices):
            arrays = patches.draw()
            stored = {f"{name}_range": where for name, where in writer.append(arrays).items()}
            sums = {f"{name}_crc32c": array_crc32c(array) for name, array in arrays.items()}
            ids = {"sample_id": sample_id(index), "index": index, "split": "train", "shard": shard, "row": row}
            rows.append(ids | stored | sums)
        files = writer.finish()
    commit_part(folder, Part(shard, attempt, tuple(files), config.digest(), {}, "benchmark", {}), rows)


# -- readers: each reads all samples once ------------------------------------------------------------------------------


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
        held = split_samples(task.dataset, "all")
        self.shard = held.shard
        self.row = task.dataset.manifest["row"].to_numpy()
        self.opened: dict[int, Any] | None = None

    def arrays(self, index: int) -> Arrays:
        self.opened = {} if self.opened is None else self.opened
        shard = int(self.shard[index])
        if shard not in self.opened:
            group = zarr.open_group(self.dataset.object_file(shard, "image").parents[5], mode="r")
            self.opened[shard] = {name: group[name] for name in DTYPES}
        return {name: array[int(self.row[index])] for name, array in self.opened[shard].items()}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.arrays(index).items()}


def memcpy_reader(task: Task, ram: RamSamples) -> Callable[[], None]:
    shape = task.dataset.info.patch_shape
    ring = [{name: np.empty((task.batch, 1, *shape), dtype) for name, dtype in DTYPES.items()} for _ in range(RING)]

    def read() -> None:
        for number, indices in enumerate(task.batches()):
            for slot, index in enumerate(indices.tolist()):
                for name, array in ram.arrays(index).items():
                    np.copyto(ring[number % RING][name][slot, 0], array)

    return read


def decode_reader(task: Task) -> Callable[[], None]:
    """The same chunks, one thread, always into the same two arrays."""
    held = split_samples(task.dataset, "all")
    out = {name: np.empty(task.dataset.info.patch_shape, dtype) for name, dtype in DTYPES.items()}
    opened = lru_cache(maxsize=None)(lambda shard, name: os.open(task.dataset.object_file(shard, name), os.O_RDONLY))

    def read() -> None:
        for index in task.order.tolist():
            for name in DTYPES:
                offset, length = held.ranges[name][index].tolist()
                decode_chunk(os.pread(opened(int(held.shard[index]), name), length, offset), out[name])

    return read


def threaded_decode_reader(task: Task) -> Callable[[], None]:
    """Raw decoding shared between threads that need nothing of each other: the bound of a stream with as many."""
    parts = [decode_reader(replace(task, order=task.order[k :: task.threads])) for k in range(task.threads)]

    def read() -> None:
        threads = [threading.Thread(target=part) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return read


def stream_reader(task: Task, **options: Any) -> Callable[[], None]:
    stream = ShardStream(task.dataset, task.batch, seed=SEED, epochs=1, threads=task.threads, **options)

    def read() -> None:
        for batch in stream:
            look_at(batch)

    return read


def loader_reader(task: Task, samples: TorchDataset[dict[str, torch.Tensor]]) -> Callable[[], None]:
    loader = DataLoader(
        samples,
        task.batch,
        sampler=task.order.tolist(),
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="fork",
        timeout=120,
    )

    def read() -> None:
        for batch in loader:
            look_at(batch)

    return read


def zarr_reader(task: Task, samples: ZarrSamples) -> Callable[[], None]:
    def read() -> None:
        for index in task.order.tolist():
            samples.arrays(index)

    return read


def look_at(batch: dict[str, torch.Tensor]) -> None:
    """What a consumer does at least: touch each sample's image and label."""
    for name in DTYPES:
        batch[name].flatten(1)[:, 0].sum()


# -- timing -----------------------------------------------------------------------------------------------------------


def readers(task: Task) -> dict[str, Callable[[], None]]:
    """All readers by name. Those with processes come first: their warm-up must fork before there are threads."""
    ram, ours = RamSamples(task), f"ShardStream, {task.threads} threads"
    return {
        f"torch DataLoader, {WORKERS} processes, copies of RAM arrays": loader_reader(task, ram),
        f"torch DataLoader, {WORKERS} processes, zarr-python": loader_reader(task, ZarrSamples(task)),
        "memcpy of RAM arrays into reused buffers, 1 thread": memcpy_reader(task, ram),
        "raw decode (pread, crc32c, blosc), 1 thread": decode_reader(task),
        f"raw decode, {task.threads} threads": threaded_decode_reader(task),
        ours: stream_reader(task),
        f"{ours}, window to float32": stream_reader(task, window=(-175, 250), dtype=torch.float32),
        "zarr-python, sample by sample": zarr_reader(task, ZarrSamples(task)),
    }


@dataclass(frozen=True)
class Cost:
    """Of one pass over all samples."""

    wall_s: float
    cpu_s: float  # of this process and of the loaders' processes


def cpu_seconds() -> float:
    """CPU time of this process and of its living children. Unlike wall time, others on the machine hardly change it."""
    ticks = 0
    for child in multiprocessing.active_children():
        user, system = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def timed(read: Callable[[], None]) -> Cost:
    cpu, began = cpu_seconds(), time.perf_counter()
    read()
    return Cost(time.perf_counter() - began, cpu_seconds() - cpu)


def measure(task: Task, rounds: int) -> dict[str, list[Cost]]:
    """The cost of each reader, one figure a round."""
    named = readers(task)
    for read in named.values():
        read()
    costs: dict[str, list[Cost]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, read in named.items():
            costs[name].append(timed(read))
    return costs


def first_batch_seconds(dataset: Dataset, batch: int) -> float:
    """From an open dataset of a million rows to its first shuffled batch."""
    table = dataset.manifest
    many = table.take(np.arange(MANIFEST_ROWS) % len(table))
    column = table.schema.get_field_index("index")
    many = many.set_column(column, table.schema.field("index"), [np.arange(MANIFEST_ROWS)])
    large = replace(dataset, manifest=many)
    return timed(lambda: look_at(next(iter(ShardStream(large, batch, seed=SEED))))).wall_s


def report(costs: dict[str, list[Cost]], samples: int, sample_mb: float) -> list[dict[str, Any]]:
    """Medians over the rounds, fastest first."""
    wall = {name: statistics.median(cost.wall_s for cost in of) / samples for name, of in costs.items()}
    cpu = {name: statistics.median(cost.cpu_s for cost in of) / samples for name, of in costs.items()}
    memcpy = next(name for name in costs if name.startswith("memcpy"))
    decode = next(name for name in costs if name.startswith("raw decode ("))
    return [
        {
            "reader": name,
            "samples_per_s": round(1 / seconds, 1),
            "lowest": round(samples / max(cost.wall_s for cost in costs[name]), 1),
            "highest": round(samples / min(cost.wall_s for cost in costs[name]), 1),
            "raw_mb_per_s": round(sample_mb / seconds),
            "of_memcpy": round(wall[memcpy] / seconds, 2),
            "of_raw_decode": round(wall[decode] / seconds, 2),
            "cpu_ms_per_sample": round(1000 * cpu[name], 2),
            "cpu_of_raw_decode": round(cpu[name] / cpu[decode], 2),
        }
        for name, seconds in sorted(wall.items(), key=lambda item: item[1])
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    heads = ("samples/s", "lowest", "highest", "raw MB/s", "/ memcpy", "/ decode", "CPU ms", "/ decode")
    width = max(len(row["reader"]) for row in rows)
    print(f"{'reader':{width}}", *(f"{head:>10}" for head in heads))
    for row in rows:
        name, *figures = row.values()
        print(f"{name:{width}}", *(f"{figure:>10}" for figure in figures))


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {"torch": torch.__version__, "zarr": zarr.__version__, "numpy": np.__version__},
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Streaming speed beside memcpy, raw decoding, zarr-python, DataLoader")
    for name, value in (("samples", 512), ("patch", 96), ("batch", 8), ("threads", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    torch.set_num_threads(1)
    before = machine()
    with tempfile.TemporaryDirectory(prefix="phantumor-stream-") as folder:
        dataset = write_dataset(Path(folder) / "dataset", asked.samples, asked.patch)
        stored = sum(file.size for part in dataset.parts.values() for file in part.files)
        sample_mb = 3 * asked.patch**3 / 1e6
        task = Task(dataset, epoch_permutation(asked.samples, SEED, 0), asked.batch, asked.threads)
        rows = report(measure(task, asked.rounds), asked.samples, sample_mb)
        first = first_batch_seconds(dataset, asked.batch)
    after = machine()["load"]
    ratio = asked.samples * sample_mb * 1e6 / stored
    print(f"{asked.samples} samples of {asked.patch}³, batch {asked.batch}, {asked.rounds} rounds, stored {ratio:.2f}x")
    print(f"{before['cores']} cores, load before {before['load']} and after {after}, {before['versions']}\n")
    print_table(rows)
    print(f"\nfirst batch from a manifest of {MANIFEST_ROWS:,} rows: {first:.2f} s")
    if asked.json:
        settings = {name: value for name, value in vars(asked).items() if name != "json"}
        document = {"settings": settings, "machine": before | {"load_after": after}, "readers": rows}
        asked.json.write_text(json.dumps(document | {"first_batch_s": first, "compression": ratio}, indent=1))


if __name__ == "__main__":
    main()
