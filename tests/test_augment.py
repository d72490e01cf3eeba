from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.train_config import AugmentConfig
from tests.augmenting import NO_CHANGE
from training.augment import augment, random_crop, to_window
from training.augmentation.draws import draw
from training.augmentation.intensity import change
from training.augmentation.spatial import move

SHAPE = (6, 5, 4)
WINDOW = (-175.0, 250.0)
EVERYTHING = AugmentConfig(
    rotate_share=1,
    zoom_share=1,
    elastic_share=1,
    organ_shift_hu=20,
    gamma_share=1,
    blur_share=1,
    low_resolution_share=1,
)


def make_batch(samples: int = 2, shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    """Every voxel of an image holds its own flat index, the label its last two digits."""
    image = torch.arange(shape[0] * shape[1] * shape[2]).reshape(1, 1, *shape).repeat(samples, 1, 1, 1, 1)
    return image.to(torch.int16), (image % 100).to(torch.uint8)


def make_ct(samples: int, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(6)
    image = torch.from_numpy(rng.integers(-1000, 1500, (samples, 1, *shape)).astype(np.int16))
    return image, torch.from_numpy(rng.choice([0, 1, 9], image.shape).astype(np.uint8))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_window_maps_its_ends_to_minus_one_and_one(dtype: torch.dtype) -> None:
    image = torch.tensor([-1000, -200, -150, 0, 50, 200, 3000], dtype=dtype)
    kept = image.clone()
    out = to_window(image, (-200, 200))
    assert out.dtype == torch.float32
    assert out.tolist() == pytest.approx([-1, -1, -0.75, 0, 0.25, 1, 1], abs=1e-6)
    assert torch.equal(image, kept)


# -- augment


@pytest.mark.parametrize("config", [AugmentConfig(), EVERYTHING], ids=["default", "everything"])
@pytest.mark.parametrize("shape", [(13, 11, 9), (16, 16, 16)], ids=str)
def test_a_sample_is_the_same_to_the_bit_in_any_batch(config: AugmentConfig, shape: tuple[int, int, int]) -> None:
    image, label = make_ct(12, shape)
    whole = augment(image, label, config, 3, range(100, 112), WINDOW)
    for size in (1, 2, 5):
        parts = [
            augment(image[k : k + size], label[k : k + size], config, 3, np.arange(100 + k, 112)[:size], WINDOW)
            for k in range(0, 12, size)
        ]
        assert all(torch.equal(torch.cat(part), one) for part, one in zip(zip(*parts, strict=True), whole, strict=True))
    moved = [(torch.equal(a, b.float())) for a, b in zip(whole[0], image, strict=True)]
    assert not any(moved)


def test_a_sample_is_the_same_to_the_bit_with_any_number_of_threads() -> None:
    image, label = make_ct(1, (35, 33, 31))  # large enough to be shared, of an odd number of voxels
    before, outs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outs.append(augment(image, label, EVERYTHING, 3, [5], WINDOW))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(out[0], outs[0][0]) and torch.equal(out[1], outs[0][1]) for out in outs)


def test_other_seeds_and_positions_give_other_samples() -> None:
    image, label = make_ct(1, SHAPE)
    keys = [(0, 0), (0, 1), (1, 0), (2**32 - 1, 7), (0, 2**40)]
    outs = [augment(image, label, EVERYTHING, seed, [position], WINDOW)[0] for seed, position in keys]
    assert len({tuple(out.flatten().tolist()) for out in outs}) == len(keys)


def test_a_sample_is_moved_first_and_then_its_hu_are_changed_as_drawn() -> None:
    image, label = make_ct(2, SHAPE)
    draws = [draw(EVERYTHING, 8, position) for position in (4, 9)]
    expected, expected_label = move(image, label, [movement for movement, _ in draws])
    change(expected, expected_label, [appearance for _, appearance in draws], (-100, 160))
    out, out_label = augment(image, label, EVERYTHING, 8, (4, 9), (-100, 160))
    assert torch.equal(out, expected)
    assert torch.equal(out_label, expected_label)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float16, torch.float32])
@pytest.mark.parametrize("config", [NO_CHANGE, AugmentConfig(), EVERYTHING], ids=["nothing", "default", "everything"])
def test_what_comes_out_is_new_finite_and_of_the_same_classes(config: AugmentConfig, dtype: torch.dtype) -> None:
    image, label = make_ct(4, (12, 8, 10))
    image = image.to(dtype)
    kept = image.clone(), label.clone()
    out, out_label = augment(image, label, config, 0, range(4), WINDOW)
    assert (out.dtype, out.shape, out_label.dtype, out_label.shape) == (
        torch.float32,
        image.shape,
        torch.uint8,
        label.shape,
    )
    assert bool(out.isfinite().all())
    assert set(out_label.unique().tolist()) <= {0, 1, 9}
    out.zero_()
    out_label.zero_()
    assert torch.equal(image, kept[0])
    assert torch.equal(label, kept[1])


def test_without_strength_nothing_changes() -> None:
    image, label = make_batch()
    out, out_label = augment(image, label, NO_CHANGE, 0, range(2), WINDOW)
    assert torch.equal(out, image.float())
    assert torch.equal(out_label, label)


def test_flips_serve_image_and_label_alike_and_are_drawn_per_sample() -> None:
    image, label = make_batch(64)
    config = NO_CHANGE.model_copy(update={"flip": 0.5})
    flipped, flipped_label = augment(image, label, config, 0, range(64), WINDOW)
    assert torch.equal(flipped_label, (flipped % 100).to(torch.uint8))
    corners = {int(sample[0, 0, 0, 0]) for sample in flipped}
    assert len(corners) == 8  # every combination of three axes


def test_mixed_precision_does_not_reach_the_hu() -> None:
    image, label = make_ct(2, (12, 8, 10))
    expected, _ = augment(image, label, EVERYTHING, 0, range(2), WINDOW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = augment(image, label, EVERYTHING, 0, range(2), WINDOW)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("positions", [range(1), range(3), []])
def test_one_position_for_each_sample_is_needed(positions: range | list[int]) -> None:
    image, label = make_batch(2)
    with pytest.raises(ValueError, match="2 samples need as many positions"):
        augment(image, label, AugmentConfig(), 0, positions, WINDOW)
    with pytest.raises(ValueError, match="2 samples need as many positions"):
        random_crop(image, label, (2, 2, 2), 0.5, {2}, 0, positions)


# -- random_crop

edges = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(patch=st.tuples(edges, edges, edges), data=st.data(), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_crop_is_a_box_of_the_patch(patch: tuple[int, int, int], data: st.DataObject, share: float) -> None:
    x, y, z = (data.draw(st.integers(1, n)) for n in patch)
    image, label = make_batch(3, patch)
    label.zero_()
    tumor = [data.draw(st.integers(0, n - 1)) for n in patch]
    label[0, 0, tumor[0], tumor[1], tumor[2]] = 2
    seed = data.draw(st.integers(0, 2**32 - 1))
    out, out_label = random_crop(image, label, (x, y, z), share, {2, 6}, seed, range(3))
    for k, sample in enumerate(out[:, 0]):
        i, rest = divmod(int(sample[0, 0, 0]), patch[1] * patch[2])
        j, m = divmod(rest, patch[2])
        box = (slice(i, i + x), slice(j, j + y), slice(m, m + z))
        assert torch.equal(sample, image[k, 0][box])
        assert torch.equal(out_label[k, 0], label[k, 0][box])
    if share == 1:
        assert (out_label[0] == 2).any()


def test_a_crop_is_the_same_in_any_batch() -> None:
    image, label = make_ct(8, (12, 9, 7))
    whole = random_crop(image, label, (5, 6, 4), 0.5, {9}, 1, range(40, 48))
    for k in range(8):
        alone = random_crop(image[k : k + 1], label[k : k + 1], (5, 6, 4), 0.5, {9}, 1, [40 + k])
        assert torch.equal(alone[0][0], whole[0][k])
        assert torch.equal(alone[1][0], whole[1][k])
    other, _ = random_crop(image, label, (5, 6, 4), 0.5, {9}, 2, range(40, 48))
    assert not torch.equal(other, whole[0])


def test_crops_hold_a_tumor_as_often_as_asked() -> None:
    image, label = make_batch(400, (12, 12, 12))
    label.zero_()
    label[:, 0, 0, 0, 0] = 6  # a crop of 4 holds this corner by chance in 1 of 729
    _, cropped = random_crop(image, label, (4, 4, 4), 0.67, {2, 6}, 0, range(400))
    assert float((cropped == 6).flatten(1).any(1).float().mean()) == pytest.approx(0.67, abs=0.06)


def test_all_tumor_voxels_and_all_places_are_drawn() -> None:
    image, label = make_batch(300, (12, 4, 4))
    label.zero_()
    label[:, 0, 0, 0, 0] = 2
    label[:, 0, 11, 3, 3] = 2
    _, near = random_crop(image, label, (4, 4, 4), 1.0, {2}, 0, range(300))
    ends = {(bool((s[0, 0] == 2).any()), bool((s[0, -1] == 2).any())) for s in near}
    assert ends == {(True, False), (False, True)}
    anywhere, _ = random_crop(image, label, (4, 4, 4), 0.0, {2}, 0, range(300))
    assert {int(s[0, 0, 0, 0]) // 16 for s in anywhere} == set(range(9))


def test_a_crop_larger_than_the_patch_is_refused() -> None:
    image, label = make_batch()
    with pytest.raises(ValueError, match="does not fit"):
        random_crop(image, label, (7, 5, 4), 0.5, {2}, 0, range(2))
