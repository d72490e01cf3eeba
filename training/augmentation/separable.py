"""Linear maps of a volume that are one matrix an axis: Gaussian blur, coarser scans, smooth fields.

The matrices are made on the host, float64 (rows out, columns in). As products they cost less than convolutions or
gathers at the sizes of patches, and keep to float32 on GPUs, where convolutions may not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Matrix = npt.NDArray[np.float64]
_REACH_SD = 4  # where the Gaussian is cut


def along_axes(volume: Tensor, matrices: Sequence[Matrix]) -> Tensor:
    """Volumes (..., I, J, K) float32 times a matrix (X, I), (Y, J), (Z, K) an axis: (..., X, Y, Z)."""
    first, second, third = (to_device(matrix.astype(np.float32), volume.device) for matrix in matrices)
    volume = second @ (volume @ third.T)
    return (first @ volume.flatten(-2)).view(*volume.shape[:-3], -1, *volume.shape[-2:])


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Small host values on the device, which is not waited for."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def gaussian(n: int, sd_vox: float) -> Matrix:
    """A blur (n, n) with its kernel sampled at voxel centres; edges are mirrored, so a constant stays one."""
    reach = int(_REACH_SD * sd_vox + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sd_vox) ** 2) if reach else np.ones(1)
    rows = np.arange(n)[:, None]
    columns = mirrored(rows + steps, n)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (rows, columns), weights / weights.sum())
    return matrix


def coarser(n: int, resolution: float) -> Matrix:
    """A scan of fewer voxels and back (n, n): each coarse voxel is the nearest fine one, the way back is linear."""
    held = max(1, round(n * resolution))
    nearest = np.floor((np.arange(held) + 0.5) * (n / held)).astype(np.int64)
    at = np.clip((np.arange(n) + 0.5) * (held / n) - 0.5, 0, held - 1)
    low = np.minimum(np.floor(at).astype(np.int64), max(0, held - 2))
    high = np.minimum(low + 1, held - 1)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n), nearest[low]), 1 - (at - low))
    np.add.at(matrix, (np.arange(n), nearest[high]), at - low)
    return matrix


def spline(n: int, spacing_vox: float) -> Matrix:
    """From control values that lie `spacing_vox` apart to n voxels: cubic B-splines (n, m).

    Scaled so that independent control values of SD 1 give voxels of SD 1, on average over places: the squared cubic
    B-spline has the integral 151/315.
    """
    at = np.arange(n) / spacing_vox
    control = np.arange(-1, math.floor(at[-1]) + 3)
    d = np.abs(at[:, None] - control)
    values = np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.clip(2 - d, 0, None) ** 3 / 6)
    return values * math.sqrt(315 / 151)


def mirrored(index: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Indices beyond an edge of n voxels as those of a mirror at the voxels' outer faces: b a | a b c | c b."""
    folded = index % (2 * n)
    return np.minimum(folded, 2 * n - 1 - folded)
