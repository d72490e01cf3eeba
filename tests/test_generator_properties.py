"""What holds for every sample, whatever was drawn: thousands of small ones, drawn, rendered and measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import AIR_HU, HU_RANGE, Case
from pipeline.config import GenerateConfig
from pipeline.grid import crop
from pipeline.measure import measure_sample
from pipeline.organs import organ_id, tumor_id
from pipeline.spec import SampleSpec, TumorSpec, draw_sample
from pipeline.synthesis import Instance, Rendered, render
from pipeline.synthesis.render import touched_mm
from pipeline.synthesis.upstream import GLAND_MM
from tests.cases import make_abdomen, make_bank, make_case
from tests.specs import config

SMALL, MEDIUM = (24, 24, 20), (32, 32, 24)
MANY: dict[str, Any] = {"liver": {"count": [3, 6], "diameter_mm": [8, 24]}}
AROUND: dict[str, Any] = {"body_share": 0.1, "healthy_share": 0.1}

# Settings and how many samples of each: more than 2000. Wall tumors and growth take longer to draw and to render.
POPULATIONS: dict[str, tuple[GenerateConfig, int]] = {
    "liver": (config(patch_shape=SMALL, **AROUND), 500),
    "liver, many": (config(patch_shape=MEDIUM, tumors=MANY, distractor_share=0.5), 150),
    "liver, look-alikes": (config(patch_shape=SMALL, distractor_share=1), 200),
    "kidney": (config("kidney", patch_shape=MEDIUM, distractor_share=0.3, **AROUND), 400),
    "pancreas": (config("pancreas", patch_shape=MEDIUM, distractor_share=0.3, **AROUND), 350),
    "colon": (config("colon", patch_shape=MEDIUM, distractor_share=0.3), 60),
    "all organs": (config(organs=["liver", "kidney", "pancreas"], patch_shape=SMALL, distractor_share=0.3), 150),
    "growth": (config(patch_shape=SMALL, engine="growth"), 100),
    "growth, kidney": (config("kidney", patch_shape=SMALL, engine="growth"), 60),
    "series": (config(patch_shape=SMALL, engine="growth", series={"points": 4, "interval_days": 90}), 40),
    "seed-paper": (config(presets="seed-paper", patch_shape=MEDIUM), 100),
    "without effects": (config(patch_shape=SMALL, without=["effects", "noise"]), 80),
    "plain livers": (config(patch_shape=MEDIUM, **AROUND), 150),
    "fine voxels": (config(patch_shape=MEDIUM, tumors={"liver": {"diameter_mm": [5, 20]}}, distractor_share=0.3), 40),
    "coarse voxels": (config(organs=["liver", "kidney", "pancreas"], patch_shape=SMALL, distractor_share=0.3), 60),
    "unknown phase": (config(organs=["liver", "kidney", "pancreas"], patch_shape=SMALL, distractor_share=0.3), 40),
}


class Made(NamedTuple):
    case: Case
    spec: SampleSpec
    rendered: Rendered

    @property
    def healthy(self) -> npt.NDArray[np.int16]:
        return crop(self.case.ct, self.spec.origin_vox, self.spec.patch_shape, AIR_HU)

    @property
    def organs(self) -> npt.NDArray[np.uint8]:
        """Class ids of the healthy case, of all organs."""
        return crop(self.case.organs, self.spec.origin_vox, self.spec.patch_shape, 0)

    def mask(self, instance: Instance) -> npt.NDArray[np.bool_]:
        """The tumor's voxels in the patch."""
        whole = np.zeros(self.spec.patch_shape, bool)
        whole[instance.box] = instance.mask
        return whole


@pytest.fixture(scope="module")
def livers(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("livers") / "bank", cases=2)


def bank_of(folder: Path, case: Case) -> Bank:
    """A bank of one case."""
    with create_or_open_bank(folder, case.spacing_mm) as writer:
        writer.add_case(case)
    return open_bank(folder)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory, abdomens: Bank, livers: Bank) -> dict[str, Bank]:
    """The bank of the populations that are not of the abdomens in three phases at 3 mm."""
    folder = tmp_path_factory.mktemp("banks")
    coarse, fine = make_abdomen(spacing_mm=5.0), make_case(shape=(72, 64, 60), spacing_mm=1.5)
    unknown = dataclasses.replace(abdomens.load("arterial"), phase="unknown")
    return {
        "plain livers": livers,
        "fine voxels": bank_of(folder / "fine", fine),
        "coarse voxels": bank_of(folder / "coarse", coarse),
        "unknown phase": bank_of(folder / "unknown", unknown),
    }


@pytest.fixture(scope="module", params=POPULATIONS)
def made(request: pytest.FixtureRequest, abdomens: Bank, banks: dict[str, Bank]) -> list[Made]:
    settings, count = POPULATIONS[request.param]
    return list(make(banks.get(request.param, abdomens), settings, count))


def make(bank: Bank, settings: GenerateConfig, count: int) -> Iterator[Made]:
    for index in range(count):
        spec = draw_sample(bank, settings, index)
        case = bank.load(spec.case_id)
        yield Made(case, spec, render(case, spec))


def points_mm(made: Made, center_vox: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Distance of each voxel of the patch from a point of the case, mm."""
    x, y, z = (
        (np.arange(n) + o - c) * made.case.spacing_mm
        for n, o, c in zip(made.spec.patch_shape, made.spec.origin_vox, center_vox, strict=True)
    )
    distance: npt.NDArray[np.float64] = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    return distance


@cache
def gap_offsets() -> npt.NDArray[np.int64]:
    """Steps of less than 2 voxels."""
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found: npt.NDArray[np.int64] = steps[(steps**2).sum(axis=1) < 4]
    return found


def affected(made: Made) -> npt.NDArray[np.bool_]:
    """Where a sample may differ from the healthy case."""
    near = np.zeros(made.spec.patch_shape, bool)
    for tumor in (*made.spec.tumors, *made.spec.distractors):
        near |= points_mm(made, tumor.center_vox) <= touched_mm(tumor)
        for point in tumor.upstream.duct if tumor.upstream else ():
            near |= points_mm(made, point) <= GLAND_MM + 15  # half of the way to the next point
    return near


def test_there_are_enough(abdomens: Bank, banks: dict[str, Bank]) -> None:
    assert sum(count for _, count in POPULATIONS.values()) > 2000
    assert banks.keys() <= POPULATIONS.keys()
    assert {bank.spacing_mm for bank in (abdomens, *banks.values())} == {1.5, 3.0, 5.0}
    phases = {record.phase for bank in (abdomens, *banks.values()) for record in bank.records}
    assert phases == {"native", "arterial", "portal_venous", "unknown"}


def test_images_and_labels_are_what_they_should_be(made: list[Made]) -> None:
    for sample in made:
        image, label = sample.rendered.image, sample.rendered.label
        assert image.shape == label.shape == sample.spec.patch_shape
        assert (image.dtype, label.dtype) == (np.int16, np.uint8)
        assert image.min() >= HU_RANGE[0]
        assert image.max() <= HU_RANGE[1]
        classes = {0, *(i for o in sample.spec.organs for i in (organ_id(o), tumor_id(o)))}
        assert set(np.unique(label)) <= classes


def test_each_tumor_is_one_piece_large_enough_and_apart(made: list[Made]) -> None:
    for sample in made:
        label = np.zeros(sample.spec.patch_shape, np.uint8)
        for number, instance in enumerate(sample.rendered.instances, 1):
            assert instance.mask.sum() >= 5
            mask = sample.mask(instance)
            assert (sample.rendered.label[mask] == tumor_id(instance.tumor.organ)).all()
            assert int(cc3d.connected_components(mask, connectivity=26).max()) == 1
            assert not label[mask].any()
            label[mask] = number
        tumor_ids = [tumor_id(organ) for organ in sample.spec.organs]
        assert np.array_equal(label > 0, np.isin(sample.rendered.label, tumor_ids))
        if len(sample.rendered.instances) > 1:
            at = np.argwhere(label)
            number_at = label[tuple(at.T)]
            padded = np.pad(label, 2)
            for step in gap_offsets():
                other = padded[tuple((at + step + 2).T)]
                assert ((other == 0) | (other == number_at)).all()


def test_tumors_are_in_their_organ_or_in_fat_beside_it(made: list[Made]) -> None:
    for sample in made:
        for instance in sample.rendered.instances:
            tumor, own = instance.tumor, organ_id(instance.tumor.organ)
            under = sample.organs[instance.box][instance.mask]
            if tumor.room == "organ":
                assert (under == own).all()
                continue
            assert set(np.unique(under)) <= {0, own}
            outside = under == 0
            hu = sample.healthy[instance.box][instance.mask][outside]
            noise = crop(sample.case.noise, sample.spec.origin_vox, sample.spec.patch_shape, 0)
            smooth = hu - noise[instance.box][instance.mask][outside].astype(int)
            assert (smooth <= 250).all()  # bone
            assert (smooth >= -190).all()  # air


def test_nothing_changes_where_no_tumor_reaches(made: list[Made]) -> None:
    changed = 0
    for sample in made:
        untouched = ~affected(sample)
        difference = sample.rendered.image != sample.healthy
        assert not difference[untouched].any()
        classes = [i for o in sample.spec.organs for i in (organ_id(o), tumor_id(o))]
        kept = np.where(np.isin(sample.organs, classes), sample.organs, 0)
        assert np.array_equal(sample.rendered.label[untouched], kept[untouched])
        changed += bool(difference.any())
    assert changed > len(made) / 3


def test_samples_without_anything_in_them_are_the_case(made: list[Made]) -> None:
    for sample in made:
        if not sample.spec.tumors and not sample.spec.distractors:
            assert np.array_equal(sample.rendered.image, sample.healthy)
            assert not sample.rendered.instances


def test_look_alikes_are_not_labelled_as_tumors(made: list[Made]) -> None:
    for sample in made:
        tumor_voxels = sum(int(i.mask.sum()) for i in sample.rendered.instances)
        tumor_ids = [tumor_id(organ) for organ in sample.spec.organs]
        assert np.isin(sample.rendered.label, tumor_ids).sum() == tumor_voxels
        for distractor in sample.spec.distractors:
            inside = points_mm(sample, distractor.center_vox) < distractor.diameter_mm / 4
            assert not np.isin(sample.rendered.label[inside], tumor_ids).any()


def test_the_record_makes_the_same_bytes_again(made: list[Made]) -> None:
    for sample in made[:: max(1, len(made) // 60)]:
        spec = SampleSpec.model_validate_json(sample.spec.model_dump_json(exclude_none=True))
        again = render(sample.case, spec)
        assert again.image.tobytes() == sample.rendered.image.tobytes()
        assert again.label.tobytes() == sample.rendered.label.tobytes()


def test_facts_agree_with_the_arrays(made: list[Made]) -> None:
    for sample in made:
        facts = measure_sample(sample.case, sample.spec, sample.rendered)
        assert facts["n_tumors"] == len(facts["tumors"]) == len(sample.rendered.instances)
        assert facts["tumor_voxels"] == sum(int(i.mask.sum()) for i in sample.rendered.instances)
        assert facts["series_id"] == sample.spec.series_id
        affine = np.array(facts["affine"]).reshape(4, 4)
        for number, (tumor, instance) in enumerate(zip(facts["tumors"], sample.rendered.instances, strict=True), 1):
            mask = sample.mask(instance)
            at = np.argwhere(mask)
            volume = len(at) * sample.case.spacing_mm**3
            assert tumor["instance"] == number
            assert (tumor["organ"], tumor["kind"]) == (instance.tumor.organ, instance.tumor.kind)
            assert tumor["volume_mm3"] == pytest.approx(volume)
            assert tumor["diameter_mm"] == pytest.approx((6 * volume / math.pi) ** (1 / 3))
            assert tumor["requested_diameter_mm"] == instance.tumor.diameter_mm
            assert tumor["bbox_vox"] == [*at.min(axis=0), *(at.max(axis=0) + 1)]
            assert np.allclose(tumor["center_mm"], affine[:3, :3] @ at.mean(axis=0) + affine[:3, 3])
            assert tumor["mean_hu"] == pytest.approx(sample.rendered.image[mask].mean())
            assert tumor["contrast_hu"] == pytest.approx(tumor["mean_hu"] - tumor["parenchyma_hu"])
            assert tumor["recist_short_mm"] <= tumor["recist_long_mm"] + 1e-9
            extent = (at.max(axis=0) - at.min(axis=0) + 1)[:2].max() * sample.case.spacing_mm
            assert tumor["recist_long_mm"] >= extent * 0.5


# -- size -------------------------------------------------------------------------------------------------------------


def unclipped(sample: Made, tumor: TumorSpec) -> bool:
    """Whether no border, neither of the patch nor of the organ, cuts a tumor of enough voxels."""
    reach = touched_mm(tumor.model_copy(update={"mass_effect": None}))
    low = np.array(tumor.center_vox) - reach / sample.case.spacing_mm
    high = np.array(tumor.center_vox) + reach / sample.case.spacing_mm
    if (low < sample.spec.origin_vox).any() or (
        high > np.add(sample.spec.origin_vox, sample.spec.patch_shape) - 1
    ).any():
        return False
    ball = points_mm(sample, tumor.center_vox) <= reach
    surface = crop(sample.case.surface_distance_mm, sample.spec.origin_vox, sample.spec.patch_shape, 0)
    inside = (sample.organs == organ_id(tumor.organ)) & (surface >= 2 * sample.case.spacing_mm)
    return bool(inside[ball].all()) and tumor.diameter_mm >= 4 * sample.case.spacing_mm


@pytest.mark.parametrize("engine", ["ellipsoid", "growth"])
def test_measured_diameters_are_those_asked_for(abdomens: Bank, engine: str) -> None:
    one = {"liver": {"count": [1, 1], "diameter_mm": [12, 36]}}
    ratios = []
    for sample in make(abdomens, config(engine=engine, patch_shape=(48, 40, 32), tumors=one), 120):
        for instance in sample.rendered.instances:
            if unclipped(sample, instance.tumor):
                volume = int(instance.mask.sum()) * sample.case.spacing_mm**3
                ratios.append((6 * volume / math.pi) ** (1 / 3) / instance.tumor.diameter_mm)
    assert len(ratios) > 20
    assert all(0.85 < ratio < 1.15 for ratio in ratios)
    assert np.mean(ratios) == pytest.approx(1, abs=0.04)


def test_a_bank_made_again_elsewhere_gives_the_same_samples(tmp_path: Path, livers: Bank) -> None:
    """Banks that are made alike are alike; where they lie does not matter."""
    again = make_bank(tmp_path / "bank", cases=2)
    settings = POPULATIONS["plain livers"][0]
    for a, b in zip(make(livers, settings, 5), make(again, settings, 5), strict=True):
        assert a.spec == b.spec
        assert a.rendered.image.tobytes() == b.rendered.image.tobytes()


# -- patch and case ---------------------------------------------------------------------------------------------------


def within_patch(sample: Made) -> bool:
    """Whether all that the sample's tumors change lies inside the patch."""
    reaches = [(tumor.center_vox, touched_mm(tumor)) for tumor in sample.spec.tumors]
    for tumor in sample.spec.tumors:
        reaches += [(point, GLAND_MM) for point in (tumor.upstream.duct if tumor.upstream else ())]
    for point, reach in reaches:
        low = np.array(point) - reach / sample.case.spacing_mm - 1
        high = np.array(point) + reach / sample.case.spacing_mm + 1
        last = np.add(sample.spec.origin_vox, sample.spec.patch_shape) - 1
        # Beyond the case there is nothing to change.
        if (np.maximum(low, 0) < sample.spec.origin_vox).any():
            return False
        if (np.minimum(high, np.array(sample.case.ct.shape) - 1) > last).any():
            return False
    return True


@pytest.mark.parametrize(
    ("settings", "samples", "least"),
    [
        pytest.param(config(patch_shape=(60, 60, 48)), 16, 5, id="liver"),
        pytest.param(config("kidney", patch_shape=(60, 60, 48)), 16, 5, id="kidney"),
        pytest.param(
            config("pancreas", patch_shape=(88, 60, 52), tumors={"pancreas": {"kinds": {"pdac": 1}}}),
            24,
            8,
            id="pancreas, behind blocked ducts",
        ),
    ],
)
def test_a_patch_shows_what_the_whole_case_shows(
    abdomens: Bank, settings: GenerateConfig, samples: int, least: int
) -> None:
    compared = blocked = 0
    for part in make(abdomens, settings, samples):
        if not part.rendered.instances or not within_patch(part):
            continue
        whole = part.spec.model_copy(update={"origin_vox": (0, 0, 0), "patch_shape": part.case.ct.shape})
        found = render(part.case, whole)
        assert np.array_equal(part.rendered.label, crop(found.label, part.spec.origin_vox, part.spec.patch_shape, 0))
        image = crop(found.image, part.spec.origin_vox, part.spec.patch_shape, AIR_HU)
        assert np.array_equal(part.rendered.image, image)
        assert len(found.instances) == len(part.rendered.instances)
        compared += 1
        blocked += any(tumor.upstream for tumor in part.spec.tumors)
    assert compared >= least
    assert blocked >= least or "pancreas" not in settings.organs
