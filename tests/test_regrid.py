from __future__ import annotations

from unittest import mock

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.resample import resample_labels_to
from training.prediction import regrid
from training.prediction.regrid import labels_onto

Shape = tuple[int, int, int]
edges = st.integers(1, 15)
# The finest needs no smoothing, the coarsest is smoothed over several voxels.
voxel_sizes = st.sampled_from([0.7, 1.0, 1.3, 2.7, 5.3])


def blobs(shape: Shape, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 5], np.uint8), shape, p=[0.5, 0.2, 0.2, 0.1])


@settings(max_examples=50)
@given(
    shape=st.tuples(edges, edges, edges),
    target_shape=st.tuples(edges, edges, edges),
    sizes=st.tuples(voxel_sizes, voxel_sizes, voxel_sizes),
    axes=st.sampled_from(["RAS", "LPS", "PIR", "SLA"]),
    offset=st.floats(-9, 9),
    voxels=st.sampled_from([1, 30, 200]),
    seed=st.integers(0, 9),
)
def test_slabs_make_no_difference(
    shape: Shape,
    target_shape: Shape,
    sizes: tuple[float, float, float],
    axes: str,
    offset: float,
    voxels: int,
    seed: int,
) -> None:
    labels = blobs(shape, seed)
    turn = nib.orientations.axcodes2ornt(axes)
    target = np.diag([*sizes, 1.0]) @ nib.orientations.inv_ornt_aff(turn, target_shape)
    # Off any symmetric position, where two classes would be exactly as likely and rounding would decide.
    target[:3, 3] += np.array([0.1373, 0.2719, 0.3917]) + offset
    whole = resample_labels_to(labels, np.eye(4), target_shape, target)
    with mock.patch.object(regrid, "SLAB_VOXELS", voxels):
        assert np.array_equal(labels_onto(labels, np.eye(4), target_shape, target), whole)


def test_what_lies_outside_is_background() -> None:
    target = np.eye(4)
    target[0, 3] = -50
    ones = np.ones((4, 4, 4), np.uint8)
    with mock.patch.object(regrid, "SLAB_VOXELS", 16):
        found = labels_onto(ones, np.eye(4), (60, 4, 4), target)
    assert np.array_equal(np.flatnonzero(found.any(axis=(1, 2))), [50, 51, 52, 53])


def test_only_the_voxels_that_a_slab_needs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def spy(labels: npt.NDArray[np.uint8], *grids: object) -> npt.NDArray[np.uint8]:
        looked_at.append(labels.shape[0])
        return resample_labels_to(labels, *grids)  # type: ignore[arg-type]

    monkeypatch.setattr(regrid, "resample_labels_to", spy)
    monkeypatch.setattr(regrid, "SLAB_VOXELS", 160)
    labels_onto(np.ones((100, 4, 4), np.uint8), np.eye(4), (100, 4, 4), np.eye(4))
    assert len(looked_at) == 10
    assert max(looked_at) <= 10 + 6
