from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from training.augmentation.draws import Movement
from training.augmentation.spatial import displacement, move

SHAPE = (13, 11, 9)
CPU = torch.device("cpu")
MOVEMENTS = [
    Movement(angles_deg=(12.0, -7.0, 15.0)),
    Movement(angles_deg=(0.0, 0.0, -140.0)),
    Movement(magnification=1.3),
    Movement(magnification=0.2),  # reaches over several mirror images
    Movement((0, 2), (5.0, 9.0, -3.0), 0.85),
    Movement(displacement_vox=1.5, displacement_seed=3),
    Movement((1,), (8.0, 0.0, 2.0), 1.1, 0.7, 4),
]


def make_batch(samples: int, shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1500, (samples, 1, *shape)).astype(np.int16)
    label = rng.choice([0, 1, 7, 255], (samples, 1, *shape)).astype(np.uint8)
    return torch.from_numpy(image), torch.from_numpy(label)


def source_points(movement: Movement, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Where each voxel comes from (3, X, Y, Z), by the definition: content turns by R and grows, then is displaced."""
    center = (np.array(shape) - 1) / 2
    offset = np.indices(shape).reshape(3, -1) - center[:, None]
    rotation = Rotation.from_euler("XYZ", movement.angles_deg, degrees=True)
    points = rotation.inv().apply(offset.T).T / movement.magnification + center[:, None]
    points = points.reshape(3, *shape)
    if movement.displacement_vox:
        points += displacement(movement, shape, CPU).numpy()[::-1]
    return points


@pytest.mark.parametrize("axes", [axes for n in range(4) for axes in combinations(range(3), n)])
def test_flips_are_exact(axes: tuple[int, ...]) -> None:
    image, label = make_batch(1)
    moved, moved_label = move(image, label, [Movement(flipped=axes)])
    assert np.array_equal(moved[0, 0].numpy(), np.flip(image[0, 0].numpy(), axes))
    assert np.array_equal(moved_label[0, 0].numpy(), np.flip(label[0, 0].numpy(), axes))


def test_resampling_is_that_of_a_slow_reference() -> None:
    image, label = make_batch(len(MOVEMENTS))
    moved, moved_label = move(image, label, MOVEMENTS)
    assert (moved.dtype, moved_label.dtype) == (torch.float32, torch.uint8)
    for k, movement in enumerate(MOVEMENTS):
        points = source_points(movement, SHAPE)
        hu = np.flip(image[k, 0].numpy(), movement.flipped).astype(np.float64)
        ids = np.flip(label[k, 0].numpy(), movement.flipped)
        expected = ndimage.map_coordinates(hu, points, order=1, mode="reflect")
        np.testing.assert_allclose(moved[k, 0].numpy(), expected, atol=0.1, err_msg=str(movement))
        # Where two voxels are equally near, either may be taken.
        clear = (np.abs(points % 1 - 0.5) > 1e-3).all(0)
        nearest = ndimage.map_coordinates(ids, points, order=0, mode="reflect")
        assert np.array_equal(moved_label[k, 0].numpy()[clear], nearest[clear]), movement
        assert clear.mean() > 0.9


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_takes_one_axis_to_the_next(axis: int, plane: tuple[int, int]) -> None:
    image, label = make_batch(1, (7, 7, 7))
    angles = [0.0, 0.0, 0.0]
    angles[axis] = 90.0
    moved, moved_label = move(image, label, [Movement(angles_deg=(angles[0], angles[1], angles[2]))])
    np.testing.assert_allclose(moved[0, 0].numpy(), np.rot90(image[0, 0].numpy(), 1, plane), atol=0.05)
    assert np.array_equal(moved_label[0, 0].numpy(), np.rot90(label[0, 0].numpy(), 1, plane))


@pytest.mark.parametrize("movement", MOVEMENTS[:1] + MOVEMENTS[4:], ids=str)
def test_a_tumor_stays_with_its_label(movement: Movement) -> None:
    shape = (40, 36, 32)
    at = np.indices(shape) - np.array([24, 15, 17])[:, None, None, None]
    inside = torch.from_numpy((at**2).sum(0) < 36)[None, None]
    image = torch.where(inside, 1000, 0).to(torch.int16)
    moved, moved_label = move(image, inside.to(torch.uint8) * 9, [movement])
    assert set(moved_label.unique().tolist()) == {0, 9}
    np.testing.assert_allclose(*(ndimage.center_of_mass(v.numpy()) for v in (moved, moved_label)), atol=0.15)
    overlap = ((moved > 500) == (moved_label == 9)).float().mean()
    assert float(overlap) > 0.998


def test_no_class_arises_that_was_not_there() -> None:
    image, label = make_batch(len(MOVEMENTS))
    _, moved_label = move(image, label, MOVEMENTS)
    assert set(moved_label.unique().tolist()) <= {0, 1, 7, 255}


def test_a_constant_stays_constant_up_to_the_edges() -> None:
    image = torch.full((len(MOVEMENTS), 1, *SHAPE), -700, dtype=torch.int16)
    moved, _ = move(image, torch.zeros(image.shape, dtype=torch.uint8), MOVEMENTS)
    np.testing.assert_allclose(moved.numpy(), -700, rtol=1e-5)


def test_samples_that_stay_are_untouched_by_those_that_move() -> None:
    image, label = make_batch(3)
    moved, moved_label = move(image, label, [Movement(), MOVEMENTS[0], Movement((0,))])
    alone, alone_label = move(image[1:2], label[1:2], [MOVEMENTS[0]])
    assert torch.equal(moved[0], image[0].float())
    assert torch.equal(moved[1:2], alone)
    assert torch.equal(moved[2], image[2].flip(1).float())
    assert torch.equal(moved_label, torch.stack((label[0], alone_label[0], label[2].flip(1))))


def test_inputs_are_left_alone() -> None:
    image, label = make_batch(2)
    kept = image.float(), label.clone()
    given = kept[0].clone(), label
    for movements in ([Movement(), Movement()], MOVEMENTS[:2]):
        outputs = move(*given, movements)
        for tensor in outputs:
            tensor.zero_()
        assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("shape", [(1, 6, 5), (6, 1, 1), (2, 2, 2)])
def test_thin_patches_can_be_moved(shape: tuple[int, int, int]) -> None:
    image, label = make_batch(len(MOVEMENTS), shape)
    moved, moved_label = move(image, label, MOVEMENTS)
    assert bool(moved.isfinite().all())
    assert int(moved.min()) >= int(image.min())
    assert set(moved_label.unique().tolist()) <= {0, 1, 7, 255}


def test_a_displacement_has_its_sd_and_folds_nothing() -> None:
    shape = (32, 24, 28)
    fields = torch.stack(
        [displacement(Movement(displacement_vox=3.0, displacement_seed=seed), shape, CPU) for seed in range(60)]
    )
    assert fields.shape == (60, 3, *shape)
    np.testing.assert_allclose(fields.std(dim=(0, 2, 3, 4)).numpy(), 3, rtol=0.2)
    slopes = torch.stack([fields.diff(dim=axis).abs().amax() for axis in (2, 3, 4)])
    assert 0.3 < float(slopes.max()) < 1
    again = displacement(Movement(displacement_vox=3.0, displacement_seed=59), shape, CPU)
    assert torch.equal(fields[59], again)
    assert len({float(field[0, 0, 0, 0]) for field in fields}) == 60
