"""How fast samples are made, next to two references measured in the same run.

    python benchmarks/synthesis.py [--bank BANK] [--patch 96] [--rounds 5] [--samples 40] [--json FILE]
    python benchmarks/synthesis.py --device cuda [--samples 256]

Rows of the first, all on one thread, in CPU time per sample, medians over interleaved rounds:
  memcpy          copying the patch of CT and organs out of the case: the floor that no generator can beat
  draw, synthesise, measure, encode   the stages of one sample
  all stages      their sum: samples per second and core
  whole volume    the published training generator's way of working, in our own words and at the same sizes: draw the
                  ellipsoid, deform it by interpolation of order 0, blur its mask and subtract texture, all on the whole
                  scan, then cut the patch (Hu et al. 2023, arXiv 2303.14869: it works on whole scans, not in a box)
Then: how long one tumor of a radius takes, and the memory of the process beyond the case.

The second renders the same specs on the CPU (one thread) and on the GPU in batches, wall time, and compares the pixels.
Its last column is the data that the kernels must move at least (each box read and written once per pass, see
`bytes_moved`) over what a device-to-device copy moves in the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import AIR_HU, Case, build_case
from pipeline.config import GenerateConfig
from pipeline.grid import crop
from pipeline.measure import measure_sample
from pipeline.organs import organ_id
from pipeline.phantom import make_phantom
from pipeline.shard import encode_chunk
from pipeline.spec import SampleSpec, check_bank, draw_sample
from pipeline.synthesis import Rendered, render, render_batch
from pipeline.synthesis.engines.registry import engine_of

STAGES = ("draw", "synthesise", "measure", "encode")
ROWS = ("memcpy", *STAGES, "whole volume")
WHOLE_VOLUME_SAMPLES = 4
RADII_MM = (4, 8, 16, 32)
GPU_BATCHES = (1, 16, 64, 256)


def phantom_bank(folder: Path) -> Bank:
    """One phantom at 1 mm: 320 x 256 x 192 voxels, as large as a real abdomen."""
    phantom = make_phantom(0, (320, 256, 192), 1.0)
    with create_or_open_bank(folder, 1.0) as bank:
        bank.add_case(build_case("phantom", phantom.ct, phantom.organs, phantom.affine, 1.0))
    return open_bank(folder)


def deformed(mask: np.ndarray, sd_vox: float, rng: np.random.Generator) -> np.ndarray:
    """A mask under a displacement of SD `sd_vox` on a 3x3x3 grid, interpolated with order 0."""
    scale = np.array(mask.shape) / 3
    moved = [c + ndimage.zoom(rng.normal(0, sd_vox, (3, 3, 3)), scale, order=3) for c in np.indices(mask.shape)]
    return ndimage.map_coordinates(mask.astype(np.uint8), moved, order=0) > 0


def whole_volume(case: Case, spec: SampleSpec, texture: np.ndarray) -> np.ndarray:
    """One sample made on the whole scan, the tumors of `spec` at the same places and sizes."""
    ct = case.ct.astype(np.float32)
    rng = np.random.default_rng(spec.index)
    mask = np.zeros(ct.shape, bool)
    for tumor in spec.tumors:
        half = [tumor.diameter_mm / 2 / case.spacing_mm * ratio for ratio in rng.uniform(0.75, 1.25, 3)]
        x, y, z = np.meshgrid(*(np.arange(-int(2 * h) - 2, int(2 * h) + 3) for h in half), indexing="ij")
        ball = (x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2 <= 1
        shape = deformed(ball, 0.2 * min(half), rng)  # its sigmas are 0.1 to 0.3 of the radius
        corner = np.rint(np.array(tumor.center_vox) - np.array(shape.shape) / 2).astype(int)
        low, high = np.maximum(corner, 0), np.minimum(corner + shape.shape, ct.shape)
        mask[tuple(map(slice, low, high))] |= shape[tuple(map(slice, low - corner, high - corner))]
    mask &= case.organs == organ_id("liver")
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.5)
    ct -= texture[tuple(map(slice, ct.shape))] * soft * 100
    return crop(ct.astype(np.int16), spec.origin_vox, spec.patch_shape, AIR_HU)


@contextlib.contextmanager
def timed(total: dict[str, float], name: str, share: float) -> Iterator[None]:
    """Add the CPU time of the block, times `share`, to a row."""
    started = time.process_time()
    yield
    total[name] += share * (time.process_time() - started)


def measure_round(bank: Bank, config: GenerateConfig, count: int, texture: np.ndarray) -> dict[str, float]:
    """Seconds per sample of every row, over `count` samples (the first few of them for the whole-volume way)."""
    total: dict[str, float] = dict.fromkeys(ROWS, 0.0)
    slow = min(count, WHOLE_VOLUME_SAMPLES)
    for index in range(count):
        with timed(total, "draw", 1 / count):
            spec = draw_sample(bank, config, index)
            case = bank.load(spec.case_id)
        with timed(total, "memcpy", 1 / count):
            for array in (case.ct, case.organs):
                crop(array, spec.origin_vox, spec.patch_shape, 0)
        with timed(total, "synthesise", 1 / count):
            rendered = render(case, spec)
        with timed(total, "measure", 1 / count):
            measure_sample(case, spec, rendered)
        with timed(total, "encode", 1 / count):
            for array in (rendered.image, rendered.label):
                encode_chunk(array)
        if index < slow:
            with timed(total, "whole volume", 1 / slow):
                whole_volume(case, spec, texture)
    return total


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    everywhere = {"train": 1, "val": 1, "test": 1}
    config = GenerateConfig.model_validate(
        {"samples": options.samples, "patch_shape": [options.patch] * 3, "split_share": everywhere}
    )
    with tempfile.TemporaryDirectory() as folder:
        bank = open_bank(options.bank) if options.bank else phantom_bank(Path(folder) / "bank")
        check_bank(bank, config)
        if options.device != "cpu":
            report_gpu(bank, config, options.device)
            return
        largest = np.max([record.shape for record in bank.records], axis=0)
        texture = np.random.default_rng(0).random(largest, np.float32)
        measure_round(bank, config, 4, texture)  # warm-up
        rounds = [measure_round(bank, config, options.samples, texture) for _ in range(options.rounds)]
        by_radius = {radius: tumor_ms(bank, options.patch, radius) for radius in RADII_MM}
    medians = {name: statistics.median(r[name] for r in rounds) for name in ROWS}
    medians["all stages"] = sum(medians[name] for name in STAGES)
    report(medians, options.patch)
    for radius, milliseconds in by_radius.items():
        print(f"one tumor of {radius} mm radius: {milliseconds:.1f} ms to synthesise (median of 24)")
    print(
        f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, imports and case included"
    )
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2))


def tumor_ms(bank: Bank, patch: int, radius: float) -> float:
    """Median CPU time in ms to synthesise a sample with one liver tumor of a radius, 0 where none fits."""
    tumors = {"liver": {"diameter_mm": [2 * radius, 2 * radius], "count": [1, 1]}}
    shares = {"healthy_share": 0, "body_share": 0, "split_share": {"train": 1, "val": 1, "test": 1}}
    config = GenerateConfig.model_validate({"patch_shape": [patch] * 3, "tumors": tumors, **shares})
    times = []
    for index in range(24):
        spec = draw_sample(bank, config, index)
        case = bank.load(spec.case_id)
        started = time.process_time()
        render(case, spec)
        if spec.tumors:
            times.append(time.process_time() - started)
    return 1000 * statistics.median(times) if times else 0.0


# ---- on a GPU ----


def report_gpu(bank: Bank, config: GenerateConfig, device: str) -> None:
    """Print samples per second by batch size, beside one CPU thread, and compare the pixels."""
    specs = [draw_sample(bank, config, index) for index in range(config.samples)]
    cases = [bank.load(spec.case_id) for spec in specs]
    started = time.perf_counter()
    expected = render_batch(cases, specs)
    cpu = time.perf_counter() - started
    copied = copy_bytes_per_s(device)
    moved = sum(bytes_moved(case, spec) for case, spec in zip(cases, specs, strict=True))
    print(f"{torch.cuda.get_device_name()}: a device-to-device copy reads and writes {copied / 1e12:.2f} TB/s")
    print(f"{len(specs)} samples of {config.patch_shape}, {sum(len(s.tumors) for s in specs)} tumors")
    print(f"{'CPU, 1 thread':16}{len(specs) / cpu:10.1f} samples/s")
    for batch in GPU_BATCHES:
        render_all(cases, specs, device, batch)  # warm-up, and the cases are uploaded
        seconds = min(timed_render(cases, specs, device, batch) for _ in range(3))
        print(
            f"{'batch ' + str(batch):16}{len(specs) / seconds:10.1f} samples/s {cpu / seconds:8.1f} x CPU thread"
            f"{100 * moved / seconds / copied:9.2f} % of the copy's bandwidth"
        )
    found = render_all(cases, specs, device, GPU_BATCHES[-1])
    labels = sum(int(np.count_nonzero(a.label != b.label)) for a, b in zip(expected, found, strict=True))
    apart = [np.abs(a.image.astype(int) - b.image).max() for a, b in zip(expected, found, strict=True)]
    print(f"CPU and GPU: {labels} voxels differ in label, images by at most {max(apart)} HU")


def render_all(cases: list[Case], specs: list[SampleSpec], device: str, batch: int) -> list[Rendered]:
    """All samples, `batch` of them at a time."""
    return [
        rendered
        for start in range(0, len(specs), batch)
        for rendered in render_batch(cases[start : start + batch], specs[start : start + batch], device)
    ]


def timed_render(cases: list[Case], specs: list[SampleSpec], device: str, batch: int) -> float:
    """Wall seconds; results are copied to the host, so nothing is left running."""
    started = time.perf_counter()
    render_all(cases, specs, device, batch)
    return time.perf_counter() - started


def bytes_moved(case: Case, spec: SampleSpec) -> int:
    """At least: the patch (CT, organs) read and written, and for each tumor's box 4 volumes read, 2 written."""
    patch = 2 * 3 * math.prod(spec.patch_shape)
    boxes = (math.prod(2 * e / case.spacing_mm for e in engine_of(t).extent_mm(t)) for t in spec.tumors)
    return patch + int(sum(boxes) * (2 + 1 + 1 + 2 + 2 + 1))


def copy_bytes_per_s(device: str) -> float:
    """Bytes read plus written per second of a copy of 1 GiB on the device."""
    source = torch.zeros(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        target.copy_(source)
    torch.cuda.synchronize()
    return 20 * 2 * source.nbytes / (time.perf_counter() - started)


def report(medians: dict[str, float], patch: int) -> None:
    """Print one line a row: ms, samples per second and core, ratio to memcpy and to the whole-volume way."""
    print(f"{patch}^3 samples, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, CPU time on one thread")
    print(f"{'':14}{'ms/sample':>10}{'samples/s':>11}{'x memcpy':>10}{'speed-up over whole volume':>28}")
    for name in ("memcpy", "draw", "synthesise", "measure", "encode", "all stages", "whole volume"):
        seconds = medians[name]
        print(
            f"{name:14}{1000 * seconds:10.2f}{1 / max(seconds, 1e-9):11.1f}{seconds / medians['memcpy']:10.1f}"
            f"{medians['whole volume'] / max(seconds, 1e-9):28.1f}"
        )


if __name__ == "__main__":
    main()
