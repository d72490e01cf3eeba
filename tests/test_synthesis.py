"""Applying specs: what is touched, what is labelled, what is kept."""

from __future__ import annotations

import dataclasses

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from pipeline.bank import Bank
from pipeline.case import AIR_HU, Case
from pipeline.config import GenerateConfig
from pipeline.grid import crop
from pipeline.organs import organ_id, tumor_id
from pipeline.spec import SampleSpec, TumorSpec, draw_sample
from pipeline.synthesis import render, synthesise
from pipeline.synthesis.render import MIN_VOXELS
from tests.cases import make_bank, make_case

LIVER, TUMOR = organ_id("liver"), tumor_id("liver")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case()


def config(**tumor: object) -> GenerateConfig:
    shares = {"healthy_share": 0, "body_share": 0}
    return GenerateConfig.model_validate(
        {"samples": 100, "patch_shape": [40, 36, 28], **shares, "tumors": {"liver": tumor}}
    )


def tumor(**changes: object) -> TumorSpec:
    plain: dict[str, object] = {
        "instance": 1,
        "organ": "liver",
        "kind": "metastasis",
        "center_vox": (30.2, 26.1, 21.7),
        "diameter_mm": 30.0,
        "half_axes_mm": (15.0, 15.0, 15.0),
        "rotation": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        "deformation_mm": 0.0,
        "deformation_grid_mm": 12.0,
        "edge_mm": 2.0,
        "contrast_hu": -50.0,
        "texture_sd_hu": 0.0,
        "texture_grain_mm": 5.0,
        "rim_hu": 0.0,
        "rim_mm": 2.0,
        "key": 7,
    }
    return TumorSpec.model_validate({**plain, **changes})


def sample(
    *tumors: TumorSpec, origin: tuple[int, int, int] = (8, 6, 6), patch: tuple[int, ...] = (44, 40, 32)
) -> SampleSpec:
    return SampleSpec(
        index=0,
        seed=0,
        split="train",
        case_id="tiny",
        origin_vox=origin,
        patch_shape=patch,
        organs=("liver",),
        tumors=tumors,
    )


def test_outside_the_tumor_the_image_is_the_healthy_case(bank: Bank) -> None:
    for index in range(25):
        spec = draw_sample(bank, config(), index)
        case = bank.load(spec.case_id)
        rendered = render(case, spec)
        healthy = crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU)
        organs = crop(case.organs, spec.origin_vox, spec.patch_shape, 0)
        changed = rendered.image != healthy
        assert not changed[organs != LIVER].any()
        boxes = np.zeros_like(changed)
        for instance in rendered.instances:
            boxes[instance.box] = True
        assert not changed[~boxes].any()
        assert np.array_equal(rendered.label == TUMOR, (rendered.label > 0) & (rendered.label != LIVER))
        assert np.array_equal(rendered.label > 0, organs == LIVER)


def test_labels_are_clean_and_components_are_tumors(bank: Bank) -> None:
    seen = 0
    for index in range(40):
        spec = draw_sample(bank, config(count=[2, 5], diameter_mm=[8, 40]), index)
        rendered = render(bank.load(spec.case_id), spec)
        pieces = cc3d.connected_components(rendered.label == TUMOR, connectivity=26)
        assert pieces.max() == len(rendered.instances)
        for instance in rendered.instances:
            assert np.count_nonzero(instance.mask) >= MIN_VOXELS
            assert len(np.unique(pieces[instance.box][instance.mask])) == 1
        seen += len(rendered.instances)
    assert seen > 60


def test_same_spec_same_bytes(bank: Bank) -> None:
    for index in range(10):
        spec = draw_sample(bank, config(), index)
        case = bank.load(spec.case_id)
        first = synthesise(case, spec)
        again = synthesise(case, SampleSpec.model_validate_json(spec.model_dump_json()))
        assert first[0].tobytes() == again[0].tobytes()
        assert first[1].tobytes() == again[1].tobytes()
        assert first[0].dtype == np.int16
        assert first[1].dtype == np.uint8


def test_synthesise_changes_nothing_it_was_given(case: Case) -> None:
    before = case.ct.copy(), case.organs.copy()
    synthesise(case, sample(tumor()))
    assert np.array_equal(case.ct, before[0])
    assert np.array_equal(case.organs, before[1])


def test_a_ball_has_the_asked_volume_and_contrast(case: Case) -> None:
    rendered = render(case, sample(tumor()))
    mask = rendered.label == TUMOR
    volume = np.count_nonzero(mask) * case.spacing_mm**3
    assert volume == pytest.approx(np.pi / 6 * 30**3, rel=0.06)
    assert rendered.image[mask].mean() == pytest.approx(case.stats["liver"].mean_hu - 50, abs=4)


@pytest.mark.parametrize("diameter", [8.0, 12.0, 20.0, 36.0])
def test_measured_diameter_is_near_the_asked_one_under_deformation(case: Case, diameter: float) -> None:
    radius = diameter / 2
    found = []
    for key in range(20):
        shape = tumor(
            diameter_mm=diameter,
            half_axes_mm=(radius * 1.25, radius * 0.8, radius),
            deformation_mm=0.15 * radius,
            deformation_grid_mm=0.8 * radius,
            key=key * 1000,
        )
        voxels = np.count_nonzero(render(case, sample(shape)).label == TUMOR)
        found.append((6 * voxels * case.spacing_mm**3 / np.pi) ** (1 / 3))
    assert np.mean(found) == pytest.approx(diameter, rel=0.08)


def test_the_donors_noise_is_kept_and_its_vessels_are_not(case: Case) -> None:
    rendered = render(case, sample(tumor(center_vox=(30, 28, 22), contrast_hu=-40.0)))
    inside = rendered.instances[0]
    patch_vessels = crop(case.vessels, (8, 6, 6), (44, 40, 32), 0)[inside.box] > 0
    core = ndimage.binary_erosion(inside.mask)  # without the soft edge
    healthy = crop(case.ct, (8, 6, 6), (44, 40, 32), AIR_HU)[inside.box]
    image = rendered.image[inside.box]
    plain = core & ~patch_vessels
    assert 0.6 < image[plain].std() / healthy[plain].std() < 1.2
    vessels = core & patch_vessels
    if vessels.sum() > 10:
        excess = image[vessels].mean() - image[plain].mean()
        assert excess < 0.7 * (healthy[vessels].mean() - healthy[plain].mean())


def test_edges_are_soft_and_as_wide_as_asked(case: Case) -> None:
    def border(edge_mm: float) -> int:
        image = render(case, sample(tumor(edge_mm=edge_mm))).image.astype(int)
        healthy = crop(case.ct, (8, 6, 6), (44, 40, 32), AIR_HU)
        return int(np.count_nonzero(image != healthy))

    assert border(12.0) > 1.3 * border(1.0)


def test_a_rim_is_brighter_than_the_core_and_leaves_the_mean(case: Case) -> None:
    plain = render(case, sample(tumor()))
    rimmed = render(case, sample(tumor(rim_hu=60.0, rim_mm=6.0)))
    mask = plain.label == TUMOR
    gain = rimmed.image.astype(int) - plain.image
    core = ndimage.binary_erosion(mask, iterations=3)
    border = ndimage.binary_erosion(mask) & ~core
    assert gain[border].mean() - gain[core].mean() > 20
    assert abs(gain[mask].mean()) < 2


def test_what_the_organ_cuts_off_leaves_no_crumbs(case: Case) -> None:
    z, y, x = np.nonzero((case.organs == LIVER).transpose(2, 1, 0))
    edge = (float(x[0]), float(y[0]), float(z[0]))  # the lowest voxel of the liver
    origin = tuple(int(v) - 16 for v in edge)
    spec = sample(tumor(center_vox=edge, half_axes_mm=(22.0, 10.0, 8.0)), origin=origin, patch=(40, 40, 40))  # type: ignore[arg-type]
    rendered = render(case, spec)
    pieces = cc3d.connected_components(rendered.label == TUMOR, connectivity=26)
    assert pieces.max() <= 1
    far = np.ones(rendered.label.shape, bool)
    for instance in rendered.instances:
        far[instance.box] = False
    assert np.array_equal(rendered.image[far], crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU)[far])


def test_a_tumor_that_does_not_fit_is_left_out_of_image_and_label(case: Case) -> None:
    air = tumor(center_vox=(1.0, 1.0, 1.0), half_axes_mm=(4.0, 4.0, 4.0), diameter_mm=8.0)
    spec = sample(air, origin=(-8, -8, -8), patch=(24, 24, 24))
    rendered = render(case, spec)
    assert rendered.instances == ()
    assert not (rendered.label == TUMOR).any()
    assert np.array_equal(rendered.image, crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU))


def test_neighbours_stay_two_voxels_apart_even_when_placed_too_near(case: Case) -> None:
    pair = tumor(), tumor(instance=2, center_vox=(34.0, 26.1, 21.7), key=9)
    rendered = render(case, sample(*pair))
    pieces = cc3d.connected_components(rendered.label == TUMOR, connectivity=26)
    assert pieces.max() == len(rendered.instances)


def test_patches_beyond_the_case_are_padded_with_air(case: Case) -> None:
    rendered = render(case, sample(tumor(), origin=(-10, -4, -10), patch=(80, 60, 64)))
    assert (rendered.image[:10] == AIR_HU).all()
    assert (rendered.label[:10] == 0).all()
    assert rendered.instances


@pytest.mark.parametrize("spacing_mm", [2.0, 3.0, 4.0])
def test_sizes_are_millimetres_on_any_grid(spacing_mm: float) -> None:
    shape = tuple(round(n * 3.0 / spacing_mm) for n in (60, 52, 44))
    case = make_case(shape=shape, spacing_mm=spacing_mm)  # type: ignore[arg-type]
    middle = tuple(n / 2 for n in shape)
    spec = sample(tumor(center_vox=middle), origin=(0, 0, 0), patch=shape)
    voxels = np.count_nonzero(render(case, spec).label == TUMOR)
    assert voxels * spacing_mm**3 == pytest.approx(np.pi / 6 * 30**3, rel=0.08)


@pytest.mark.parametrize("spacing_mm", [0.7, 0.8, 0.9, 1.0, 1.3, 1.6, 1.8, 2.0, 3.0])
def test_full_tumor_is_labelled_up_to_the_organs_surface_on_any_grid(spacing_mm: float) -> None:
    plain = make_case()
    on_grid = (plain.surface_distance_mm.astype(float) / plain.spacing_mm * spacing_mm).astype(np.float16)
    case = dataclasses.replace(plain, spacing_mm=spacing_mm, surface_distance_mm=on_grid)
    x = int(np.flatnonzero(case.organs[:, 26, 16] == LIVER)[0])  # the liver's first voxel on a line through it
    radius = 8 * spacing_mm
    center = (x + 3.0, 26.0, 16.0)
    ball = tumor(center_vox=center, diameter_mm=2 * radius, half_axes_mm=(radius,) * 3, edge_mm=0.5 * spacing_mm)
    rendered = render(case, sample(ball, origin=(0, 0, 0), patch=case.ct.shape))
    assert rendered.label[x, 26, 16] == TUMOR
