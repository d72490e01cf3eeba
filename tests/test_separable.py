from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import interpolate, ndimage
from torch.nn import functional as F

from training.augmentation.separable import along_axes, coarser, gaussian, spline


def test_a_matrix_an_axis_maps_every_line_along_it() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(2, 3, 4, 5))
    matrices = [rng.normal(size=shape) for shape in ((6, 3), (7, 4), (2, 5))]
    out = along_axes(torch.from_numpy(volume.astype(np.float32)), matrices)
    assert out.shape == (2, 6, 7, 2)
    expected = np.einsum("cijk,xi,yj,zk->cxyz", volume, *matrices)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("n", "sd"), [(20, 1.0), (20, 0.5), (5, 1.3), (2, 3.0), (1, 1.0), (7, 0.1)])
def test_blur_is_that_of_scipy(n: int, sd: float) -> None:
    line = np.random.default_rng(2).normal(size=n)
    np.testing.assert_allclose(gaussian(n, sd) @ line, ndimage.gaussian_filter1d(line, sd, mode="reflect"), atol=1e-12)


def test_no_blur_is_the_identity() -> None:
    assert np.array_equal(gaussian(5, 0.0), np.eye(5))


@pytest.mark.parametrize("n", [1, 2, 7, 32, 48])
@pytest.mark.parametrize("resolution", [0.01, 0.5, 0.61, 0.9, 1.0])
def test_a_coarser_scan_is_nearest_down_and_linear_up(n: int, resolution: float) -> None:
    line = torch.from_numpy(np.random.default_rng(3).normal(size=(1, 1, n)))
    held = max(1, round(n * resolution))
    coarse = F.interpolate(line, size=held, mode="nearest-exact")
    expected = F.interpolate(coarse, size=n, mode="linear", align_corners=False)
    np.testing.assert_allclose(coarser(n, resolution) @ line[0, 0].numpy(), expected[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize(("n", "spacing"), [(1, 4.0), (9, 4.0), (30, 7.3), (12, 40.0)])
def test_splines_are_cubic_and_reach_over_the_whole_line(n: int, spacing: float) -> None:
    matrix = spline(n, spacing) / np.sqrt(315 / 151)
    np.testing.assert_allclose(matrix.sum(1), 1)
    basis = interpolate.BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
    distance = np.arange(n)[:, None] / spacing - (np.arange(matrix.shape[1]) - 1)
    np.testing.assert_allclose(matrix, np.nan_to_num(basis(distance)), atol=1e-12)


def test_control_values_of_sd_one_give_voxels_of_sd_one() -> None:
    variance = (spline(4000, 8.0) ** 2).sum(1)  # of independent control values
    assert variance.mean() == pytest.approx(1, abs=0.01)
