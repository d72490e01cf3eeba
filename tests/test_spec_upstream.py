"""What is drawn for the gland behind a blocked duct: only there, and along the gland."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.bank import Bank
from pipeline.case import Case
from pipeline.organs import organ_id
from pipeline.presets import Uniform, Upstream, preset_of
from pipeline.spec import SampleSpec, TumorSpec
from pipeline.spec.upstream import draw_upstream
from tests.specs import config, drawn, drawn_tumors, follows, is_share

PDAC = {"tumors": {"pancreas": {"kinds": {"pdac": 1}, "diameter_mm": [10, 25]}}}
ALWAYS = Upstream(share=1.0, duct_mm=Uniform(3, 8), duct_hu=Uniform(0, 20), atrophy=Uniform(0, 0.4))


@pytest.fixture(scope="module")
def carcinomas(abdomens: Bank) -> list[tuple[Case, TumorSpec]]:
    return drawn_tumors(abdomens, config("pancreas", **PDAC), 250)


def position(case: Case, tumor: TumorSpec) -> float:
    """Of the tumor along the gland, 0 to 255."""
    voxel = np.ravel_multi_index(tuple(np.rint(tumor.center_vox).astype(int)), case.ct.shape)
    return float(case.along["pancreas"][np.searchsorted(case.voxels["pancreas"], voxel)])


def test_carcinomas_block_the_duct_in_their_share(carcinomas: list[tuple[Case, TumorSpec]]) -> None:
    blocking = [t.upstream is not None for c, t in carcinomas if position(c, t) < 180]  # with gland behind them
    assert is_share(sum(blocking), len(blocking), 0.8)


def test_ducts_follow_their_ranges(carcinomas: list[tuple[Case, TumorSpec]]) -> None:
    found = [(case, t.upstream) for case, t in carcinomas if t.upstream]
    effect = preset_of("pancreas").kinds["pdac"].upstream
    assert effect is not None
    assert follows([u.duct_mm for _, u in found], effect.duct_mm)
    assert follows([u.duct_hu for _, u in found], effect.duct_hu)
    depth = carcinomas[0][0].stats["pancreas"].max_depth_mm
    assert follows([u.atrophy_mm / (0.6 * depth) for _, u in found], effect.atrophy)


def test_the_duct_runs_from_the_tumor_through_the_gland_to_the_tail(carcinomas: list[tuple[Case, TumorSpec]]) -> None:
    for case, tumor in carcinomas:
        if tumor.upstream is None:
            continue
        duct = np.array(tumor.upstream.duct)
        assert tuple(duct[0]) == tumor.center_vox
        assert len(duct) >= 3
        steps = np.linalg.norm(np.diff(duct, axis=0), axis=1) * case.spacing_mm
        assert steps.max() < 30
        inside = case.organs[tuple(np.rint(duct[1:]).astype(int).T)] == organ_id("pancreas")
        assert inside.mean() > 0.9
        assert duct[-1, 0] < duct[0, 0]  # towards the patient's left
        assert duct[-1, 0] < np.unravel_index(case.voxels["pancreas"], case.ct.shape)[0].min() + 8


def test_a_tumor_at_the_tail_has_no_gland_behind_it(carcinomas: list[tuple[Case, TumorSpec]]) -> None:
    at_tail = [t.upstream for c, t in carcinomas if position(c, t) > 232]
    assert at_tail
    assert set(at_tail) == {None}


@pytest.mark.parametrize("organ", ["liver", "kidney"])
def test_other_organs_have_no_duct(abdomens: Bank, organ: str) -> None:
    assert all(t.upstream is None for _, t in drawn_tumors(abdomens, config(organ), 30))
    case, tumor = drawn_tumors(abdomens, config(organ), 1)[0]
    assert draw_upstream(np.random.default_rng(1), case, tumor, ALWAYS) is None


def test_a_tumor_beside_the_gland_has_no_duct(carcinomas: list[tuple[Case, TumorSpec]]) -> None:
    case, tumor = carcinomas[0]
    beside = tumor.model_copy(update={"center_vox": (3.0, 3.0, 3.0)})
    assert draw_upstream(np.random.default_rng(1), case, beside, ALWAYS) is None


def test_look_alikes_and_cysts_do_not_block(abdomens: Bank) -> None:
    settings = config("pancreas", distractor_share=1, tumors={"pancreas": {"kinds": {"cyst": 1}}})
    records = [t for _, spec in drawn(abdomens, settings, 30) for t in (*spec.tumors, *spec.distractors)]
    assert {t.kind for t in records} == {"cyst", "focal_fat"}
    assert {t.upstream for t in records} == {None}


def test_it_can_be_left_out_and_nothing_else_changes(abdomens: Bank) -> None:
    settings = PDAC | {"distractor_share": 1}
    whole = [spec for _, spec in drawn(abdomens, config("pancreas", **settings), 40)]
    left_out = [spec for _, spec in drawn(abdomens, config("pancreas", without=["upstream"], **settings), 40)]

    def without(spec: SampleSpec) -> SampleSpec:
        return spec.model_copy(update={"tumors": tuple(t.model_copy(update={"upstream": None}) for t in spec.tumors)})

    assert left_out == [without(spec) for spec in whole] != whole


def test_the_same_numbers_are_drawn_whether_it_blocks_or_not(carcinomas: list[tuple[Case, TumorSpec]]) -> None:
    case, tumor = next((c, t) for c, t in carcinomas if t.upstream)
    always, never = np.random.default_rng(1), np.random.default_rng(1)
    assert draw_upstream(always, case, tumor, ALWAYS) is not None
    assert draw_upstream(never, case, tumor, replace(ALWAYS, share=0.0)) is None
    assert always.random() == never.random()
