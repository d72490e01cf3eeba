"""A soak: one dataset of many small samples, killed and resumed on the way, then verified, inspected and streamed.

    python -m benchmarks.soak --out soak                        1,000,000 samples of 32^3 on 2 cores: hours
    python -m benchmarks.soak --out soak --samples 20000        the same in minutes

Killed itself, it goes on where it was: the same command resumes. Prints a table and writes OUT/soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.bank import create_or_open_bank
from pipeline.case import build_case
from pipeline.phantom import make_phantom
from pipeline.progress import duration, size
from pipeline.status import dataset_status

CASES, SPACING_MM, SHAPE = 7, 2.0, (168, 138, 102)
KILLS = (0.05, 0.3, 0.6, 0.9)  # shares of the shards at which the run is killed, workers and all
POLL_SECONDS = 2.0


def main() -> None:
    options = _options()
    soak = Soak(options)
    for step in (soak.make_bank, soak.generate, soak.verify, soak.inspect, soak.stream):
        step()
    print(soak.table())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--edge", type=int, default=32)
    parser.add_argument("--shard-samples", type=int, default=256)
    parser.add_argument("--store", choices=("full", "delta", "recipe"), default="full")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--replay", type=float, default=0.001)
    return parser.parse_args()


class Soak:
    """The steps, each of which leaves its figures in `soak.json` and is skipped when they are there."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.bank, self.data = options.out / "bank", options.out / "data"
        self.file = options.out / "soak.json"
        options.out.mkdir(parents=True, exist_ok=True)
        self.figures: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def _keep(self, **figures: Any) -> None:
        self.figures |= figures
        self.file.write_text(json.dumps(self.figures, indent=1))

    def make_bank(self) -> None:
        with create_or_open_bank(self.bank, SPACING_MM) as bank:
            for seed in range(CASES):
                case_id = f"phantom_{seed}"
                if case_id not in bank.records:
                    made = make_phantom(seed, SHAPE, SPACING_MM)
                    split = bank.next_split()
                    bank.add_case(build_case(case_id, made.ct, made.organs, made.affine, SPACING_MM, split=split))

    def _command(self) -> list[str]:
        o = self.options
        return [
            *(sys.executable, "-m", "pipeline.cli", "generate", "--bank", str(self.bank), "--out", str(self.data)),
            *(
                "--samples",
                str(o.samples),
                "--patch-shape",
                *[str(o.edge)] * 3,
                "--shard-samples",
                str(o.shard_samples),
            ),
            *("--store", o.store, "--workers", str(o.workers), "--body-share", "0.5"),
        ]

    def generate(self) -> None:
        """Run the command to its end; on the way kill it at every share of KILLS that is still to come."""
        while not self.figures.get("generated"):
            killed = self.figures.get("kills", 0)
            stop_at = KILLS[killed] if killed < len(KILLS) else 2.0
            process = subprocess.Popen(self._command(), start_new_session=True)
            try:
                code = self._watch(process, stop_at)
            finally:
                _kill(process)
            if code is None:
                self._keep(kills=killed + 1)
                print(f"killed at {stop_at:.0%}; the same command resumes", flush=True)
            elif code == 0:
                self._keep(generated=True, disk_bytes=_bytes_below(self.data))
            else:
                sys.exit(f"generate ended with exit code {code}")

    def _watch(self, process: subprocess.Popen[bytes], stop_at: float) -> int | None:
        """Wait for the end, its exit code; or kill it at a share of the shards, None."""
        before, started = self.figures.get("seconds", 0.0), time.monotonic()
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            self._keep(seconds=before + time.monotonic() - started)
            if stop_at <= 1 and _committed_share(self.data) >= stop_at:
                _kill(process)
                return None
        return process.returncode

    def verify(self) -> None:
        self._timed("verify", lambda: _run("verify", str(self.data), "--gc", "--gc-age-minutes", "0"))
        self._timed("replay", lambda: _run("verify", str(self.data), "--replay", str(self.options.replay)))

    def inspect(self) -> None:
        self._timed("inspect", lambda: _run("inspect", str(self.data)))
        where = "kind = 'hcc' and diameter_mm < 10"
        self._timed("inspect --where", lambda: _run("inspect", str(self.data), "--where", where))

    def stream(self) -> None:
        """Every sample of the dataset once, shuffled."""
        from training.stream import ShardStream

        def once() -> None:
            seen = 0
            with ShardStream(self.data, 32, split="all", epochs=1) as stream:
                for batch in stream:
                    seen += len(batch["index"])
            if seen != self.options.samples:
                sys.exit(f"streamed {seen} of {self.options.samples} samples")

        self._timed("stream", once)

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        if name not in self.figures:
            started = time.monotonic()
            work()
            self._keep(**{name: time.monotonic() - started})

    def table(self) -> str:
        """The figures as a Markdown table."""
        f, samples = self.figures, self.options.samples
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        rows = [
            ("samples", f"{samples:,} of {self.options.edge}^3, store {self.options.store}"),
            (
                "generate",
                f"{duration(f['seconds'])}, {samples / f['seconds']:.0f} samples/s, killed {f['kills']} times",
            ),
            ("on disk", f"{size(f['disk_bytes'])}, {size(f['disk_bytes'] / samples)} a sample"),
            ("largest process", size(peak)),
            *((name, duration(f[name]) if f[name] > 10 else f"{f[name]:.1f} s") for name in _TIMED),
            ("stream rate", f"{samples / f['stream']:.0f} samples/s"),
        ]
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


_TIMED = ("verify", "replay", "inspect", "inspect --where", "stream")


def _run(*words: str) -> None:
    code = subprocess.run([sys.executable, "-m", "pipeline.cli", *words], check=False).returncode
    if code:
        sys.exit(f"phantumor {words[0]} ended with exit code {code}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The driver and its workers, without a word."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _committed_share(data: Path) -> float:
    if not (data / "dataset.json").exists():
        return 0.0
    shards = dataset_status(data)["shards"]
    return float(shards["committed"] / shards["planned"])


def _bytes_below(folder: Path) -> int:
    if shutil.which("du"):
        return int(subprocess.check_output(["du", "-sb", str(folder)]).split()[0])
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
