"""Hashed smooth fields: a pure function of position, of unit variance, smooth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.synthesis.fields import lattice, smooth_field

CPU = torch.device("cpu")


def _axes(starts: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, z = (np.arange(start, start + n) * 1.0 for start, n in zip(starts, shape, strict=True))
    return x, y, z


def test_any_part_of_a_field_can_be_computed_alone() -> None:
    whole = smooth_field(5, _axes((-10, -10, -10), (30, 30, 30)), 3.7, CPU)
    part = smooth_field(5, _axes((-3, 4, 0), (8, 9, 10)), 3.7, CPU)
    assert torch.equal(part, whole[7:15, 14:23, 10:20])


def test_a_lattice_window_is_a_part_of_the_lattice() -> None:
    whole = lattice(9, (-4, -4, -4), (9, 9, 9))
    assert np.array_equal(lattice(9, (-1, 0, 2), (3, 4, 2)), whole[3:6, 4:8, 6:8])


@pytest.mark.parametrize("key", [0, 1, 2**62 + 12345])
def test_fields_have_mean_0_and_sd_1(key: int) -> None:
    field = smooth_field(key, _axes((0, 0, 0), (96, 96, 96)), 3.0, CPU)
    assert abs(float(field.mean())) < 0.1
    assert 0.85 < float(field.std()) < 1.15


def test_fields_are_smooth_at_their_grain() -> None:
    field = smooth_field(3, _axes((0, 0, 0), (64, 64, 64)), 6.0, CPU)
    step = (field[1:] - field[:-1]).std()
    far = (field[24:] - field[:-24]).std()
    assert step < 0.35 * far


def test_different_keys_and_axes_are_independent() -> None:
    a, b = (lattice(key, (0, 0, 0), (16, 16, 16)).ravel() for key in (41, 42))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    grid = lattice(41, (0, 0, 0), (16, 16, 16))
    assert abs(np.corrcoef(grid.ravel(), grid.transpose(1, 0, 2).ravel())[0, 1]) < 0.1
