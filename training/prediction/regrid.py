"""Class ids and probabilities from the network's grid onto a CT's own, slab by slab. Pure functions on arrays."""

from __future__ import annotations

import itertools
import math

import numpy as np

from pipeline.case import Float16Array, FloatArray, UInt8Array
from pipeline.grid import Index3, Slices3, shifted_affine, slices3
from pipeline.resample import FWHM, SMOOTH_ABOVE, axis_weights, resample_labels_to
from training.network import Shape3

SLAB_VOXELS = 2**24  # of the result at a time: interpolation needs a float32 for each of them


def labels_onto(labels: UInt8Array, affine: FloatArray, shape: Shape3, target_affine: FloatArray) -> UInt8Array:
    """`resample_labels_to` without floats for the whole result: class ids on a parallel grid of `shape`."""
    out = np.zeros(shape, np.uint8)
    depth = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for low in range(0, shape[0], depth):
        slab = (min(depth, shape[0] - low), shape[1], shape[2])
        slab_affine = shifted_affine(target_affine, (low, 0, 0))
        origin, box = _needed(labels.shape, affine, slab, slab_affine)
        if all(part.stop > part.start for part in box):
            source = labels[box]
            out[low : low + depth] = resample_labels_to(source, shifted_affine(affine, origin), slab, slab_affine)
    return out


def values_onto(values: Float16Array, affine: FloatArray, shape: Shape3, target_affine: FloatArray) -> Float16Array:
    """Values (X, Y, Z) on a grid of `shape` whose axes run along theirs: linear, smoothed where the grid is coarser.

    Half precision in and out, single precision for one plane at a time. Outside the source everything is 0.
    """
    index_map = np.linalg.inv(affine) @ target_affine
    if not np.allclose(index_map[:3, :3], np.diag(np.diagonal(index_map[:3, :3])), atol=1e-6):
        raise ValueError(f"the two grids turn against each other:\n{index_map}")
    wx, wy, wz = (
        axis_weights(n, m, float(index_map[a, a]), float(index_map[a, 3]))
        for a, (n, m) in enumerate(zip(values.shape, shape, strict=True))
    )
    out = np.zeros(shape, np.float16)
    for i, (start, stop) in enumerate(itertools.pairwise(wx.indptr)):
        plane = np.zeros(values.shape[1:], np.float32)
        for k, weight in zip(wx.indices[start:stop], wx.data[start:stop], strict=True):
            plane += weight * values[k]
        out[i] = (wz @ (wy @ plane).T).T
    return out


def _needed(
    shape: tuple[int, ...], affine: FloatArray, target_shape: Shape3, target_affine: FloatArray
) -> tuple[Index3, Slices3]:
    """First voxel and box of all source voxels that interpolation and smoothing on the target grid look at."""
    index_map = np.linalg.inv(affine) @ target_affine
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in target_shape))]) @ index_map.T
    low, high = [], []
    for axis, n in enumerate(shape):
        margin = 2 + _smoothing_reach(float(np.abs(index_map[axis, :3]).max()))
        low.append(min(max(0, math.floor(corners[:, axis].min()) - margin), n))
        high.append(max(low[axis], min(n, math.ceil(corners[:, axis].max()) + margin + 1)))
    x, y, z = low
    return (x, y, z), slices3(low, high)


def _smoothing_reach(step: float) -> int:
    """Voxels to each side that `pipeline.resample.axis_weights` smooths over when it takes every `step`-th voxel."""
    return math.ceil(3 * math.sqrt(step**2 - 1) / FWHM) if step > SMOOTH_ABOVE else 0
