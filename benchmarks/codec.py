"""Whether a fast profile would pay: plane differences under byte-shuffled lz4, beside the bit-shuffled lz4 of shards.

    python -m benchmarks.codec [--samples 64 --patch 96 --threads 1 2 --rounds 7 --bank BANK --device cuda]

The profile would store of each image d[0] = image[0] and d[x] = image[x] - image[x - 1] + 128, modulo 2^16: over tissue
the high byte of d is 0, so lz4 copies the low bytes and skips the high ones. The way back is a sum along x minus 128 x:
plane by plane on the CPU, one cumulative sum of a batch on a device. All rows decode the same samples, image and label,
into reused arrays with crc32c checked. In rounds that take turns; medians of wall time and of the CPU time of all
threads. Batching and reading files come on top in a stream, alike for both, so the ratio bounds the gain from above: it
is built if that is 1.5 or more with the way back included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numcodecs import blosc

from benchmarks.synthesis import phantom_bank
from pipeline.bank import Bank, open_bank
from pipeline.config import GenerateConfig
from pipeline.shard import CRC_BYTES, crc32c, decode_sample, encode_sample
from pipeline.spec import draw_sample
from pipeline.synthesis import synthesise

BIAS = np.int16(128)
RING = 40  # samples in reused arrays, as in a stream of batches of 8: more than a processor's caches hold
PORTABLE = "bit-shuffled lz4 (today's)"
LEFT, PLANES, BATCH = ("differences, " + how for how in ("way back left out", "way back on the CPU", "way back on "))

Image = npt.NDArray[np.int16]
Label = npt.NDArray[np.uint8]
Decode = Callable[[int, Image, Label], None]  # a sample's number; its image and label are filled


def forward(image: Image) -> Image:
    """Differences of neighbouring planes, plus 128; nothing is lost, as int16 wraps."""
    differences = image.copy()
    differences[1:] -= image[:-1]
    differences[1:] += BIAS
    return differences


def back(image: Image) -> None:
    """Undo `forward` in place, a plane at a time: NumPy's cumulative sum takes ten times as long."""
    for x in range(1, len(image)):
        image[x] -= BIAS
        image[x] += image[x - 1]


def back_on_device(differences: torch.Tensor) -> torch.Tensor:
    """Undo `forward` for a batch (B, X, Y, Z) of int16 where it lies."""
    ramp = int(BIAS) * torch.arange(differences.shape[1], dtype=torch.int32, device=differences.device)
    return (torch.cumsum(differences, 1, dtype=torch.int32) - ramp[:, None, None]).to(torch.int16)


# -- what is decoded --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """Encoded samples, in memory."""

    images: list[Image]
    portable: list[bytes]
    differences: list[bytes]
    labels: list[bytes]


def samples_of(bank: Bank, count: int, edge: int) -> Encoded:
    config = GenerateConfig(samples=count, patch_shape=(edge,) * 3, organs=("liver",))
    images, labels = [], []
    for index in range(count):
        spec = draw_sample(bank, config, index)
        image, label = synthesise(bank.load(spec.case_id), spec)
        images.append(np.ascontiguousarray(image))
        labels.append(encode_sample(np.ascontiguousarray(label))[0])
    bodies = [blosc.compress(forward(image), b"lz4", 5, blosc.SHUFFLE, 0) for image in images]
    differences = [body + crc32c(body).to_bytes(CRC_BYTES, "little") for body in bodies]
    return Encoded(images, [encode_sample(image)[0] for image in images], differences, labels)


def decoders(held: Encoded) -> dict[str, Decode]:
    def portable(k: int, image: Image, label: Label) -> None:
        decode_sample(held.portable[k], image)
        decode_sample(held.labels[k], label)

    def left(k: int, image: Image, label: Label) -> None:
        decode_sample(held.differences[k], image)
        decode_sample(held.labels[k], label)

    def planes(k: int, image: Image, label: Label) -> None:
        left(k, image, label)
        back(image)

    return {PORTABLE: portable, LEFT: left, PLANES: planes}


# -- timing -----------------------------------------------------------------------------------------------------------


class Ring:
    """Reused arrays, and threads that decode all samples into them."""

    def __init__(self, samples: int, edge: int) -> None:
        self.samples = samples
        self.images, self.labels = np.zeros((RING, *(edge,) * 3), np.int16), np.zeros((RING, *(edge,) * 3), np.uint8)

    def decode_all(self, decode: Decode, threads: int, pool: ThreadPoolExecutor) -> None:
        def some(number: int) -> None:
            for k in range(number, self.samples, threads):
                decode(k, self.images[k % RING], self.labels[k % RING])

        for future in wait([pool.submit(some, number) for number in range(threads)]).done:
            future.result()


def measure(decoders: dict[str, Decode], ring: Ring, threads: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """By decoder: wall and CPU ms a sample, one pair a round; a first round warms up."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in decoders}
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds + 1):
            for name, decode in decoders.items():
                wall, cpu = time.perf_counter(), time.process_time()
                ring.decode_all(decode, threads, pool)
                pair = time.perf_counter() - wall, time.process_time() - cpu
                spent[name].append((1000 * pair[0] / ring.samples, 1000 * pair[1] / ring.samples))
    return {name: pairs[1:] for name, pairs in spent.items()}


def device_ms(images: list[Image], device: torch.device, rounds: int) -> float:
    """ms a sample of the way back of batches of 8 that are on the device already; checked once."""
    batch = torch.from_numpy(np.stack([forward(image) for image in images[:8]])).to(device)
    if not np.array_equal(back_on_device(batch).cpu().numpy(), np.stack(images[:8])):
        raise ValueError(f"the way back on {device} gives other pixels")
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        for _ in range(20):
            found = back_on_device(batch)
        found[0, 0, 0, 0].item()  # waits for the device
        taken.append(1000 * (time.perf_counter() - began) / (20 * len(batch)))
    return statistics.median(taken[1:])


def check(held: Encoded, decoders: dict[str, Decode], edge: int) -> None:
    """Both codecs give back the samples."""
    image, label = np.zeros((edge,) * 3, np.int16), np.zeros((edge,) * 3, np.uint8)
    for k, expected in enumerate(held.images):
        for name in (PORTABLE, PLANES):
            decoders[name](k, image, label)
            if not np.array_equal(image, expected):
                raise ValueError(f"{name}: sample {k} is another one")


def print_rows(spent: dict[str, list[tuple[float, float]]], threads: int) -> None:
    print(f"\n{threads} thread{'s' if threads > 1 else ''}: {'':23} {'ms':>8} {'CPU ms':>8} {'time x':>8} {'CPU x':>8}")
    for name, pairs in spent.items():
        wall, cpu = (statistics.median(pair[k] for pair in pairs) for k in (0, 1))
        both = list(zip(spent[PORTABLE], pairs, strict=True))
        ratios = [statistics.median(today[k] / own[k] for today, own in both) for k in (0, 1)]
        print(f"{name:34} {wall:8.3f} {cpu:8.3f} {ratios[0]:8.2f} {ratios[1]:8.2f}")


def parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("samples", 64), ("patch", 96), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--bank", type=Path, help="a prepared bank; a phantom without")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the way back")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="phantumor-codec-") as scratch:
        bank = open_bank(asked.bank) if asked.bank else phantom_bank(Path(scratch) / "bank")
        held = samples_of(bank, asked.samples, asked.patch)
    named, ring = decoders(held), Ring(asked.samples, asked.patch)
    check(held, named, asked.patch)
    raw = held.images[0].nbytes * asked.samples
    print(f"{asked.samples} samples of {asked.patch}^3, load {os.getloadavg()}; image bytes of the raw ones: ", end="")
    sizes = {PORTABLE: held.portable, "differences": held.differences}
    print(", ".join(f"{name} {sum(map(len, chunks)) / raw:.3f}" for name, chunks in sizes.items()))
    for threads in asked.threads:
        print_rows(measure(named, ring, threads, asked.rounds), threads)
    print(f"{BATCH}{asked.device}: {device_ms(held.images, torch.device(asked.device), asked.rounds):.3f} ms a sample")


if __name__ == "__main__":
    main()
