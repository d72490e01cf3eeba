"""The phantom as its users rely on it: repeatable, plausible organs in plausible places, HU by phase, CT-like noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.organs import CLASS_NAMES, TUMOR_ORGANS, is_tumor, organ_id
from pipeline.phantom import PHASE_HU, PHASES, Phantom, make_phantom

Mask = npt.NDArray[np.bool_]
SEEDS = (0, 1, 2, 3)
SPACING_MM = 3.0
WHOLE_BODY = (112, 92, 66)  # 336 x 276 x 198 mm
SMALL = (52, 42, 28)


@lru_cache
def phantom(seed: int, phase: str = "portal_venous") -> Phantom:
    return make_phantom(seed, WHOLE_BODY, SPACING_MM, phase)


def mask(made: Phantom, organ: str) -> Mask:
    found: Mask = made.organs == organ_id(organ)
    return found


def core(made: Phantom, organ: str) -> Mask:
    """The organ without its partial-volume rim."""
    return ndimage.binary_erosion(mask(made, organ))


def centre_mm(made: Phantom, organ: str) -> npt.NDArray[np.float64]:
    index = np.argwhere(mask(made, organ)).mean(0)
    return np.asarray(made.affine[:3, :3] @ index + made.affine[:3, 3])


def volume_ml(made: Phantom, organ: str) -> float:
    return float(mask(made, organ).sum() * abs(np.linalg.det(made.affine)) / 1000)


def test_the_same_arguments_give_the_same_bytes() -> None:
    first, second = (make_phantom(7, SMALL, SPACING_MM, "arterial") for _ in range(2))
    assert first.ct.tobytes() == second.ct.tobytes()
    assert first.organs.tobytes() == second.organs.tobytes()


def test_another_seed_is_another_patient() -> None:
    liver = [mask(phantom(seed), "liver") for seed in SEEDS]
    for i, a in enumerate(liver):
        for b in liver[i + 1 :]:
            overlap = 2 * (a & b).sum() / (a.sum() + b.sum())
            assert 0.6 < overlap < 0.97


def test_another_phase_is_the_same_patient_with_other_hu_and_noise() -> None:
    native, venous = phantom(0, "native"), phantom(0, "portal_venous")
    assert np.array_equal(native.organs, venous.organs)
    lung = native.ct < -700
    assert not np.array_equal(native.ct[lung], venous.ct[lung])
    assert native.phase == "native"


def test_the_same_patient_on_another_grid() -> None:
    coarse = make_phantom(0, (84, 69, 50), 4.0)
    for organ in ("liver", "spleen", "kidney", "stomach"):
        assert volume_ml(coarse, organ) == pytest.approx(volume_ml(phantom(0), organ), rel=0.05)
        assert centre_mm(coarse, organ) == pytest.approx(centre_mm(phantom(0), organ), abs=2.0)


def test_arrays_keep_the_contract() -> None:
    made = phantom(0)
    assert made.ct.dtype == np.int16
    assert made.organs.dtype == np.uint8
    assert made.ct.shape == made.organs.shape == WHOLE_BODY
    assert made.affine[:3, :3] == pytest.approx(np.eye(3) * SPACING_MM)
    assert made.affine @ [*((np.array(WHOLE_BODY) - 1) / 2), 1] == pytest.approx([0, 0, 0, 1])
    present = set(np.unique(made.organs).tolist())
    assert present <= set(CLASS_NAMES)
    assert not any(is_tumor(i) for i in present)


@pytest.mark.parametrize(
    ("organ", "low", "high"),
    [
        ("liver", 1100, 1900),
        ("spleen", 100, 320),
        ("kidney", 200, 460),
        ("pancreas", 40, 130),
        ("colon", 200, 700),
        ("stomach", 100, 500),
        ("gallbladder", 8, 60),
        ("duodenum", 25, 120),
        ("small_bowel", 200, 900),
        ("aorta", 35, 110),
        ("inferior_vena_cava", 40, 130),
        ("portal_vein", 10, 50),
        ("bone", 250, 800),
    ],
)
def test_volumes_are_those_of_adults(organ: str, low: float, high: float) -> None:
    volumes = [volume_ml(phantom(seed), organ) for seed in SEEDS]
    assert all(low < volume < high for volume in volumes), volumes
    assert max(volumes) > 1.02 * min(volumes)


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_where_they_belong(seed: int) -> None:
    made = phantom(seed)
    at = {name: centre_mm(made, name) for name in ("liver", "spleen", "gallbladder", "aorta", "inferior_vena_cava")}
    assert at["liver"][0] > 25, "right"
    assert at["gallbladder"][0] > 25
    assert at["spleen"][0] < -50, "left"
    assert at["spleen"][1] < -10, "posterior"
    assert at["aorta"][0] < 0 < at["inferior_vena_cava"][0]
    assert at["liver"][2] > centre_mm(made, "kidney")[2] + 20, "superior"
    assert centre_mm(made, "colon")[1] > centre_mm(made, "kidney")[1] + 20, "anterior"
    spine = mask(made, "bone") & (np.abs(np.arange(WHOLE_BODY[0]) - WHOLE_BODY[0] / 2) < 8)[:, None, None]
    assert np.argwhere(spine)[:, 1].mean() < 0.4 * WHOLE_BODY[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_lungs_are_on_top_and_air_elsewhere_lies_in_the_gut(seed: int) -> None:
    made = phantom(seed)
    air = made.ct < -500
    outside = ndimage.label(air)[0]
    inside = air & (outside != outside[0, 0, 0])
    assert inside[:, :, -1].sum() * SPACING_MM**2 > 10_000, "lungs, mm²"
    gut = ndimage.binary_dilation(np.isin(made.organs, [organ_id(name) for name in ("colon", "stomach")]))
    assert not (inside & ~gut)[:, :, : WHOLE_BODY[2] // 4].any()
    assert (made.ct[[0, 0, -1, -1], [0, -1, 0, -1]] < -900).all(), "around the body"


@pytest.mark.parametrize("organ", ["stomach", "colon"])
def test_gas_rises_to_the_front(organ: str) -> None:
    made = phantom(1)
    gas = mask(made, organ) & (made.ct < -500)
    content = core(made, organ) & (made.ct > -150)
    assert gas.sum() > 100
    height = np.broadcast_to(np.arange(WHOLE_BODY[1])[None, :, None], WHOLE_BODY)
    assert height[gas].mean() > height[content].mean() + 2


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_hu_follow_the_phase_table(seed: int, phase: str) -> None:
    made, column = phantom(seed, phase), PHASES.index(phase)
    for organ in ("liver", "spleen", "pancreas", "aorta", "inferior_vena_cava"):
        expected = PHASE_HU[organ][column]
        assert made.ct[core(made, organ)].mean() == pytest.approx(expected, abs=12 + 0.1 * expected), organ
    low, high = sorted(PHASE_HU[part][column] for part in ("kidney_medulla", "kidney_cortex"))
    assert low - 15 < made.ct[core(made, "kidney")].mean() < high + 15
    assert abs(made.ct[core(made, "gallbladder")].mean() - 8) < 12


def test_the_vessel_tree_of_the_liver_shows_when_enhanced() -> None:
    def brightest(phase: str) -> float:
        made = phantom(0, phase)
        inside = ndimage.binary_erosion(mask(made, "liver"), iterations=3)
        smooth = ndimage.gaussian_filter(made.ct.astype(np.float32), 0.7)[inside]
        return float(np.quantile(smooth, 0.995) - np.median(smooth))

    assert brightest("portal_venous") > 28 > brightest("native")


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_are_in_one_piece(seed: int) -> None:
    for organ, pieces in (("liver", 1), ("spleen", 1), ("pancreas", 1), ("kidney", 2), ("aorta", 1)):
        found = mask(phantom(seed), organ)
        sizes = np.sort(np.bincount(ndimage.label(found)[0][found]))[::-1]
        assert sizes[:pieces].sum() > 0.97 * found.sum(), organ
        assert sizes[pieces - 1] > 0.3 * found.sum() / pieces, organ


def test_noise_has_the_grain_of_ct() -> None:
    made = make_phantom(0, (160, 128, 60), 2.0)
    inside = ndimage.binary_erosion(mask(made, "spleen"), iterations=2)
    values = made.ct - made.ct[inside].mean()
    sd = values[inside].std()
    assert 11 < sd < 21

    def correlation(axis: int) -> float:
        moved = np.roll(values, 1, axis)
        both = inside & np.roll(inside, 1, axis)
        return float((values * moved)[both].mean() / sd**2)

    assert correlation(0) == pytest.approx(0.36, abs=0.08)
    assert correlation(1) == pytest.approx(0.36, abs=0.08)
    assert correlation(2) == pytest.approx(0.21, abs=0.08)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [(SMALL, SPACING_MM), ((75, 60, 40), 2.0), ((38, 30, 20), 4.0), ((40, 40, 40), 8.0)]
)
def test_small_grids_hold_every_tumor_organ(shape: tuple[int, int, int], spacing_mm: float) -> None:
    made = make_phantom(5, shape, spacing_mm)
    assert made.ct.shape == shape
    for organ in TUMOR_ORGANS:
        assert mask(made, organ).any(), organ


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (49, 42, 28)}, r"at least 150 x 120 x 80 mm.*gives 147 x 126 x 84 mm"),
        ({"shape": (52, 39, 28)}, "150 x 120 x 80 mm"),
        ({"shape": (52, 42, 26)}, "Ask for more voxels or a larger spacing"),
        ({"shape": (52, 42)}, "3 sizes"),
        ({"spacing_mm": 0.0}, "above 0 mm"),
        ({"spacing_mm": float("nan")}, "above 0 mm"),
        ({"phase": "venous"}, "unknown phase 'venous'; use one of native, arterial, portal_venous"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_phantom(**({"seed": 0, "shape": SMALL, "spacing_mm": SPACING_MM} | arguments))  # type: ignore[arg-type]
