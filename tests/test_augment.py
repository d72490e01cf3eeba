from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.train_config import AugmentConfig
from training.augment import augment, random_crop, step_generator, to_window

CPU = torch.device("cpu")
NO_CHANGE = AugmentConfig(flip=0, scale=0, shift_hu=0, noise_hu=0)
SHAPE = (6, 5, 4)


def make_batch(samples: int = 2, shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    """Every voxel of an image holds its own flat index, the label its last two digits."""
    image = torch.arange(shape[0] * shape[1] * shape[2]).reshape(1, 1, *shape).repeat(samples, 1, 1, 1, 1)
    return image.to(torch.int16), (image % 100).to(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_window_maps_its_ends_to_minus_one_and_one(dtype: torch.dtype) -> None:
    image = torch.tensor([-1000, -200, -150, 0, 50, 200, 3000], dtype=dtype)
    kept = image.clone()
    out = to_window(image, (-200, 200))
    assert out.dtype == torch.float32
    assert out.tolist() == pytest.approx([-1, -1, -0.75, 0, 0.25, 1, 1], abs=1e-6)
    assert torch.equal(image, kept)


def test_step_generator_depends_on_seed_and_step_alone() -> None:
    draws = {key: torch.rand(4, generator=step_generator(*key, CPU)) for key in [(0, 0), (0, 1), (1, 0), (2**62, 7)]}
    assert torch.equal(draws[0, 1], torch.rand(4, generator=step_generator(0, 1, CPU)))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == len(draws)


def test_augment_draws_the_same_from_the_same_generator_and_leaves_its_input() -> None:
    image, label = make_batch()
    first = augment(image, label, AugmentConfig(), step_generator(0, 3, CPU))
    again = augment(image, label, AugmentConfig(), step_generator(0, 3, CPU))
    other = augment(image, label, AugmentConfig(), step_generator(0, 4, CPU))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(image, make_batch()[0])
    assert torch.equal(label, make_batch()[1])
    assert (first[0].dtype, first[1].dtype) == (torch.float32, torch.uint8)


def test_augment_without_strength_changes_nothing() -> None:
    image, label = make_batch()
    out_image, out_label = augment(image, label, NO_CHANGE, step_generator(0, 0, CPU))
    assert torch.equal(out_image, image.float())
    assert torch.equal(out_label, label)


def test_flips_serve_image_and_label_alike_and_are_drawn_per_sample() -> None:
    image, label = make_batch(64)
    config = NO_CHANGE.model_copy(update={"flip": 0.5})
    flipped, flipped_label = augment(image, label, config, step_generator(0, 0, CPU))
    assert torch.equal(flipped_label, (flipped % 100).to(torch.uint8))
    corners = {int(sample[0, 0, 0, 0]) for sample in flipped}
    assert len(corners) == 8  # every combination of three axes


def test_intensities_stay_within_the_settings() -> None:
    image = torch.full((256, 1, 2, 2, 2), 137.5)
    label = torch.zeros(image.shape, dtype=torch.uint8)

    def drawn(**strength: float) -> torch.Tensor:
        config = NO_CHANGE.model_copy(update=strength)
        return augment(image, label, config, step_generator(0, 0, CPU), center_hu=37.5)[0]

    scaled = drawn(scale=0.1) - 37.5
    assert 90 <= float(scaled.min()) < 91 < 109 < float(scaled.max()) <= 110
    shifted = drawn(shift_hu=15.0) - image
    assert -15 <= float(shifted.min()) < -14 < 14 < float(shifted.max()) <= 15
    assert torch.equal(shifted[:, 0, 0, 0, 0], shifted[:, 0, 1, 1, 1])  # one offset a sample
    sd = (drawn(noise_hu=5.0) - image).square().mean().sqrt()
    assert float(sd) == pytest.approx(5 / 3**0.5, rel=0.1)  # U(0, 5) has a root mean square of 5 / sqrt 3


def test_scale_keeps_the_centre() -> None:
    image = torch.full((8, 1, 2, 2, 2), 37.5)
    config = NO_CHANGE.model_copy(update={"scale": 0.5})
    out, _ = augment(image, torch.zeros(image.shape, dtype=torch.uint8), config, step_generator(0, 0, CPU), 37.5)
    assert torch.equal(out, image)


edges = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(patch=st.tuples(edges, edges, edges), data=st.data(), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_crop_is_a_box_of_the_patch(patch: tuple[int, int, int], data: st.DataObject, share: float) -> None:
    x, y, z = (data.draw(st.integers(1, n)) for n in patch)
    image, label = make_batch(3, patch)
    label.zero_()
    tumor = [data.draw(st.integers(0, n - 1)) for n in patch]
    label[0, 0, tumor[0], tumor[1], tumor[2]] = 2
    seed = data.draw(st.integers(0, 2**32))
    out, out_label = random_crop(image, label, (x, y, z), share, {2, 6}, step_generator(seed, 0, CPU))
    for k, sample in enumerate(out[:, 0]):
        i, rest = divmod(int(sample[0, 0, 0]), patch[1] * patch[2])
        j, m = divmod(rest, patch[2])
        box = (slice(i, i + x), slice(j, j + y), slice(m, m + z))
        assert torch.equal(sample, image[k, 0][box])
        assert torch.equal(out_label[k, 0], label[k, 0][box])
    if share == 1:
        assert (out_label[0] == 2).any()


def test_crops_hold_a_tumor_as_often_as_asked() -> None:
    image, label = make_batch(400, (12, 12, 12))
    label.zero_()
    label[:, 0, 0, 0, 0] = 6  # a crop of 4 holds this corner by chance in 1 of 729
    _, cropped = random_crop(image, label, (4, 4, 4), 0.67, {2, 6}, step_generator(0, 0, CPU))
    assert float((cropped == 6).flatten(1).any(1).float().mean()) == pytest.approx(0.67, abs=0.06)


def test_all_tumor_voxels_and_all_places_are_drawn() -> None:
    image, label = make_batch(300, (12, 4, 4))
    label.zero_()
    label[:, 0, 0, 0, 0] = 2
    label[:, 0, 11, 3, 3] = 2
    _, near = random_crop(image, label, (4, 4, 4), 1.0, {2}, step_generator(0, 0, CPU))
    ends = {(bool((s[0, 0] == 2).any()), bool((s[0, -1] == 2).any())) for s in near}
    assert ends == {(True, False), (False, True)}
    anywhere, _ = random_crop(image, label, (4, 4, 4), 0.0, {2}, step_generator(0, 0, CPU))
    assert {int(s[0, 0, 0, 0]) // 16 for s in anywhere} == set(range(9))


def test_a_crop_larger_than_the_patch_is_refused() -> None:
    image, label = make_batch()
    with pytest.raises(ValueError, match="does not fit"):
        random_crop(image, label, (7, 5, 4), 0.5, {2}, step_generator(0, 0, CPU))
