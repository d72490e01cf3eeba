"""Parts of a tumor: each is where it belongs, and nothing where it is not."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.spec.records import CalcificationSpec, CoreSpec, RimSpec, SeptaSpec, TumorSpec
from pipeline.synthesis.effects import profile
from pipeline.synthesis.engines.ellipsoid import depth_mm
from pipeline.synthesis.texture import structure
from pipeline.synthesis.window import Window
from tests.tumors import CPU, block, tiny, tumor, window

RIM, CORE = RimSpec(hu=40, mm=6), CoreSpec(hu=-30, depth_mm=8, edge_mm=2)
SEPTA = SeptaSpec(hu=25, spacing_mm=10)
SPECKS = CalcificationSpec(hu=300, grain_mm=5, threshold=1.0)
CORNER, SIZE = (18, 14, 9), (26, 26, 26)


def added(t: TumorSpec, smooth: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """What the parts of a tumor add, and the depth; of a structure that is 0 unless told."""
    box = window(tiny(), CORNER, SIZE)
    depth = depth_mm([t], box)
    texture = torch.zeros_like(depth) if smooth else structure([t], box)
    return profile([t], depth, texture, box)[0].numpy(), depth[0].numpy()


def test_a_plain_tumor_adds_nothing() -> None:
    assert not added(tumor(), smooth=False)[0].any()


def test_texture_is_the_structure_times_its_sd() -> None:
    box = window(tiny(), CORNER, SIZE)
    t = tumor(texture_sd_hu=12)
    assert np.array_equal(added(t, smooth=False)[0], (structure([t], box) * 12)[0].numpy())


def test_a_rim_is_in_its_shell_and_brightest_in_its_middle() -> None:
    total, depth = added(tumor(rim=RIM))
    assert not total[(depth <= 0) | (depth >= 6)].any()
    middle = np.abs(depth - 3) < 0.3
    assert total[middle] == pytest.approx(40, rel=0.02)
    assert total[(depth > 0.2) & (depth < 5.8)].min() > 0


def test_nodules_sit_on_the_surface_and_reach_inwards() -> None:
    total, depth = added(tumor(rim=RimSpec(hu=40, mm=3, nodular=1)))
    assert not total[depth <= 0].any()
    assert total.min() == 0
    assert 39 < total.max() <= 40
    shares = [(total[(depth > low) & (depth < low + 1)] > 20).mean() for low in (0, 2, 4, 8)]
    assert shares == sorted(shares, reverse=True)
    assert 0.35 < shares[0] < 0.75
    assert shares[2] < 0.25
    assert not total[depth > 3.5 * 3].any()


@pytest.mark.parametrize("nodular", [0.25, 0.6])
def test_a_rim_is_partly_even_and_partly_nodules(nodular: float) -> None:
    even, nodules, both = (added(tumor(rim=RimSpec(hu=40, mm=6, nodular=n)))[0] for n in (0, 1, nodular))
    assert np.allclose(both, (1 - nodular) * even + nodular * nodules, atol=1e-3)


def test_a_core_is_below_its_depth() -> None:
    total, depth = added(tumor(core=CORE))
    assert not total[depth <= 7].any()
    assert np.all(total[depth >= 9] == -30)
    assert np.all(np.diff(total.ravel()[np.argsort(depth.ravel())]) < 1e-4)


def test_the_border_of_a_core_wanders_with_the_structure() -> None:
    ragged, depth = added(tumor(core=CORE), smooth=False)
    between = ragged[(depth > 7) & (depth < 9)]
    assert between.std() > 1.2 * added(tumor(core=CORE))[0][(depth > 7) & (depth < 9)].std()
    assert not ragged[depth < 0].any()


def test_septa_are_thin() -> None:
    total, _ = added(tumor(septa=SEPTA))
    assert 0 <= total.min() < total.max() <= 25
    assert 0.08 < (total > 0).mean() < 0.3
    assert total.mean() < 0.15 * 25


def test_finer_septa_stand_closer() -> None:
    wide, fine = (added(tumor(septa=SeptaSpec(hu=25, spacing_mm=s)))[0] > 0 for s in (20, 6))
    crossings = [int(np.count_nonzero(np.diff(w.astype(int), axis=0))) for w in (wide, fine)]
    assert crossings[1] > 1.8 * crossings[0]


@pytest.mark.parametrize("density", [0.03, 0.1, 0.25])
def test_calcification_takes_about_its_density(density: float) -> None:
    threshold = NormalDist().inv_cdf(1 - density)
    spec = CalcificationSpec(hu=300, grain_mm=4, threshold=threshold)
    total = np.stack([added(tumor(calcification=spec, key=k))[0] for k in range(3)])
    assert (total > 0).mean() == pytest.approx(density, rel=0.3)
    assert total.min() == 0
    assert total.max() == pytest.approx(300, rel=0.1)


def test_parts_add_up() -> None:
    parts: dict[str, Any] = {"rim": RIM, "core": CORE, "septa": SEPTA, "calcification": SPECKS}
    together = added(tumor(**parts), smooth=False)[0]
    each = sum(added(tumor(**{name: part}), smooth=False)[0] for name, part in parts.items())
    assert np.allclose(together, each, atol=1e-3)


def test_parts_use_fields_of_their_own() -> None:
    septa = added(tumor(septa=SeptaSpec(hu=1, spacing_mm=8)))[0]
    specks = added(tumor(calcification=CalcificationSpec(hu=1, grain_mm=8, threshold=0.0)))[0]
    assert abs(np.corrcoef(septa.ravel(), specks.ravel())[0, 1]) < 0.2


MIXED = (
    tumor(),
    tumor(rim=RimSpec(hu=30, mm=4, nodular=0.7), texture_sd_hu=8, key=1),
    tumor(core=CORE, septa=SEPTA, key=2),
    tumor(rim=RIM, calcification=SPECKS, key=3),
    tumor(septa=SeptaSpec(hu=10, spacing_mm=4), calcification=CalcificationSpec(hu=90, grain_mm=3, threshold=0.4)),
)


def test_a_batch_of_tumors_with_and_without_parts_is_as_each_alone() -> None:
    cases = (tiny(), block(), tiny(), block(), tiny())
    corners = np.array([CORNER, (16, 15, 10), (20, 17, 12), (17, 13, 8), (-3, 0, 4)])
    box = Window(cases, corners, (21, 22, 20), CPU)
    together = profile(MIXED, depth_mm(MIXED, box), structure(MIXED, box), box)
    for b, t in enumerate(MIXED):
        own = window(cases[b], tuple(int(c) for c in corners[b]), (21, 22, 20))  # type: ignore[arg-type]
        alone = profile([t], depth_mm([t], own), structure([t], own), own)
        assert torch.equal(together[b], alone[0])
    assert not together[0].any()
