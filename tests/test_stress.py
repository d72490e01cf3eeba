"""A stress test from the command line on a bank and a network whose answers are known; its suites are paired."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.cli import main
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.spec import draw_sample
from pipeline.spec.records import SampleSpec
from pipeline.synthesis import synthesise
from pipeline.verbs.evidence import SuiteName
from tests.annotated import make_annotated_bank
from tests.cases import SPACING_MM
from tests.segmenters import LIVER, make_run
from tests.tumors import block
from training.network import ClassTable
from training.predict import Segmenter
from training.stress import base
from training.stress import run as stress_run
from training.stress.base import Drawn, Request, draw_bases, size_limits_mm
from training.stress.levels import STRESSED
from training.stress.run import stress
from training.stress.score import predicted
from training.stress.suites import SUITES, Setting, Variant, steps

PATCH = (32, 32, 24)


class DarkSpots(torch.nn.Module):
    """Tumor where HU are -50 to 90, in the window -200..200 HU; liver where they are higher."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.zeros_like(image), 0.01 * image, 100 * (0.35 - (image - 0.1).abs())), 1)


def dark_spots(spacing_mm: float = 3.0, classes: dict[str, int] = LIVER) -> Segmenter:
    cpu = torch.device("cpu")
    return Segmenter(DarkSpots(), ClassTable(classes), (-200.0, 200.0), PATCH, spacing_mm, cpu)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Two livers of exactly 100 HU, one to train on and one held out."""
    folder = tmp_path_factory.mktemp("blocks") / "bank"
    with create_or_open_bank(folder, 3.0) as writer:
        for split in ("train", "test"):
            writer.add_case(replace(block(), case_id=f"block_{split}", split=split))
    return open_bank(folder)


def request(bank: Bank, organ: str = "liver", split: str = "all", seed: int = 0) -> Request:
    return Request(bank, organ, STRESSED[organ], split, PATCH, seed)


# ---- pairing ----

TUMOR = ("tumors", 0)
PLACE = {(*TUMOR, "center_vox"), ("origin_vox",)}
SCALED = {(*TUMOR, *rest) for rest in (("rim", "mm"), ("core", "depth_mm"), ("core", "edge_mm"))}
OUTLINE = (*TUMOR, "form", "half_axes_mm")
CHANGES: dict[str, set[tuple[Any, ...]]] = {
    "size": {
        (*TUMOR, "diameter_mm"),
        (*TUMOR, "edge_mm"),
        OUTLINE,
        (*TUMOR, "form", "deformation_mm"),
        (*TUMOR, "form", "deformation_grid_mm"),
        (*TUMOR, "calcification", "grain_mm"),
        *SCALED,
    },
    "contrast": {(*TUMOR, "contrast_hu")},
    "location": PLACE,
    "shape": {OUTLINE},
    "texture": {(*TUMOR, "texture_sd_hu")},
    "noise": set(),
    "slice-thickness": set(),
}


def differing(a: Any, b: Any, at: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """Where two records differ; a list of numbers counts as one value."""
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        return {path for key in a for path in differing(a[key], b[key], (*at, key))}
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and a and isinstance(a[0], dict):
        assert len(a) == len(b)
        return {path for k, (x, y) in enumerate(zip(a, b, strict=True)) for path in differing(x, y, (*at, k))}
    return set() if a == b else {at}


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), organ=st.sampled_from(tuple(STRESSED)))
def test_the_variants_of_a_base_differ_in_the_suites_factor_alone(abdomens: Bank, seed: int, organ: str) -> None:
    wanted = request(abdomens, organ, seed=seed)
    low, high = size_limits_mm(wanted)
    mean = wanted.numbers.diameter_mm.at(0, low, high).value
    drawn = draw_bases(wanted, 2, mean, mean)
    setting = Setting(wanted.numbers, wanted.kind, (low, high))
    for name, suite in SUITES.items():
        levels = steps(suite(setting), drawn.bases)
        assert [step.k for step in levels] == sorted({step.k for step in levels})
        for k, of in enumerate(drawn.bases):
            variants = [step.variants[k] for step in levels]
            first = variants[0].spec.model_dump()
            changed = {path for v in variants for path in differing(first, v.spec.model_dump())}
            assert changed <= CHANGES[name], name
            assert {v.spec.case_id for v in variants} == {of.case.case_id}
            values = [step.levels[k].value for step in levels]
            assert values == sorted(values)


def test_suites_share_their_sample_at_the_mean(blocks: Bank) -> None:
    wanted = request(blocks)
    mean = wanted.numbers.diameter_mm.at(0).value
    bases = draw_bases(wanted, 2, mean, mean).bases
    setting = Setting(wanted.numbers, wanted.kind, size_limits_mm(wanted))
    at_mean = [
        next(step.variants for step in steps(SUITES[name](setting), bases) if step.k == 0)
        for name in ("contrast", "shape", "texture", "noise")
    ]
    assert all(variants == at_mean[0] for variants in at_mean)
    assert [variant.spec for variant in at_mean[0]] == [of.spec for of in bases]


def test_the_same_seed_draws_the_same_bases_and_more_of_them_come_after(blocks: Bank) -> None:
    def drawn(samples: int, seed: int) -> list[SampleSpec]:
        found: Drawn = draw_bases(request(blocks, seed=seed), samples, 12.0, 12.0)
        return [of.spec for of in found.bases]

    assert drawn(2, 1) == drawn(4, 1)[:2]
    assert drawn(2, 1) != drawn(2, 2)


def test_places_for_the_largest_tumor_hold_it_whole(blocks: Bank) -> None:
    """The patch shows all of it: nothing of the tumor touches the patch's border."""
    largest = size_limits_mm(request(blocks))[1]
    for drawn in draw_bases(request(blocks), 3, largest, largest).bases:
        _, label = synthesise(drawn.case, drawn.spec)
        tumor = label == 2
        inner = tumor[1:-1, 1:-1, 1:-1]
        assert tumor.any()
        assert np.count_nonzero(inner) == np.count_nonzero(tumor)


@pytest.mark.parametrize(("without_room", "draws"), [({0, 2}, 4), (set(), 2)])
def test_a_draw_without_room_is_replaced_by_the_next(
    blocks: Bank, monkeypatch: pytest.MonkeyPatch, without_room: set[int], draws: int
) -> None:
    def some_fail(bank: Bank, config: GenerateConfig, index: int) -> SampleSpec:
        spec = draw_sample(bank, config, index)
        return spec.model_copy(update={"tumors": ()}) if index in without_room else spec

    monkeypatch.setattr(base, "draw_sample", some_fail)
    drawn = draw_bases(request(blocks), 2, 12.0, 12.0)
    assert drawn.draws == draws
    assert [b.spec.index for b in drawn.bases] == [i for i in range(draws) if i not in without_room]


def test_an_organ_without_room_is_said(blocks: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(bank: Bank, config: GenerateConfig, index: int) -> SampleSpec:
        return draw_sample(bank, config, 0).model_copy(update={"tumors": ()})

    monkeypatch.setattr(base, "draw_sample", no_room)
    with pytest.raises(InputError, match=r"40 draws gave 0 places for liver tumors of 50 mm, 2 are needed.*--suites"):
        draw_bases(request(blocks), 2, 12.0, 50.0)


# ---- the verb ----


def test_the_command_line_offers_every_suite() -> None:
    assert get_args(SuiteName) == tuple(SUITES)


@pytest.fixture(scope="module")
def tested(blocks: Bank, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A stress test of `DarkSpots` on the held-out block."""
    out = tmp_path_factory.mktemp("stress") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stress_run, "load_segmenter", lambda *_: dark_spots())
        document = stress(Path("run"), blocks.path, out, samples=2, log=lambda _: None)
    return document, out


def levels_of(document: dict[str, Any], suite: str) -> dict[int, dict[str, Any]]:
    return next({level["k"]: level for level in s["levels"]} for s in document["suites"] if s["name"] == suite)


def test_the_figures_are_those_of_a_network_that_marks_dark_voxels(tested: tuple[dict[str, Any], Path]) -> None:
    document, _ = tested
    contrast = levels_of(document, "contrast")
    assert contrast[-3]["sensitivity"]["count"] == contrast[0]["sensitivity"]["count"] == 2
    assert min(contrast[k]["dice"]["mean"] for k in (-3, 0)) > contrast[3]["dice"]["mean"] + 0.2
    assert [contrast[k]["contrast_hu"]["mean"] for k in (-3, 0, 3)] == pytest.approx([-78, -42, -6], abs=2)
    diameters = [level["diameter_mm"]["mean"] for level in levels_of(document, "size").values()]
    assert diameters == sorted(diameters)
    noise = levels_of(document, "noise")
    assert sorted(noise) == [0, 1, 2, 3]
    assert noise[0]["false_tumors"]["mean"] == 0 < noise[3]["false_tumors"]["mean"]
    assert document["control"]["marked_at_the_place"]["count"] == 0
    assert document["control"]["patches_without_a_false_tumor"]["count"] == 2


def test_the_reader_is_told_what_not_to_conclude(tested: tuple[dict[str, Any], Path]) -> None:
    document, out = tested
    assert document["case_ids"] == ["block_test"]
    assert "not independent" in document["notes"][0]
    page = (out / "report.html").read_text()
    assert "1 source case" in page
    assert "not independent" in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    assert (out / "stress.png").read_bytes().startswith(b"\x89PNG")
    assert {row["suite"] for row in document["quantities"]} == set(SUITES)


def test_every_tumor_is_a_row_that_can_be_made_again(tested: tuple[dict[str, Any], Path], blocks: Bank) -> None:
    document, out = tested
    rows = pq.read_table(out / "tumors.parquet").to_pylist()
    assert len(rows) == 2 * sum(len(suite["levels"]) for suite in document["suites"])
    found = [row for row in rows if row["suite"] == "size" and row["k"] == 1]
    assert sum(row["found"] for row in found) == levels_of(document, "size")[1]["sensitivity"]["count"]
    spec = SampleSpec.model_validate_json(found[0]["spec"])
    _, label = synthesise(blocks.load(spec.case_id), spec)
    assert np.count_nonzero(label == 2) == found[0]["truth_voxels"]


def test_the_same_command_gives_the_same_files(
    tmp_path: Path, blocks: Bank, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", LIVER, 3.0, PATCH)
    suites = ["--suites", "slice-thickness", "noise", "--samples", "1", "--device", "cpu"]
    words = ["stress", str(run), "--bank", str(blocks.path), *suites, "--json"]
    for name in ("a", "b"):
        assert main([*words, "--out", str(tmp_path / name), *(["--keep"] if name == "b" else [])]) == 0
        document = json.loads(capsys.readouterr().out)
        assert [suite["name"] for suite in document["suites"]] == ["noise", "slice-thickness"]
    for file in ("stress.json", "tumors.parquet", "stress.png", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert not (tmp_path / "a" / "samples").exists()
    kept = {path.relative_to(tmp_path / "b" / "samples").as_posix() for path in (tmp_path / "b").rglob("*.nii.gz")}
    levels = sum(len(suite["levels"]) for suite in document["suites"])
    assert {
        "noise/k+3/0000_ct.nii.gz",
        "slice-thickness/k+2/0000_prediction.nii.gz",
        "noise/k+0/0000_label.nii.gz",
    } <= kept
    assert len(kept) == 3 * levels


@pytest.mark.parametrize(
    ("segmenter", "changes", "message"),
    [
        (dark_spots(1.5), {}, "3 mm voxels.*1.5 mm.*--spacing 1.5"),
        (dark_spots(), {"organ": "kidney"}, "does not know kidney_tumor.*liver, liver_tumor"),
        (dark_spots(), {"organ": "colon"}, "no stress suites for 'colon'"),
        (dark_spots(), {"split": "val"}, "no case of split val.*train 1, test 1.*--split"),
        (dark_spots(), {"suites": ["size", "colour"]}, "no suite colour; choose from size, contrast"),
        (dark_spots(classes={"background": 0, "kidney": 5, "kidney_tumor": 6}), {"organ": "kidney"}, "no case.*kidney"),
    ],
)
def test_what_cannot_be_tested_is_said_with_a_remedy(
    segmenter: Segmenter,
    changes: dict[str, Any],
    message: str,
    blocks: Bank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stress_run, "load_segmenter", lambda *_: segmenter)
    with pytest.raises(InputError, match=message):
        stress(Path("run"), blocks.path, tmp_path / "out", samples=1, log=lambda _: None, **changes)
    assert not (tmp_path / "out").exists()


def test_cases_that_keep_their_own_tumors_take_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress_run, "load_segmenter", lambda *_: dark_spots(SPACING_MM))
    make_annotated_bank(tmp_path / "bank")
    with pytest.raises(InputError, match="give a bank of healthy cases"):
        stress(tmp_path, tmp_path / "bank", tmp_path / "out", split="train", samples=1, log=print)


def test_an_out_that_is_a_file_is_refused(blocks: Bank, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        stress(Path("run"), blocks.path, tmp_path / "out", log=lambda _: None)


def test_a_hidden_tumor_leaves_the_image_healthy(blocks: Bank) -> None:
    drawn = draw_bases(request(blocks), 1, 20.0, 20.0).bases[0]
    (shown, hidden) = predicted(
        blocks, dark_spots(), [Variant(drawn.spec), Variant(drawn.spec, hidden=True)], lambda _: None
    )
    assert np.array_equal(shown.truth, hidden.truth)
    assert (shown.outcome.found, hidden.outcome.found) == (True, False)
    healthy, _ = synthesise(drawn.case, drawn.spec.model_copy(update={"tumors": ()}))
    assert np.array_equal(hidden.image, healthy)
