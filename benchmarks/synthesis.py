"""How fast samples are made, next to two references measured in the same run.

    python benchmarks/synthesis.py [--bank BANK] [--patch 96] [--rounds 5] [--samples 40] [--json FILE]

Rows, all on one thread, in CPU time per sample, medians over interleaved rounds:
  memcpy          copying the patch of CT and organs out of the case: the floor that no generator can beat
  draw, synthesise, measure, encode   the stages of one sample
  all stages      their sum: samples per second and core
  whole volume    the published training generator's way of working, in our own words and at the same sizes: draw the
                  ellipsoid, deform it by interpolation of order 0, blur its mask and subtract texture, all on the whole
                  scan, then cut the patch (Hu et al. 2023, arXiv 2303.14869: it works on whole scans, not in a box)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
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
from pipeline.phantom import make_phantom
from pipeline.shard import encode_chunk
from pipeline.spec import SampleSpec, check_bank, draw_sample
from pipeline.synthesis import render

STAGES = ("draw", "synthesise", "measure", "encode")
ROWS = ("memcpy", *STAGES, "whole volume")
WHOLE_VOLUME_SAMPLES = 4


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
        half = [axis / case.spacing_mm for axis in tumor.half_axes_mm]
        x, y, z = np.meshgrid(*(np.arange(-int(2 * h) - 2, int(2 * h) + 3) for h in half), indexing="ij")
        ball = (x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2 <= 1
        shape = deformed(ball, tumor.deformation_mm / case.spacing_mm, rng)
        corner = np.rint(np.array(tumor.center_vox) - np.array(shape.shape) / 2).astype(int)
        low, high = np.maximum(corner, 0), np.minimum(corner + shape.shape, ct.shape)
        mask[tuple(map(slice, low, high))] |= shape[tuple(map(slice, low - corner, high - corner))]
    mask &= case.organs == 1
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
    options = parser.parse_args()
    torch.set_num_threads(1)
    everywhere = {"train": 1, "val": 1, "test": 1}
    config = GenerateConfig.model_validate(
        {"samples": options.samples, "patch_shape": [options.patch] * 3, "split_share": everywhere}
    )
    with tempfile.TemporaryDirectory() as folder:
        bank = open_bank(options.bank) if options.bank else phantom_bank(Path(folder) / "bank")
        check_bank(bank, config)
        largest = np.max([record.shape for record in bank.records], axis=0)
        texture = np.random.default_rng(0).random(largest, np.float32)
        measure_round(bank, config, 4, texture)  # warm-up
        rounds = [measure_round(bank, config, options.samples, texture) for _ in range(options.rounds)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in ROWS}
    medians["all stages"] = sum(medians[name] for name in STAGES)
    report(medians, options.patch)
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2))


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
