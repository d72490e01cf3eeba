"""Applying specs: what is touched, what is labelled, what is kept, and that batching changes no bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import AIR_HU, Case
from pipeline.config import GenerateConfig
from pipeline.grid import crop
from pipeline.organs import CLASS_IDS, organ_id, tumor_id
from pipeline.presets.kinds import Uniform, WallGrowth
from pipeline.spec import SampleSpec, TumorSpec, draw_sample
from pipeline.spec.records import CalcificationSpec, CoreSpec, MassEffectSpec, RimSpec, SeptaSpec, UpstreamSpec
from pipeline.synthesis import Rendered, render, render_batch, synthesise
from pipeline.synthesis import render as render_function
from pipeline.synthesis.engines import wall
from pipeline.synthesis.engines.growth import GrowthForm
from pipeline.synthesis.render import touched_mm
from pipeline.synthesis.shape import FAT_RANGE_HU, MIN_VOXELS
from pipeline.synthesis.upstream import GLAND_MM
from tests.cases import make_abdomen, make_case
from tests.tumors import abdomen, block, ellipsoid, sample, tiny, tumor, whole

render_module: Any = __import__("sys").modules[render_function.__module__]
LIVER, TUMOR = organ_id("liver"), tumor_id("liver")
SOLID = ("liver", "pancreas", "kidney")
DRAWN = 8  # samples of each organ and engine
PARTS: dict[str, Any] = {
    "rim": RimSpec(hu=40, mm=5, nodular=0.5),
    "core": CoreSpec(hu=-30, depth_mm=8, edge_mm=2),
    "septa": SeptaSpec(hu=25, spacing_mm=9),
    "calcification": CalcificationSpec(hu=200, grain_mm=4, threshold=1.2),
    "texture_sd_hu": 8.0,
}
PUSH = MassEffectSpec(strength=0.3, reach_mm=27.0)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder: Path = tmp_path_factory.mktemp("bank") / "bank"
    with create_or_open_bank(folder, 3.0) as writer:
        for seed, phase in enumerate(("portal_venous", "arterial")):
            writer.add_case(make_abdomen(f"abdomen_{seed}", seed, phase=phase))
    return open_bank(folder)


Made = tuple[Case, SampleSpec, Rendered]


@pytest.fixture(scope="module")
def drawn(bank: Bank) -> list[Made]:
    """Samples of the solid organs with several tumors and look-alikes, of both engines."""
    made = []
    for organ in SOLID:
        for engine in ("ellipsoid", "growth"):
            config = GenerateConfig.model_validate(
                {
                    "samples": 100,
                    "patch_shape": [48, 44, 36],
                    "healthy_share": 0,
                    "body_share": 0,
                    "distractor_share": 1,
                    "organs": [organ],
                    "engine": engine,
                    "tumors": {organ: {"count": [1, 4]}},
                }
            )
            for index in range(DRAWN):
                spec = draw_sample(bank, config, index)
                case = bank.load(spec.case_id)
                made.append((case, spec, render(case, spec)))
    return made


def healthy(case: Case, spec: SampleSpec, name: str = "ct") -> np.ndarray:
    return crop(getattr(case, name), spec.origin_vox, spec.patch_shape, AIR_HU if name == "ct" else 0)


def distance_mm(case: Case, spec: SampleSpec, point_vox: Sequence[float]) -> np.ndarray:
    axes = np.indices(spec.patch_shape) + (np.array(spec.origin_vox) - np.array(point_vox))[:, None, None, None]
    return np.asarray(np.sqrt((axes**2).sum(axis=0)) * case.spacing_mm)


def touched(case: Case, spec: SampleSpec) -> np.ndarray:
    """Where a spec may change a patch."""
    inside = np.zeros(spec.patch_shape, bool)
    for t in (*spec.tumors, *spec.distractors):
        inside |= distance_mm(case, spec, t.center_vox) <= touched_mm(t) + 1e-3
        if t.upstream:
            gland = healthy(case, spec, "organs") == organ_id(t.organ)
            for a, b in pairwise(t.upstream.duct):
                middle = np.add(a, b) / 2
                half = np.linalg.norm(np.subtract(a, b)) * case.spacing_mm / 2
                inside |= gland & (distance_mm(case, spec, middle) < GLAND_MM + half)
    return inside


def pieces_of(label: np.ndarray, organ: str) -> np.ndarray:
    return np.asarray(cc3d.connected_components(label == tumor_id(organ), connectivity=26))


def same(a: Rendered, b: Rendered) -> bool:
    return (
        a.image.tobytes() == b.image.tobytes()
        and a.label.tobytes() == b.label.tobytes()
        and [i.tumor for i in a.instances] == [i.tumor for i in b.instances]
        and [i.box for i in a.instances] == [i.box for i in b.instances]
        and all(np.array_equal(i.mask, j.mask) for i, j in zip(a.instances, b.instances, strict=True))
    )


# ---- what is touched ----


def test_beyond_what_tumors_touch_the_sample_is_the_healthy_case(drawn: list[Made]) -> None:
    kinds = set()
    for case, spec, rendered in drawn:
        away = ~touched(case, spec)
        assert np.array_equal(rendered.image[away], healthy(case, spec)[away])
        organs = healthy(case, spec, "organs")
        kept = np.where(organs == organ_id(spec.organs[0]), organs, 0)
        assert np.array_equal(rendered.label[away], kept[away])
        kinds |= {t.kind for t in spec.tumors if t.mass_effect} | {t.kind for t in spec.tumors if t.upstream}
    assert len(kinds) > 4


def test_a_healthy_sample_is_the_case() -> None:
    rendered = render(tiny(), sample())
    assert np.array_equal(rendered.image, healthy(tiny(), sample()))
    assert np.array_equal(rendered.label, healthy(tiny(), sample(), "organs"))
    assert rendered.instances == ()


def test_synthesise_changes_nothing_it_was_given(bank: Bank) -> None:
    case = make_abdomen(seed=5)
    names = [f.name for f in dataclasses.fields(Case) if isinstance(getattr(case, f.name), np.ndarray)]
    before = {name: getattr(case, name).copy() for name in names}
    t = tumor(organ="liver", center_vox=(71.0, 42.0, 43.0), mass_effect=PUSH, **PARTS)
    image, label = synthesise(case, whole(case, t))
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert not np.array_equal(image, case.ct)
    assert all(np.array_equal(getattr(case, name), before[name]) for name in names)
    image[:], label[:] = 0, 0
    assert np.array_equal(case.ct, before["ct"])


def test_patches_beyond_the_case_are_padded_with_air() -> None:
    spec = sample(tumor(), origin=(-10, -4, -10), patch=(80, 60, 64))
    rendered = render(tiny(), spec)
    assert (rendered.image[:10] == AIR_HU).all()
    assert (rendered.label[:10] == 0).all()
    assert rendered.instances


def test_a_patch_shows_what_the_whole_case_shows() -> None:
    """Of tumors that its border cuts, too, where their mean over the label does not decide."""
    t = tumor(mass_effect=PUSH, contrast_hu=0.0, base="donor")
    all_of, part = render(tiny(), whole(tiny(), t)), render(tiny(), sample(t, origin=(28, 6, 6), patch=(20, 20, 32)))
    inside = (slice(28, 48), slice(6, 26), slice(6, 38))
    assert np.array_equal(part.label, all_of.label[inside])
    assert (part.label == TUMOR).any()
    away = distance_mm(tiny(), whole(tiny(), t), t.center_vox)[inside] > 17
    assert np.array_equal(part.image[away], all_of.image[inside][away])


# ---- labels ----


def test_every_tumor_is_one_piece_and_every_piece_one_tumor(drawn: list[Made]) -> None:
    several = 0
    for _, spec, rendered in drawn:
        organ = spec.organs[0]
        pieces = pieces_of(rendered.label, organ)
        assert pieces.max() == len(rendered.instances)
        union = np.zeros(rendered.label.shape, bool)
        for instance in rendered.instances:
            assert np.count_nonzero(instance.mask) >= MIN_VOXELS
            assert len(np.unique(pieces[instance.box][instance.mask])) == 1
            assert not union[instance.box][instance.mask].any()
            union[instance.box] |= instance.mask
        assert np.array_equal(union, rendered.label == tumor_id(organ))
        several += len(rendered.instances) > 1
    assert several > 12


def test_tumors_are_two_voxels_apart(drawn: list[Made]) -> None:
    for _, spec, rendered in drawn:
        pieces = pieces_of(rendered.label, spec.organs[0])
        for number in range(1, pieces.max() + 1):
            near = ndimage.binary_dilation(pieces == number, np.ones((3, 3, 3)), iterations=2)
            assert set(np.unique(pieces[near])) <= {0, number}


def test_tumors_stay_in_their_room(drawn: list[Made]) -> None:
    outside = 0
    for case, spec, rendered in drawn:
        organs = healthy(case, spec, "organs")
        smooth = healthy(case, spec) - healthy(case, spec, "noise").astype(int)
        for instance in rendered.instances:
            own = organs[instance.box][instance.mask] == organ_id(instance.tumor.organ)
            if instance.tumor.room == "organ":
                assert own.all()
                continue
            left = organs[instance.box][instance.mask][~own]
            hu = smooth[instance.box][instance.mask][~own]
            assert not left.any()
            assert np.all((hu >= FAT_RANGE_HU[0]) & (hu <= 250))
            outside += np.count_nonzero(~own)
    assert outside > 300


def test_labels_hold_the_wanted_organs_only(drawn: list[Made]) -> None:
    for _, spec, rendered in drawn:
        assert set(np.unique(rendered.label)) <= {0, organ_id(spec.organs[0]), tumor_id(spec.organs[0])}
    case = abdomen()
    several = render(case, whole(case, organs=("liver", "kidney")))
    assert np.array_equal(several.label, np.where(np.isin(case.organs, [1, 5]), case.organs, 0))


def test_a_tumor_of_the_wall_stays_off_other_organs_bone_and_the_air_outside(bank: Bank) -> None:
    case = abdomen()
    growth = WallGrowth(*(Uniform(v, v) for v in (0.5, 1.6, 0.6, 0.1)))
    shell = np.argwhere((case.organs == CLASS_IDS["colon"]) & (case.surface_distance_mm < 4))
    seen = 0
    for k in (1000, 2500, 4200):
        rng = np.random.default_rng(k)
        anchor = tuple(int(v) for v in shell[k % len(shell)])
        found = wall.draw_form(rng, growth, case, "colon", anchor, 30.0)  # type: ignore[arg-type]
        if found is None:
            continue
        t = tumor(organ="colon", form=found[0], center_vox=found[1], room="outside", contrast_hu=10.0)
        rendered = render(case, whole(case, t, organs=("colon",)))
        changed = rendered.image != case.ct
        others = (case.organs > 0) & (case.organs != CLASS_IDS["colon"])
        assert not changed[others].any()
        assert not changed[(case.organs == 0) & (case.ct < -400)].any()
        assert not changed[(case.organs == 0) & (case.ct > 280)].any()
        assert pieces_of(rendered.label, "colon").max() == 1
        seen += 1
    assert seen


@pytest.mark.parametrize("diameter", [7.6, 8.0, 12.0])
def test_what_the_organ_cuts_off_leaves_no_crumbs(diameter: float) -> None:
    z, y, x = np.nonzero((tiny().organs == LIVER).transpose(2, 1, 0))
    edge = (float(x[0]), float(y[0]), float(z[0]))  # the lowest voxel of the liver
    t = tumor(center_vox=edge, diameter_mm=diameter, form=ellipsoid(diameter, diameter / 2, diameter / 2))
    rendered = render(tiny(), whole(tiny(), t))
    assert pieces_of(rendered.label, "liver").max() == len(rendered.instances) <= 1
    if not rendered.instances:
        assert np.array_equal(rendered.image, tiny().ct)


def test_a_tumor_that_falls_apart_is_one_piece_in_the_image_too() -> None:
    """A gap in the organ cuts a long tumor: what lies on the other side of it stays healthy."""
    case = block()
    organs = case.organs.copy()
    organs[24:30] = 0
    gap = dataclasses.replace(case, organs=organs)
    t = tumor(center_vox=(20.0, 22.0, 22.0), form=ellipsoid(45, 8, 8), diameter_mm=28.0)
    rendered = render(gap, whole(gap, t))
    assert pieces_of(rendered.label, "liver").max() == 1
    assert np.array_equal(rendered.image[30:], case.ct[30:])
    assert (rendered.image[8:20, 22, 22] < 70).all()


def test_a_tumor_that_does_not_fit_is_left_out_of_image_and_label() -> None:
    air = tumor(center_vox=(1.0, 1.0, 1.0), diameter_mm=8.0)
    spec = sample(air, origin=(-8, -8, -8), patch=(24, 24, 24))
    rendered = render(tiny(), spec)
    assert rendered.instances == ()
    assert np.array_equal(rendered.image, healthy(tiny(), spec))


def test_a_tumor_outside_the_patch_is_not_there() -> None:
    rendered = render(tiny(), sample(tumor(), origin=(45, 40, 30), patch=(12, 10, 10)))
    assert rendered.instances == ()


@pytest.mark.parametrize("spacing_mm", [0.7, 0.8, 0.9, 1.0, 1.3, 1.6, 1.8, 2.0, 3.0])
def test_a_full_tumor_is_labelled_up_to_the_organs_surface_on_any_grid(spacing_mm: float) -> None:
    cell_grid = np.full([n // max(1, round(4 / spacing_mm)) + 3 for n in (60, 52, 44)], 110, np.int16)
    on_grid = (tiny().surface_distance_mm.astype(float) / 3.0 * spacing_mm).astype(np.float16)
    case = _on_grid(tiny(), spacing_mm, on_grid, cell_grid)
    x = int(np.flatnonzero(case.organs[:, 26, 16] == LIVER)[0])  # the liver's first voxel on a line through it
    ball = tumor(center_vox=(x + 3.0, 26.0, 16.0), diameter_mm=16 * spacing_mm, edge_mm=0.5 * spacing_mm)
    assert render(case, whole(case, ball)).label[x, 26, 16] == TUMOR


def _on_grid(case: Case, spacing_mm: float, surface: np.ndarray, parenchyma: np.ndarray) -> Case:
    from pipeline.case import parenchyma_shape

    grid = parenchyma[tuple(slice(n) for n in parenchyma_shape(case.ct.shape, spacing_mm))]
    return dataclasses.replace(
        case, spacing_mm=spacing_mm, surface_distance_mm=surface, parenchyma={"liver": np.ascontiguousarray(grid)}
    )


# ---- what a tumor looks like ----


@pytest.mark.parametrize("parts", [{}, PARTS], ids=["plain", "parts"])
@pytest.mark.parametrize("contrast", [-50.0, 30.0])
def test_a_ball_has_the_asked_volume_and_contrast(contrast: float, parts: dict[str, Any]) -> None:
    """Exactly so in tissue without noise."""
    t = tumor(center_vox=(22.0, 22.0, 22.0), contrast_hu=contrast, **parts)
    rendered = render(block(), whole(block(), t))
    mask = rendered.label == TUMOR
    assert np.count_nonzero(mask) * 27 == pytest.approx(np.pi / 6 * 30**3, rel=0.05)
    assert rendered.image[mask].mean() == pytest.approx(100 + contrast, abs=1)


def test_contrast_in_noise_is_that_of_the_parenchyma() -> None:
    rendered = render(tiny(), sample(tumor()))
    inside = rendered.image[rendered.label == TUMOR]
    assert inside.mean() == pytest.approx(tiny().stats["liver"].mean_hu - 50, abs=4)


def test_the_donors_noise_is_kept_and_its_vessels_are_not() -> None:
    t = tumor(center_vox=(30.0, 28.0, 22.0), contrast_hu=-40.0)
    rendered = render(tiny(), sample(t))
    inside = rendered.instances[0]
    vessels = healthy(tiny(), sample(), "vessels")[inside.box] > 0
    core = ndimage.binary_erosion(inside.mask)  # without the soft edge
    before, image = healthy(tiny(), sample())[inside.box], rendered.image[inside.box]
    plain = core & ~vessels
    assert 0.6 < image[plain].std() / before[plain].std() < 1.2
    noise = healthy(tiny(), sample(), "noise")[inside.box]
    assert np.corrcoef(image[plain], noise[plain])[0, 1] > 0.95
    assert np.count_nonzero(core & vessels) > 5
    was, left = (hu[core & vessels].mean() - hu[plain].mean() for hu in (before, image))
    assert was > 30
    assert abs(left) < 0.35 * was


@pytest.mark.parametrize(("edge", "changed"), [(0.0, 523), (12.0, 1400)])
def test_edges_are_soft_and_as_wide_as_asked(edge: float, changed: int) -> None:
    image = render(block(), whole(block(), tumor(center_vox=(22.3, 22.1, 21.8), edge_mm=edge))).image
    assert np.count_nonzero(image != block().ct) == pytest.approx(changed, rel=0.2)
    if edge == 0:
        assert len(np.unique(image)) == 3  # fat, liver, tumor


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 4.0])
def test_sizes_are_millimetres_on_any_grid(spacing_mm: float) -> None:
    case = block(max(32, round(66 / spacing_mm)), spacing_mm)
    middle = tuple(len(case.ct) / 2 + shift for shift in (0.3, 0.1, -0.2))
    rendered = render(case, whole(case, tumor(center_vox=middle, diameter_mm=24.0)))
    volume = np.count_nonzero(rendered.label == TUMOR) * spacing_mm**3
    assert volume == pytest.approx(np.pi / 6 * 24**3, rel=0.06)


def test_look_alikes_change_the_image_and_not_the_label() -> None:
    t, other = tumor(center_vox=(20.0, 22.0, 20.0)), tumor(center_vox=(40.0, 30.0, 24.0), diameter_mm=20.0, instance=2)
    without, with_it = (render(tiny(), whole(tiny(), t, distractors=d)) for d in ((), (other,)))
    assert np.array_equal(without.label, with_it.label)
    assert len(with_it.instances) == 1
    changed = without.image != with_it.image
    near = distance_mm(tiny(), whole(tiny()), other.center_vox) <= touched_mm(other)
    assert np.count_nonzero(changed) > 100
    assert not changed[~near].any()


def test_mass_effect_moves_image_and_label_around_the_tumor() -> None:
    """Beside the liver's surface, it bulges."""
    center = (8.0, 22.0, 22.0)
    still, pushed = (
        render(block(), whole(block(), tumor(center_vox=center, diameter_mm=14.0, mass_effect=m))).label
        for m in (None, MassEffectSpec(strength=0.6, reach_mm=30.0))
    )
    grown = (pushed > 0) & (still == 0)
    assert np.count_nonzero(grown) > 20
    assert not ((pushed == 0) & (still > 0)).any()
    assert np.argwhere(grown)[:, 0].max() < 4


# ---- the same bytes ----


def test_same_spec_same_bytes_after_json(drawn: list[Made]) -> None:
    for case, spec, rendered in drawn[::6]:
        text = spec.model_dump_json(exclude_none=True)
        assert same(render(case, SampleSpec.model_validate_json(text)), rendered)


def varied() -> list[tuple[Case, SampleSpec]]:
    """Hand-made samples of two cases: parts, bases, rooms, cut by the patch, pushed, blocked, of three sizes."""
    a, b = abdomen(), abdomen(1)
    liver, kidney = (71.0, 42.0, 43.0), (30.0, 22.0, 20.0)
    duct = tuple((x, y, z) for x, y, z in ((44.0, 46.0, 27.0), (36.0, 43.5, 29.0), (28.0, 39.0, 32.0)))
    upstream = UpstreamSpec(duct=duct, duct_mm=5, duct_hu=15, atrophy_mm=4)
    grows = GrowthForm(full_diameter_mm=26, roughness=0.3, roughness_grain_mm=6, vessel_speed=0.3, border_mm=2)
    bent = ellipsoid(17, 14, 13, deformation_mm=1.5, deformation_grid_mm=12.0)
    tumors: list[tuple[Case, list[TumorSpec], dict[str, Any]]] = [
        (a, [tumor(center_vox=liver, form=bent, **PARTS)], {}),
        (b, [tumor(center_vox=liver, base="mean", mass_effect=PUSH, key=9)], {}),
        (a, [tumor(center_vox=(66.0, 44.0, 38.0), base="donor", diameter_mm=33.0)], {"origin": (60, 20, 30)}),
        (b, [tumor(center_vox=(58.3, 40.0, 40.0), diameter_mm=9.0), tumor(center_vox=(76.0, 44.0, 44.0))], {}),
        (a, [tumor(organ="kidney", center_vox=kidney, room="outside", mass_effect=PUSH)], {"origin": (18, 8, 4)}),
        (b, [tumor(organ="kidney", center_vox=(23.0, 22.0, 20.0), room="outside", noise=0)], {"origin": (10, 8, 4)}),
        (
            a,
            [tumor(organ="pancreas", center_vox=duct[0], diameter_mm=16.0, upstream=upstream)],
            {"origin": (24, 26, 14)},
        ),
        (
            b,
            [tumor(center_vox=liver, form=grows, diameter_mm=22.0)],
            {"distractors": (tumor(center_vox=(58.0, 40.0, 38.0), diameter_mm=8.0),)},
        ),
        (a, [tumor(center_vox=(85.0, 42.0, 43.0), diameter_mm=20.0, mass_effect=PUSH)], {"origin": (75, 20, 30)}),
    ]
    options: dict[str, Any] = {"origin": (50, 24, 24), "patch": (40, 38, 34), "organs": SOLID}
    return [(case, sample(*of_one, **(options | more))) for case, of_one, more in tumors]


@pytest.fixture
def gpu_groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the CPU work on many tumors at once, grouped as a GPU does; the sizes of the groups."""
    groups, sizes = render_module._groups, []

    def as_on_a_gpu(jobs: Iterator[Any], _: torch.device) -> Iterator[Any]:
        for group in groups(jobs, torch.device("cuda")):
            sizes.append(len(group))
            yield group

    monkeypatch.setattr(render_module, "_groups", as_on_a_gpu)
    return sizes


def in_one_batch(cases: Sequence[Case], specs: Sequence[SampleSpec]) -> list[Rendered]:
    """As on a GPU; a CPU makes one sample after the other."""
    with torch.inference_mode():
        return list(render_module._rendered(cases, specs, torch.device("cpu")))


def test_samples_rendered_together_are_as_one_by_one(gpu_groups: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cases, specs = zip(*varied(), strict=True)
    together = in_one_batch(cases, specs)
    assert max(gpu_groups) >= 3
    monkeypatch.undo()
    for case, spec, found in zip(cases, specs, together, strict=True):
        alone = render(case, spec)
        assert alone.instances
        assert same(found, alone)


def test_drawn_samples_rendered_together_are_as_one_by_one(gpu_groups: list[int], drawn: list[Made]) -> None:
    together = in_one_batch([case for case, *_ in drawn], [spec for _, spec, _ in drawn])
    assert max(gpu_groups) >= 8
    assert all(same(found, alone) for found, (*_, alone) in zip(together, drawn, strict=True))


def test_small_batches_and_another_order_change_nothing(
    gpu_groups: list[int], drawn: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_module, "_BATCH_VOXELS", 8_000)
    few = drawn[::-3]
    together = in_one_batch([case for case, *_ in few], [spec for _, spec, _ in few])
    assert all(same(found, alone) for found, (*_, alone) in zip(together, few, strict=True))
    assert 1 < max(gpu_groups) < len(few)


def test_the_order_of_tumors_does_not_matter() -> None:
    case, spec = varied()[3]
    swapped = spec.model_copy(update={"tumors": spec.tumors[::-1]})
    assert np.array_equal(render(case, spec).image, render(case, swapped).image)
    assert np.array_equal(render(case, spec).label, render(case, swapped).label)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_cpu_and_cuda_give_the_same_bytes(drawn: list[Made]) -> None:
    cases, specs = zip(*varied(), strict=True)
    for found, case, spec in zip(render_batch(cases, specs, "cuda"), cases, specs, strict=True):
        assert same(found, render(case, spec))
    together = render_batch([case for case, *_ in drawn], [spec for _, spec, _ in drawn], "cuda")
    assert all(same(found, alone) for found, (*_, alone) in zip(together, drawn, strict=True))


# ---- refused ----


@pytest.mark.parametrize(
    "changes",
    [{}, {"center_vox": (40.0, 26.1, 21.7)}, {"center_vox": (46.5, 26.1, 21.7), "mass_effect": PUSH}],
    ids=["same place", "touching", "within the mass effect"],
)
@pytest.mark.parametrize("as_distractor", [False, True])
def test_tumors_that_touch_each_other_are_refused(changes: dict[str, Any], as_distractor: bool) -> None:
    second = tumor(**({"instance": 2, "key": 9} | changes))
    spec = whole(tiny(), tumor(), distractors=(second,)) if as_distractor else whole(tiny(), tumor(), second)
    with pytest.raises(ValueError, match="tumors 1 and 2 are"):
        render(tiny(), spec)


def test_long_tumors_that_meet_across_the_grid_are_refused() -> None:
    diagonal = (np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])).tolist()
    form = ellipsoid(24, 6, 6, rotation=diagonal)
    first, second = (
        tumor(instance=k, center_vox=(c, c, c), diameter_mm=19.0, form=form) for k, c in ((1, 14.0), (2, 22.5))
    )
    with pytest.raises(ValueError, match="tumors 1 and 2"):
        render(block(), whole(block(), first, second))


def test_cases_and_specs_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        render_batch([make_case()], [sample(), sample()])
