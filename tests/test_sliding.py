from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.segmenters import Mixed
from training.augment import to_window
from training.prediction.sliding import (
    LEAST_WEIGHT,
    Slab,
    count_windows,
    gaussian_weights,
    probability_slabs,
    window_starts,
)

torch.set_num_threads(1)
CPU = torch.device("cpu")
Shape = tuple[int, int, int]
HU_WINDOW = (-200.0, 200.0)
sizes = st.integers(1, 40)
overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.7, 0.95])


@given(size=sizes, window=st.integers(1, 16), overlap=overlaps)
def test_windows_cover_an_axis_with_the_overlap_asked_for(size: int, window: int, overlap: float) -> None:
    starts = window_starts(size, window, overlap)
    covered = np.zeros(size, int)
    for start in starts:
        covered[max(0, start) : start + window] += 1
    assert covered.all()
    if size <= window:
        assert starts == [-((window - size) // 2)]
        return
    assert starts[0] == 0
    assert starts[-1] == size - window
    steps = np.diff(starts)
    assert (steps >= 1).all()
    assert (steps <= max(1, window * (1 - overlap))).all()
    assert len(set(steps[:-1].tolist())) <= 1  # only the last window is moved


def test_weights_fall_from_the_middle_and_never_to_nothing() -> None:
    weights = gaussian_weights((8, 9, 10))
    assert weights.shape == (8, 9, 10)
    assert torch.equal(weights, weights.flip(0, 1, 2))
    assert weights.max() == weights[4, 4, 5]
    assert weights[0, 0, 0] == np.float32(LEAST_WEIGHT)
    # One SD, an eighth of the edge of 8, is one voxel.
    assert float(weights[4, 4, 5] / weights[5, 4, 5]) == pytest.approx(np.exp(-(0.5**2 - 1.5**2) / 2), rel=1e-5)


def slabs_of(image: torch.Tensor, window: Shape, predict: Any, overlap: float = 0.5, at_once: int = 1) -> list[Slab]:
    return list(probability_slabs(image, window, predict, overlap=overlap, at_once=at_once, device=CPU))


def joined(slabs: list[Slab]) -> torch.Tensor:
    return torch.cat([slab.probabilities for slab in slabs], slabs[0].axis + 2)


@settings(max_examples=50)
@given(
    shape=st.tuples(sizes, st.integers(1, 12), st.integers(1, 12)),
    turn=st.integers(0, 2),
    window=st.tuples(*[st.integers(1, 9)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    at_once=st.integers(1, 5),
)
def test_slabs_put_every_voxel_in_its_place(
    shape: Shape, turn: int, window: Shape, overlap: float, at_once: int
) -> None:
    """A voxel's own value stays what it is, however many windows it was in, and wherever they lay."""
    image = torch.arange(np.prod(shape), dtype=torch.float32).view(1, 1, *shape).movedim(2, 2 + turn)
    advanced: list[int] = []
    slabs = list(
        probability_slabs(
            image, window, lambda hu: hu / 7, overlap=overlap, at_once=at_once, device=CPU, advance=advanced.append
        )
    )
    size: Any = tuple(image.shape[2:])
    assert slabs[0].axis == int(np.argmax(size))
    assert [slab.start for slab in slabs] == [0, *(slab.stop for slab in slabs[:-1])]
    assert slabs[-1].stop == max(size)
    assert all(slab.stop - slab.start <= window[slab.axis] for slab in slabs)
    torch.testing.assert_close(joined(slabs), image / 7, rtol=1e-5, atol=1e-5)
    assert sum(advanced) == count_windows(size, window, overlap)


@pytest.mark.parametrize(
    ("shape", "overlap", "batch"),
    [
        ((20, 13, 9), 0.5, 1),
        ((9, 30, 9), 0.25, 2),
        ((8, 11, 23), 0.8, 1),
        ((16, 16, 16), 0.0, 1),
        ((8, 8, 8), 0.5, 3),
        ((5, 6, 7), 0.5, 1),
        ((3, 17, 8), 0.5, 2),
    ],
)
@pytest.mark.parametrize("at_once", [1, 3])
def test_the_result_is_monais(shape: Shape, overlap: float, batch: int, at_once: int) -> None:
    from monai.inferers import sliding_window_inference

    network, window = Mixed(), (8, 9, 7)
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(-300, 300, (batch, 1, *shape), generator=generator, dtype=torch.int16)

    def predict(normalised: torch.Tensor) -> torch.Tensor:
        return network(normalised).softmax(1)

    with torch.inference_mode():
        slabs = slabs_of(image, window, lambda hu: predict(to_window(hu, HU_WINDOW)), overlap, at_once)
        theirs = sliding_window_inference(
            to_window(image, HU_WINDOW), window, 1, predict, overlap, mode="gaussian", cval=-1.0
        )
    ours = joined(slabs)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 1e-5
    assert torch.equal(ours.argmax(1), theirs.argmax(1))


def test_finished_planes_leave_before_the_windows_after_them_are_read() -> None:
    seen: list[int] = []

    def predict(hu: torch.Tensor) -> torch.Tensor:
        seen.append(len(hu))
        return hu

    slabs = probability_slabs(torch.zeros(1, 1, 8, 8, 400), (8, 8, 8), predict, overlap=0.5, at_once=1, device=CPU)
    for k, slab in enumerate(slabs):
        assert len(seen) == k + 1
        assert slab.start == 4 * k
    assert len(seen) == 99


def test_a_slab_is_as_deep_as_a_window_at_most_and_its_memory_is_its_own() -> None:
    image = torch.zeros(1, 1, 60, 6, 6)
    for slab in slabs_of(image, (8, 6, 6), lambda hu: hu):
        storage = slab.probabilities.untyped_storage()
        assert storage.nbytes() <= 8 * 6 * 6 * 4


def test_beyond_the_image_is_air() -> None:
    seen: list[torch.Tensor] = []

    def predict(hu: torch.Tensor) -> torch.Tensor:
        seen.append(hu)
        return hu

    slabs_of(torch.full((1, 1, 4, 8, 8), 200, dtype=torch.int16), (8, 8, 8), predict)
    (window,) = seen
    assert window[:, :, 2:6].unique().tolist() == [200]
    assert window[:, :, [0, 1, 6, 7]].unique().tolist() == [-1000]
