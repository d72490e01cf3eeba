from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from training.augmentation.draws import Appearance
from training.augmentation.intensity import change

WINDOW = (-175.0, 250.0)
SHAPE = (13, 11, 9)
Volume = npt.NDArray[np.float64]


def make_image(samples: int = 1, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).normal(40, 250, (samples, 1, *shape)).astype(np.float32))


def changed(image: torch.Tensor, *appearances: Appearance, window: tuple[float, float] = WINDOW) -> torch.Tensor:
    out = image.clone()
    change(out, torch.zeros(image.shape, dtype=torch.uint8), appearances, window)
    return out


def contrast(hu: Volume, appearance: Appearance, window: tuple[float, float]) -> Volume:
    center = (window[0] + window[1]) / 2
    return (hu - center) * appearance.scale + center + appearance.shift_hu


def gamma(hu: Volume, appearance: Appearance, window: tuple[float, float]) -> Volume:
    low, high = window
    inside = (hu > low) & (hu < high)
    out = hu.copy()
    out[inside] = low + (high - low) * ((hu[inside] - low) / (high - low)) ** appearance.gamma
    return out


def blur(hu: Volume, appearance: Appearance, window: tuple[float, float]) -> Volume:
    return ndimage.gaussian_filter(hu, appearance.blur_vox, mode="reflect") if appearance.blur_vox else hu


def low_resolution(hu: Volume, appearance: Appearance, window: tuple[float, float]) -> Volume:
    held = [round(n * appearance.resolution) for n in hu.shape]
    coarse = F.interpolate(torch.from_numpy(hu)[None, None], size=held, mode="nearest-exact")
    fine = F.interpolate(coarse, size=hu.shape, mode="trilinear", align_corners=False)
    return fine[0, 0].numpy()


def noise(hu: Volume, appearance: Appearance, window: tuple[float, float]) -> Volume:
    rng = torch.Generator().manual_seed(appearance.noise_seed)
    return hu + appearance.noise_sd_hu * torch.randn((1, *hu.shape), generator=rng)[0].numpy()


def reference(image: torch.Tensor, appearance: Appearance, window: tuple[float, float]) -> Volume:
    hu = image[0].numpy().astype(np.float64)
    for step in (contrast, gamma, blur, low_resolution, noise):
        hu = step(hu, appearance, window)
    return hu


APPEARANCES = [
    Appearance(),
    Appearance(scale=0.8, shift_hu=-12.5),
    Appearance(gamma=0.75),
    Appearance(gamma=1.4),
    Appearance(blur_vox=0.5),
    Appearance(blur_vox=1.0),
    Appearance(resolution=0.5),
    Appearance(resolution=0.83),
    Appearance(noise_sd_hu=5.0, noise_seed=2**62),
    Appearance(1.2, 15.0, 1.2, 0.7, 0.6, 3.0, 1),
]


@pytest.mark.parametrize("window", [WINDOW, (-1000.0, 400.0)])
def test_every_change_and_their_order_are_those_of_a_slow_reference(window: tuple[float, float]) -> None:
    image = make_image(len(APPEARANCES))
    out = changed(image, *APPEARANCES, window=window)
    for before, after, appearance in zip(image, out, APPEARANCES, strict=True):
        expected = reference(before, appearance, window)
        np.testing.assert_allclose(after[0].numpy(), expected, atol=2e-3, err_msg=str(appearance))


def test_neutral_changes_nothing_to_the_bit() -> None:
    image = make_image(2)
    assert torch.equal(changed(image, Appearance(), Appearance()), image)
    beside_another = changed(image, Appearance(), APPEARANCES[-1])
    assert torch.equal(beside_another[0], image[0])


@pytest.mark.parametrize("exponent", [0.3, 0.75, 1.4, 3.0])
def test_gamma_keeps_the_order_of_values_and_what_is_outside_the_window(exponent: float) -> None:
    hu = torch.linspace(-1024, 3071, 20 * 15 * 13).view(1, 1, 20, 15, 13)
    bent = changed(hu, Appearance(gamma=exponent))
    outside = (hu <= WINDOW[0]) | (hu >= WINDOW[1])
    assert torch.equal(bent[outside], hu[outside])
    assert bool((bent.flatten().diff() > -1e-3).all())
    inside = bent[~outside]
    assert bool(((inside > hu[~outside]) == (exponent < 1)).all())


def test_gamma_is_the_same_to_the_bit_with_any_number_of_threads() -> None:
    hu = torch.linspace(*WINDOW, 35 * 33 * 31).flip(0).view(1, 1, 35, 33, 31)  # large enough to be shared
    before, bent = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            bent.append([changed(hu, Appearance(gamma=0.7 + k / 20)) for k in range(12)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*bent, strict=True))


def test_the_centre_of_the_window_keeps_its_value_under_contrast() -> None:
    image = torch.full((1, 1, 2, 2, 2), 37.5)
    np.testing.assert_allclose(changed(image, Appearance(scale=0.5)).numpy(), 37.5, atol=1e-5)


def test_noise_is_white_and_of_the_sd_drawn() -> None:
    image = torch.zeros(1, 1, 40, 40, 40)
    grain = changed(image, Appearance(noise_sd_hu=4.0, noise_seed=9))[0, 0]
    assert float(grain.std()) == pytest.approx(4, rel=0.02)
    assert abs(float(grain.mean())) < 0.1
    neighbours = [float((grain.roll(1, axis) * grain).mean()) / 16 for axis in range(3)]
    assert max(map(abs, neighbours)) < 0.02
    other = changed(image, Appearance(noise_sd_hu=4.0, noise_seed=10))[0, 0]
    assert abs(float((grain * other).mean())) / 16 < 0.02


@pytest.mark.parametrize("appearance", [Appearance(blur_vox=1.0), Appearance(resolution=0.5)], ids=["blur", "coarse"])
def test_the_scanner_keeps_a_constant_up_to_the_edges(appearance: Appearance) -> None:
    image = torch.full((1, 1, *SHAPE), -900.0)
    np.testing.assert_allclose(changed(image, appearance).numpy(), -900, rtol=1e-6)


def test_a_change_for_each_sample_is_needed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        changed(make_image(2), APPEARANCES[4])


def test_organs_are_shifted_with_their_tumors_against_what_surrounds_them() -> None:
    shape = (40, 10, 10)
    label = torch.zeros((1, 1, *shape), dtype=torch.uint8)
    label[:, :, 10:20], label[:, :, 12:15], label[:, :, 20:30] = 1, 2, 5  # liver with a tumor, kidney
    image = make_image(shape=shape)
    out = image.clone()
    change(out, label, [Appearance(organ_shifts_hu={1: 20.0, 5: -8.0, 3: 99.0})], WINDOW)
    shift = (out - image)[0, 0, :, 5, 5].numpy()
    steps = np.r_[np.zeros(10), np.full(10, 20.0), np.full(10, -8.0), np.zeros(10)]
    np.testing.assert_allclose(shift, ndimage.gaussian_filter1d(steps, 1.0), atol=0.05)
    assert shift[14] == pytest.approx(20, abs=1e-3)
    assert (np.diff(shift[6:14]) >= -1e-4).all()
