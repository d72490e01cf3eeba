"""What a worse scan does to an image: noise, thick slices. Pure functions of HU arrays (X, Y, Z); labels stay."""

from __future__ import annotations

import math

import numpy as np

from pipeline.case import HU_RANGE, FloatArray, Int16Array

_NOISE = 0x401  # tells this use of a sample's seed from others


def with_noise(image: Int16Array, sd_hu: float, seed: int, index: int) -> Int16Array:
    """White Gaussian noise on every voxel; a sample's noise is one field, scaled, at every SD."""
    if sd_hu == 0:
        return image
    rng = np.random.default_rng(np.random.SeedSequence((seed, index, _NOISE)))
    return _hounsfield(image + sd_hu * rng.standard_normal(image.shape))


def with_thick_slices(image: Int16Array, thickness_mm: float, spacing_mm: float) -> Int16Array:
    """As if scanned in slices of `thickness_mm` along Z, then brought back to the grid by linear interpolation.

    Slices follow each other without gap or overlap from the first voxel's lower edge; each is the mean of what it
    covers. The last one may cover less. Beyond the outermost slice centres their value stands.
    """
    if thickness_mm <= spacing_mm:
        return image
    n, per_slice = image.shape[2], thickness_mm / spacing_mm
    # Half a millionth: an extent of whole slices must not give one more by a rounding error.
    edges = np.minimum(np.arange(math.ceil(n / per_slice - 5e-7) + 1) * per_slice, n)
    means = np.diff(_integral(image, edges)) / np.diff(edges)
    at = np.clip((np.arange(n) + 0.5) / per_slice - 0.5, 0, means.shape[2] - 1)
    lower = np.minimum(at.astype(int), means.shape[2] - 1)
    upper = np.minimum(lower + 1, means.shape[2] - 1)
    share = at - lower
    return _hounsfield(means[:, :, lower] * (1 - share) + means[:, :, upper] * share)


def _integral(image: Int16Array, edges: FloatArray) -> FloatArray:
    """Integral along Z from the first voxel's lower edge to each edge (in voxels), (X, Y, edges)."""
    total = np.concatenate([np.zeros((*image.shape[:2], 1)), np.cumsum(image, axis=2, dtype=np.float64)], axis=2)
    whole = np.minimum(edges.astype(int), image.shape[2] - 1)
    inside: FloatArray = total[:, :, whole] + image[:, :, whole] * (edges - whole)
    return inside


def _hounsfield(values: FloatArray) -> Int16Array:
    return np.rint(np.clip(values, *HU_RANGE)).astype(np.int16)
