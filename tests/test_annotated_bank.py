"""Annotated cases on their way into a bank, and what the bank says of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.case as cases
from pipeline.anatomy import lesions
from pipeline.bank import create_or_open_bank, open_bank
from pipeline.bank_format import FORMAT_VERSION, TABLE
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.measure import ANNOTATED
from pipeline.prepare import prepare
from pipeline.spec import draw_sample
from tests.annotated import LESIONS, LIVER, TUMOR, make_annotated_case
from tests.cases import SPACING_MM, make_bank, make_case
from tests.ct_files import SPACING_MM as FILE_SPACING_MM
from tests.ct_files import ball, liver_ball, make_ct, save, save_case

ALL_AT_TUMORS = GenerateConfig(samples=12, patch_shape=(20, 20, 16), seed=2, healthy_share=0, body_share=0)


def quiet(_: str) -> None:
    pass


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
    assert lines[-1].endswith("; annotated: liver_tumor, 1 lesion")
    case = open_bank(tmp_path / "bank").load("a")
    assert case.annotated == (TUMOR,)
    assert np.count_nonzero(case.organs == TUMOR) == np.count_nonzero(tumor_ball()) == len(case.lesions["liver"])
    assert len(case.voxels["liver"]) == np.count_nonzero(liver_ball() & ~tumor_ball())
    held.check("a")


def test_a_mask_without_tumor_makes_an_annotated_case_without_lesions(tmp_path: Path) -> None:
    save(save_case(tmp_path / "a") / "liver_tumor.nii.gz", np.zeros(make_ct().shape, np.uint8))
    lines: list[str] = []
    held = prepare(
        [tmp_path / "a"], tmp_path / "bank", spacing_mm=FILE_SPACING_MM, annotated=True, progress=lines.append
    )
    assert held.records[0].annotated == (TUMOR,)
    assert lines[-1].endswith("; annotated: liver_tumor, no lesion")
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
