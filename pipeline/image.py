"""An image in memory, `Volume`, and what every CT or mask must be, whatever file it came from.

Anything that breaks a rule is refused with one InputError that names the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from pipeline.case import HU_RANGE, FloatArray, Int16Array
from pipeline.errors import InputError

MAX_EXTENT = 2048  # voxels along one axis; the largest CT matrices in use are 1024 wide, whole bodies 2000 slices long
MAX_VOXELS = 1_500_000_000
SPACING_RANGE_MM = (0.1, 20.0)  # micro-CT lies below, a header in metres or micrometres outside
MAX_SHEAR = 0.02  # cosine between voxel axes, about 1 degree; more is a tilted gantry that has to be straightened
MAX_GRID_OFFSET = 0.1  # of a voxel, at any corner; headers of the same grid differ by rounding, far below this
AIR_BELOW_HU = -500
PADDING_BELOW_HU = -1300  # scanners pad outside the field of view with -2000 or -3024, whatever the offset of the rest
MIN_AIR_SHARE = 1e-4


@dataclass(frozen=True)
class Volume:
    """An image in RAS+ order: `data` (X, Y, Z), `affine` (4, 4) from voxel index to RAS mm."""

    data: npt.NDArray[Any]
    affine: FloatArray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return voxel_sizes_mm(self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.data.shape
        return x, y, z


def voxel_sizes_mm(affine: FloatArray) -> tuple[float, float, float]:
    """Voxel size along each array axis: the lengths of the affine's columns."""
    x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def to_ras(data: npt.NDArray[Any], affine: FloatArray) -> Volume:
    """Flip and swap array axes until they run closest to right, anterior, superior. An oblique grid stays oblique."""
    turn = nib.io_orientation(affine)
    turned = np.ascontiguousarray(nib.apply_orientation(data, turn))
    return Volume(turned, np.asarray(affine @ nib.orientations.inv_ornt_aff(turn, data.shape), np.float64))


def check_shape(shape: tuple[int, ...], where: str) -> None:
    """Refuse images that are not 3-D, empty, or too large to be one CT."""
    if len(shape) != 3:
        raise InputError(f"{where}: a CT or mask has 3 dimensions, this image has {len(shape)}: {_times(shape)}")
    if min(shape) < 1 or max(shape) > MAX_EXTENT or math.prod(shape) > MAX_VOXELS:
        raise InputError(
            f"{where}: each dimension must be 1 to {MAX_EXTENT} and the image at most {MAX_VOXELS:,} voxels, "
            f"the header says {_times(shape)}; the file is corrupt or not a CT"
        )


def check_affine(affine: FloatArray, where: str) -> None:
    """Refuse affines that place voxels nowhere: not finite, singular, absurd spacing, sheared."""
    if not np.isfinite(affine).all():
        raise InputError(f"{where}: the affine holds NaN or infinity; write the image again with a valid affine")
    sizes = voxel_sizes_mm(affine)
    if min(sizes) == 0 or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * math.prod(sizes):
        raise InputError(f"{where}: the affine is singular (voxel sizes {_mm(sizes)}); write the image again")
    if min(sizes) < SPACING_RANGE_MM[0] or max(sizes) > SPACING_RANGE_MM[1]:
        raise InputError(
            f"{where}: absurd spacing {_mm(sizes)}, a CT has {SPACING_RANGE_MM[0]} to {SPACING_RANGE_MM[1]} mm; "
            "if the header counts in metres or micrometres, write it in mm"
        )
    axes = affine[:3, :3] / np.asarray(sizes)
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > MAX_SHEAR:
        raise InputError(
            f"{where}: voxel axes are not at right angles (cosine {shear:.2f}), as after a tilted gantry; "
            "resample the image onto a straight grid first"
        )


def check_same_grid(image: Volume, mask: Volume, image_name: str, mask_name: str) -> None:
    """Refuse a mask that does not lie on its CT's grid. Both in RAS+ order, so only the affines decide."""
    if image.shape != mask.shape:
        found = f"shapes {_times(image.shape)} and {_times(mask.shape)}"
    else:
        offset = _largest_offset_mm(image, mask)
        if offset <= MAX_GRID_OFFSET * min(image.spacing_mm):
            return
        found = f"both are {_times(image.shape)} but their affines differ by up to {offset:.2f} mm"
    raise InputError(
        f"{mask_name}: the mask is not on the grid of {image_name}: {found} "
        f"(CT: {_placement(image)}; mask: {_placement(mask)}). Resample the mask onto the CT grid first"
    )


def hounsfield(slices: Iterable[npt.NDArray[Any]], shape: tuple[int, int, int], where: str) -> Int16Array:
    """Stack scaled slices (X, Y) of a CT into int16 HU (X, Y, Z), refusing what cannot be HU.

    `slices` is consumed one by one: the floats of a whole CT never exist at once.
    """
    hu = np.empty(shape, np.int16, order="F")
    low, high, air = math.inf, -math.inf, 0
    for k, plane in enumerate(slices):
        _check_finite(plane, where)
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        air += int(np.count_nonzero((plane < AIR_BELOW_HU) & (plane > PADDING_BELOW_HU)))
        hu[..., k] = np.clip(plane if plane.dtype.kind == "i" else np.rint(plane), *HU_RANGE)
    if air < max(1, MIN_AIR_SHARE * hu.size):
        raise InputError(
            f"{where}: a CT in HU holds air below {AIR_BELOW_HU} HU, this image has {low:g} to {high:g}: "
            f"{_likely_scale(low, high, hu)}"
        )
    return hu


def _likely_scale(low: float, high: float, hu: Int16Array) -> str:
    if low >= 0 and high <= 1:
        return "it looks scaled to 0..1; give the original image in HU"
    if low >= 0 and high <= 255:
        return "it looks scaled to 0..255 (a grey picture); give the original image in HU"
    if np.percentile(hu, 95) > 900:  # soft tissue at 1024; in HU, bone fills less than 5 % of any scan
        return "it looks offset by +1024 (water at 1024); apply the rescale intercept, HU = value - 1024"
    if low >= -20 and high <= 20:
        return "it looks normalised to mean 0; give the original image in HU"
    return "it looks clipped to a window, cropped inside the body, or is not a CT; give the original image in HU"


def whole_numbers(
    slices: Iterable[npt.NDArray[Any]], shape: tuple[int, int, int], where: str
) -> npt.NDArray[np.integer]:
    """Stack the slices (X, Y) of a mask or label map into uint8, or int32 beyond 0..255, refusing fractions."""
    labels = np.empty(shape, np.int32, order="F")
    for k, plane in enumerate(slices):
        if plane.dtype.kind == "f":
            _check_finite(plane, where)
            _check_whole(plane, where)
        largest = max(abs(float(plane.min())), abs(float(plane.max())))
        if largest > np.iinfo(np.int32).max:
            raise InputError(f"{where}: a mask holds small whole numbers, this one goes to {largest:.3g}")
        labels[..., k] = np.rint(plane) if plane.dtype.kind == "f" else plane
    return labels.astype(np.uint8) if labels.min() >= 0 and labels.max() <= 255 else labels


def _check_whole(plane: npt.NDArray[Any], where: str) -> None:
    fractions = plane[np.abs(plane - np.rint(plane)) > 1e-3]
    if fractions.size:
        raise InputError(
            f"{where}: a mask holds whole numbers, this one holds {float(fractions[0]):.4g}; "
            "threshold probabilities, and resample masks with nearest neighbours"
        )


def _check_finite(plane: npt.NDArray[Any], where: str) -> None:
    if not np.isfinite(plane).all():
        raise InputError(f"{where}: the image holds NaN or infinite values; replace them (air is -1000 HU) first")


def _largest_offset_mm(image: Volume, mask: Volume) -> float:
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in image.shape], [1], indexing="ij"), axis=-1).reshape(-1, 4)
    return float(np.linalg.norm((corners @ (image.affine - mask.affine).T)[:, :3], axis=1).max())


def _placement(volume: Volume) -> str:
    origin = ", ".join(f"{value:.1f}" for value in volume.affine[:3, 3])
    return f"{_times(volume.shape)} voxels of {_mm(volume.spacing_mm)}, first voxel at ({origin}) mm RAS"


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _mm(sizes: Iterable[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes) + " mm"
