"""What tumors are made of: the organ's local HU, the donor's noise, structure, and the level that hits the contrast."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.case import Case, parenchyma_cell, parenchyma_shape
from pipeline.synthesis import texture
from pipeline.synthesis.window import Window
from tests.tumors import CPU, block, tiny, tumor, window

CELLS = ((1.0, 4), (3.0, 1), (2.0, 2))


@cache
def shaded(spacing_mm: float = 2.0) -> Case:
    """A case whose parenchyma is a ramp: at voxel (x, y, z), 100 + (10 x - 4 y + 2 z) / cell HU; no noise."""
    case = block(40)
    cell = parenchyma_cell(spacing_mm)
    i, j, k = np.indices(parenchyma_shape(case.ct.shape, spacing_mm))
    grid = (100 + 10 * i - 4 * j + 2 * k).astype(np.int16)
    assert cell == dict(CELLS)[spacing_mm]
    return dataclasses.replace(case, spacing_mm=spacing_mm, parenchyma={"liver": grid})


@pytest.mark.parametrize(("spacing", "cell"), CELLS)
def test_parenchyma_is_linear_between_the_points_of_the_grid(spacing: float, cell: int) -> None:
    found = texture.parenchyma([tumor()], window(shaded(spacing), (3, 5, 1), (20, 12, 17)))[0].numpy()
    x, y, z = np.indices(found.shape) + np.array([3, 5, 1])[:, None, None, None]
    assert np.abs(found - (100 + (10 * x - 4 * y + 2 * z) / cell)).max() < 1.01


def test_outside_the_case_the_border_goes_on() -> None:
    found = texture.parenchyma([tumor()], window(shaded(), (-4, 10, 30), (50, 3, 20)))[0]
    assert torch.all(found[:4] == found[4])
    assert torch.all(found[45:] == found[44])
    assert torch.all(found[:, :, 11:] == found[:, :, 10:11])


def test_a_batch_of_windows_is_as_each_alone() -> None:
    cases = shaded(), shaded()
    corners = np.array([(-6, 2, 30), (17, 20, 3)])
    together = texture.parenchyma([tumor(), tumor()], Window(cases, corners, (16, 15, 14), CPU))
    for b, corner in enumerate(corners.tolist()):
        alone = texture.parenchyma([tumor()], window(shaded(), tuple(corner), (16, 15, 14)))
        assert torch.equal(together[b], alone[0])


def tissue(case: Case, added: float = 0.0, healthy: float = 55.0, **changes: Any) -> np.ndarray:
    """What `tumor(**changes)` consists of in all of a case."""
    box = window(case)
    full = torch.full((1, *box.size), added)
    return texture.tissue([tumor(**changes)], full, torch.full_like(full, healthy), box)[0].numpy()


def test_tissue_follows_the_parenchyma_or_is_the_mean_or_what_the_image_shows() -> None:
    case = shaded()
    local = texture.parenchyma([tumor()], window(case))[0].numpy()
    assert np.array_equal(tissue(case, -20), local - 20)
    assert np.all(tissue(case, -20, base="mean") == case.stats["liver"].mean_hu - 20)
    assert np.all(tissue(case, -20, base="donor") == 35)


def noisy(noise: np.ndarray) -> Case:
    return dataclasses.replace(block(), noise=noise.astype(np.int8))


@pytest.mark.parametrize("base", ["parenchyma", "mean"])
def test_the_donors_noise_is_kept_or_left_out(base: str) -> None:
    noise = np.random.default_rng(0).integers(-16, 17, block().ct.shape)
    kept, left_out = (tissue(noisy(noise), base=base, noise=n) for n in (1, 0))
    assert np.array_equal(kept - left_out, noise)
    assert np.all(left_out == 100)


def test_the_image_keeps_its_own_noise_and_gets_no_second() -> None:
    noise = np.full(block().ct.shape, 9)
    assert np.all(tissue(noisy(noise), base="donor") == 55)


@pytest.mark.parametrize(("added", "expected"), [(-150.0, -50.0), (-215.0, -115.0), (-400.0, -115.0)])
def test_nothing_is_darker_than_fat_but_for_noise(added: float, expected: float) -> None:
    noise = np.full(block().ct.shape, -7)
    assert np.all(tissue(noisy(noise), added) == expected - 7)


def test_tissue_of_a_batch_is_as_each_alone() -> None:
    noise = np.random.default_rng(0).integers(-16, 17, block().ct.shape)
    cases = (noisy(noise), tiny(), tiny(), noisy(-noise))
    tumors = [tumor(), tumor(base="donor"), tumor(base="mean", noise=0), tumor(noise=0)]
    corners = np.array([(3, 4, 5), (20, 15, 12), (-5, 6, 30), (30, 31, 32)])
    rng = np.random.default_rng(1)
    added, healthy = (torch.from_numpy(rng.normal(0, 60, (4, 12, 11, 10)).astype(np.float32)) for _ in range(2))
    together = texture.tissue(tumors, added, healthy, Window(cases, corners, (12, 11, 10), CPU))
    for b, t in enumerate(tumors):
        own = Window(cases[b : b + 1], corners[b : b + 1], (12, 11, 10), CPU)
        assert torch.equal(together[b], texture.tissue([t], added[b : b + 1], healthy[b : b + 1], own)[0])


def test_structure_has_sd_1_and_its_grain() -> None:
    fine, coarse = (
        texture.structure([tumor(texture_grain_mm=g, key=5)], window(tiny(), (0, 0, 0), (60, 60, 60)))[0]
        for g in (5.0, 25.0)
    )
    assert float(fine.std()) == pytest.approx(1, abs=0.15)
    assert float((fine[1:] - fine[:-1]).std()) > 2.5 * float((coarse[1:] - coarse[:-1]).std())


def test_structure_is_no_copy_of_the_deformation() -> None:
    """The keys of a tumor's fields do not meet."""
    fields = [texture.structure([tumor(key=k)], window(tiny())) for k in (7, 8, 9)]
    flat = np.stack([f.numpy().ravel() for f in fields])
    assert np.abs(np.corrcoef(flat) - np.eye(3)).max() < 0.2


@pytest.mark.parametrize("contrast", [-80.0, -12.5, 0.0, 45.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_level_makes_the_mean_over_the_label_the_contrast(contrast: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alpha = torch.from_numpy(rng.random((2, 20, 20, 20)).astype(np.float32))
    profile = torch.from_numpy(rng.normal(10, 60, (2, 20, 20, 20)).astype(np.float32))
    mask = alpha >= 0.5
    tumors = [tumor(contrast_hu=contrast), tumor(contrast_hu=-2 * contrast)]
    blended = alpha * (profile + texture.level(tumors, profile, alpha, mask))
    for b, t in enumerate(tumors):
        assert float(blended[b][mask[b]].mean()) == pytest.approx(t.contrast_hu, abs=0.1)


def test_the_level_of_a_batch_is_as_each_alone_and_an_empty_label_is_no_error() -> None:
    rng = np.random.default_rng(3)
    alpha = torch.from_numpy(rng.random((2, 9, 8, 7)).astype(np.float32))
    profile = torch.from_numpy(rng.normal(0, 40, (2, 9, 8, 7)).astype(np.float32))
    mask = alpha >= 0.5
    mask[1] = False
    found = texture.level([tumor(), tumor()], profile, alpha, mask)
    assert torch.equal(found[:1], texture.level([tumor()], profile[:1], alpha[:1], mask[:1]))
    assert torch.all(torch.isfinite(found))
