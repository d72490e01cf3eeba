"""Where a training's time goes: waiting for data or computing. In: three calls a step. Out: records and lines."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.progress import duration

STALL_HINT_FROM = 0.1  # share of the time spent waiting for data


class Clock:
    """Counts steps: `start()`, once or more `wait()` for a batch, `got_data()` and compute, then `finish()`.

    `interval` figures cover the steps since the last record, `total` ones the whole session.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._started = self._waiting = self._step_wait_s = 0.0
        self.total_s = self.total_wait_s = 0.0
        self._clear_interval()

    def _clear_interval(self) -> None:
        self._losses: list[float] = []
        self._samples = 0
        self._seconds = self._wait_s = 0.0

    def start(self) -> None:
        """The step begins."""
        self._started = self._now()
        self._step_wait_s = 0.0

    def wait(self) -> None:
        """The step begins to wait for a batch."""
        self._waiting = self._now()

    def got_data(self) -> None:
        """The batch is there."""
        self._step_wait_s += self._now() - self._waiting

    def finish(self, loss: float, samples: int) -> None:
        """The step is done; on a GPU call it only after the step's work was waited for."""
        seconds, wait_s = self._now() - self._started, self._step_wait_s
        self._losses.append(loss)
        self._samples += samples
        self._seconds, self._wait_s = self._seconds + seconds, self._wait_s + wait_s
        self.total_s, self.total_wait_s = self.total_s + seconds, self.total_wait_s + wait_s

    @property
    def stall(self) -> float:
        """Share of the session's step time that was spent waiting for data."""
        return self.total_wait_s / self.total_s if self.total_s > 0 else 0.0

    def record(self, voxels_per_sample: int, steps_left: int) -> dict[str, float]:
        """Means over the interval, which ends here: loss, rates, times, and what the steps left will take."""
        steps, seconds = len(self._losses), max(self._seconds, 1e-9)
        rate = self._samples / seconds
        record = {
            "loss": sum(self._losses) / steps,
            "samples_per_s": rate,
            "voxels_per_s": rate * voxels_per_sample,
            "data_wait_ms": 1e3 * self._wait_s / steps,
            "data_wait_frac": self._wait_s / seconds,
            "step_ms": 1e3 * seconds / steps,
            "eta_s": seconds / steps * steps_left,
        }
        self._clear_interval()
        return record


def memory_mb(device: torch.device) -> dict[str, float]:
    """Resident memory of this process in MB, and the highest use so far of a GPU's memory."""
    used = {"rss_mb": _resident_bytes() / 1e6}
    if device.type == "cuda":
        used["gpu_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return used


def _resident_bytes() -> int:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, kB elsewhere
    return peak if sys.platform == "darwin" else peak * 1024


def metrics_line(record: dict[str, Any], steps: int) -> str:
    """One record of `metrics.jsonl` for people."""
    gpu = f", GPU {record['gpu_mb']:.0f} MB" if "gpu_mb" in record else ""
    return (
        f"step {record['step']}/{steps}: loss {record['loss']:.4f}, lr {record['lr']:.2e}, "
        f"{record['samples_per_s']:.1f} samples/s, {record['voxels_per_s'] / 1e6:.2f} Mvoxels/s, "
        f"data wait {record['data_wait_ms']:.1f} ms ({100 * record['data_wait_frac']:.0f} %) "
        f"of {record['step_ms']:.0f} ms, {record['rss_mb']:.0f} MB{gpu}, {duration(record['eta_s'])} left"
    )


def stall_line(clock: Clock, threads: int) -> str:
    """The session's verdict on its input, with a hint when the network had to wait for much of the time."""
    line = f"input stall {100 * clock.stall:.1f} % (waited {clock.total_wait_s:.1f} of {clock.total_s:.1f} s for data)"
    if clock.stall <= STALL_HINT_FROM:
        return line
    return f"{line}. The network waits for data: raise --threads (now {threads}), or put the dataset on a faster disk"
