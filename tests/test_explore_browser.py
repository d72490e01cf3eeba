"""The explorer as a user drives it, in headless Chromium."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from tests.cases import make_bank
from tests.datasets import make_dataset
from tests.pages import Watched, browser, served
from workers.generate import generate

ROWS = 2000
VAL = 400  # by the cases of `make_dataset`


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


def opened(chromium: Any, address: str, selection: str = "") -> tuple[Any, Watched]:
    """The page of an address when its first sample is drawn, and what it asked for and complained about."""
    page = chromium.new_page(viewport={"width": 640, "height": 400})  # drawn in software
    page.set_default_timeout(90_000)  # torch is loaded to make a recipe's first sample
    watched = Watched(page)
    page.goto(address + selection)
    drawn(page)
    return page, watched


def drawn(page: Any, shown: str = "") -> None:
    page.wait_for_selector(f'#canvas[data-shown*="{shown or chr(32)}"]')
    page.wait_for_selector("#sample[data-phase=ready]")


def counted(page: Any, text: str) -> None:
    page.wait_for_selector(f'#count:text("{text}")')


def test_samples_are_filtered_sorted_and_looked_through(chromium: Any, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", samples=ROWS, shard_samples=500, patch_shape=(8, 8, 8))
    with served("explore", tmp_path / "data", "--no-browser") as address:
        page, watched = opened(chromium, address)
        count = page.locator("#count")
        assert count.text_content() == "2,000 of 2,000 samples"
        # A bar filters, and the expression says so.
        page.click('[data-bar="split=val"]')
        counted(page, f"{VAL} of")
        assert page.locator("#expression").input_value() == "split = 'val'"
        # So do the keys: to the first bar, and an expression of one's own.
        page.keyboard.press("x")
        counted(page, "2,000 of")
        page.keyboard.press("/")
        page.keyboard.type("split = 'train' and index < 10")
        page.keyboard.press("Enter")
        counted(page, "6 of 2,000")
        page.keyboard.press("x")
        counted(page, "2,000 of")
        # Order, and the next sample in that order.
        page.click('[data-sort="index"]')
        page.wait_for_selector('tbody tr:first-child[data-id="s000001999"]')
        page.click("tbody tr:first-child")
        drawn(page, "s000001999")
        page.keyboard.press("j")
        drawn(page, "s000001998 all off soft tissue")
        assert "s000001998" in page.url
        # Over the border of two pages and back; a link to a sample knows its page.
        again, watched_again = opened(chromium, address, "#sample=s000000100&view=axial")
        drawn(again, "s000000100 axial")
        assert "101–200" in again.locator("#page").text_content()
        again.keyboard.press("k")
        drawn(again, "s000000099 axial")
        assert "1–100" in again.locator("#page").text_content()
        watched_again.check()
        again.close()
        # Planes, window, label.
        for key, shown in (("2", " axial "), ("5", " 3d "), ("w", " liver "), ("]", " 60")):
            page.keyboard.press(key)
            drawn(page, shown)
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        assert page.locator("#twins").is_hidden()  # there is no bank
        watched.check()
        # The address shows the same again.
        again, watched_again = opened(chromium, address, page.url[page.url.index("#") :])
        drawn(again, "s000001998 3d off liver 60")
        watched_again.check()
        again.close()
        page.close()


def test_the_hint_on_tumors_comes_with_a_filter_on_tumors(chromium: Any, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", samples=20, patch_shape=(16, 16, 16))
    with served("explore", tmp_path / "data", "--no-browser") as address:
        page, _ = opened(chromium, address, "#view=axial")
        assert page.is_hidden("#any-tumor")
        assert "largest: diameter" in page.inner_text("thead")
        page.keyboard.press("/")
        page.keyboard.type("diameter_mm < 3.8")
        page.keyboard.press("Enter")
        page.wait_for_selector("#any-tumor:visible")
        assert "any of its tumors" in page.inner_text("#any-tumor")
        assert "matching: diameter" in page.inner_text("thead")
        page.keyboard.press("x")
        page.wait_for_selector("#any-tumor", state="hidden")
        page.keyboard.press("/")
        page.keyboard.type("diamter_mm < 3")
        page.keyboard.press("Enter")
        page.wait_for_selector("#message:has-text('Filter box: unknown column diamter_mm')")
        assert "--where" not in page.inner_text("#message")
        page.close()


def test_letters_stand_out_and_the_legend_names_what_is_drawn(chromium: Any, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", samples=4, patch_shape=(16, 16, 16))
    with served("explore", tmp_path / "data", "--no-browser") as address:
        page, _ = opened(chromium, address, "#view=axial")
        assert page.locator("#legend li").all_text_contents() == ["liver tumor"]
        page.keyboard.press("o")
        page.wait_for_selector("#legend li:text-is('liver')")
        # A letter is as bright as can be, with black around it; the samples are grey, without air.
        page.keyboard.press("[")
        drawn(page, " 40")
        where = page.locator("#stage").bounding_box()
        corner = {"x": where["x"], "y": where["y"] + where["height"] / 2 - 20, "width": where["width"], "height": 40}
        grey = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=corner))).convert("L"))
        white = grey > 245
        near = np.zeros_like(white)
        for shift in range(-4, 5):
            near |= np.roll(grey < 40, shift, axis=1)
        assert np.count_nonzero(white & near) > 20
        page.close()


def test_a_sample_of_a_recipe_is_compared_with_its_healthy_twin(chromium: Any, tmp_path: Path) -> None:
    make_bank(tmp_path / "bank", cases=1)
    config = GenerateConfig(samples=2, patch_shape=(24, 24, 24), shard_samples=2, healthy_share=0.0, store="recipe")
    generate(tmp_path / "bank", tmp_path / "data", config, log=lambda _: None)
    with served("explore", tmp_path / "data", "--no-browser") as address:
        page, watched = opened(chromium, address)
        for shown in ("healthy", "swipe", "difference", "off"):
            page.keyboard.press("t")
            drawn(page, f" {shown} ")
            assert page.locator("#twin").is_visible() == (shown == "swipe")
        with page.expect_download() as saved:
            page.click("#downloads a")
        assert saved.value.suggested_filename == "s000000000_image.nii.gz"
        watched.check()
        page.close()


def test_without_webgl_the_page_says_so_and_goes_on(chromium: Any, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", samples=4, patch_shape=(8, 8, 8))
    with served("explore", tmp_path / "data", "--no-browser") as address:
        page = chromium.new_page()
        watched = Watched(page)
        page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        page.goto(address)
        page.wait_for_selector("#stage-message:visible")
        assert "WebGL 2" in page.locator("#stage-message").text_content()
        page.keyboard.press("j")
        page.wait_for_selector('#sample-name:text-is("s000000001")')
        watched.check()


FIGURES = {"start to address", "first page", "first sample, loads torch", "next sample", "a bar is clicked",
           "server: table, one bar", "server: table, three filters", "server: table, expression",
           "server: table, sorted",
           "server: histograms", "peak MiB"}  # fmt: skip
SELECTIONS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "": lambda row: True,
    "kind=hcc": lambda row: any(t["kind"] == "hcc" for t in row["tumors"]),
    "kind=hcc&diameter_mm=5..15&split=train": lambda row: (
        row["split"] == "train" and any(t["kind"] == "hcc" and 5 <= t["diameter_mm"] < 15 for t in row["tumors"])
    ),
    "where=kind = 'hcc' and diameter_mm < 10": lambda row: any(
        t["kind"] == "hcc" and t["diameter_mm"] < 10 for t in row["tumors"]
    ),
    "n_tumors=0": lambda row: not row["tumors"],
}


@pytest.mark.soak
def test_a_million_rows(chromium: Any, tmp_path: Path) -> None:
    benchmark = Path(__file__).resolve().parents[1] / "benchmarks" / "explore.py"
    words = ["--rounds", "1", "--keep", tmp_path, "--json", tmp_path / "figures.json"]
    subprocess.run([sys.executable, benchmark, *words], check=True)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == FIGURES
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    check_counts(chromium, tmp_path)


def check_counts(chromium: Any, folder: Path) -> None:
    """What the page counts of the benchmark's view is what its recipes, each of which stands there so often, hold."""
    recipes = open_dataset(folder / "recipes").manifest.to_pylist()
    rows = open_dataset(folder / "view").rows
    times = rows // len(recipes)
    with served("explore", folder / "view", "--no-browser") as address:
        page, watched = opened(chromium, address)
        for query, meets in SELECTIONS.items():
            page.evaluate("(hash) => { location.hash = hash; }", query)
            found = times * sum(map(meets, recipes))
            page.wait_for_selector(f'#count:text-is("{found:,} of {rows:,} samples")')
            assert 0 < found <= rows
        watched.check()
        page.close()
