"""Differences from the healthy patch: they give the sample back, and are refused where a change is not confined."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workers.estimate as estimate
import workers.shard_task as shard_task
from pipeline.bank import Bank
from pipeline.case import AIR_HU, Case
from pipeline.config import GenerateConfig
from pipeline.delta import add_healthy, delta_of, healthy_image, healthy_label
from pipeline.description import read_info
from pipeline.errors import InputError
from pipeline.grid import Index3, slices3
from pipeline.organs import CLASS_IDS, organ_id, tumor_id
from pipeline.spec import draw_sample
from pipeline.store import open_store
from pipeline.synthesis import Rendered, confined_to, render, render_batch
from tests.cases import make_case
from tests.command import run
from tests.specs import config
from workers.generate import job_for, new_info
from workers.growth import begin
from workers.shard_task import make_shard

ORGANS = [name for name in CLASS_IDS if f"{name}_tumor" in CLASS_IDS]


@dataclasses.dataclass(frozen=True)
class Healthy:
    ct: npt.NDArray[np.int16]
    organs: npt.NDArray[np.uint8]


def random_arrays(rng: np.random.Generator, shape: Index3) -> dict[str, npt.NDArray[Any]]:
    """Any HU and any class id, those that no CT has as well."""
    image = rng.integers(-(2**15), 2**15, shape, np.int16)
    return {"image": image, "label": rng.integers(0, 256, shape, np.uint8)}


# -- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("organs", [ORGANS[:1], ORGANS[1:2], ORGANS[:2], ORGANS[::2], ORGANS[::-1], []])
def test_the_healthy_label_holds_these_organs_and_their_tumors(organs: list[str]) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(8, 8, 4)
    case = Healthy(np.zeros(ids.shape, np.int16), ids)
    kept = {number for organ in organs for number in (organ_id(organ), tumor_id(organ))}
    expected = np.where(np.isin(ids, sorted(kept)), ids, 0)
    np.testing.assert_array_equal(healthy_label(case, (0, 0, 0), (8, 8, 4), organs), expected)


@settings(max_examples=60, deadline=None)
@given(
    limits=st.tuples(*[st.integers(1, 9)] * 3),
    origin=st.tuples(*[st.integers(-12, 12)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    organs=st.sets(st.sampled_from(ORGANS), max_size=3),
    seed=st.integers(0, 5),
)
def test_a_difference_gives_its_sample_back(
    limits: Index3, origin: Index3, shape: Index3, organs: set[str], seed: int
) -> None:
    """Also where the patch reaches over the edges of the case, misses it, and where the arithmetic wraps around."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, *limits, *shape)))
    tissue = random_arrays(rng, limits)
    case = Healthy(tissue["image"], tissue["label"])
    sample = random_arrays(rng, shape)
    kept = delta_of(case, origin, sorted(organs), sample, [slices3((0, 0, 0), shape)], "")
    add_healthy(case, origin, sorted(organs), kept["image"], kept["label"])
    np.testing.assert_array_equal(kept["image"], sample["image"])
    np.testing.assert_array_equal(kept["label"], sample["label"])


def test_a_patch_of_many_planes_gets_all_of_its_label() -> None:
    """The planes are worked on a few at a time; the last group is smaller."""
    rng = np.random.default_rng(np.random.SeedSequence(8))
    shape = (37, 90, 80)
    arrays = random_arrays(rng, shape)
    image, label = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    add_healthy(Healthy(arrays["image"], arrays["label"]), (0, 0, 0), ["liver"], image, label)
    np.testing.assert_array_equal(image, arrays["image"])
    np.testing.assert_array_equal(label, np.where((arrays["label"] > 0) & (arrays["label"] < 3), arrays["label"], 0))


def test_the_healthy_patch_is_nothing() -> None:
    case, origin, shape = make_case(), (-3, 4, 5), (20, 16, 12)
    healthy = {
        "image": healthy_image(case, origin, shape),
        "label": healthy_label(case, origin, shape, ["liver"]),
    }
    assert (healthy["image"][:3] == AIR_HU).all()
    assert not any(delta.any() for delta in delta_of(case, origin, ["liver"], healthy, [], "").values())


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize(
    ("voxel", "allowed"), [((2, 2, 2), True), ((4, 6, 3), True), ((1, 2, 2), False), ((4, 6, 4), False)]
)
def test_one_changed_voxel_outside_the_boxes_is_refused(name: str, voxel: Index3, allowed: bool) -> None:
    case, shape = make_case(), (8, 8, 8)
    origin = (25, 22, 18)
    arrays = {
        "image": healthy_image(case, origin, shape),
        "label": healthy_label(case, origin, shape, ["liver"]),
    }
    arrays[name][voxel] += 1
    boxes = [slices3((2, 2, 2), (4, 7, 4)), slices3((3, 6, 3), (5, 7, 4))]
    if allowed:
        assert delta_of(case, origin, ["liver"], arrays, boxes, "sample 7")[name][voxel] == 1
    else:
        with pytest.raises(InputError, match=rf"sample 7: 1 voxels of its {name} differ .*not confined.*--store full"):
            delta_of(case, origin, ["liver"], arrays, boxes, "sample 7")


# -- what the generator changes ---------------------------------------------------------------------------------------

MANY: dict[str, Any] = {"liver": {"count": [3, 6], "diameter_mm": [8, 24]}}
AROUND: dict[str, Any] = {"body_share": 0.1, "healthy_share": 0.1}
SMALL, MEDIUM, LARGE = (32, 32, 32), (64, 64, 56), (96, 80, 60)
# At 3 mm: the large patch holds nearly all of the case. Some hundreds in all.
POPULATIONS: dict[str, tuple[GenerateConfig, int]] = {
    "liver": (config(patch_shape=SMALL, **AROUND), 60),
    "liver, large patch": (config(patch_shape=LARGE, distractor_share=0.5), 12),
    "liver, many and look-alikes": (config(patch_shape=SMALL, tumors=MANY, distractor_share=1), 25),
    "kidney": (config("kidney", patch_shape=SMALL, distractor_share=0.5, **AROUND), 50),
    "pancreas": (config("pancreas", patch_shape=SMALL, distractor_share=0.3, **AROUND), 60),
    "pancreas, large patch": (config("pancreas", patch_shape=LARGE), 12),
    "colon": (config("colon", patch_shape=SMALL, distractor_share=0.5), 15),
    "all organs": (config(organs=ORGANS[:4], patch_shape=MEDIUM, distractor_share=0.3), 16),
    "growth": (config(patch_shape=SMALL, engine="growth"), 15),
    "growth, kidney": (config("kidney", patch_shape=MEDIUM, engine="growth"), 10),
    "series": (config(patch_shape=SMALL, engine="growth", series={"points": 4, "interval_days": 90}), 12),
    "seed-paper": (config(presets="seed-paper", patch_shape=MEDIUM), 20),
    "without effects": (config(patch_shape=SMALL, without=["effects", "noise"]), 15),
}


@pytest.mark.parametrize("population", POPULATIONS)
def test_every_change_is_confined_to_its_boxes(abdomens: Bank, population: str) -> None:
    asked, count = POPULATIONS[population]
    for index in range(count):
        spec = draw_sample(abdomens, asked, index)
        case = abdomens.load(spec.case_id)
        made = render(case, spec)
        arrays: dict[str, npt.NDArray[Any]] = {"image": made.image, "label": made.label}
        kept = delta_of(case, spec.origin_vox, spec.organs, arrays, confined_to(case, spec), f"sample {index}")
        add_healthy(case, spec.origin_vox, spec.organs, kept["image"], kept["label"])
        assert (kept["image"] == made.image).all()
        assert (kept["label"] == made.label).all()


def test_the_populations_show_what_reaches_far(abdomens: Bank) -> None:
    asked, count = POPULATIONS["pancreas"]
    specs = [draw_sample(abdomens, asked, index) for index in range(count)]
    assert any(tumor.upstream for spec in specs for tumor in spec.tumors)
    asked, count = POPULATIONS["liver"]
    specs = [draw_sample(abdomens, asked, index) for index in range(count)]
    assert any(tumor.mass_effect for spec in specs for tumor in spec.tumors)
    assert any(not spec.tumors for spec in specs)


# -- a generator whose change is not confined -------------------------------------------------------------------------

DELTA = GenerateConfig(samples=6, patch_shape=(24, 24, 16), shard_samples=3, store="delta")


def noisy(made: Rendered) -> Rendered:
    """As by a generator that puts the noise of another scanner over the whole patch."""
    noise = np.random.default_rng(np.random.SeedSequence(1)).integers(-9, 10, made.image.shape)
    return dataclasses.replace(made, image=(made.image + noise).astype(np.int16))


def test_noise_everywhere_is_refused_before_anything_is_written(
    abdomens: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimate, "render", lambda case, spec: noisy(render(case, spec)))
    words = ("--samples", 6, "--patch-shape", 24, 24, 16, "--store", "delta", "--out", tmp_path / "data")
    code, _, said = run(capsys, "generate", "--bank", abdomens.path, *words)
    assert code == 2
    assert "its change is not confined" in said
    assert "--store full" in said
    assert not (tmp_path / "data").exists()


def test_a_shard_with_a_change_that_is_not_confined_is_refused_and_leaves_nothing(
    abdomens: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "data")
    begin(store, new_info(store, abdomens, DELTA))
    job = job_for(store, abdomens, read_info(store), 1)

    def one_noisy(cases: list[Case], specs: list[Any], device: str) -> list[Rendered]:
        made = render_batch(cases, specs, device)
        return [noisy(one) if spec.index == 4 else one for one, spec in zip(made, specs, strict=True)]

    monkeypatch.setattr(shard_task, "render_batch", one_noisy)
    with pytest.raises(InputError, match=r"sample 4: .* not confined"):
        make_shard(job)
    assert [entry.key for entry in store.entries()] == ["dataset.json"]
    assert list((tmp_path / "data").glob("shards/*")) == []


def test_the_same_generator_may_keep_all_pixels(
    abdomens: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "data")
    begin(store, new_info(store, abdomens, DELTA.model_copy(update={"store": "full"})))
    monkeypatch.setattr(shard_task, "render_batch", lambda *given: [noisy(one) for one in render_batch(*given)])
    assert make_shard(job_for(store, abdomens, read_info(store), 0)).status == "committed"
