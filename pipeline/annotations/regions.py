"""Which part of its organ a point lies in, by geometry of the organ mask alone: approximations, each said below.

In: an organ's voxels in a whole bank case, axes (X, Y, Z) in RAS+ order. Out: a region of `findings.REGIONS`, or None
where the mask does not tell. Pure, no files. No vessel, fissure or hilum is looked for, so a region near a border may
be the neighbour's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pipeline.case import Case

FloatArray = npt.NDArray[np.float64]
Locate = Callable[[FloatArray], "str | None"]

# Segments 5 to 8 hold about two thirds of a liver (choice within the 60 to 70 % of volumetry); a sagittal plane with
# that share of the volume to the right stands for Cantlie's plane, which really leans.
RIGHT_LOBE_SHARE = 0.65
# Between two kidneys lie spine and great vessels; a horseshoe kidney has no gap, but is wider than one kidney (choice).
KIDNEY_GAP_MM, FUSED_KIDNEYS_MM = 20.0, 120.0
_SMALLEST_SHARE = 0.1  # of the voxels; what is less beside a gap is a stray piece of the mask
# A colon in a narrower or lower box is cut off by the scan or in pieces (choice): its frame has lost its corners.
WHOLE_COLON_MM = 150.0


@dataclass(frozen=True)
class OrganRegions:
    """The regions of one organ of one case, measured once; `at` any number of points."""

    organ: str
    _locate: Locate | None

    def at(self, center_vox: Sequence[float]) -> str | None:
        """The region of a point (x, y, z) in voxels of the case, inside the organ or beside it."""
        return None if self._locate is None else self._locate(np.asarray(center_vox, float))


def region_of(organ: str, mask: npt.NDArray[np.bool_], spacing_mm: float, center_vox: Sequence[float]) -> str | None:
    """The region of one point in an organ's mask (X, Y, Z) of a whole case; None where it cannot be told."""
    return organ_regions(organ, np.flatnonzero(mask), mask.shape, spacing_mm).at(center_vox)


def case_regions(case: Case, organ: str) -> OrganRegions:
    """The regions of an organ that takes tumors in a bank case; tells none where the case does not have it whole."""
    voxels = case.voxels.get(organ, np.zeros(0, np.int32))
    return organ_regions(organ, voxels, case.ct.shape, case.spacing_mm)


def organ_regions(
    organ: str, voxels: npt.NDArray[np.integer], shape: tuple[int, ...], spacing_mm: float
) -> OrganRegions:
    """The regions of an organ from flat C-order indices of its voxels into a volume of `shape`."""
    if organ not in _SCHEMES or not len(voxels):
        return OrganRegions(organ, None)
    points = np.stack(np.unravel_index(voxels, shape), -1)
    return OrganRegions(organ, _SCHEMES[organ](points, spacing_mm, shape[2]))


def _liver(points: npt.NDArray[np.integer], spacing_mm: float, slices: int) -> Locate:
    """Four quarters for Couinaud's eight segments: a sagittal plane parts the lobes, the middle height of each lobe
    (half of its voxels above) stands for the level of the portal bifurcation. The caudate lobe is never told, and of a
    liver that the scan cuts off only the lobe."""
    x, z = points[:, 0], points[:, 2]
    whole = not _cut_off(z, slices)
    plane = float(np.quantile(x, 1 - RIGHT_LOBE_SHARE))
    right = x >= plane
    level = {True: float(np.median(z[right])), False: float(np.median(z[~right])) if (~right).any() else 0.0}
    names = {
        (True, True): "segment 7/8",
        (True, False): "segment 5/6",
        (False, True): "segment 2/4a",
        (False, False): "segment 3/4b",
    }

    def locate(at: FloatArray) -> str:
        on_right = bool(at[0] >= plane)
        if not whole:
            return "right lobe" if on_right else "left lobe"
        return names[on_right, bool(at[2] >= level[on_right])]

    return locate


def _kidney(points: npt.NDArray[np.integer], spacing_mm: float, slices: int) -> Locate:
    """Side by a gap between two kidneys in x, pole by thirds of that kidney's height (poles proper end where the sinus
    begins, near the thirds). A single kidney's mask does not tell the side, one that the scan cuts off not the pole."""
    x, z = points[:, 0], points[:, 2]
    plane = _between_kidneys(x, spacing_mm)
    sides = {"": np.ones(len(x), bool)} if plane is None else {"right ": x > plane, "left ": x <= plane}
    heights = {side: None if _cut_off(z[own], slices) else _ends(z[own]) for side, own in sides.items()}

    def locate(at: FloatArray) -> str | None:
        side = "" if plane is None else "right " if at[0] > plane else "left "
        ends = heights[side]
        if ends is None:
            return side.strip() or None
        third = (at[2] - ends[0]) / (ends[1] - ends[0])
        return side + ("lower pole" if third < 1 / 3 else "upper pole" if third >= 2 / 3 else "interpolar")

    return locate


def _between_kidneys(x: npt.NDArray[np.integer], spacing_mm: float) -> float | None:
    """The sagittal plane between two kidneys, as x in voxels; None of a single kidney."""
    count = np.bincount(x)
    held = np.flatnonzero(count)
    gaps = np.diff(held)
    for k in np.argsort(-gaps, kind="stable"):
        if (gaps[k] - 1) * spacing_mm < KIDNEY_GAP_MM:
            break
        share = count[: held[k] + 1].sum() / len(x)
        if _SMALLEST_SHARE <= share <= 1 - _SMALLEST_SHARE:
            return float(held[k] + held[k + 1]) / 2
    low, high = _ends(x)
    return (low + high) / 2 if (high - low) * spacing_mm >= FUSED_KIDNEYS_MM else None


def _pancreas(points: npt.NDArray[np.integer], spacing_mm: float, slices: int) -> Locate | None:
    """Thirds of the length along the principal axis of the mask, from its end at the patient's right: head (with neck
    and uncinate process), body, tail. Not the way along the gland, so that a mask in pieces is told alike. None of a
    gland that the scan cuts off."""
    if _cut_off(points[:, 2], slices):
        return None
    center = points.mean(axis=0)
    offsets = points - center
    axis = np.linalg.eigh(offsets.T @ offsets)[1][:, -1]
    axis *= -1 if axis[0] > 0 else 1  # x grows to the patient's right, where the head is
    way = offsets @ axis
    first, length = float(way.min()), max(float(np.ptp(way)), 1.0)

    def locate(at: FloatArray) -> str:
        third = (float((at - center) @ axis) - first) / length
        return "head" if third < 1 / 3 else "body" if third < 2 / 3 else "tail"

    return locate


def _colon(points: npt.NDArray[np.integer], spacing_mm: float, slices: int) -> Locate | None:
    """Where in the frame of the whole colon: the sides and behind are ascending (with cecum) and descending, in front
    and between is transverse, low, behind and between is sigmoid (with rectum). None between these zones, as loops of
    the transverse and the sigmoid colon hang anywhere, and None of a colon that the scan cuts off."""
    low, high = (np.array(ends) for ends in zip(*(_ends(points[:, k]) for k in range(3)), strict=True))
    if min((high - low)[[0, 2]]) * spacing_mm < WHOLE_COLON_MM:
        return None

    def locate(at: FloatArray) -> str | None:
        right, front, high_up = (at - low) / (high - low)
        if right >= 0.75 and front < 0.65:
            return "ascending"
        if right <= 0.25 and front < 0.65 and high_up >= 0.35:
            return "descending"
        if 0.25 < right < 0.75:
            if front < 0.5 and high_up < 0.4:
                return "sigmoid"
            if front >= 0.6 and high_up >= 0.4:
                return "transverse"
        return None

    return locate


def _cut_off(z: npt.NDArray[np.integer], slices: int) -> bool:
    """Whether a mask reaches the first or the last slice of the scan."""
    return bool(z.min() == 0 or z.max() == slices - 1)


def _ends(values: npt.NDArray[np.integer]) -> tuple[float, float]:
    """The outer faces of the first and the last voxel along an axis."""
    return float(values.min()) - 0.5, float(values.max()) + 0.5


_SCHEMES: Mapping[str, Callable[[npt.NDArray[np.integer], float, int], Locate | None]] = {
    "liver": _liver,
    "kidney": _kidney,
    "pancreas": _pancreas,
    "colon": _colon,
}
