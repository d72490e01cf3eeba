"""How long `phantumor inspect` takes on a manifest of a million rows.

    python benchmarks/inspection.py [--rows 1000000 --keep FOLDER --rounds 5 --json FILE]

Generates a small dataset from the built-in phantom, then writes a manifest of `--rows` rows like its rows: indices,
checksums, byte ranges, places, tumor facts and the digits of each spec are drawn anew, so that the file has the size
that such a dataset has. There are no shards: nothing here reads pixels. Each line is a process of its own, as a user
starts it, but for opening and looking up, which are timed inside of one; printed are medians of wall and CPU time, and
the peak memory. `--keep` leaves the dataset in a folder and uses it again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.bank import create_or_open_bank
from pipeline.case import build_case
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import DatasetInfo, create_info
from pipeline.manifest import SCHEMA, WHOLE, Part, sample_id
from pipeline.phantom import make_phantom
from pipeline.shard import DTYPES, FileDigest, object_path
from pipeline.store import FolderStore
from pipeline.whole_manifest import write_whole_manifest
from workers.generate import generate

SMALL = GenerateConfig(samples=128, patch_shape=(48, 48, 48), organs=("liver", "kidney", "pancreas"))
SHARD_SAMPLES = 64
CHUNK_SHARDS = 256
CASES = 400
WHERE = "kind = 'hcc' and diameter_mm < 10"
SPLITS = np.array(["train"] * 8 + ["val", "test"])
INSIDE = {
    "open": "d = open_dataset(sys.argv[1])",
    "one row": "d = open_dataset(sys.argv[1]); d.row(d.rows // 2)",
    "split counts": "d = open_dataset(sys.argv[1]); d.split_counts()",
    "where": f'd = open_dataset(sys.argv[1]); positions(d, "{WHERE}")',
}


def small_dataset(folder: Path) -> Dataset:
    """Real rows: 128 samples of three organs, from a phantom at 2 mm."""
    phantom = make_phantom(0, (160, 128, 128), 2.0)
    with create_or_open_bank(folder / "bank", 2.0) as bank:
        bank.add_case(build_case("phantom", phantom.ct, phantom.organs, phantom.affine, 2.0))
    generate(folder / "bank", folder / "data", SMALL, log=lambda _: None)
    return open_dataset(folder / "data")


class Rows:
    """Draws rows like those of a small dataset."""

    def __init__(self, small: Dataset) -> None:
        self.base = small.manifest.combine_chunks()
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((0, 1))))
        self.specs = [np.frombuffer(text.encode(), np.uint8) for text in self.base["spec"].to_pylist()]
        # Digits behind the first two that are behind a point: what differs between two specs, without the sizes.
        self.digits = [
            np.array([i for m in re.finditer(rb"\.\d\d(\d+)", bytes(spec)) for i in range(*m.span(1))], np.intp)
            for spec in self.specs
        ]

    def table(self, first: int, count: int) -> pa.Table:
        """Rows `first` to `first + count`."""
        like = np.arange(first, first + count) % len(self.specs)
        table = self.base.take(pa.array(like))
        index = np.arange(first, first + count)
        case = self.rng.integers(0, CASES, count)
        new = {
            "sample_id": [sample_id(i) for i in index.tolist()],
            "index": index,
            "shard": index // SHARD_SAMPLES,
            "row": (index % SHARD_SAMPLES).astype(np.int32),
            "case_id": [f"patient_{k:04d}" for k in case.tolist()],
            "split": SPLITS[case % len(SPLITS)],
            "origin_vox": self._triples(self.rng.integers(-20, 200, (count, 3)).astype(np.int32)),
            "affine": self._affines(count),
            "image_crc32c": self.rng.integers(0, 2**32, count, np.uint32),
            "label_crc32c": self.rng.integers(0, 2**32, count, np.uint32),
            "image_range": self._ranges(table["image_range"]),
            "label_range": self._ranges(table["label_range"]),
            "spec": [self._spec(k) for k in like.tolist()],
            "tumors": self._tumors(table["tumors"].combine_chunks()),
        }
        for name, values in new.items():
            at, field = SCHEMA.get_field_index(name), SCHEMA.field(name)
            table = table.set_column(at, field, pa.array(values, field.type))
        return table.cast(SCHEMA)

    def _triples(self, values: npt.NDArray[Any]) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    def _affines(self, count: int) -> pa.Array:
        affines = np.tile(np.diag([2.0, 2.0, 2.0, 1.0]), (count, 1, 1))
        affines[:, :3, 3] = self.rng.uniform(-300, 300, (count, 3))
        return self._triples(affines.reshape(count, 16))

    def _ranges(self, column: pa.ChunkedArray) -> pa.Array:
        """Offsets and lengths of chunks, 64 of them in an object, a little longer or shorter than the real ones."""
        lengths = pc.list_element(column, 1).to_numpy()
        lengths = (lengths * self.rng.uniform(0.9, 1.1, len(lengths))).astype(np.int64).reshape(-1, SHARD_SAMPLES)
        offsets = np.cumsum(lengths, axis=1) - lengths
        return self._triples(np.stack([offsets.ravel(), lengths.ravel()], axis=1))

    def _spec(self, like: int) -> str:
        text, digits = self.specs[like].copy(), self.digits[like]
        text[digits] = self.rng.integers(ord("1"), ord("9") + 1, len(digits), np.uint8)
        return text.tobytes().decode()

    def _tumors(self, tumors: pa.ListArray) -> pa.ListArray:
        flat = pc.list_flatten(tumors)
        fields = [self._jittered(pc.struct_field(flat, field.name)) for field in flat.type]
        lengths = np.concatenate([[0], np.cumsum(pc.list_value_length(tumors).to_numpy())]).astype(np.int32)
        struct = pa.StructArray.from_arrays(fields, fields=list(flat.type))
        return pa.ListArray.from_arrays(pa.array(lengths), struct).cast(SCHEMA.field("tumors").type)

    def _jittered(self, values: pa.Array) -> pa.Array:
        if values.type == pa.float64():
            return pc.multiply(values, pa.array(self.rng.uniform(0.8, 1.25, len(values))))
        if values.type == pa.list_(pa.float64(), 3):
            return self._triples(self.rng.uniform(-150, 150, (len(values), 3)))
        return values


def pieces(rows: Rows, info: DatasetInfo, total: int) -> Iterator[tuple[Part, pa.Table]]:
    """Parts with provenance as real ones have it, and their rows."""
    for first in range(0, total, CHUNK_SHARDS * SHARD_SAMPLES):
        table = rows.table(first, min(CHUNK_SHARDS * SHARD_SAMPLES, total - first))
        for start in range(0, table.num_rows, SHARD_SAMPLES):
            yield part_of(info, (first + start) // SHARD_SAMPLES), table.slice(start, SHARD_SAMPLES)


def part_of(info: DatasetInfo, shard: int) -> Part:
    digest = hashlib.sha256(str(shard).encode()).hexdigest()
    files = tuple(
        FileDigest(object_path(name), 10_000_000 + shard, hashlib.sha256(f"{shard}{name}".encode()).hexdigest())
        for name in DTYPES
    )
    timings = {stage: 0.001 * (shard + k) for k, stage in enumerate(("draw", "synthesise", "measure", "write"))}
    return Part(shard, digest[:12], files, info.config_digest, timings, f"node{shard % 40}", info.software)


def large_dataset(folder: Path, total: int) -> None:
    """A dataset of `total` rows without shards."""
    with tempfile.TemporaryDirectory() as aside:
        small = small_dataset(Path(aside))
        config = SMALL.model_copy(update={"samples": total})
        shards = total // SHARD_SAMPLES
        info = small.info.model_copy(update={"config": config, "shards": shards, "bank": "bank"})
        create_info(FolderStore(folder), info)
        write_whole_manifest(FolderStore(folder), pieces(Rows(small), info, total))


# -- timing -----------------------------------------------------------------------------------------------------------


def usage(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_mib(command: list[str]) -> float:
    """Peak memory of a process; measured by a process in between, as the figure is that of the largest child."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    found = subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True)
    return int(found.stdout) / 1024


def commands(folder: Path, index: int) -> dict[str, list[str]]:
    phantumor = [sys.executable, "-m", "pipeline.cli"]
    inspect = [*phantumor, "inspect", str(folder)]
    return {
        "start of the program": [*phantumor, "--version"],
        "inspect": inspect,
        "inspect --json": [*inspect, "--json"],
        "inspect --where": [*inspect, "--where", WHERE],
        "inspect --where split": [*inspect, "--where", "split = 'test'"],
        "inspect --diff itself": [*inspect, "--diff", str(folder)],
        "inspect --sample, row only": [
            *(sys.executable, "-c"),
            "import sys, pipeline.cli; from pipeline.catalog import open_dataset\n"
            f"open_dataset(sys.argv[1]).row({index})",
            str(folder),
        ],
    }


def inside(folder: Path) -> dict[str, float]:
    """Seconds in a process that has loaded everything before, by step."""
    found = {}
    for name, step in INSIDE.items():
        script = (
            "import sys, time; from pipeline.catalog import open_dataset; from pipeline.where import positions\n"
            f"t = time.perf_counter(); {step}; print(time.perf_counter() - t)"
        )
        run = subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True, text=True)
        found[name] = float(run.stdout)
    return found


def measure(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    timed: dict[str, Any] = {}
    for name, command in commands(folder, rows // 2).items():
        runs = [usage(command) for _ in range(rounds)]
        wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        timed[name] = {"wall_s": wall, "cpu_s": cpu, "peak_mib": peak_mib(command)}
    steps = [inside(folder) for _ in range(rounds)]
    timed["inside"] = {name: statistics.median(step[name] for step in steps) for name in INSIDE}
    timed["manifest_bytes"] = (folder / WHOLE).stat().st_size
    return timed


def report(found: dict[str, Any], rows: int) -> None:
    size = found["manifest_bytes"]
    print(f"{rows} rows, {size / 1e6:.0f} MB, {size / rows:.0f} B a row")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':30}{'wall s':>10}{'CPU s':>10}{'peak MiB':>10}")
    for name, times in found.items():
        if isinstance(times, dict) and "wall_s" in times:
            print(f"{name:30}{times['wall_s']:10.2f}{times['cpu_s']:10.2f}{times['peak_mib']:10.0f}")
    for name, seconds in found["inside"].items():
        print(f"{'  of it: ' + name:30}{seconds:10.3f}")


def main() -> None:
    """Make the manifest, or take the one that is kept, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = options.rows - options.rows % SHARD_SAMPLES
    with tempfile.TemporaryDirectory() as aside:
        folder = options.keep or Path(aside) / "data"
        if not (folder / WHOLE).exists():
            large_dataset(folder, rows)
        found = measure(folder, rows, options.rounds)
    report(found, rows)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
