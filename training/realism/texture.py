"""Grain: the residual of an image after its smooth part, and the length over which it stays alike. Pure functions."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from pipeline.grid import bounding_box, slices3
from training.realism.lesions import BoolArray, Float32Array

T = TypeVar("T", bound=np.generic)

SMOOTH_MM = 5.0  # SD of the Gaussian of the local mean: keeps grain of up to about 5 mm, takes gradients away (choice)
MAX_LAG_MM = 15.0
MIN_VOLUME_MM3 = 250.0  # of a region whose grain is measured: a ball of 8 mm (choice)


def residual(hu: Float32Array, region: BoolArray, spacing_mm: float) -> Float32Array:
    """HU minus the local mean within `region` (both X, Y, Z); zero outside it."""
    inside = region.astype(np.float32)
    sigma = SMOOTH_MM / spacing_mm
    weight = ndimage.gaussian_filter(inside, sigma, mode="constant", truncate=2.5)
    mean = ndimage.gaussian_filter(hu * inside, sigma, mode="constant", truncate=2.5) / np.maximum(weight, 1e-6)
    return np.asarray((hu - mean) * inside, np.float32)


def correlation_length_mm(hu: Float32Array, region: BoolArray, spacing_mm: float) -> float | None:
    """First crossing of 1/e by the radial autocorrelation of the residual in `region`, linear between lags.

    None for a region below `MIN_VOLUME_MM3`, without variance, or that does not cross within `MAX_LAG_MM`.
    """
    if np.count_nonzero(region) * spacing_mm**3 < MIN_VOLUME_MM3:
        return None
    box = slices3(*bounding_box(region))
    values = residual(hu[box], region[box], spacing_mm)
    radii, correlations = radial_autocorrelation(values, region[box], spacing_mm)
    below = np.flatnonzero(correlations < math.exp(-1))
    if not below.size:
        return None
    k = int(below[0])
    share = (correlations[k - 1] - math.exp(-1)) / (correlations[k - 1] - correlations[k])
    return float(radii[k - 1] + share * (radii[k] - radii[k - 1]))


def radial_autocorrelation(
    values: Float32Array, region: BoolArray, spacing_mm: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lags in mm and autocorrelation, in shells half a voxel thick; the first is lag 0 with 1.

    All pairs of voxels within `region` that far apart count the same. `values` (X, Y, Z) is zero outside of it.
    """
    centered = values - values[region].mean() * region
    reach = min(math.ceil(MAX_LAG_MM / spacing_mm), max(region.shape))
    products, pairs = _sums_by_lag(centered, reach), _sums_by_lag(region.astype(np.float64), reach)
    offsets = np.arange(-reach, reach + 1)
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(offsets, offsets, offsets, indexing="ij", sparse=True)))
    usable = (pairs > 0.5) & (distance <= reach)
    shell = np.rint(2 * distance[usable]).astype(np.int64)
    weight = np.bincount(shell, weights=pairs[usable])
    shown = weight > 0
    radius = np.bincount(shell, weights=pairs[usable] * distance[usable])[shown] / weight[shown]
    covariance = np.bincount(shell, weights=products[usable])[shown] / weight[shown]
    if covariance[0] <= 0:
        return radius[:1] * spacing_mm, np.ones(1)
    return radius * spacing_mm, covariance / covariance[0]


def _sums_by_lag(values: npt.NDArray[np.floating], reach: int) -> npt.NDArray[np.float64]:
    """Sum of value times value at each lag of -reach to reach along each axis, (2 reach + 1,) * 3."""
    shape = [fft.next_fast_len(size + reach, real=True) for size in values.shape]
    spectrum = fft.rfftn(values.astype(np.float64), shape)
    sums = fft.irfftn(np.abs(spectrum) ** 2, shape)
    wrapped = [np.arange(-reach, reach + 1) % size for size in shape]
    return np.asarray(sums[np.ix_(*wrapped)], np.float64)


def lag_correlation(values: Float32Array, region: BoolArray, lag: int) -> float:
    """Mean over the axes of the autocorrelation at `lag` voxels; NaN where the region is too thin for it."""
    found = []
    for axis in range(3):
        pairs = _pair(region, axis, lag, 0) & _pair(region, axis, lag, 1)
        if np.count_nonzero(pairs) >= 8:
            found.append(_correlation(_pair(values, axis, lag, 0)[pairs], _pair(values, axis, lag, 1)[pairs]))
    return float(np.mean(found)) if found else math.nan


def _pair(array: npt.NDArray[T], axis: int, lag: int, end: int) -> npt.NDArray[T]:
    """The first or the second of each pair of voxels `lag` apart along an axis."""
    size = max(0, array.shape[axis] - lag)
    start = lag if end else 0
    return array[tuple(slice(start, start + size) if a == axis else slice(None) for a in range(3))]


def _correlation(a: Float32Array, b: Float32Array) -> float:
    x, y = (v.astype(np.float64) - float(v.mean(dtype=np.float64)) for v in (a, b))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan
