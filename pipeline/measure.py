"""What came out: facts of each tumor, measured in the final image and label. Pure, numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.anatomy import NO_VESSEL_MM, tissue_mask
from pipeline.case import Case
from pipeline.components import connected_components
from pipeline.grid import Slices3, crop, index3, shifted_affine, slices3
from pipeline.organs import HOLLOW, organ_id, tumor_id

if TYPE_CHECKING:
    from pipeline.spec import SampleSpec
    from pipeline.synthesis import Rendered

# Parenchyma is measured in this shell around a tumor: beyond its soft edge, still beside it.
SHELL_MM = (2.0, 10.0)
_SHELL_VOXELS = 20**3  # of a larger box, a coarser grid tells the mean as well, at a fraction of the cost
_SURFACE_VOXELS = 2.2  # leaves two layers of voxels out


@dataclass(frozen=True)
class Recist:
    """Diameters in the axial slice where the long one is longest, mm."""

    long_mm: float
    short_mm: float


@dataclass(frozen=True)
class RecistAxes:
    """The RECIST axes of a mask, in voxels: distances of end voxels, which are one less than the diameters.

    All ends lie in the mask, in the axial slice `z`. Those of the short axis lie farthest to either side of the long
    one, not always opposite each other.
    """

    long: float
    short: float
    z: int
    long_ends: tuple[tuple[int, int], tuple[int, int]]  # (x, y) each
    short_ends: tuple[tuple[int, int], tuple[int, int]]


def recist(mask: npt.NDArray[np.bool_], spacing_mm: float) -> Recist:
    """RECIST diameters of a tumor mask (X, Y, Z), which must not be empty.

    Long: the largest distance between two voxels of one axial slice, plus one voxel for their extent. Short: the width
    of that slice perpendicular to it, measured the same way.
    """
    axes = recist_axes(mask)
    return Recist((axes.long + 1) * spacing_mm, (axes.short + 1) * spacing_mm)


def recist_axes(mask: npt.NDArray[np.bool_]) -> RecistAxes:
    """Where the diameters of `recist` end."""
    by_slice = np.ascontiguousarray(mask.transpose(2, 0, 1))
    levels = np.flatnonzero(by_slice.reshape(len(by_slice), -1).any(axis=1))
    slices = [_row_ends(by_slice[z]) for z in levels]
    bounds = np.array([_longest_possible(points) for points in slices])
    best, of_slice = _Extremes(-1.0, 0.0, (0, 0), (0, 0)), 0
    for k in np.argsort(-bounds, kind="stable"):
        if bounds[k] < best.long:
            break
        found = _extremes(slices[k])
        if (found.long, found.short) > (best.long, best.short):
            best, of_slice = found, int(k)
    ends = [(int(x), int(y)) for x, y in slices[of_slice][[*best.long_ends, *best.short_ends]]]
    return RecistAxes(best.long, best.short, int(levels[of_slice]), (ends[0], ends[1]), (ends[2], ends[3]))


def _row_ends(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """First and last voxel of every row of a slice: among them are both ends of every extreme distance."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)]).astype(float)


_ANGLES = np.arange(8) * math.pi / 8
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def _longest_possible(points: npt.NDArray[np.float64]) -> float:
    """No two points are farther apart: the width along the nearest of 8 directions is at most cos(pi / 16) short."""
    along = points[:, :1] * _DIRECTIONS[0] + points[:, 1:] * _DIRECTIONS[1]
    return float((along.max(axis=0) - along.min(axis=0)).max()) / math.cos(math.pi / 16) + 1e-9


class _Extremes(NamedTuple):
    """The axes of a slice, in voxels, and which of its points they end at."""

    long: float
    short: float
    long_ends: tuple[int, int]
    short_ends: tuple[int, int]


def _extremes(points: npt.NDArray[np.float64]) -> _Extremes:
    apart = points[:, None, :] - points[None, :, :]
    squared = (apart**2).sum(axis=2)
    a, b = (int(k) for k in np.unravel_index(int(squared.argmax()), squared.shape))
    long = math.sqrt(float(squared[a, b]))
    if long == 0:
        return _Extremes(0.0, 0.0, (a, a), (a, a))
    normal = np.array([-apart[a, b, 1], apart[a, b, 0]]) / long
    across = points[:, 0] * normal[0] + points[:, 1] * normal[1]
    low, high = int(across.argmin()), int(across.argmax())
    return _Extremes(long, min(float(across[high] - across[low]), long), (a, b), (low, high))


ANNOTATED = "annotated"  # the kind of a patient's own tumor


@dataclass(frozen=True)
class _Lesion:
    """A tumor in a patch: what was asked for (nothing of a patient's own), and its voxels in a box of the patch."""

    organ: str
    kind: str
    requested_diameter_mm: float | None
    requested_contrast_hu: float | None
    box: Slices3
    mask: npt.NDArray[np.bool_]


def _lesions(spec: SampleSpec, rendered: Rendered) -> list[_Lesion]:
    if spec.truth:
        return [lesion for organ in spec.organs for lesion in _true_lesions(rendered.label, organ)]
    return [
        _Lesion(i.tumor.organ, i.tumor.kind, i.tumor.diameter_mm, i.tumor.contrast_hu, i.box, i.mask)
        for i in rendered.instances
    ]


def _true_lesions(label: npt.NDArray[np.uint8], organ: str) -> list[_Lesion]:
    """The 26-connected pieces of an organ's tumor class, as they lie in the patch."""
    pieces = connected_components(label == tumor_id(organ), 26)
    boxes = enumerate(ndimage.find_objects(pieces), 1)
    return [_Lesion(organ, ANNOTATED, None, None, (x, y, z), pieces[x, y, z] == number) for number, (x, y, z) in boxes]


def measure_sample(case: Case, spec: SampleSpec, rendered: Rendered) -> dict[str, Any]:
    """The manifest columns that follow from a sample's arrays."""
    usable = [organ for organ in spec.organs if organ in case.stats]
    present = {organ for organ in usable if _holds(rendered.label, organ)}
    affine = shifted_affine(case.affine, spec.origin_vox)
    lesions = _lesions(spec, rendered)
    return {
        "organs": [organ for organ in usable if organ in present],
        "annotated_classes": [0, *(c for organ in usable for c in _told_apart(case, organ))],
        "spacing_mm": case.spacing_mm,
        "affine": affine.ravel().tolist(),
        "series_id": spec.series_id,
        "time_days": spec.time_days,
        "n_tumors": len(lesions),
        "tumor_voxels": sum(int(np.count_nonzero(lesion.mask)) for lesion in lesions),
        "tumors": [
            {"instance": number, **_measure(case, spec, rendered, lesion, affine)}
            for number, lesion in enumerate(lesions, 1)
        ],
    }


def _told_apart(case: Case, organ: str) -> tuple[int, ...]:
    """The classes of an organ that the case has which its label can tell apart; nobody may have looked for tumors."""
    known = not case.annotated or tumor_id(organ) in case.annotated
    return (organ_id(organ), tumor_id(organ)) if known else (organ_id(organ),)


def _measure(
    case: Case, spec: SampleSpec, rendered: Rendered, lesion: _Lesion, affine: npt.NDArray[np.float64]
) -> dict[str, Any]:
    mask = lesion.mask
    start = index3(s.start for s in lesion.box)
    counts = _counts_along(mask)
    voxels = int(counts[0].sum())
    centroid = np.array([int((c * np.arange(len(c))).sum()) / voxels for c in counts]) + start
    spans = [np.flatnonzero(c) for c in counts]
    volume = voxels * case.spacing_mm**3
    mean_hu = float(rendered.image[lesion.box][mask].mean(dtype=np.float64))
    parenchyma = _parenchyma_hu(case, spec, rendered, lesion)
    diameters = recist(mask, case.spacing_mm)
    corner = index3(np.add(start, spec.origin_vox))
    classes = [organ_id(lesion.organ), *([tumor_id(lesion.organ)] if spec.truth else [])]
    own = mask & np.isin(crop(case.organs, corner, mask.shape, 0), classes)  # elsewhere the map is 0
    vessels = crop(case.vessel_distance_mm, corner, mask.shape, 0)[own]
    nearest_vessel = float(vessels.min(initial=NO_VESSEL_MM))
    nearest = index3(np.clip(np.rint(centroid + spec.origin_vox), 0, np.array(case.ct.shape) - 1))
    return {
        "organ": lesion.organ,
        "kind": lesion.kind,
        "requested_diameter_mm": lesion.requested_diameter_mm,
        "requested_contrast_hu": lesion.requested_contrast_hu,
        "center_mm": [
            sum(a * c for a, c in zip(row, centroid.tolist(), strict=False)) + row[3] for row in affine[:3].tolist()
        ],
        "diameter_mm": round((6 * volume / math.pi) ** (1 / 3), 6),
        "recist_long_mm": diameters.long_mm,
        "recist_short_mm": diameters.short_mm,
        "volume_mm3": volume,
        "mean_hu": mean_hu,
        "parenchyma_hu": parenchyma,
        "contrast_hu": mean_hu - parenchyma,
        "bbox_vox": [
            *(int(s[0]) + a for s, a in zip(spans, start, strict=True)),
            *(int(s[-1]) + a + 1 for s, a in zip(spans, start, strict=True)),
        ],
        "vessel_distance_mm": nearest_vessel if nearest_vessel < NO_VESSEL_MM else None,
        "surface_distance_mm": float(case.surface_distance_mm[nearest]),
    }


def _counts_along(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], ...]:
    """Voxels of the mask at each index of each axis."""
    ones = mask.view(np.uint8)
    flat = ones.sum(axis=0, dtype=np.int64)
    return ones.reshape(len(ones), -1).sum(axis=1, dtype=np.int64), flat.sum(axis=1), flat.sum(axis=0)


def _holds(label: npt.NDArray[np.uint8], organ: str) -> bool:
    return bool(((label - np.uint8(organ_id(organ))) < 2).any())  # an organ and its tumor are neighbours


def _parenchyma_hu(case: Case, spec: SampleSpec, rendered: Rendered, lesion: _Lesion) -> float:
    """Mean HU of healthy organ around the tumor, without vessels and surface; of the whole organ where none is near.

    Of a hollow organ, it is the mean of the wall.
    """
    organ = lesion.organ
    around = math.ceil(SHELL_MM[1] / case.spacing_mm)
    low = np.maximum([s.start - around for s in lesion.box], 0)
    high = np.minimum([s.stop + around for s in lesion.box], rendered.label.shape)
    size = index3(high - low)
    step = max(1, math.ceil((math.prod(size) / _SHELL_VOXELS) ** (1 / 3)))
    thin = (slice(None, None, step),) * 3
    box, corner = slices3(low.tolist(), high.tolist()), index3(low + spec.origin_vox)
    label, image = rendered.label[box][thin], rendered.image[box][thin]
    mask = np.zeros(size, bool)
    mask[tuple(slice(s.start - a, s.stop - a) for s, a in zip(lesion.box, low, strict=True))] = lesion.mask
    mask = mask[thin]
    vessels = crop(case.vessels, corner, size, 0)[thin]
    surface = crop(case.surface_distance_mm, corner, size, 0)[thin]
    plain = tissue_mask(image, label, vessels, surface, organ, case.spacing_mm)
    if organ not in HOLLOW:  # voxels at the organ's surface are partly fat or lung
        plain &= surface > _SURFACE_VOXELS * case.spacing_mm
    shell, _ = _shell(mask, step * case.spacing_mm)
    shell &= plain
    others = (label == tumor_id(organ)) & ~mask
    if others.any():  # the soft edge of a neighbour is no parenchyma
        shell &= _shell(others, step * case.spacing_mm)[1]
    if not shell.any():
        return case.stats[organ].mean_hu
    return float(image[shell].mean(dtype=np.float64))


def _shell(mask: npt.NDArray[np.bool_], spacing_mm: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Voxels within SHELL_MM of a mask, and voxels beyond its inner end."""
    if not mask.any():
        return np.zeros(mask.shape, bool), np.ones(mask.shape, bool)
    # Not edt, which starts a thread each time: on a busy machine that takes longer than a box of so few voxels.
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    beyond = distance >= SHELL_MM[0]
    return beyond & (distance <= SHELL_MM[1]), beyond
