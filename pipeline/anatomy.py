"""What is measured in a healthy case: vessels, distances, parenchyma, organ statistics, phase, plausibility.

In: CT (HU) and class ids (X, Y, Z) on one isotropic grid. Out: arrays and figures. Pure, no files.
"""

from __future__ import annotations

from collections.abc import Mapping

import cc3d
import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.case import Float16Array, Int16Array, OrganStats, UInt8Array
from pipeline.components import connected_components
from pipeline.errors import InputError
from pipeline.grid import Slices3, bounding_box, slices3
from pipeline.organs import CLASS_NAMES, HOLLOW, TUMOR_ORGANS, is_tumor, organ_id, tumor_id, tumor_organ

NO_VESSEL_MM = 200.0  # distance where an organ has no vessel: farther than any organ is wide

# Vessels show as bright structures only in the liver: kidney cortex, pancreas lobules and colon wall are as bright.
# Published rule (Hu et al., CVPR 2023): smoothed CT above mean + b. Ours compares with the parenchyma around, in units
# of the noise, because livers shade and streak: on 3D-IRCADb-17, whose vessels are outlined by experts, the numbers
# below give precision 0.66 at recall 0.67, and not one component in native CT.
VESSEL_ORGANS = ("liver",)
VESSEL_SMOOTHING_MM = 1.0
PARENCHYMA_SCALE_MM = 12.0  # SD of the window that the local parenchyma is averaged over, wider than any portal branch
VESSEL_NOISE_SDS = 3.0
VESSEL_MIN_CONTRAST_HU = 12.0
VESSEL_MIN_MM3 = 200.0  # noise above 3 SD forms specks of a few voxels
EDGE_MM = 2.0  # at the surface, partial volume with bright neighbours would pass for vessels

# The wall of a hollow organ: soft tissue this near its surface. A distended colon's wall has 1-2 mm, a collapsed one's
# up to 5 mm. Below the range a voxel is part gas or fat, above it holds oral contrast agent; choice.
WALL_MM = 3.0
WALL_HU = (-10, 150)


def find_vessels(ct: Int16Array, organs: UInt8Array, spacing_mm: float) -> UInt8Array:
    """1 inside contrast-filled vessels of the liver, 0 elsewhere; empty where no vessel is brighter than noise."""
    vessels = np.zeros(organs.shape, np.uint8)
    for organ in VESSEL_ORGANS:
        if box := organ_box(organs, organ):
            vessels[box] |= _bright_components(ct[box], organs[box] == organ_id(organ), spacing_mm)
    return vessels


def _bright_components(ct: Int16Array, organ: npt.NDArray[np.bool_], spacing_mm: float) -> npt.NDArray[np.bool_]:
    inner = _distance_mm(organ.astype(np.uint8), spacing_mm) > max(EDGE_MM, spacing_mm)
    nothing = np.zeros_like(organ)
    if not inner.any():
        return nothing
    contrast = _local_contrast(ct, inner, spacing_mm)
    middle, noise = _median_and_sd(contrast[inner])
    bright = inner & (contrast > middle + max(VESSEL_MIN_CONTRAST_HU, VESSEL_NOISE_SDS * noise))
    smallest = max(8, round(VESSEL_MIN_MM3 / spacing_mm**3))
    return np.asarray(cc3d.dust(bright, threshold=smallest, connectivity=26), np.bool_)


def _local_contrast(ct: Int16Array, inner: npt.NDArray[np.bool_], spacing_mm: float) -> npt.NDArray[np.float32]:
    """Smoothed CT minus the parenchyma around each voxel, HU; outliers are clipped out of the parenchyma first."""
    middle, sd = _median_and_sd(ct[inner].astype(np.float32))
    clipped = np.where(inner, np.clip(ct, middle - 2 * sd, middle + 2 * sd), 0).astype(np.float32)
    wide = PARENCHYMA_SCALE_MM / spacing_mm
    share = ndimage.gaussian_filter(inner.astype(np.float32), wide, truncate=2)
    parenchyma = ndimage.gaussian_filter(clipped, wide, truncate=2) / np.maximum(share, 1e-6)
    difference = np.where(inner, ct - parenchyma, 0).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(difference, VESSEL_SMOOTHING_MM / spacing_mm), np.float32)


def _median_and_sd(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Median, and the SD of a Gaussian with the same median absolute deviation: outliers hardly move them."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def surface_distance_mm(organs: UInt8Array, spacing_mm: float) -> Float16Array:
    """Distance of each organ voxel to the nearest voxel of another class, mm; 0 in background.

    The border of the volume counts as surface, as nobody knows how the organ goes on there.
    """
    return _distance_mm(organs, spacing_mm).astype(np.float16)


def vessel_distance_mm(organs: UInt8Array, vessels: UInt8Array, spacing_mm: float) -> Float16Array:
    """Distance of each tumor organ's voxels to the nearest vessel voxel in that organ, mm; 0 elsewhere.

    200 mm throughout an organ without vessels.
    """
    distance = np.zeros(organs.shape, np.float16)
    for organ in TUMOR_ORGANS:
        if box := organ_box(organs, organ):
            inside = organs[box] == organ_id(organ)
            own = inside & (vessels[box] > 0)
            mm = np.float32(NO_VESSEL_MM)
            if own.any():
                mm = np.minimum(edt.edt(~own, anisotropy=(spacing_mm,) * 3), mm)
            distance[box] = np.where(inside, mm, distance[box])
    return distance


def tissue_mask(
    ct: Int16Array, organs: UInt8Array, vessels: UInt8Array, surface_mm: Float16Array, organ: str, spacing_mm: float
) -> npt.NDArray[np.bool_]:
    """Where an organ's parenchyma is: its voxels without vessels, of a hollow organ those of the wall, in any crop.

    Wall is what has WALL_HU within WALL_MM (at least one voxel) of the organ's surface.
    """
    tissue = (organs == organ_id(organ)) & (vessels == 0)
    if organ in HOLLOW:
        tissue &= in_wall(surface_mm, spacing_mm) & _soft(ct)
    return np.asarray(tissue, np.bool_)


def in_wall(surface_mm: Float16Array, spacing_mm: float) -> npt.NDArray[np.bool_]:
    """Voxels of organs that lie within WALL_MM of the surface, at least the outermost layer."""
    reach = np.float16(1.001 * max(WALL_MM, spacing_mm))  # float16 mm may lie a hair above
    return np.asarray((surface_mm > 0) & (surface_mm <= reach), np.bool_)


def _soft(ct: Int16Array) -> npt.NDArray[np.bool_]:
    return np.asarray((ct >= WALL_HU[0]) & (ct <= WALL_HU[1]), np.bool_)


def organ_stats(
    ct: Int16Array, organs: UInt8Array, vessels: UInt8Array, surface_mm: Float16Array, spacing_mm: float
) -> dict[str, OrganStats]:
    """Figures of every organ that has a voxel, by name; tumors are not organs.

    HU are those of `tissue_mask`. Where that is empty (a wall thinner than the voxels), those of all soft tissue of the
    organ, and where there is none, of the whole organ, so that `usable_organs` can refuse a mask that holds only gas.
    """
    stats = {}
    for class_id, name in CLASS_NAMES.items():
        if class_id == 0 or is_tumor(class_id):
            continue
        if box := organ_box(organs, name):
            inside = organs[box] == class_id
            tissue = tissue_mask(ct[box], organs[box], vessels[box], surface_mm[box], name, spacing_mm)
            choices = (tissue, inside & _soft(ct[box]), inside)
            hu = ct[box][next(choice for choice in choices if choice.any())]
            stats[name] = OrganStats(
                volume_ml=int(np.count_nonzero(inside)) * spacing_mm**3 / 1000,
                mean_hu=float(hu.mean()),
                sd_hu=float(hu.std()),
                max_depth_mm=float(surface_mm[box][inside].max()),
            )
    return stats


def usable_organs(stats: Mapping[str, OrganStats], case_id: str, allow_implausible: bool = False) -> list[str]:
    """The tumor organs that are whole enough to take tumors.

    Raises InputError when a volume or mean HU says that a mask is misplaced, or when no organ is usable.
    """
    usable = [o for o in TUMOR_ORGANS if o in stats and stats[o].volume_ml >= tumor_organ(o).volume_ml[0]]
    if not usable:
        raise InputError(f"{case_id}: empty organ: {_emptiness(stats)}. Check that the masks belong to this CT")
    if not allow_implausible:
        for organ in usable:
            _check_plausible(stats[organ], organ, case_id)
    return usable


def lesions(organs: UInt8Array, organ: str) -> npt.NDArray[np.int32]:
    """Voxels of an organ's tumors by lesion, (n, 2): flat C-order index, number of the lesion from 0.

    A lesion is a 26-connected piece of the organ's tumor class.
    """
    mask = organs == tumor_id(organ)
    if not mask.any():
        return np.empty((0, 2), np.int32)
    low, high = bounding_box(mask)
    pieces = connected_components(mask[slices3(low, high)], 26)
    at = np.argwhere(pieces)
    number = pieces[tuple(at.T)].astype(np.int32) - 1
    flat = np.ravel_multi_index(tuple((at + low).T), organs.shape).astype(np.int32)
    return np.stack([flat, number], axis=1)[np.argsort(number, kind="stable")]


def _emptiness(stats: Mapping[str, OrganStats]) -> str:
    found = (
        f"{organ}: {stats[organ].volume_ml:.1f} ml" if organ in stats else f"{organ}: 0 voxels"
        for organ in TUMOR_ORGANS
    )
    needed = (f"{organ} {tumor_organ(organ).volume_ml[0]}" for organ in TUMOR_ORGANS)
    return f"no organ can take a tumor ({', '.join(found)}; at least one must reach, in ml: {', '.join(needed)})"


def _check_plausible(stats: OrganStats, organ: str, case_id: str) -> None:
    largest = tumor_organ(organ).volume_ml[1]
    low, high = tumor_organ(organ).mean_hu
    if stats.volume_ml > largest:
        problem = f"{organ} has {stats.volume_ml:.0f} ml, more than {largest} ml"
    elif not low <= stats.mean_hu <= high:
        problem = f"{organ} has a mean of {stats.mean_hu:.0f} HU, outside {low} to {high} HU"
    else:
        return
    raise InputError(
        f"{case_id}: implausible organ: {problem}; the mask is misplaced, of another CT or read with the wrong label "
        "map. Check it, or pass --allow-implausible"
    )


def estimate_phase(stats: Mapping[str, OrganStats]) -> str:
    """`native`, `arterial`, `portal_venous` or `unknown`, from mean HU.

    Native blood has 35-60 HU, so an aorta below 80 HU, or without one kidneys below 60 HU (they take up contrast agent
    in every phase; 30-50 HU without), means native. Arterial: the aorta is at least 1.5 times as bright as the portal
    vein; without portal vein, an aorta above 200 HU beside a liver below 85 HU. Portal venous (later phases included):
    the portal vein has caught up, or the liver has reached 85 HU (40-70 HU without contrast agent). The three sample
    CTs used in the tests (liver 45, 89 and 141 HU) fall where their sources say.
    """
    hu = {organ: s.mean_hu for organ, s in stats.items()}
    liver = hu.get("liver", 0.0)
    if "aorta" in hu:
        if hu["aorta"] < 80:
            return "native"
        if "portal_vein" in hu:
            return "arterial" if hu["aorta"] >= 1.5 * hu["portal_vein"] else "portal_venous"
        if hu["aorta"] > 200 and "liver" in hu and liver < 85:
            return "arterial"
    elif "kidney" in hu and hu["kidney"] < 60 and liver < 85:
        return "native"
    return "portal_venous" if liver >= 85 or hu.get("portal_vein", 0.0) >= 100 else "unknown"


def _distance_mm(labels: UInt8Array, spacing_mm: float) -> npt.NDArray[np.float32]:
    return np.asarray(edt.edt(labels, anisotropy=(spacing_mm,) * 3, black_border=True), np.float32)


def organ_box(organs: UInt8Array, organ: str) -> Slices3 | None:
    """The bounding box of an organ; None when no voxel has it."""
    inside = organs == organ_id(organ)
    spans = [np.flatnonzero(inside.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    if not spans[0].size:
        return None
    x, y, z = (slice(int(s[0]), int(s[-1]) + 1) for s in spans)
    return x, y, z
