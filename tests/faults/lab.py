"""Experiments on small datasets: start commands, hurt them, and check that the dataset ends as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.manifest import part_name
from pipeline.store import open_store
from tests.cases import make_bank
from tests.damage import assert_same
from tests.faults import orders
from tests.s3_server import ROOT
from workers.generate import generate
from workers.verify import verify

CONFIG = GenerateConfig(samples=26, patch_shape=(24, 24, 16), shard_samples=2, seed=3)
SHARDS = 13
TINY = GenerateConfig(samples=4, patch_shape=(16, 16, 16), shard_samples=2, seed=3)
_LIMIT_S = 240.0


def settings_of(config: GenerateConfig) -> list[str]:
    x, y, z = map(str, config.patch_shape)
    shape = ["--patch-shape", x, y, z, "--shard-samples", str(config.shard_samples), "--store", config.store]
    return ["--samples", str(config.samples), "--seed", str(config.seed), *shape]


def wait_for(condition: Callable[[], bool], what: str = "") -> None:
    """Until it holds; a test that waits in vain says for what."""
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what or condition}"
        time.sleep(0.005)


@dataclass
class Run:
    """A command at work."""

    lab: Lab
    pid: int
    output: Path
    code: int | None = None

    def wait(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        if self.code is None:
            self.code = self.lab.ask({"wait": self.pid})
        return self.code

    def said(self) -> str:
        return self.output.read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """The driver alone, as somebody who kills a process does."""
        os.kill(self.pid, number)

    def kill_all(self, number: signal.Signals) -> None:
        """The driver and its workers, as a machine that sleeps, or is switched off."""
        os.killpg(self.pid, number)

    def processes(self) -> list[int]:
        """What still runs of the command."""
        return [pid for pid, session in processes() if session == self.pid]


def processes() -> Iterator[tuple[int, int]]:
    """(process, session) of all that run on this machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z":
                    yield int(entry.name), int(session)


@dataclass
class Lab:
    """A bank, references made without faults, and a process that starts commands."""

    folder: Path
    template: subprocess.Popen[str]
    runs: list[Run] = field(default_factory=list)

    @property
    def bank(self) -> Path:
        return self.folder / "bank"

    def ask(self, request: dict[str, Any]) -> int:
        assert self.template.stdin is not None
        assert self.template.stdout is not None
        self.template.stdin.write(json.dumps(request) + "\n")
        self.template.stdin.flush()
        return int(self.template.stdout.readline())

    def reference(self, config: GenerateConfig) -> Path:
        """The dataset as it is made when nothing happens; in one process."""
        # in a folder of its own below a sibling of the bank, so that its way to the bank is that of every other
        out = self.folder / f"reference-{config.store}-{config.samples}-{config.patch_shape[0]}"
        if not out.exists():
            generate(self.bank, out, config, log=lambda _: None)
        return out

    def start(self, *words: object, **faults: Any) -> Run:
        """Start a command; `faults` are those of `tests.faults.template`."""
        output = self.folder / f"output-{len(self.runs)}"
        store = {k: v for k, v in os.environ.items() if k.startswith("AWS_") or k.lower() == "no_proxy"}
        faults["environment"] = store | faults.get("environment", {})
        request = {"run": [str(word) for word in words], "output": str(output), **faults}
        run = Run(self, self.ask(request), output)
        self.runs.append(run)
        return run

    def generate(self, out: Path | str, *words: object, config: GenerateConfig = CONFIG, **faults: Any) -> Run:
        """Start `phantumor generate`."""
        return self.start("generate", "--bank", self.bank, "--out", out, *settings_of(config), *words, **faults)

    def resume(self, out: Path | str, *words: object, config: GenerateConfig = CONFIG, **faults: Any) -> None:
        """Run the same command again; it has to end well."""
        run = self.generate(out, *words, config=config, **faults)
        assert run.wait() == 0, run.said()

    def assert_recovered(self, out: Path, config: GenerateConfig = CONFIG, reference: Path | None = None) -> None:
        """The reference's rows and bytes, every shard committed once, nothing left over, nobody at work."""
        report = verify(out, gc=True, gc_age_minutes=0)
        assert report.ok, report.lines()
        assert_same(out, reference or self.reference(config))
        assert leftovers(out) == []
        told = [shard for shard, _ in orders.notes(out, "committed")]
        assert len(told) == len(set(told)), f"committed twice: {sorted(told)}"
        ours = {run.pid for run in self.runs}
        wait_for(lambda: not any(session in ours for _, session in processes()), "processes to be gone")


def leftovers(out: Path) -> list[str]:
    """Files that a finished dataset does not have."""
    aside = [path.relative_to(out).as_posix() for path in out.rglob("*.tmp")]
    records = [entry.key for name in ("running", "failures") for entry in open_store(out).entries(name)]
    return sorted(aside + records)


def committed(out: Path) -> list[int]:
    return [shard for shard in range(100) if (out / part_name(shard)).exists()]


def assert_readable(out: Path, reference: Path) -> None:
    """What a reader sees at any moment: no dataset yet, or samples that are those of the reference, whole."""
    if not (out / "dataset.json").exists():
        return
    seen, wanted = open_dataset(out), open_dataset(reference)
    for index in seen.indices_of("all"):
        a, b = seen.sample(index), wanted.sample(index)
        assert (a.image == b.image).all()
        assert (a.label == b.label).all()
        assert a.row == b.row


@contextlib.contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """Make a bank and start the template; it ends with the block, and with this process."""
    make_bank(folder / "bank")
    command = [sys.executable, "-m", "tests.faults.template"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    template = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    lab = Lab(folder, template)
    assert (
        lab.ask({"warm": ["generate", "--bank", str(lab.bank), "--out", "warm", *settings_of(TINY), "--dry-run"]}) == 0
    )
    try:
        yield lab
    finally:
        for run in lab.runs:
            for pid in run.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        template.communicate("")
        shutil.rmtree(folder, ignore_errors=True)
