"""Drawing samples: (seed, index) alone decide, shares are met, settings and switches do what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bank import Bank
from pipeline.case import AIR_HU, BODY_HU
from pipeline.config import GenerateConfig
from pipeline.grid import crop
from pipeline.organs import TUMOR_ORGANS, organ_id
from pipeline.presets import SampleMix, preset_of
from pipeline.spec import SampleSpec, draw_sample
from pipeline.spec.distributions import ends
from pipeline.spec.limits import cases_by_split
from pipeline.steps import PARTS, STEPS
from tests.cases import make_bank
from tests.specs import PATCH, config, drawn, drawn_tumors, is_share

WIDE = (64, 48, 40)
WHOLE = (100, 80, 60)  # the abdomen


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Livers alone, one of them `val` and one `test`."""
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


def plain(**changes: Any) -> GenerateConfig:
    return GenerateConfig.model_validate({"samples": 100, "patch_shape": PATCH, **changes})


# -- (seed, index) ----------------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "liver": {},
    "kidney": {"organs": ["kidney"], "distractor_share": 0.5},
    "pancreas": {"organs": ["pancreas"]},
    "all": {"organs": ["liver", "kidney", "pancreas"], "distractor_share": 0.5},
    "growth": {"engine": "growth"},
    "seed-paper": {"presets": "seed-paper"},
    "ablation": {"without": ["location", "rim"]},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_spec_depends_on_seed_and_index_alone(abdomens: Bank, changes: dict[str, Any]) -> None:
    forward = [draw_sample(abdomens, plain(**changes), index) for index in range(10)]
    backward = [draw_sample(abdomens, plain(**changes), index) for index in reversed(range(10))]
    assert forward == backward[::-1]
    assert draw_sample(abdomens, plain(samples=7, shard_samples=3, **changes), 5) == forward[5]
    other = plain(seed=1, **changes)
    assert draw_sample(abdomens, other, 5) != forward[5]
    # (seed, index) are not added up: seed 1 is not seed 0 one sample later
    pairs = [(draw_sample(abdomens, other, i), forward[i + 1]) for i in range(9)]
    assert all(a.tumors != b.tumors for a, b in pairs if a.tumors or b.tumors)


def test_a_spec_says_where_it_comes_from(abdomens: Bank) -> None:
    spec = draw_sample(abdomens, plain(seed=9, organs=["kidney", "liver"]), 12)
    assert (spec.index, spec.seed, spec.patch_shape, spec.organs) == (12, 9, PATCH, ("kidney", "liver"))
    assert spec.case_id in {record.case_id for record in abdomens.records}


def test_keys_are_never_drawn_twice(abdomens: Bank) -> None:
    keys = [t.key for _, t in drawn_tumors(abdomens, config(), 100)]
    assert len(set(keys)) == len(keys) > 100


# -- shares -----------------------------------------------------------------------------------------------------------


def test_shares_are_met(bank: Bank) -> None:
    specs = [draw_sample(bank, plain(body_share=0.2, healthy_share=0.3), index) for index in range(600)]
    without = sum(not spec.tumors for spec in specs) / len(specs)
    assert 0.44 < without < 0.58  # some tumors may find no place beside the half that asks for none
    splits = Counter(spec.split for spec in specs)
    assert is_share(splits["train"], 600, 0.8)
    assert is_share(splits["val"], 600, 0.1)
    assert is_share(splits["test"], 600, 0.1)
    assert all(bank.load(spec.case_id).split == spec.split for spec in specs)


def test_a_split_without_share_or_cases_gives_no_sample(bank: Bank) -> None:
    only_test = plain(split_share={"train": 0, "val": 0, "test": 1})
    assert {draw_sample(bank, only_test, index).split for index in range(30)} == {"test"}
    assert list(cases_by_split(bank, ("liver",))) == ["train", "val", "test"]
    assert cases_by_split(bank, ("kidney",)) == {}


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_nearly_every_sample_that_should_has_a_tumor(abdomens: Bank, organ: str) -> None:
    assert sum(bool(spec.tumors) for _, spec in drawn(abdomens, config(organ), 150)) >= 147


def test_organs_are_drawn_alike(abdomens: Bank) -> None:
    settings = config(organs=["liver", "kidney", "pancreas"])
    counts = Counter(spec.tumors[0].organ for _, spec in drawn(abdomens, settings, 300) if spec.tumors)
    assert all(is_share(counts[organ], counts.total(), 1 / 3) for organ in settings.organs)


def test_samples_of_the_body_are_of_the_body_and_have_nothing_in_them(abdomens: Bank) -> None:
    far = 0
    for case, spec in drawn(abdomens, config(body_share=1, distractor_share=1), 60):
        assert not spec.tumors
        assert not spec.distractors
        assert (crop(case.ct, spec.origin_vox, PATCH, AIR_HU) > BODY_HU).any()
        far += not (crop(case.organs, spec.origin_vox, PATCH, 0) == organ_id("liver")).any()
    assert far > 5


def test_healthy_samples_are_at_the_organ(abdomens: Bank) -> None:
    for case, spec in drawn(abdomens, config("pancreas", healthy_share=1), 40):
        assert not spec.tumors
        assert (crop(case.organs, spec.origin_vox, PATCH, 0) == organ_id("pancreas")).any()


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_kinds_and_counts_are_those_of_the_preset(abdomens: Bank, organ: str) -> None:
    preset = preset_of(organ)
    small = {organ: {"diameter_mm": [8, 10]}}  # there is room for as many as are asked for
    specs = [spec for _, spec in drawn(abdomens, config(organ, patch_shape=WIDE, tumors=small), 300)]
    kinds = Counter(t.kind for spec in specs for t in spec.tumors)
    for name, weight in preset.weights.items():
        assert is_share(kinds[name], kinds.total(), weight / sum(preset.weights.values())), kinds
    counts = Counter(len(spec.tumors) for spec in specs)
    weights = preset.count.weights
    assert sum(n * c for n, c in counts.items()) / 300 == pytest.approx(
        sum(n * w for n, w in weights.items()) / sum(weights.values()), rel=0.1
    )
    assert is_share(counts[1], 300, weights[1] / sum(weights.values()))


def test_colon_kinds_are_those_of_the_preset(abdomens: Bank) -> None:
    kinds = Counter(t.kind for _, t in drawn_tumors(abdomens, config("colon", patch_shape=WIDE), 50))
    assert all(is_share(kinds[name], kinds.total(), share) for name, share in preset_of("colon").weights.items())


# -- patches ----------------------------------------------------------------------------------------------------------


def test_a_patch_larger_than_the_case_is_centred_on_it(bank: Bank) -> None:
    for index in range(5):
        spec = draw_sample(bank, plain(patch_shape=(80, 32, 64)), index)
        assert spec.origin_vox[0] == (60 - 80) // 2
        assert spec.origin_vox[2] == (44 - 64) // 2
        assert 0 <= spec.origin_vox[1] <= 52 - 32


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_patches_lie_in_the_case_and_vary(abdomens: Bank, organ: str) -> None:
    origins = np.array([spec.origin_vox for _, spec in drawn(abdomens, config(organ), 60)])
    assert (origins >= 0).all()
    assert (origins + PATCH <= np.array(WHOLE)).all()
    assert (origins.std(axis=0) > 1).all()


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_settings_change_the_presets(abdomens: Bank, organ: str) -> None:
    kind = list(preset_of(organ).kinds)[1]
    changed = {organ: {"kinds": {kind: 1}, "diameter_mm": [10, 11], "contrast_hu": [-60, -50], "count": [2, 2]}}
    tumors = [t for _, t in drawn_tumors(abdomens, config(organ, tumors=changed), 20)]
    assert {t.kind for t in tumors} == {kind}
    assert {t.organ for t in tumors} == {organ}
    assert all(10 <= t.diameter_mm <= 11 for t in tumors)
    assert all(-60 <= t.contrast_hu <= -50 for t in tumors)
    assert max(t.instance for t in tumors) == 2


def test_settings_of_one_organ_leave_another_alone(abdomens: Bank) -> None:
    other = config("kidney", tumors={"liver": {"diameter_mm": [10, 11], "count": [3, 3]}})
    assert [s for _, s in drawn(abdomens, other, 10)] == [s for _, s in drawn(abdomens, config("kidney"), 10)]


def test_tumors_are_numbered_in_the_order_they_were_placed(abdomens: Bank) -> None:
    for _, spec in drawn(abdomens, config(tumors={"liver": {"count": [3, 5]}}), 40):
        assert [t.instance for t in spec.tumors] == list(range(1, len(spec.tumors) + 1))


# -- look-alikes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organ", [organ for organ in TUMOR_ORGANS if organ != "colon"])
def test_look_alikes_are_of_no_kind_that_is_a_tumor(abdomens: Bank, organ: str) -> None:
    preset = preset_of(organ)
    seen: Counter[str] = Counter()
    for _, spec in drawn(abdomens, config(organ, distractor_share=1, patch_shape=WIDE), 100):
        assert len(spec.distractors) <= 2
        seen.update(d.kind for d in spec.distractors)
        assert not {d.kind for d in spec.distractors} & {name for name, weight in preset.weights.items() if weight}
        assert {d.organ for d in spec.distractors} <= {organ}
        instances = [t.instance for t in (*spec.tumors, *spec.distractors)]
        assert len(set(instances)) == len(instances)
    assert set(seen) == set(preset.distractors)


@pytest.mark.parametrize("kinds", [{"cyst": 1}, {"cyst": 1, "metastasis": 3, "hemangioma": 1}])
def test_what_the_user_asks_for_as_a_tumor_is_no_look_alike(abdomens: Bank, kinds: dict[str, float]) -> None:
    settings = config(distractor_share=1, tumors={"liver": {"kinds": kinds}})
    found = {d.kind for _, spec in drawn(abdomens, settings, 60) for d in spec.distractors}
    assert found
    assert not found & set(kinds)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_share_of_samples_with_look_alikes(abdomens: Bank, share: float) -> None:
    settings = config("kidney", distractor_share=share, healthy_share=0.5, patch_shape=WIDE)
    specs = [spec for _, spec in drawn(abdomens, settings, 200)]
    found = [bool(spec.distractors) for spec in specs]
    assert abs(np.mean(found) - share) < 0.12  # a few find no place, and in a native scan some do not show
    assert share == 0 or any(spec.distractors for spec in specs if not spec.tumors)


def test_tumor_settings_are_not_for_look_alikes(abdomens: Bank) -> None:
    settings = config(distractor_share=1, tumors={"liver": {"diameter_mm": [8, 9], "contrast_hu": [-60, -50]}})
    found = [d for _, spec in drawn(abdomens, settings, 60) for d in spec.distractors]
    assert any(d.diameter_mm > 12 for d in found)
    assert any(d.contrast_hu > -40 for d in found)


def test_a_difference_in_perfusion_is_not_drawn_where_nothing_is_enhanced(abdomens: Bank) -> None:
    found = {
        (case.phase, d.kind)
        for case, spec in drawn(abdomens, config(distractor_share=1), 150)
        for d in spec.distractors
        if d.kind == "perfusion_difference"
    }
    assert found == {("arterial", "perfusion_difference"), ("portal_venous", "perfusion_difference")}


# -- presets of the seed paper ----------------------------------------------------------------------------------------


def matches(kinds: Counter[str], mix: SampleMix) -> bool:
    return set(kinds) == set(mix.counts)


def test_samples_of_the_seed_paper_follow_its_mixes(abdomens: Bank) -> None:
    """In a patch as large as the case nothing is cut off."""
    specs = [spec for _, spec in drawn(abdomens, config(presets="seed-paper", patch_shape=WHOLE), 150)]
    kinds = [Counter(t.kind for t in spec.tumors) for spec in specs]
    mixes = preset_of("liver", "seed-paper").mixes
    for mix in mixes[:3]:
        assert is_share(sum(matches(k, mix) for k in kinds), 150, mix.weight)
    several = [k for k in kinds if len(k) > 1]
    assert is_share(len(several), 150, 0.2)
    tiny = [k["tiny"] for k in kinds if set(k) == {"tiny"}]
    assert set(tiny) <= set(range(3, 11))
    assert np.mean(tiny) == pytest.approx(6.5, abs=1.6)


def test_tumors_of_the_seed_paper_lie_in_the_middle_of_the_height(abdomens: Bank) -> None:
    found = drawn_tumors(abdomens, config(presets="seed-paper"), 60)
    for case, tumor in found:
        z = np.unravel_index(case.voxels["liver"], case.ct.shape)[2]
        height = (tumor.center_vox[2] - z.min()) / (z.max() - z.min())
        assert 0.24 < height < 0.76  # 30 to 70 %, in whole voxels
    assert {t.base for _, t in found} == {"donor"}


def test_half_of_the_patches_of_the_seed_paper_are_at_a_tumor(abdomens: Bank) -> None:
    specs = [spec for _, spec in drawn(abdomens, config(presets="seed-paper", patch_shape=(16, 16, 16)), 150)]
    with_tumor = np.mean([bool(spec.tumors) for spec in specs])
    assert 0.5 < with_tumor < 0.95
    for spec in specs:  # what does not meet the patch is left out
        for tumor in spec.tumors:
            nearest = np.clip(tumor.center_vox, spec.origin_vox, np.add(spec.origin_vox, 15))
            assert np.linalg.norm(nearest - np.array(tumor.center_vox)) * 3 < tumor.diameter_mm / 2


def test_settings_replace_the_mixes(abdomens: Bank) -> None:
    one = {"liver": {"kinds": {"small": 1}, "count": [1, 1]}}
    settings = config(presets="seed-paper", patch_shape=WHOLE, tumors=one)
    for _, spec in drawn(abdomens, settings, 20):
        assert [t.kind for t in spec.tumors] == ["small"]


# -- switches ---------------------------------------------------------------------------------------------------------

# What each part of the shape, texture and effects leaves in a spec.
LEFT: dict[str, Any] = {
    # the longest aside: in a thin gland it is as long as the gland asks
    "axis_ratio": lambda t: t.form.engine == "ellipsoid" and np.ptp(sorted(t.form.half_axes_mm)[:2]) > 1e-9,
    "lobulation": lambda t: t.form.engine == "ellipsoid" and t.form.lobes,
    "deformation": lambda t: t.form.engine == "ellipsoid" and t.form.deformation_mm > 0,
    "soft_edge": lambda t: t.edge_mm > 0,
    "structure": lambda t: t.texture_sd_hu > 0,
    "noise": lambda t: t.noise == 1,
    **{
        part: lambda t, part=part: getattr(t, part) is not None
        for part in ("mass_effect", "rim", "core", "septa", "calcification", "upstream")
    },
}


def records(bank: Bank, organ: str, **changes: Any) -> list[SampleSpec]:
    return [spec for _, spec in drawn(bank, config(organ, distractor_share=1, **changes), 40)]


def left(specs: list[SampleSpec]) -> set[str]:
    tumors = [t for spec in specs for t in (*spec.tumors, *spec.distractors)]
    return {part for part, there in LEFT.items() if any(there(t) for t in tumors)}


@pytest.fixture(scope="module")
def usual(abdomens: Bank) -> dict[str, list[SampleSpec]]:
    return {organ: records(abdomens, organ) for organ in ("liver", "kidney", "pancreas")}


def test_every_part_but_those_of_the_place_leaves_a_trace(usual: dict[str, list[SampleSpec]]) -> None:
    assert set().union(*(left(specs) for specs in usual.values())) == set(LEFT) == set(PARTS) - set(STEPS["location"])


# These abdomens have vessels in the liver alone.
PLACED_BY = {"liver": {"vessels", "depth"}, "kidney": {"depth"}, "pancreas": {"depth", "regions"}}


@pytest.mark.parametrize("name", [*PARTS, *STEPS])
@pytest.mark.parametrize("organ", ["liver", "kidney", "pancreas"])
def test_what_is_left_out_leaves_no_trace(
    abdomens: Bank, usual: dict[str, list[SampleSpec]], organ: str, name: str
) -> None:
    specs = records(abdomens, organ, without=[name])
    parts = set(STEPS.get(name, (name,)))
    usual_parts = left(usual[organ])
    assert left(specs) & parts == set()
    assert left(specs) | parts >= usual_parts - {"upstream"}  # the others are still there
    assert specs != usual[organ] or not parts & (usual_parts | PLACED_BY[organ])
    assert [s.case_id for s in specs] == [s.case_id for s in usual[organ]]


@pytest.mark.parametrize("part", ["rim", "core", "septa", "calcification", "structure", "noise"])
def test_parts_that_take_no_room_leave_everything_else_as_drawn(
    abdomens: Bank, usual: dict[str, list[SampleSpec]], part: str
) -> None:
    field = {"structure": "texture_sd_hu"}.get(part, part)

    def others(spec: SampleSpec) -> list[dict[str, Any]]:
        return [t.model_dump(exclude={field}) for t in (*spec.tumors, *spec.distractors)]

    specs = records(abdomens, "liver", without=[part])
    assert [(s.origin_vox, others(s)) for s in specs] == [(s.origin_vox, others(s)) for s in usual["liver"]]


# -- a bank that changes ----------------------------------------------------------------------------------------------


def test_only_cases_with_a_wanted_organ_are_drawn(tmp_path: Path, abdomens: Bank) -> None:
    assert {spec.case_id for _, spec in drawn(abdomens, config(), 40)} == {"native", "arterial", "portal_venous"}
    one = make_bank(tmp_path / "one", cases=1)
    assert {spec.case_id for _, spec in drawn(one, config(organs=["liver", "kidney"]), 10)} == {"tiny_0"}


def test_look_alikes_keep_to_their_sizes_on_a_coarse_grid(tmp_path: Path) -> None:
    """On 5 mm voxels the smallest that shows has 12.5 mm, more than a vessel seen end-on ever has."""
    coarse = make_bank(tmp_path / "coarse", spacing_mm=5.0)
    wanted = GenerateConfig.model_validate({"samples": 100, "patch_shape": [32, 32, 24], "distractor_share": 1})
    drawn = [d for index in range(60) for d in draw_sample(coarse, wanted, index).distractors]
    looks = preset_of("liver").distractors
    assert len(drawn) > 20
    assert "vessel_end_on" not in {d.kind for d in drawn}
    assert all(ends(looks[d.kind].diameter_mm)[0] <= d.diameter_mm <= ends(looks[d.kind].diameter_mm)[1] for d in drawn)
