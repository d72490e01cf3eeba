"""How fast `phantumor explore` is on a manifest of a million rows whose samples can all be opened.

    python benchmarks/explore.py [--rows 1000000 --keep FOLDER --rounds 5 --json FILE --screenshot FILE]

Generates `RECIPES` recipes from the built-in phantom, and a view in which they stand again and again until there are
`--rows` rows; each row is true, and its sample is made when it is looked at. The page is driven in headless Chromium
with WebGL in software. Printed are medians: from the address to the filled table, from a filter to its answer, from a
key to the next sample drawn, answers of the server alone, and the server's peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.bank import create_or_open_bank
from pipeline.case import build_case
from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import Source, create_info, recipe_digest
from pipeline.manifest import SCHEMA, sample_id
from pipeline.parts import Parts
from pipeline.phantom import make_phantom
from pipeline.store import FolderStore
from pipeline.whole_manifest import write_rows
from workers.generate import generate

RECIPES = 4096
SHARD_SAMPLES = 64
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FILTERS = {
    "one bar": "kind=hcc",
    "three filters": "kind=hcc&diameter_mm=5..15&split=train",
    "expression": "where=kind = 'hcc' and diameter_mm < 10",
    "sorted": "sort=-diameter_mm",
}


def recipes(folder: Path) -> None:
    """A dataset of recipes, of three organs, from a phantom at 2 mm."""
    phantom = make_phantom(0, (160, 128, 128), 2.0)
    with create_or_open_bank(folder / "bank", 2.0) as bank:
        bank.add_case(build_case("phantom", phantom.ct, phantom.organs, phantom.affine, 2.0))
    organs = ("liver", "kidney", "pancreas")
    config = GenerateConfig(
        samples=RECIPES, patch_shape=(48, 48, 48), organs=organs, store="recipe", shard_samples=SHARD_SAMPLES
    )
    generate(folder / "bank", folder / "recipes", config, log=lambda _: None)


def view(folder: Path, total: int) -> None:
    """A view in which the recipes stand `total / RECIPES` times."""
    dataset = open_dataset(folder / "recipes")
    info, rows = dataset.info, dataset.manifest.combine_chunks()
    times, shards = total // RECIPES, info.shards
    digest = recipe_digest(info.config)
    sources = tuple(
        Source(
            place="../recipes",
            config_digest=digest,
            bank_fingerprint=info.bank_fingerprint,
            first_index=k * RECIPES,
            first_shard=k * shards,
        )
        for k in range(times)
    )
    config = info.config.model_copy(update={"samples": times * RECIPES})
    store = FolderStore(folder / "view")
    create_info(store, info.model_copy(update={"config": config, "shards": times * shards, "sources": sources}))
    parts = [part for _, part in sorted(dataset.parts.items())]

    def tables() -> Iterator[pa.Table]:
        for k in range(times):
            index = np.arange(k * RECIPES, (k + 1) * RECIPES)
            new = {"sample_id": [sample_id(i) for i in index], "index": index, "shard": index // SHARD_SAMPLES}
            table = rows
            for name, values in new.items():
                at, field = SCHEMA.get_field_index(name), SCHEMA.field(name)
                table = table.set_column(at, field, pa.array(values, field.type))
            yield table

    numbered = (dataclasses.replace(part, shard=part.shard + k * shards) for k in range(times) for part in parts)
    write_rows(store, tables(), lambda: Parts.of(numbered))


# -- timing -----------------------------------------------------------------------------------------------------------


def timed(step: Callable[[], object]) -> float:
    """Seconds that a step takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def start(folder: Path) -> tuple[subprocess.Popen[str], str, float]:
    """The serving process, its address, and how long it took to print it."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", "explore", str(folder), "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        raise SystemExit(line + process.stderr.read())
    return process, found[0], time.perf_counter() - started


def peak_mib(pid: int) -> float:
    """Peak resident memory of a running process."""
    said = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", said)
    return int(found[1]) / 1024 if found else float("nan")


def drive(browser: Any, folder: Path, screenshot: Path | None) -> dict[str, float]:
    """One start of the server and one visit."""
    process, address, started = start(folder)
    page = browser.new_page(viewport={"width": 1400, "height": 860})
    try:
        seconds = {"start to address": started}
        page.goto(address)
        page.wait_for_selector("body[data-phase=ready]")
        # The browser's own clock, from the navigation to the filled table.
        seconds["first page"] = float(page.evaluate("performance.measure('page').duration")) / 1000
        seconds["first sample, loads torch"] = timed(lambda: drawn(page, "s000000000"))
        page.wait_for_timeout(2000)
        for k in range(1, 6):
            page.keyboard.press("j")
            seconds[f"next sample {k}"] = timed(lambda k=k: drawn(page, f"s{k:09d}"))  # type: ignore[misc]
            page.wait_for_timeout(500)
        seconds["next sample"] = statistics.median(seconds.pop(f"next sample {k}") for k in range(1, 6))
        seconds["a bar is clicked"] = timed(lambda: clicked(page))
        for name, query in FILTERS.items():
            asked = f"fetch('/api/table?{query.replace(chr(39), '%27')}&limit=100').then(r => r.json())"
            seconds[f"server: table, {name}"] = timed(lambda asked=asked: page.evaluate(asked))  # type: ignore[misc]
        seconds["server: histograms"] = timed(
            lambda: page.evaluate("fetch('/api/charts?split=val&kind=hcc').then(r => r.json())")
        )
        if screenshot is not None:
            page.screenshot(path=str(screenshot))
        return seconds | {"peak MiB": peak_mib(process.pid)}
    finally:
        page.close()
        process.send_signal(signal.SIGINT)
        process.wait()


def drawn(page: Any, sample: str) -> None:
    page.wait_for_selector(f'#canvas[data-shown^="{sample}"]')
    page.wait_for_selector("#sample[data-phase=ready]")


def clicked(page: Any) -> None:
    everything = page.locator("#count").text_content()
    page.click('[data-bar="kind=hcc"]')
    page.wait_for_selector(f'#count:not(:text-is("{everything}"))')


def main() -> None:
    """Make the view, or take the one that is kept, and print the medians."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--screenshot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as playwright:
        folder = options.keep or Path(aside)
        if not (folder / "recipes").exists():
            recipes(folder)
        if not (folder / "view").exists():
            view(folder, options.rows)
        rows = open_dataset(folder / "view").rows
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        rounds = [drive(browser, folder / "view", options.screenshot) for _ in range(options.rounds)]
        browser.close()
    found = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    print(f"{rows} rows, {options.rounds} rounds")
    for name, value in found.items():
        print(f"{name:32}{value:10.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
