"""From a CT's own grid to the bank's isotropic one, and back. Pure functions on arrays.

The new grid keeps the directions of the old one, so an oblique volume stays oblique and all interpolation is separable:
one small sparse matrix per axis, applied plane by plane.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipeline.case import FloatArray, Int16Array, UInt8Array

SAME_SPACING = 1e-3  # relative; below it a volume is taken as it is
SMOOTH_ABOVE = 1.5  # linear interpolation alone skips voxels when it shrinks a volume by more than this
FWHM = 2 * math.sqrt(2 * math.log(2))

Shape = tuple[int, int, int]
Plane = npt.NDArray[np.float32]
Matrices = tuple[Any, Any, Any]  # per axis a csr array (n_out, n_in)


def isotropic_grid(shape: Shape, affine: FloatArray, spacing_mm: float) -> tuple[Shape, FloatArray]:
    """The isotropic grid with the same centre, directions and extent (to half a voxel) as the given one.

    `affine` (4, 4) maps voxel indices to mm. A grid that has the spacing already (within 0.1 %) is returned unchanged.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(sizes / spacing_mm - 1).max() <= SAME_SPACING:
        return shape, affine
    x, y, z = (max(1, round(n * size / spacing_mm)) for n, size in zip(shape, sizes.tolist(), strict=True))
    grid = np.eye(4)
    grid[:3, :3] = affine[:3, :3] / sizes * spacing_mm
    centre = affine[:3, :3] @ ((np.asarray(shape) - 1) / 2) + affine[:3, 3]
    grid[:3, 3] = centre - grid[:3, :3] @ ((np.array((x, y, z)) - 1) / 2)
    return (x, y, z), grid


def resample_ct(ct: Int16Array, affine: FloatArray, spacing_mm: float) -> tuple[Int16Array, FloatArray]:
    """CT (X, Y, Z) in HU on its `isotropic_grid`: linear, smoothed first along axes that shrink by more than 1.5."""
    shape, grid = isotropic_grid(_shape(ct), affine, spacing_mm)
    if grid is affine:
        return ct, affine
    out = np.empty(shape, np.int16)
    for i, plane in enumerate(_planes(ct, _matrices(_shape(ct), affine, shape, grid)[1])):
        out[i] = np.rint(plane)
    return out, grid


def resample_labels(labels: UInt8Array, affine: FloatArray, spacing_mm: float) -> tuple[UInt8Array, FloatArray]:
    """Class ids (X, Y, Z) on the same grid as `resample_ct`; see `resample_labels_to` for the rule."""
    shape, grid = isotropic_grid(_shape(labels), affine, spacing_mm)
    return (labels, affine) if grid is affine else (resample_labels_to(labels, affine, shape, grid), grid)


def resample_labels_to(
    labels: UInt8Array, affine: FloatArray, target_shape: Shape, target_affine: FloatArray
) -> UInt8Array:
    """Class ids on another grid whose axes are parallel to this one's, in any order and direction.

    Every class is interpolated as a linear map of its own and the largest wins (background on a tie), which keeps
    surfaces smooth where nearest neighbours make steps. Outside the source everything is background.
    """
    order, matrices = _matrices(_shape(labels), affine, target_shape, target_affine)
    labels = labels.transpose(order)
    out = np.zeros(target_shape, np.uint8)
    classes = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
    best = np.zeros(target_shape, np.float32)
    for i, plane in enumerate(_planes(labels == 0, matrices)):
        best[i] = plane
    for class_id in classes[classes > 0]:
        _paint(labels == class_id, int(class_id), matrices, best, out)
    return out


def _paint(mask: npt.NDArray[np.bool_], class_id: int, matrices: Matrices, best: Plane, out: UInt8Array) -> None:
    """Give `class_id` to the voxels of `out` where this class beats `best`, inside the class's box only."""
    inside = [_span(mask, axis) for axis in range(3)]
    reached = [_reach(matrix, span) for matrix, span in zip(matrices, inside, strict=True)]
    if any(span.start == span.stop for span in reached):
        return
    wx, wy, wz = (m[r][:, s] for m, r, s in zip(matrices, reached, inside, strict=True))
    best_box, out_box = best[tuple(reached)], out[tuple(reached)]
    for i, plane in enumerate(_planes(mask[tuple(inside)], (wx, wy, wz))):
        wins = plane > best_box[i]
        best_box[i][wins] = plane[wins]
        out_box[i][wins] = class_id


def _span(mask: npt.NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last index along `axis` that holds a true voxel."""
    other = tuple(a for a in range(3) if a != axis)
    hits = np.flatnonzero(mask.any(axis=other))
    return slice(int(hits[0]), int(hits[-1]) + 1)


def _reach(matrix: Any, span: slice) -> slice:
    """The output indices that the input indices of `span` contribute to."""
    hits = np.flatnonzero(np.diff(matrix[:, span].indptr))
    return slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0)


def _planes(volume: npt.NDArray[Any], matrices: Matrices) -> Iterator[Plane]:
    """The resampled volume, plane by plane along its first axis: floats of the whole volume never exist at once."""
    wx, wy, wz = matrices
    done: dict[int, Plane] = {}
    for start, stop in zip(wx.indptr[:-1], wx.indptr[1:], strict=True):
        needed = wx.indices[start:stop].tolist()
        done = {k: done[k] if k in done else _in_plane(volume[k], wy, wz) for k in needed}
        total = np.zeros((wy.shape[0], wz.shape[0]), np.float32)
        for k, weight in zip(needed, wx.data[start:stop], strict=True):
            total += weight * done[k]
        yield total


def _in_plane(plane: npt.NDArray[Any], wy: Any, wz: Any) -> Plane:
    half: Plane = wy @ plane.astype(np.float32)
    full: Plane = wz @ half.T
    return full.T


def _matrices(
    shape: Shape, affine: FloatArray, target_shape: Shape, target_affine: FloatArray
) -> tuple[tuple[int, ...], Matrices]:
    """For each target axis: which source axis runs along it, and the matrix that interpolates along it."""
    index_map = np.linalg.inv(affine) @ target_affine  # target voxel index -> source voxel index
    order = tuple(int(a) for a in np.abs(index_map[:3, :3]).argmax(axis=0))
    along = index_map[order, range(3)]
    across = index_map[:3, :3].copy()
    across[order, range(3)] = 0
    drift = float((np.abs(across) * np.asarray(target_shape)).sum(axis=1).max())
    if sorted(order) != [0, 1, 2] or drift > 0.5:
        raise ValueError(f"the two grids are not parallel (their axes drift apart by {drift:.1f} voxels)")
    wx, wy, wz = (
        axis_weights(shape[a], target_shape[t], float(along[t]), float(index_map[a, 3])) for t, a in enumerate(order)
    )
    return order, (wx, wy, wz)


def axis_weights(n_in: int, n_out: int, step: float, start: float) -> Any:
    """Sparse (n_out, n_in) float32 matrix that interpolates linearly at the input positions `start + step * j`.

    Positions up to half a voxel outside take the edge voxel, those farther out get an empty row. For |step| > 1.5 the
    input is smoothed first with the Gaussian whose variance is the difference of two box-like resolutions,
    sigma^2 = (step^2 - 1) / FWHM^2 voxels^2 (Cardoso et al., MICCAI 2015, "Scale factor point spread function").
    """
    position = start + step * np.arange(n_out)
    rows = np.flatnonzero((position > -0.5 - 1e-6) & (position < n_in - 0.5 + 1e-6))
    inside = np.clip(position[rows], 0, n_in - 1)
    lower = np.minimum(inside.astype(np.int64), max(n_in - 2, 0))
    share = inside - lower
    values = np.concatenate([1 - share, share])
    columns = np.concatenate([lower, np.minimum(lower + 1, n_in - 1)])
    matrix = sparse.csr_array((values, (np.tile(rows, 2), columns)), shape=(n_out, n_in))
    if abs(step) > SMOOTH_ABOVE:
        matrix = matrix @ _gaussian_matrix(n_in, math.sqrt(step**2 - 1) / FWHM)
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def _gaussian_matrix(n: int, sigma: float) -> Any:
    """Smoothing along one axis, cut at 3 sigma; rows sum to 1, also at the edges."""
    reach = min(math.ceil(3 * sigma), n - 1)
    offsets = range(-reach, reach + 1)
    matrix = sparse.diags_array(
        [math.exp(-0.5 * (o / sigma) ** 2) for o in offsets], offsets=list(offsets), shape=(n, n)
    ).tocsr()
    return sparse.diags_array(1 / matrix.sum(axis=1)) @ matrix


def _shape(array: npt.NDArray[Any]) -> Shape:
    x, y, z = array.shape
    return x, y, z
