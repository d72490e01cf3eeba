from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.train_config import AugmentConfig
from training.augmentation.draws import Appearance, Movement, Purpose, draw, generator

SHARES = "flip rotate_share zoom_share elastic_share gamma_share blur_share low_resolution_share".split()
OFF: dict[str, float] = dict.fromkeys([*SHARES, "scale", "shift_hu", "organ_shift_hu", "noise_hu"], 0.0)
ALL: dict[str, float] = dict.fromkeys(SHARES, 1.0) | {"organ_shift_hu": 20.0}


def drawn(count: int = 1000, **settings: Any) -> list[tuple[Movement, Appearance]]:
    config = AugmentConfig(**settings)
    return [draw(config, 5, position) for position in range(count)]


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    config = AugmentConfig(**ALL)
    keys = [(0, 0), (0, 1), (1, 0), (2**32 - 1, 7), (7, 2**40)]
    draws = [draw(config, *key) for key in keys]
    assert draws == [draw(config, *key) for key in keys]
    assert len({appearance.noise_seed for _, appearance in draws}) == len(keys)
    assert len({movement.angles_deg for movement, _ in draws}) == len(keys)


def test_a_crop_and_the_order_of_an_epoch_draw_other_numbers() -> None:
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((3, 4))))
    streams = [generator(3, 4, Purpose.CROP), generator(3, 4, Purpose.AUGMENT), order]
    assert len({float(stream.random()) for stream in streams}) == 3


def test_what_is_off_is_neutral() -> None:
    for movement, appearance in drawn(50, **OFF):
        assert movement == Movement(displacement_seed=movement.displacement_seed)
        assert not movement.resamples
        assert appearance == Appearance(noise_seed=appearance.noise_seed)


@pytest.mark.parametrize("name", OFF)
def test_switching_one_change_off_leaves_the_others(name: str) -> None:
    fields = {
        "flip": "flipped",
        "rotate_share": "angles_deg",
        "zoom_share": "magnification",
        "elastic_share": "displacement_vox",
        "gamma_share": "gamma",
        "organ_shift_hu": "organ_shifts_hu",
        "noise_hu": "noise_sd_hu",
        "blur_share": "blur_vox",
        "low_resolution_share": "resolution",
    }
    field = fields.get(name, name)
    for on, off in zip(drawn(20, **ALL), drawn(20, **{**ALL, name: 0.0}), strict=True):
        before, after = ({**m._asdict(), **a._asdict()} for m, a in (on, off))
        assert {key for key in before if before[key] != after[key]} == ({field} if before[field] else set())


def test_values_fill_their_ranges() -> None:
    draws = drawn(**ALL, scale=0.2, rotate_deg=20, zoom=(0.5, 2), gamma=(0.5, 2), elastic_vox=2.5)
    columns: dict[str, tuple[list[float], float, float]] = {
        "angle": ([angle for m, _ in draws for angle in m.angles_deg], -20, 20),
        "zoom": ([np.log2(m.magnification) for m, _ in draws], -1, 1),
        "gamma": ([np.log2(a.gamma) for _, a in draws], -1, 1),
        "scale": ([a.scale for _, a in draws], 0.8, 1.2),
        "shift": ([a.shift_hu for _, a in draws], -15, 15),
        "noise": ([a.noise_sd_hu for _, a in draws], 0, 5),
        "blur": ([a.blur_vox for _, a in draws], 0.5, 1),
        "resolution": ([a.resolution for _, a in draws], 0.5, 1),
    }
    for name, (values, low, high) in columns.items():
        assert low <= min(values) < low + 0.02 * (high - low), name
        assert high >= max(values) > high - 0.02 * (high - low), name
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.05 * (high - low)), name
    assert {m.displacement_vox for m, _ in draws} == {2.5}
    assert {m.flipped for m, _ in draws} == {(0, 1, 2)}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("rotate_share", lambda m, a: any(m.angles_deg)),
        ("zoom_share", lambda m, a: m.magnification != 1),
        ("elastic_share", lambda m, a: m.displacement_vox > 0),
        ("gamma_share", lambda m, a: a.gamma != 1),
        ("blur_share", lambda m, a: a.blur_vox > 0),
        ("low_resolution_share", lambda m, a: a.resolution < 1),
        ("flip", lambda m, a: 1 in m.flipped),
    ],
)
def test_a_share_is_the_chance_of_a_sample(name: str, changed: Any) -> None:
    draws = drawn(2000, **{**OFF, name: 0.3})
    assert np.mean([changed(*pair) for pair in draws]) == pytest.approx(0.3, abs=0.04)


def test_changes_are_drawn_independently() -> None:
    draws = drawn(2000, rotate_share=0.5, zoom_share=0.5, gamma_share=0.5)
    hits = np.array([(any(m.angles_deg), m.magnification != 1, a.gamma != 1, 0 in m.flipped) for m, a in draws])
    assert np.abs(np.corrcoef(hits.T) - np.eye(4)).max() < 0.08
