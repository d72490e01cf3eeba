"""Applying a spec: `synthesise(case, spec)` gives image and label; `render` also says which voxels are which tumor.

Work happens only in each tumor's box. All arithmetic is float32 additions, multiplications, divisions and square roots
on one box at a time, so the result does not depend on batching, threads or the order of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cc3d
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pipeline.case import AIR_HU, HU_RANGE, Case
from pipeline.grid import Index3, Slices3, crop, index3, slices3
from pipeline.organs import organ_id, tumor_id
from pipeline.synthesis import effects, shape, texture
from pipeline.synthesis.fields import Axes
from pipeline.synthesis.location import GAP_VOXELS

if TYPE_CHECKING:  # spec.py draws with location.py of this room
    from pipeline.spec import SampleSpec, TumorSpec

MIN_VOXELS = 5  # a tumor that the organ's border cuts to less is left out, image and label
_SHADING_MM = 4.0
_HALO = 4  # voxels around a box that the smoothing of the donor looks at


@dataclass(frozen=True)
class Instance:
    """One tumor as it came out: its box in the patch and its voxels in that box."""

    tumor: TumorSpec
    box: Slices3
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rendered:
    """Image int16 HU and label uint8, both (X, Y, Z), and the tumors in them."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    instances: tuple[Instance, ...]


def synthesise(
    case: Case, spec: SampleSpec, device: str = "cpu"
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """The image (int16 HU) and label (uint8 class ids) of a sample, (X, Y, Z), as numpy arrays. Pure."""
    rendered = render(case, spec, device)
    return rendered.image, rendered.label


def render(case: Case, spec: SampleSpec, device: str = "cpu") -> Rendered:
    """Cut the healthy patch and put the spec's tumors into it, one after the other."""
    image = crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU)
    label = _labelled(crop(case.organs, spec.origin_vox, spec.patch_shape, 0), spec.organs)
    instances = []
    with torch.inference_mode():
        for tumor in spec.tumors:
            instance = _insert(case, spec, tumor, image, label, torch.device(device))
            if instance is not None:
                instances.append(instance)
    return Rendered(image, label, tuple(instances))


def _labelled(ids: npt.NDArray[np.uint8], organs: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """Class ids with everything but these organs and their tumors as background."""
    kept = np.zeros(ids.shape, bool)
    for organ in organs:
        for class_id in (organ_id(organ), tumor_id(organ)):
            kept |= ids == class_id
    return ids * kept


def _tumor_box(case: Case, spec: SampleSpec, tumor: TumorSpec) -> tuple[Index3, Index3] | None:
    """Half-open patch box (low, high) of the voxels a tumor can touch; None when it misses the patch."""
    rotation, half_axes = np.array(tumor.rotation), np.array(tumor.half_axes_mm)
    extent = np.sqrt(((rotation * half_axes[:, None]) ** 2).sum(axis=0))  # of the rotated ellipsoid along each axis
    extent = (extent + 3.3 * tumor.deformation_mm + tumor.edge_mm / 2) / case.spacing_mm + 1
    center = np.array(tumor.center_vox) - spec.origin_vox
    low = np.maximum(np.floor(center - extent), 0).astype(int)
    high = np.minimum(np.ceil(center + extent) + 1, spec.patch_shape).astype(int)
    if np.any(low >= high):
        return None
    return index3(low), index3(high)


def _insert(
    case: Case,
    spec: SampleSpec,
    tumor: TumorSpec,
    image: npt.NDArray[np.int16],
    label: npt.NDArray[np.uint8],
    device: torch.device,
) -> Instance | None:
    """Put one tumor into image and label in place; None when fewer than MIN_VOXELS of it fit."""
    found = _tumor_box(case, spec, tumor)
    if found is None:
        return None
    low, high = found
    box, size, corner = slices3(low, high), index3(np.subtract(high, low)), index3(np.add(low, spec.origin_vox))
    axes = _axes_mm(tumor, corner, size, case.spacing_mm)
    depth = shape.depth_mm(tumor, axes, device)
    alpha = shape.soft_mask(depth, tumor.edge_mm)
    alpha.mul_(_room(case, tumor, corner, label, box, device))
    mask, crumbs = _one_component(alpha)
    if np.count_nonzero(mask) < MIN_VOXELS:
        return None
    if crumbs:  # what is not labelled must not be painted either
        alpha.mul_(_grown(torch.from_numpy(mask), round(tumor.edge_mm / case.spacing_mm) + 1, device))
    tissue = _tissue(case, tumor, corner, size, device)
    profile = _profile(tumor, depth, axes)
    tissue.add_(profile).add_(texture.level(tumor.contrast_hu, profile, alpha, torch.from_numpy(mask).to(device)))
    healthy = torch.from_numpy(image[box]).to(device, torch.float32)
    blended = healthy.add(alpha * (tissue - healthy)).round_().clamp_(*HU_RANGE)
    image[box] = torch.where(alpha > 0, blended, healthy).to(torch.int16).cpu().numpy()
    label[box][mask] = tumor_id(tumor.organ)
    return Instance(tumor, box, mask)


def _axes_mm(tumor: TumorSpec, corner: Index3, size: Index3, spacing_mm: float) -> Axes:
    """Coordinates of the box's voxels relative to the tumor's centre, mm, one array an axis."""
    x, y, z = (
        (np.arange(start, start + n, dtype=np.float64) - center) * spacing_mm
        for start, n, center in zip(corner, size, tumor.center_vox, strict=True)
    )
    return x, y, z


def _room(
    case: Case, tumor: TumorSpec, corner: Index3, label: npt.NDArray[np.uint8], box: Slices3, device: torch.device
) -> torch.Tensor:
    """Where the tumor may be, 0 to 1: in its organ, fading over the last voxel below the surface, apart from others."""
    inside = label[box] == organ_id(tumor.organ)
    # Whole sixteenths of a voxel: float16 mm would put the outermost voxels a hair off the label's threshold.
    surface = crop(case.surface_distance_mm, corner, inside.shape, 0).astype(np.float64) / case.spacing_mm
    room = torch.from_numpy((np.rint(16 * surface) / 32).astype(np.float32)).to(device).clamp_(0, 1)
    room.mul_(torch.from_numpy(inside).to(device))
    others = label[box] == tumor_id(tumor.organ)
    if others.any():
        room.mul_(1 - _grown(torch.from_numpy(others), GAP_VOXELS, device))
    return room


def _one_component(alpha: torch.Tensor) -> tuple[npt.NDArray[np.bool_], bool]:
    """The largest 26-connected piece of the voxels that are at least half tumor, and whether there were others."""
    mask = (alpha >= 0.5).cpu().numpy()
    pieces, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    if count <= 1:
        return mask, False
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    return pieces == largest, True


def _grown(mask: torch.Tensor, voxels: int, device: torch.device) -> torch.Tensor:
    """A boolean mask dilated by a cube of `voxels`, as 0 and 1 in float32."""
    grown = mask.to(device, torch.float32)[None, None]
    for axis in range(3):
        window = [1, 1, 1]
        window[axis] = 2 * voxels + 1
        padding = [w // 2 for w in window]
        grown = F.max_pool3d(grown, window, 1, padding=padding)
    return grown[0, 0]


def _tissue(case: Case, tumor: TumorSpec, corner: Index3, size: Index3, device: torch.device) -> torch.Tensor:
    """HU of the box as plain tissue of the organ: without vessels, with the donor's noise. (X, Y, Z) float32."""
    stats = case.stats[tumor.organ]
    start, around = index3(np.subtract(corner, _HALO)), index3(np.add(size, 2 * _HALO))
    ct = torch.from_numpy(crop(case.ct, start, around, AIR_HU)).to(device, torch.float32)
    organ = crop(case.organs, start, around, 0) == organ_id(tumor.organ)
    plain = organ & (crop(case.vessels, start, around, 0) == 0)
    cell = max(1, round(_SHADING_MM / case.spacing_mm))
    base = texture.parenchyma(ct, torch.from_numpy(plain).to(device, torch.float32), stats.mean_hu, cell)
    inner = tuple(slice(_HALO, _HALO + n) for n in size)
    passes = 2 if case.spacing_mm < 2 else 1
    return base[inner] + texture.fine_noise(ct, _HALO, passes, stats.sd_hu)


def _profile(tumor: TumorSpec, depth: torch.Tensor, axes: Axes) -> torch.Tensor:
    """What the tumor's structure and rim add to plain tissue, HU, (X, Y, Z) float32."""
    profile = texture.structure(tumor, axes, depth.device)
    return profile.add_(effects.rim(depth, tumor.rim_hu, tumor.rim_mm)) if tumor.rim_hu else profile
