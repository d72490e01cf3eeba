"""Annotated cases: what the bank keeps of them, what is drawn from them, what a dataset of them says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import pipeline.case as cases
from pipeline.anatomy import lesions
from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.bank_format import FORMAT_VERSION, TABLE
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
from tests.annotated import LESIONS, LIVER, TUMOR, make_annotated_bank, make_annotated_case
from tests.cases import SPACING_MM, make_bank, make_case
from tests.ct_files import SPACING_MM as FILE_SPACING_MM
from tests.ct_files import ball, liver_ball, make_ct, save, save_case
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


# -- the case and its bank --------------------------------------------------------------------------------------------


def tumor_ball(radius: float = 3) -> Any:
    return ball(make_ct().shape, (17, 11, 9), radius)  # type: ignore[arg-type]


def save_annotated(folder: Path) -> Path:
    save_case(folder)
    save(folder / "liver_tumor.nii.gz", tumor_ball().astype(np.uint8))
    return folder


def test_prepared_tumors_stay_in_the_bank_and_the_bank_says_so(tmp_path: Path) -> None:
    save_annotated(tmp_path / "a")
    lines: list[str] = []
    held = prepare(
        [tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, annotated=True, progress=lines.append
    )
    (record,) = held.records
    assert record.annotated == (TUMOR,)
    assert lines[-1].endswith("; annotated: liver_tumor")
    case = open_bank(tmp_path / "bank").load("a")
    assert case.annotated == (TUMOR,)
    assert np.count_nonzero(case.organs == TUMOR) == np.count_nonzero(tumor_ball()) == len(case.lesions["liver"])
    assert len(case.voxels["liver"]) == np.count_nonzero(liver_ball() & ~tumor_ball())
    held.check("a")


def test_a_mask_without_tumor_makes_an_annotated_case_without_lesions(tmp_path: Path) -> None:
    save(save_case(tmp_path / "a") / "liver_tumor.nii.gz", np.zeros(make_ct().shape, np.uint8))
    held = prepare([tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, annotated=True)
    assert held.records[0].annotated == (TUMOR,)
    assert held.load("a").lesions == {}
    healthy = prepare([tmp_path / "a"], tmp_path / "healthy", spacing_mm=FILE_SPACING_MM)
    assert healthy.records[0].arrays == held.records[0].arrays
    assert healthy.fingerprint != held.fingerprint
    specs = [draw_sample(held, ALL_AT_TUMORS, k) for k in range(3)]
    assert all(spec.truth == ANNOTATED and not spec.tumors for spec in specs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"healthy cases only.*liver_tumor 123 voxels.*--annotated makes a dataset of the tumors"),
        ({"annotated": True, "allow_tumors": True}, "--annotated and --allow-tumors: choose one"),
    ],
)
def test_tumors_without_a_decision_are_refused(tmp_path: Path, settings: dict[str, bool], message: str) -> None:
    save_annotated(tmp_path / "a")
    with pytest.raises(InputError, match=message):
        prepare([tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "bank").exists()


def test_masks_that_name_no_tumor_are_not_annotated(tmp_path: Path) -> None:
    save_case(tmp_path / "a")
    with pytest.raises(InputError, match=r"its masks name none; give a mask such as liver_tumor.nii.gz"):
        prepare([tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, annotated=True)


def test_a_healthy_case_is_not_taken_for_the_annotated_one(tmp_path: Path) -> None:
    save(save_case(tmp_path / "a") / "liver_tumor.nii.gz", np.zeros(make_ct().shape, np.uint8))
    prepare([tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM)
    with pytest.raises(InputError, match="'a' that was made from other files or settings"):
        prepare([tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, annotated=True)


def test_an_organ_without_its_mask_is_named(tmp_path: Path) -> None:
    save(save_case(tmp_path / "a") / "kidney_tumor.nii.gz", tumor_ball().astype(np.uint8))
    with pytest.raises(
        InputError, match=r"show tumors of kidney, but the organs that are whole in this scan are liver"
    ):
        prepare([tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, annotated=True)


def test_figures_of_an_organ_leave_its_tumors_out_and_its_surface_goes_around_them() -> None:
    case, healthy = make_annotated_case(), make_case("real", 5)
    assert case.stats["liver"].mean_hu == pytest.approx(healthy.stats["liver"].mean_hu, abs=1)
    tumor = sum(int(ball(case.ct.shape, *lesion).sum()) for lesion in LESIONS)  # type: ignore[arg-type]
    lost_ml = healthy.stats["liver"].volume_ml - case.stats["liver"].volume_ml
    assert lost_ml == pytest.approx(tumor * SPACING_MM**3 / 1000)
    np.testing.assert_array_equal(case.surface_distance_mm, healthy.surface_distance_mm)
    assert (case.vessel_distance_mm[case.organs == TUMOR] > 0).all()


def test_lesions_are_26_connected_pieces_of_the_tumor_class() -> None:
    organs = np.full((9, 9, 9), LIVER, np.uint8)
    corners = [(1, 1, 1), (2, 2, 2), (2, 2, 5), (7, 7, 7), (7, 7, 8)]  # the first two touch at a corner
    for at in corners:
        organs[at] = TUMOR
    found = lesions(organs, "liver")
    groups = [set(found[found[:, 1] == k, 0].tolist()) for k in range(int(found[-1, 1]) + 1)]
    flat = [int(np.ravel_multi_index(at, organs.shape)) for at in corners]
    assert sorted(map(sorted, groups)) == sorted([sorted(flat[:2]), flat[2:3], sorted(flat[3:])])
    assert found[:, 1].tolist() == sorted(found[:, 1].tolist())
    assert lesions(np.full((3, 3, 3), LIVER, np.uint8), "liver").shape == (0, 2)


def test_a_mask_of_noise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "MOST_LESIONS", 2)
    with pytest.raises(InputError, match="the liver tumors are in 3 separate pieces, a patient has 2 at most"):
        make_annotated_case()


def test_a_bank_of_before_opens_as_a_healthy_one(tmp_path: Path) -> None:
    made_bank = make_bank(tmp_path / "bank", cases=1)
    table = pq.ParquetFile(tmp_path / "bank" / TABLE).read()
    pq.write_table(table.drop_columns(["annotated"]), tmp_path / "bank" / TABLE)
    old = open_bank(tmp_path / "bank")
    assert old.records[0].annotated == ()
    assert old.fingerprint == made_bank.fingerprint
    record = old.records[0]
    cases_of_then = [["tiny_0", "train", sorted((name, a.sha256) for name, a in record.arrays.items())]]
    text = json.dumps([FORMAT_VERSION, SPACING_MM, cases_of_then])
    assert old.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_a_table_that_annotates_an_organ_is_damaged(tmp_path: Path) -> None:
    with create_or_open_bank(tmp_path / "bank", SPACING_MM) as writer:
        writer.add_case(make_annotated_case())
    rows = pq.ParquetFile(tmp_path / "bank" / TABLE).read()
    column = rows.schema.get_field_index("annotated")
    forged = rows.set_column(column, rows.schema.field(column), pa.array([[LIVER]], pa.list_(pa.uint8())))
    pq.write_table(forged, tmp_path / "bank" / TABLE)
    with pytest.raises(InputError, match="'real' annotates unknown classes"):
        open_bank(tmp_path / "bank")


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
