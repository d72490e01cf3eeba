"""How far a dataset has come, from its files alone: no scheduler is asked, any machine that sees them may look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.catalog import read_info
from pipeline.manifest import SHARD_FOLDER, committed_shards, part_name
from pipeline.progress import duration

_RECENT_SHARDS = 20


def dataset_status(folder: Path) -> dict[str, Any]:
    """Committed and planned shards and samples, rate over the latest commits, time left; ready for JSON."""
    info = read_info(folder)
    committed = committed_shards(folder)
    config = info.config
    last = config.samples - (info.shards - 1) * config.shard_samples
    samples = sum(last if shard == info.shards - 1 else config.shard_samples for shard in committed)
    rate = _recent_rate(folder, committed, config.shard_samples)
    left = config.samples - samples
    return {
        "path": str(folder),
        "shards": {"committed": len(committed), "planned": info.shards},
        "samples": {"committed": samples, "planned": config.samples},
        "complete": len(committed) == info.shards,
        "samples_per_second": rate,
        "seconds_left": left / rate if rate and left else (0.0 if not left else None),
        "seconds_since_last_commit": _age(folder, committed),
        "unfinished_attempts": _unfinished(folder, committed),
    }


def _times(folder: Path, shards: list[int]) -> list[float]:
    return sorted((folder / part_name(shard)).stat().st_mtime for shard in shards)


def _recent_rate(folder: Path, committed: list[int], shard_samples: int) -> float | None:
    """Samples per second between the latest commits; None before there are two."""
    times = _times(folder, committed)[-_RECENT_SHARDS:]
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) * shard_samples / (times[-1] - times[0])


def _age(folder: Path, committed: list[int]) -> float | None:
    times = _times(folder, committed)
    return max(0.0, time.time() - times[-1]) if times else None


def _unfinished(folder: Path, committed: list[int]) -> int:
    """Attempts that are no commit: being written now, or left by a killed worker."""
    attempts = [path for path in (folder / "shards").glob("*.zarr") if SHARD_FOLDER.fullmatch(path.name)]
    return max(0, len(attempts) - len(committed))


def describe_status(status: Mapping[str, Any]) -> list[str]:
    """The status as lines for people."""
    shards, samples = status["shards"], status["samples"]
    lines = [
        f"{status['path']}: {samples['committed']} of {samples['planned']} samples, "
        f"{shards['committed']} of {shards['planned']} shards"
    ]
    if status["complete"]:
        left_over = status["unfinished_attempts"]
        ending = f"{left_over} left-over attempts; `phantumor verify --gc` removes them"
        return [f"{lines[0]}, complete", *([ending] if left_over else [])]
    if status["samples_per_second"]:
        lines.append(
            f"{status['samples_per_second']:.1f} samples/s over the latest shards, "
            f"{duration(status['seconds_left'])} left at that rate"
        )
    if status["seconds_since_last_commit"] is not None:
        lines.append(f"last commit {duration(status['seconds_since_last_commit'])} ago")
    lines.append(f"{status['unfinished_attempts']} unfinished attempts; the same generate command resumes")
    return lines
