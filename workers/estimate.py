"""What the samples to come will cost, measured on a few of them before anything is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.bank import Bank
from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.measure import measure_sample
from pipeline.progress import duration, size
from pipeline.shard import chunk_edge, encode_sample
from pipeline.spec import draw_sample
from pipeline.store import Store
from pipeline.synthesis import render
from workers.kept import kept_arrays

_PROBE_SAMPLES = 4
_PROBE_SECONDS = 2.0  # so long more samples are tried: a few say little about a mix of kinds
_MOST_SAMPLES = 64
ROW_BYTES = 1500  # of a manifest row with one tumor, as Parquet; parts and the whole manifest hold one each


@dataclass(frozen=True)
class Estimate:
    """What the remaining samples will cost: `core_seconds` is what one worker takes, on this machine as it is.

    It is scaled up from `tried` samples that were made for it within `tried_s`, so it knows nothing of what the
    machine does later, and little of a mix of kinds that take unlike times.
    """

    samples: int
    bytes: int
    core_seconds: float
    tried: int = 1
    tried_s: float = 0.0

    def seconds(self, workers: int, crowding: float = 1.0) -> float:
        """How long it takes; `crowding` is how much slower each worker is beside the others."""
        return self.core_seconds * crowding / max(1, workers)  # a cluster that grows on demand has none yet

    def line(self, free: int | None, workers: int, crowding: float = 1.0) -> str:
        """For people: how much, how long."""
        workers = max(1, workers)
        room = f" ({size(free)} free)" if free is not None else ""
        return (
            f"{self.samples} samples to make, about {size(self.bytes)}{room}, estimated "
            f"{duration(self.seconds(workers, crowding))} on {workers} worker{'s' if workers > 1 else ''}, "
            f"scaled up from {self.tried} made in {self.tried_s:.1f} s just now; it changes as the machine's load does"
        )

    def to_json(self, free: int | None, workers: int, crowding: float = 1.0) -> dict[str, Any]:
        """For `--json`."""
        hours = round(self.seconds(workers, crowding) / 3600, 4)
        return {
            "samples": self.samples,
            "bytes": self.bytes,
            "hours": hours,
            "workers": max(1, workers),
            "free_bytes": free,
        }


def crowding_of(workers: int, cores: int, load: float) -> float:
    """How much slower a worker is beside others than the one that was measured, alone among `load` other processes."""
    return max(1.0, (load + workers) / cores) / max(1.0, (load + 1) / cores)


def crowding_here(workers: int) -> float:
    """The same for workers on this machine, as it is now."""
    load = max(0.0, os.getloadavg()[0] - 1.0)  # without ourselves
    return crowding_of(max(1, workers), len(os.sched_getaffinity(0)), load)


def estimate_cost(bank: Bank, config: GenerateConfig, samples: int) -> Estimate:
    """Make a few samples in memory and scale up to `samples`."""
    return probed(lambda index: stored_bytes(bank, config, index), config.samples, samples)


def probed(make: Callable[[int], int], most: int, samples: int) -> Estimate:
    """Call `make` for the first few of `most` samples and scale up to `samples`; it tells the bytes of each.

    A sample that cannot be made is left out, as the run puts such a one aside; when none can, its error is raised.
    """
    _try(make, 0)  # loads code and opens cases, which later samples need not pay for
    started, stored, count, tried = time.perf_counter(), 0, 0, 0
    while tried < min(_MOST_SAMPLES, most):
        found = _try(make, tried)
        tried += 1
        if found is not None:
            stored += found
            count += 1
        if tried >= _PROBE_SAMPLES and time.perf_counter() - started > _PROBE_SECONDS:
            break
    if not count:
        make(0)
    seconds = time.perf_counter() - started
    each = seconds / max(1, tried)
    return Estimate(samples, round(stored / max(1, count) * samples), each * samples, tried, seconds)


def _try(make: Callable[[int], int], index: int) -> int | None:
    try:
        return make(index)
    except (OSError, InputError):
        raise
    except Exception:
        return None


def check_room(
    estimate: Estimate, store: Store, workers: int, log: Callable[[str], None], crowding: float = 1.0
) -> dict[str, Any]:
    """Tell how much and how long, and give it for `--json`; PhantumorError when the disk cannot hold it."""
    free = store.free_bytes()
    log(estimate.line(free, workers, crowding))
    if free is not None and estimate.bytes > free:
        raise PhantumorError(
            f"{store.url}: the dataset needs about {size(estimate.bytes)}, its disk has {size(free)} free. "
            "Free space, ask for fewer --samples, or keep less of each: --store delta"
        )
    return estimate.to_json(free, workers, crowding)


def stored_bytes(bank: Bank, config: GenerateConfig, index: int) -> int:
    """Make a sample as a worker does; what the dataset holds of it, rows included."""
    spec = draw_sample(bank, config, index)
    case = bank.load(spec.case_id)
    made = render(case, spec)
    measure_sample(case, spec, made)
    if config.store == "recipe":
        return 2 * ROW_BYTES
    kept = kept_arrays(config, case, spec, {"image": made.image, "label": made.label})
    edge = chunk_edge(spec.patch_shape, config.whole_cases)
    chunks = [chunk for array in kept.values() for chunk in encode_sample(array, config.store, edge)]
    return 2 * ROW_BYTES + sum(map(len, chunks))
