"""What a dataset costs on disk and how fast it is written and read, kept in full, as differences, as recipes.

    python benchmarks/storage.py [--samples 10000 --patch 64 --bank BANK --workers 2 --rounds 5 --json FILE]

Generates a dataset in full, converts it to the other kinds, and counts bytes. Then, in rounds that take turns: what
the shard writer needs beside zarr-python that writes the same samples as whole shards, and what reading needs in
shuffled order with 1 and 2 threads. Without --bank it makes phantoms. Where others use the machine, times mean nothing
by themselves; ratios within one run mean something, CPU time the most.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import build_case
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.delta import delta_of
from pipeline.grid import slices3
from pipeline.manifest import WHOLE
from pipeline.phantom import make_phantom
from pipeline.progress import size
from pipeline.reader import SampleReader, column_names, located
from pipeline.shard import StoredKind, array_metadata
from pipeline.store import open_store
from workers.convert import Kind, convert
from workers.execution import How
from workers.generate import generate
from workers.stages import Clock, ShardSink

KINDS: tuple[Kind, ...] = ("full", "delta", "recipe")
MILLION = 1_000_000
Arrays = dict[str, npt.NDArray[Any]]


def phantom_bank(folder: Path, cases: int = 2) -> Bank:
    """Phantoms at 1 mm, each as large as a real abdomen."""
    with create_or_open_bank(folder, 1.0) as bank:
        for seed in range(cases):
            phantom = make_phantom(seed, (320, 256, 192), 1.0)
            bank.add_case(build_case(f"phantom{seed}", phantom.ct, phantom.organs, phantom.affine, 1.0))
    return open_bank(folder)


# -- timing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Of one round, in ms a sample; CPU of all threads."""

    wall_ms: float
    cpu_ms: float


def cpu_seconds() -> float:
    """Of this process and of workers that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def timed(costs: list[Cost], samples: int) -> Iterator[None]:
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield
    spent = time.perf_counter() - wall, cpu_seconds() - cpu
    costs.append(Cost(1000 * spent[0] / samples, 1000 * spent[1] / samples))


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.wall_ms for c in costs), statistics.median(c.cpu_ms for c in costs))


def rounds(works: dict[str, Callable[[], int]], count: int) -> dict[str, Cost]:
    """The median cost of each; `works` return how many samples they worked on. The first round warms up."""
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(count + 1):
        for name, work in works.items():
            samples = 0
            with timed(costs[name], 1):
                samples = work()
            whole = costs[name].pop()
            costs[name].append(Cost(whole.wall_ms / samples, whole.cpu_ms / samples))
    return {name: median(of[1:]) for name, of in costs.items()}


# -- bytes ------------------------------------------------------------------------------------------------------------


def bytes_by_part(dataset: Dataset) -> dict[str, int]:
    """Bytes below a dataset by what they are for, and how many objects shards and parts are."""
    found = {"shards": 0, "parts": 0, "whole manifest": 0, "other": 0, "objects": 0}
    names = {"shards": "shards", "manifest": "parts", WHOLE: "whole manifest"}
    for entry in dataset.store.entries():
        what = names.get(entry.key.partition("/")[0], "other")
        found[what] += entry.size
        found["objects"] += what in ("shards", "parts")
    return found


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# -- writing ----------------------------------------------------------------------------------------------------------


def samples_of(dataset: Dataset, kind: StoredKind, count: int) -> Arrays:
    """What a shard of a kind holds of the first samples: image and label (n, X, Y, Z)."""
    found: dict[str, list[npt.NDArray[Any]]] = {"image": [], "label": []}
    for index in range(count):
        sample = dataset.sample(index)
        arrays: Arrays = {"image": sample.image, "label": sample.label}
        if kind == "delta":
            everywhere = [slices3((0, 0, 0), sample.image.shape)]
            origin, organs = tuple(sample.row["origin_vox"]), dataset.info.config.organs
            arrays = delta_of(dataset.case(sample.row), origin, organs, arrays, everywhere, "")
        for name, array in arrays.items():
            found[name].append(array)
    return {name: np.stack(arrays) for name, arrays in found.items()}


def our_writer(folder: Path, arrays: Arrays, kind: StoredKind) -> Callable[[], int]:
    """As a worker writes: a thread encodes, another one writes and takes the digests; flushed to the disk."""
    samples, shape = len(arrays["image"]), arrays["image"].shape[1:]
    store = open_store(folder)
    config = GenerateConfig.model_validate({"samples": samples, "patch_shape": shape, "store": kind})

    def sample(k: int) -> Arrays:
        return {name: array[k] for name, array in arrays.items()}

    def write() -> int:
        store.remove_group("shards")
        with ShardSink(store, "shards/ours.zarr", samples, config, Clock()) as sink:
            for k in range(samples):
                sink.put({}, partial(sample, k))
            sink.finish()
        return samples

    return write


def zarr_writer(folder: Path, arrays: Arrays, kind: StoredKind) -> Callable[[], int]:
    """zarr-python with the same codecs, each array assigned whole: its best case. Then flushed to the disk as ours."""
    codecs = {name: array_metadata(name, array.shape, kind) for name, array in arrays.items()}
    blosc = {n: m["codecs"][0]["configuration"]["codecs"][1]["configuration"] for n, m in codecs.items()}

    def write() -> int:
        shutil.rmtree(folder, ignore_errors=True)
        group = zarr.create_group(folder)
        for name, array in arrays.items():
            compressors = (BloscCodec(**blosc[name]), Crc32cCodec())
            chunks, dtype = (1, *array.shape[1:]), array.dtype
            made = group.create_array(
                name, shape=array.shape, dtype=dtype, chunks=chunks, shards=array.shape, compressors=compressors
            )
            made[:] = array
        for path in [folder, *folder.rglob("*")]:
            flush(path)
        return int(arrays["image"].shape[0])

    return write


def flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writing(dataset: Dataset, folder: Path, count: int, repeats: int) -> dict[str, Cost]:
    works: dict[str, Callable[[], int]] = {}
    for kind in ("full", "delta"):
        arrays = samples_of(dataset, kind, count)
        works[f"{kind}, shard writer"] = our_writer(folder / f"ours-{kind}", arrays, kind)
        works[f"{kind}, zarr-python"] = zarr_writer(folder / f"zarr-{kind}", arrays, kind)
    for name, work in works.items():
        work()
        if name.endswith("zarr-python"):
            check_same(folder, name.partition(",")[0])
    return rounds(works, repeats)


def check_same(folder: Path, kind: str) -> None:
    """Both wrote the same samples."""
    for name in ("image", "label"):
        ours = zarr.open_array(folder / f"ours-{kind}/shards/ours.zarr/{name}", mode="r")
        theirs = zarr.open_array(folder / f"zarr-{kind}/{name}", mode="r")
        if not np.array_equal(np.asarray(ours[:]), np.asarray(theirs[:])):
            raise ValueError(f"{kind}: the two writers' {name} differ")


# -- reading ----------------------------------------------------------------------------------------------------------


def reader_work(dataset: Dataset, order: npt.NDArray[np.int64], threads: int) -> Callable[[], int]:
    reader = SampleReader(dataset, located(dataset, dataset.columns(column_names(dataset))))
    shape = dataset.info.patch_shape
    out = [(np.empty(shape, np.int16), np.empty(shape, np.uint8)) for _ in range(threads)]

    def read(number: int) -> None:
        for k in order[number::threads].tolist():
            reader.read(k, *out[number])

    def work() -> int:
        running = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return len(order)

    return work


def reading(datasets: dict[Kind, Dataset], count: int, repeats: int) -> dict[str, Cost]:
    works = {}
    for kind, dataset in datasets.items():
        order = np.random.default_rng(np.random.SeedSequence(0)).permutation(dataset.info.config.samples)
        for threads in (1, 2):
            some = order[: count // 8 if kind == "recipe" else count]
            works[f"{kind}, {threads} thread{'s' if threads > 1 else ''}"] = reader_work(dataset, some, threads)
    return rounds(works, repeats)


# -- the whole --------------------------------------------------------------------------------------------------------


def make_all(bank: Path, folder: Path, asked: argparse.Namespace) -> tuple[dict[Kind, Dataset], dict[str, Cost]]:
    """The dataset in every kind, and what making and converting took."""
    shape = (asked.patch,) * 3
    config = GenerateConfig(samples=asked.samples, patch_shape=shape, organs=tuple(asked.organs))
    how, costs = How(asked.workers), dict[str, Cost]()

    def noted(name: str, work: Callable[[], Any]) -> None:
        spent: list[Cost] = []
        with timed(spent, asked.samples):
            work()
        costs[name] = spent[0]

    noted("generate full", partial(generate, bank, folder / "full", config, how=how))
    for kind in KINDS[1:]:
        noted(f"convert full -> {kind}", partial(convert, folder / "full", folder / kind, kind, how=how))
    return {kind: open_dataset(folder / kind) for kind in KINDS}, costs


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("samples", 10_000), ("patch", 64), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bank", type=Path, help="a prepared bank; phantoms without")
    parser.add_argument("--organs", nargs="+", default=["liver"])
    parser.add_argument(
        "--folder", type=Path, help="where to put the datasets, which are kept; a temporary one without"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="phantumor-storage-") as temporary:
        folder = asked.folder or Path(temporary)
        bank = open_bank(asked.bank) if asked.bank else phantom_bank(folder / "bank")
        datasets, making = make_all(bank.path, folder, asked)
        held = {kind: bytes_by_part(dataset) for kind, dataset in datasets.items()}
        some = min(1000, asked.samples)
        writes = writing(datasets["full"], folder / "writers", min(64, asked.samples), asked.rounds)
        reads = reading(datasets, some, asked.rounds)
        bank_bytes = folder_bytes(bank.path)
    raw = 3 * asked.patch**3
    print(f"{asked.samples} samples of {asked.patch}^3 ({size(raw)} raw), load {os.getloadavg()}")
    print_bytes(held, asked.samples, raw, bank_bytes)
    for title, costs in (("made end to end", making), ("writing", writes), ("reading, shuffled, warm", reads)):
        print_costs(title, costs)
    for kind in ("full", "delta"):
        ours, theirs = writes[f"{kind}, shard writer"], writes[f"{kind}, zarr-python"]
        print(f"{kind}: zarr-python needs {theirs.wall_ms / ours.wall_ms:.1f} x the time", end=", ")
        print(f"{theirs.cpu_ms / ours.cpu_ms:.1f} x the CPU time")
    if asked.json:
        spent = {name: vars(cost) for name, cost in (making | writes | reads).items()}
        asked.json.write_text(json.dumps({"bytes": held, "bank": bank_bytes, "ms a sample": spent}, indent=1))


def print_bytes(held: dict[Kind, dict[str, int]], samples: int, raw: int, bank: int) -> None:
    print(f"\n{'bytes a sample':16}", *(f"{name:>15}" for name in ("shards", "parts", "whole manifest", "raw / all")))
    for kind, of in held.items():
        parts = [of[name] / samples for name in ("shards", "parts", "whole manifest")]
        print(f"{kind:16}", *(f"{part:15,.0f}" for part in parts), f"{raw / sum(parts):15.1f}")
    print(f"\n{'1,000,000':16}", *(f"{name:>15}" for name in ("dataset", "with bank", "objects")))
    for kind, of in held.items():
        whole = sum(of[name] for name in ("shards", "parts", "whole manifest")) * MILLION / samples
        print(f"{kind:16} {size(whole):>15} {size(whole + bank):>15} {of['objects'] * MILLION / samples:>15,.0f}")


def print_costs(title: str, costs: dict[str, Cost]) -> None:
    print(f"\n{title:28} {'samples/s':>10} {'ms':>8} {'CPU ms':>8}")
    for name, cost in costs.items():
        print(f"{name:28} {1000 / cost.wall_ms:10.0f} {cost.wall_ms:8.2f} {cost.cpu_ms:8.2f}")


if __name__ == "__main__":
    main()
