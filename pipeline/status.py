"""How far a dataset has come, from its files alone: no scheduler is asked, any machine that sees them may look."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from statistics import median
from typing import Any

from pipeline.description import read_info
from pipeline.manifest import SHARD_FOLDER, commit_times
from pipeline.progress import duration
from pipeline.store import Location, Store, open_store

_RECENT_SHARDS = 20  # or those of the last half hour, where these are more
_RECENT_S = 1800.0
_PAUSE_S = 600.0  # or ten times what lies between two commits, where shards take long
_MOST_RUNNING = 64
_FAILURE = re.compile(r"failures/(\d{6,})\.json")
_RUN_FACTS = (
    *("run", "user", "host", "executor", "started", "updated", "ended", "outcome", "reason"),
    *("samples_per_s", "mb_per_s", "retries", "backups", "failed_attempts"),
)


def dataset_status(place: Location) -> dict[str, Any]:
    """Committed and planned shards and samples, rate of late without pauses, time left; ready for JSON."""
    store = open_store(place)
    info = read_info(store)
    times = commit_times(store)
    committed = sorted(shard for shard in times if shard < info.shards)
    config = info.config
    samples = info.plan.samples_in(committed)
    if info.sources:  # a view is whole from the start
        committed, samples = list(range(info.shards)), config.samples
    rate, pause_s = _recent_rate(sorted(times.values()), config.shard_samples)
    idle_s = max(0.0, time.time() - max(times.values())) if times else None
    left = config.samples - samples
    return {
        "path": store.url,
        "shards": {"committed": len(committed), "planned": info.shards},
        "samples": {"committed": samples, "planned": config.samples},
        "complete": len(committed) == info.shards,
        "samples_per_second": rate,
        "seconds_left": left / rate if rate and left else (0.0 if not left else None),
        "seconds_since_last_commit": idle_s,
        "idle": idle_s is not None and idle_s > pause_s,
        "unfinished_attempts": _unfinished(store, committed),
        "running": _running(store),
        "failed_shards": failed_shards(store),
        "last_run": _last_run(store),
    }


def _running(store: Store) -> list[dict[str, Any]]:
    """The start records of attempts that have not ended: at work now, or killed without a word."""
    records = []
    for entry in islice(store.entries("running"), _MOST_RUNNING):
        with suppress(OSError, ValueError):  # ended, or being written, just now
            found = json.loads(store.read(entry.key))
            since = {"seconds": max(0.0, time.time() - entry.modified)}
            records.append({name: found[name] for name in ("shard", "host", "pid") if name in found} | since)
    return records


def failed_shards(store: Store) -> list[int]:
    """Shards that were given up, see `failures/`."""
    names = (_FAILURE.fullmatch(entry.key) for entry in store.entries("failures"))
    return [int(name[1]) for name in names if name]


def _last_run(store: Store) -> dict[str, Any] | None:
    """Who made it go on last, and how that went."""
    runs = store.groups("runs")
    if not runs:
        return None
    found: dict[str, Any] = {"run": runs[-1]}
    for name in ("run.json", "progress.json"):
        with suppress(OSError, ValueError):
            found |= json.loads(store.read(f"runs/{runs[-1]}/{name}"))
    return {name: found.get(name) for name in _RUN_FACTS}


def _recent_rate(times: Sequence[float], shard_samples: int) -> tuple[float | None, float]:
    """Samples per second since the last pause, of late; None before there are two commits. And what is a pause."""
    recent = [t for t in times if t >= times[-1] - _RECENT_S]
    recent = list(times[-max(len(recent), _RECENT_SHARDS) :])
    gaps = [b - a for a, b in pairwise(recent)]
    pause_s = max(_PAUSE_S, 10 * median(gaps)) if len(gaps) > 2 else _PAUSE_S
    begun = max((k + 1 for k, gap in enumerate(gaps) if gap > pause_s), default=0)
    recent = recent[begun:]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None, pause_s
    return (len(recent) - 1) * shard_samples / (recent[-1] - recent[0]), pause_s


def _unfinished(store: Store, committed: Sequence[int]) -> int:
    """Attempts that are no commit: being written now, or left by a killed worker."""
    attempts = [name for name in store.groups("shards") if SHARD_FOLDER.fullmatch(name)]
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
    lines += [*_rate_lines(status), *_run_lines(status)]
    lines.append(f"{status['unfinished_attempts']} unfinished attempts; the same generate command resumes")
    return lines


def _rate_lines(status: Mapping[str, Any]) -> list[str]:
    rate, since = status["samples_per_second"], status["seconds_since_last_commit"]
    if since is None:
        return []
    left = f"{rate:.1f} samples/s {{}}, {duration(status['seconds_left'])} left at that rate" if rate else ""
    if status["idle"]:
        return [f"nothing was committed for {duration(since)}{'; ' if left else ''}{left.format('before that')}"]
    return [*([left.format("of late")] if left else []), f"last commit {duration(since)} ago"]


def _run_lines(status: Mapping[str, Any]) -> list[str]:
    lines = []
    run, running, failed = status["last_run"], status["running"], status["failed_shards"]
    if run:
        state = (
            f"ended {run['ended']}: {run['outcome']}"
            if run["ended"]
            else f"last heard of {run['updated'] or run['started']}"
        )
        lines.append(f"run {run['run']} by {run['user']} on {run['host']} ({run['executor']}), {state}")
    if running:
        hosts = sorted({str(record.get("host")) for record in running})
        longest = max(record["seconds"] for record in running)
        more = " or more" if len(running) == _MOST_RUNNING else ""
        lines.append(
            f"{len(running)}{more} shards being made on {', '.join(hosts[:8])}, the longest for {duration(longest)}"
        )
    if failed:
        shown = ", ".join(map(str, failed[:8])) + (", ..." if len(failed) > 8 else "")
        lines.append(f"{len(failed)} shards failed ({shown}): failures/ tells why, generate --retry-failed tries again")
    return lines
