"""Annotated cases: what the bank keeps of them, what is drawn from them, what a dataset of them says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pipeline.anatomy import lesions
from pipeline.bank import Bank
from pipeline.case import AIR_HU, build_case
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.grid import crop, overlap
from pipeline.inspection import describe_sample, sample_document
from pipeline.measure import ANNOTATED, measure_sample
from pipeline.prepare import prepare
from pipeline.preview import Wish, make_preview
from pipeline.spec import SampleSpec, check_bank, draw_sample
from pipeline.spec.annotated import at_lesion
from pipeline.synthesis import render
from pipeline.views import merge, select
from tests.annotated import LESIONS, LIVER, TUMOR, make_annotated_bank
from tests.cases import SPACING_MM, make_bank, make_case
from training.sources import Endless, Mixture, Stored
from training.stream import ShardStream
from workers.convert import convert
from workers.execution import How
from workers.generate import generate
from workers.notes import notes
from workers.verify import verify

PATCH = (20, 20, 16)
CONFIG = GenerateConfig(samples=12, patch_shape=PATCH, shard_samples=4, seed=2)
ALL_AT_TUMORS = CONFIG.model_copy(update={"healthy_share": 0.0, "body_share": 0.0})


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_annotated_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_annotated_bank(tmp_path_factory.mktemp("mixed") / "bank", healthy=2)


@pytest.fixture(scope="module")
def made(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of the annotated case in every kind."""
    folder = tmp_path_factory.mktemp("made")
    for kind in ("full", "delta", "recipe"):
        generate(bank.path, folder / kind, CONFIG.model_copy(update={"store": kind}), log=quiet)
    return {kind: folder / kind for kind in ("full", "delta", "recipe")}


@pytest.fixture(scope="module")
def data(made: dict[str, Path]) -> Dataset:
    return open_dataset(made["full"])


# -- drawing ----------------------------------------------------------------------------------------------------------


def pieces(label: Any) -> Any:
    return cc3d.connected_components(label == TUMOR, connectivity=26)


@st.composite
def lesion_and_patch(draw: st.DrawFn) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    spans = []
    for n in (60, 52, 44):
        low = draw(st.integers(0, n - 1))
        spans.append(slice(low, draw(st.integers(low + 1, min(n, low + 30)))))
    return tuple(spans), tuple(draw(st.integers(8, 70)) for _ in range(3))


@examples(max_examples=60)
@given(lesion_and_patch(), st.integers(0, 2**32 - 1))
def test_a_lesion_lies_whole_in_its_patch_along_every_axis_where_it_fits(drawn: Any, seed: int) -> None:
    spans, patch = drawn
    shape = (60, 52, 44)
    organs = np.full(shape, LIVER, np.uint8)
    organs[spans] = TUMOR
    case = cases_with(organs)
    origin = at_lesion(np.random.default_rng(seed), case, "liver", patch)
    for o, p, n, span in zip(origin, patch, shape, spans, strict=True):
        if n < p:
            assert o == (n - p) // 2
            continue
        assert 0 <= o <= n - p
        if span.stop - span.start <= p:
            assert o <= span.start
            assert span.stop <= o + p
    of_case, _ = overlap(origin, patch, shape)
    assert (organs[of_case] == TUMOR).any()


def cases_with(organs: Any) -> Any:
    """As much of a case as drawing a patch at a lesion takes."""

    class Held:
        ct = organs
        lesions = {"liver": lesions(organs, "liver")}  # noqa: RUF012

    return Held()


def test_every_lesion_is_as_likely_whatever_its_size(bank: Bank) -> None:
    case, count, samples = bank.load("real"), np.zeros(3), 300
    centers = [center for center, _ in LESIONS]
    for index in range(samples):
        rng = np.random.default_rng(index)
        origin = at_lesion(rng, case, "liver", (8, 8, 8))  # holds one of them at most
        inside = [all(o <= c < o + 8 for o, c in zip(origin, center, strict=True)) for center in centers]
        count += inside
    assert abs(count - samples / 3).max() < 4 * np.sqrt(samples * 2 / 9)


@pytest.mark.parametrize(("healthy", "body"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_patches_lie_at_tumors_away_from_them_or_anywhere(bank: Bank, healthy: float, body: float) -> None:
    config = CONFIG.model_copy(update={"healthy_share": healthy, "body_share": body, "patch_shape": (12, 12, 8)})
    case = bank.load("real")
    shown = 0
    for index in range(40):
        spec = draw_sample(bank, config, index)
        assert (spec.truth, spec.tumors, spec.distractors) == ("annotated", (), ())
        label = crop(case.organs, spec.origin_vox, spec.patch_shape, 0)
        shown += bool((label == TUMOR).any())
    assert shown == {0.0: 40, 1.0: 0}[healthy] or (body and 0 < shown < 40)


def test_where_every_patch_shows_a_tumor_the_one_with_least_is_taken(bank: Bank) -> None:
    config = CONFIG.model_copy(update={"healthy_share": 1.0, "body_share": 0.0, "patch_shape": (56, 52, 44)})
    assert draw_sample(bank, config, 0).truth == ANNOTATED


def test_whole_cases_are_drawn_whole(bank: Bank) -> None:
    config = GenerateConfig(samples=2, patch_shape="full")  # type: ignore[arg-type]
    spec = draw_sample(bank, config, 1)
    assert (spec.origin_vox, spec.patch_shape) == ((0, 0, 0), bank.records[0].shape)


def test_specs_and_rows_of_healthy_cases_say_nothing_of_annotation(mixed: Bank) -> None:
    drawn = [draw_sample(mixed, CONFIG, index) for index in range(30)]
    healthy = [spec for spec in drawn if spec.case_id != "real"]
    assert 5 < len(healthy) < 30
    assert all("truth" not in json.loads(spec.model_dump_json(exclude_none=True)) for spec in healthy)
    assert all((spec.truth == "annotated") == (spec.case_id == "real") for spec in drawn)
    assert any(spec.tumors for spec in healthy)


def test_a_spec_of_true_tumors_holds_no_synthetic_ones(mixed: Bank) -> None:
    spec = next(s for s in (draw_sample(mixed, CONFIG, k) for k in range(60)) if s.tumors)
    with pytest.raises(ValueError, match="a patient's own tumors holds no synthetic ones"):
        SampleSpec.model_validate({**spec.model_dump(), "truth": "annotated"})


# -- what comes out ---------------------------------------------------------------------------------------------------


def test_a_sample_is_the_case_as_it_is(data: Dataset, bank: Bank) -> None:
    case = bank.load("real")
    with_tumor = 0
    for index in range(CONFIG.samples):
        image, label, row = data.sample(index)
        np.testing.assert_array_equal(image, crop(case.ct, tuple(row["origin_vox"]), PATCH, AIR_HU))
        np.testing.assert_array_equal(label, crop(case.organs, tuple(row["origin_vox"]), PATCH, 0))
        with_tumor += row["n_tumors"] > 0
    assert 5 <= with_tumor < CONFIG.samples


def test_rows_hold_one_measured_tumor_for_each_component(data: Dataset) -> None:
    around = []
    for index in range(CONFIG.samples):
        image, label, row = data.sample(index)
        found = pieces(label)
        assert row["n_tumors"] == len(row["tumors"]) == found.max()
        assert row["tumor_voxels"] == np.count_nonzero(label == TUMOR)
        assert row["annotated_classes"] == [0, LIVER, TUMOR]
        for number, tumor in enumerate(row["tumors"], 1):
            mask = found == number
            where = np.argwhere(mask)
            assert (tumor["instance"], tumor["organ"], tumor["kind"]) == (number, "liver", "annotated")
            assert tumor["requested_diameter_mm"] is tumor["requested_contrast_hu"] is None
            assert tumor["bbox_vox"] == [*where.min(axis=0), *(where.max(axis=0) + 1)]
            assert tumor["volume_mm3"] == mask.sum() * SPACING_MM**3
            assert tumor["mean_hu"] == pytest.approx(image[mask].mean())
            affine = np.reshape(row["affine"], (4, 4))
            np.testing.assert_allclose(tumor["center_mm"], affine[:3, :3] @ where.mean(axis=0) + affine[:3, 3])
            around.append(tumor["parenchyma_hu"])
            assert tumor["contrast_hu"] == pytest.approx(tumor["mean_hu"] - tumor["parenchyma_hu"])
            assert tumor["surface_distance_mm"] > 0
            assert tumor["vessel_distance_mm"] is not None
    assert np.median(around) == pytest.approx(110, abs=4)  # where few voxels are left around a cut one, noise


def test_a_lesion_cut_by_the_patch_is_as_many_tumors_as_pieces() -> None:
    """Two arms of a U whose bridge lies outside."""
    healthy = make_case("u", 5)
    organs = healthy.organs.copy()
    organs[28:34, 24:26, 20:22] = TUMOR
    organs[28:30, 24:30, 20:22] = TUMOR
    organs[32:34, 24:30, 20:22] = TUMOR
    case = build_case("u", healthy.ct, organs, healthy.affine, SPACING_MM, annotated=[TUMOR])
    assert case.lesions["liver"][-1, 1] == 0
    spec = SampleSpec(
        index=0,
        seed=0,
        split="train",
        case_id="u",
        origin_vox=(26, 27, 18),
        patch_shape=(12, 8, 8),
        organs=("liver",),
        truth="annotated",
    )
    facts = measure_sample(case, spec, render(case, spec))
    assert [tumor["bbox_vox"] for tumor in facts["tumors"]] == [[2, 0, 2, 4, 3, 4], [6, 0, 2, 8, 3, 4]]


def test_an_organ_without_looked_for_tumors_annotates_itself_alone() -> None:
    healthy = make_case("two", 5)
    organs = healthy.organs.copy()
    organs[30:34, 2:6, 20:24] = 5  # a bit of kidney, whose tumors nobody outlined
    case = build_case("two", healthy.ct, organs, healthy.affine, SPACING_MM, annotated=[TUMOR])
    spec = SampleSpec(
        index=0,
        seed=0,
        split="train",
        case_id="two",
        origin_vox=(0, 0, 0),
        patch_shape=(60, 52, 44),
        organs=("liver", "kidney"),
        truth="annotated",
    )
    facts = measure_sample(case, spec, render(case, spec))
    assert facts["annotated_classes"] == [0, LIVER, TUMOR, 5]
    assert set(case.voxels) == {"liver"}


@pytest.mark.parametrize("kind", ["full", "delta", "recipe"])
def test_every_kind_of_store_keeps_the_same_and_replays(made: dict[str, Path], data: Dataset, kind: str) -> None:
    report = verify(made[kind], replay=1)
    assert (report.findings, report.replayed) == ([], CONFIG.samples)
    other = open_dataset(made[kind])
    for index in range(CONFIG.samples):
        for a, b in zip(data.sample(index)[:2], other.sample(index)[:2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_dataset_is_converted_and_back(made: dict[str, Path], tmp_path: Path) -> None:
    convert(made["full"], tmp_path / "delta", "delta", how=How(), log=quiet)
    convert(tmp_path / "delta", tmp_path / "full", "full", how=How(), log=quiet)
    before, after = (
        open_dataset(place).columns(["image_crc32c", "label_crc32c", "spec"])
        for place in (made["full"], tmp_path / "full")
    )
    assert after.equals(before)


def test_inspect_says_that_nobody_asked_for_a_tumor(data: Dataset) -> None:
    index = next(k for k in range(CONFIG.samples) if data.row(k)["n_tumors"])
    lines = describe_sample(sample_document(data.sample(index)))
    assert any("liver annotated: " in line and "(the patient's own)" in line for line in lines)


# -- beside synthetic samples -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("synthetic")
    generate(make_bank(folder / "bank", cases=1).path, folder / "data", CONFIG, log=quiet)
    return open_dataset(folder / "data")


def test_true_and_synthetic_samples_are_mixed_merged_and_selected(
    data: Dataset, synthetic: Dataset, tmp_path: Path
) -> None:
    source = Mixture([(Stored(synthetic, "all"), 0.5), (Stored(data, "all"), 0.5)])
    with ShardStream(source, 4, epochs=1) as stream:
        seen = np.concatenate([batch["source"].numpy() for batch in stream])
    assert set(seen.tolist()) == {0, 1}
    merge([synthetic.path, data.path], tmp_path / "both", log=quiet)
    assert verify(tmp_path / "both", replay=1).findings == []
    true = select(tmp_path / "both", tmp_path / "true", where="kind = 'annotated'")
    with_tumor = sum(row > 0 for row in data.columns(["n_tumors"])["n_tumors"].to_pylist())
    assert true.samples == with_tumor


def test_annotated_samples_have_no_healthy_twins(
    data: Dataset, synthetic: Dataset, mixed: Bank, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"samples of annotated cases \(real\) have no healthy twin"):
        data.healthy(0)
    with pytest.raises(InputError, match=r"no healthy twin.*where=\"case_id != 'real'\""):
        ShardStream(Mixture([(synthetic, 0.5), (data, 0.5)]), 2, healthy=True)
    with pytest.raises(InputError, match="no healthy twin"):
        ShardStream(Endless(mixed, CONFIG), 2, healthy=True)
    generate(mixed.path, tmp_path / "mixed", CONFIG, log=quiet)
    with ShardStream(Stored(str(tmp_path / "mixed"), where="case_id != 'real'"), 2, healthy=True, epochs=1) as stream:
        assert all(batch["healthy"].shape == batch["image"].shape for batch in stream)


def test_previews_are_of_the_healthy_cases(bank: Bank, mixed: Bank) -> None:
    assert make_preview(mixed, Wish("liver", seed=3)).spec.case_id != "real"
    with pytest.raises(InputError, match="all of its cases are annotated"):
        make_preview(bank, Wish("liver"))


def test_what_is_only_for_synthetic_tumors_is_refused_or_said(bank: Bank, mixed: Bank) -> None:
    series = GenerateConfig.model_validate({"engine": "growth", "series": {"points": 2}})
    with pytest.raises(InputError, match=r"series.points is 2, but 1 of its cases are annotated \(real\)"):
        check_bank(mixed, series)
    large = GenerateConfig.model_validate({"tumors": {"liver": {"diameter_mm": [900, 900]}}})
    check_bank(bank, large)  # nothing is drawn by it
    with pytest.raises(InputError, match="tumors of 900 mm are not possible in case tiny_0"):
        check_bank(mixed, large)
    said = [note for note in notes(mixed, CONFIG) if "annotated (" in note]
    assert said == [
        "note: 1 of 3 cases are annotated (real): their samples show the patients' own tumors, nothing is put in"
    ]
    assert not [note for note in notes(Bank(mixed.path, SPACING_MM, mixed.healthy().records), CONFIG) if "own" in note]


# -- a real one -------------------------------------------------------------------------------------------------------


def test_a_real_annotated_case(shared_data: Path, tmp_path: Path) -> None:
    prepare([shared_data / "ircad_17_tumors"], tmp_path / "bank", labels="lits", spacing_mm=3.0, annotated=True)
    config = ALL_AT_TUMORS.model_copy(update={"samples": 6, "patch_shape": (40, 40, 40), "store": "delta"})
    generate(tmp_path / "bank", tmp_path / "data", config, log=quiet)
    assert verify(tmp_path / "data", replay=1).findings == []
    held = open_dataset(tmp_path / "data")
    found = [tumor for index in range(6) for tumor in held.row(index)["tumors"]]
    assert {round(tumor["diameter_mm"]) for tumor in found} == {53, 55}  # the two of the scan, whole
    assert all(-60 < tumor["contrast_hu"] < 0 for tumor in found)
