"""Lesions of both kinds, found in whole scans and cut out by the same functions, with the facts they are matched by.

In: a scan (HU and class ids at the study's spacing). Out: `Candidate` values, and crops of those that are chosen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.case import Int16Array, UInt8Array
from pipeline.components import connected_components
from pipeline.grid import Index3, Slices3, index3, slices3
from pipeline.organs import organ_id, tumor_id
from pipeline.study.design import Truth

MIN_DIAMETER_MM = 5.0  # smaller ones are a few voxels that nobody can judge (choice)
AWAY_MM = 4.0  # parenchyma is measured so far from lesions and from the organ's surface
MIN_PARENCHYMA_VOXELS = 200  # for a mean and a correlation (choice)
MARGIN_VOX = 3  # of surroundings on every side of the lesion, within the crop

ORGAN, LESION, OTHERS = 1, 2, 3  # of a crop's label
SMALL, CUT, LARGE, BARE = (
    f"below {MIN_DIAMETER_MM:g} mm",
    "cut by the edge of its scan or patch",
    "too large for the crop, or the crop for its scan or patch",
    "without enough healthy organ around it",
)

BoolArray = npt.NDArray[np.bool_]
Places = tuple[range, range, range]


@dataclass(frozen=True)
class Facts:
    """What a real and a synthetic lesion must have in common. HU and grain are of the healthy organ in the crop."""

    diameter_mm: float  # of the ball of equal volume
    parenchyma_hu: float  # median: the contrast phase
    noise_hu: float  # SD of the difference of neighbours in a row, over sqrt 2
    slice_grain: float  # correlation of neighbouring slices minus that of neighbours in a slice: the slice thickness
    others: int  # other lesions in the crop


@dataclass(frozen=True)
class Scan:
    """A whole scan at the study's spacing; `image` (HU) and `label` (class ids) are (X, Y, Z)."""

    truth: Truth
    name: str
    source: str
    image: Int16Array
    label: UInt8Array
    spacing_mm: float
    usable: Slices3  # crops lie inside: the scan, or less where a patch ends within what it changed
    excluded: BoolArray | None = None  # where a lesion is not of this kind: real ones in a bank case


@dataclass(frozen=True)
class Crop:
    """`image` (HU) and `label` (0, ORGAN, LESION, OTHERS), (X, Y, Z); the middle of the lesion's box is at `place`."""

    image: Int16Array
    label: UInt8Array
    place: Index3


@dataclass(frozen=True, eq=False)
class Candidate:
    """A lesion that may become a case. Its scan is not kept; `read` gives it again."""

    truth: Truth
    name: str
    source: str
    facts: Facts
    piece: int  # number of the lesion among the connected pieces of its scan
    places: Places  # along each axis, where in a crop the middle of its box may lie
    read: Callable[[], Scan] = field(repr=False)

    def crop(self, organ: str, edge_vox: int, place: Index3) -> Crop:
        """The lesion cut out with the middle of its box at `place`, one of its places."""
        scan = self.read()
        pieces, boxes = _pieces(scan, organ)
        return _cut(scan, pieces, self.piece, organ, boxes[self.piece], edge_vox, place)


def candidates(
    scan: Scan, read: Callable[[], Scan], organ: str, edge_vox: int, left_out: Counter[str]
) -> Iterator[Candidate]:
    """Every lesion of an organ that a cube of `edge_vox` shows whole; `left_out` counts the others by reason.

    `read` gives the same scan again.
    """
    pieces, boxes = _pieces(scan, organ)
    for number, box in enumerate(boxes):
        if number == 0 or (scan.excluded is not None and (scan.excluded[box] & (pieces[box] == number)).any()):
            continue
        diameter = ball_diameter_mm(np.count_nonzero(pieces[box] == number) * scan.spacing_mm**3)
        places = _places(box, scan.usable, edge_vox)
        place = nearest_to_middle(places, edge_vox)
        if diameter < MIN_DIAMETER_MM:
            left_out[SMALL] += 1
        elif any(s.start <= u.start or s.stop >= u.stop for s, u in zip(box, scan.usable, strict=True)):
            left_out[CUT] += 1
        elif place is None:
            left_out[LARGE] += 1
        elif facts := _facts(scan, _cut(scan, pieces, number, organ, box, edge_vox, place), diameter):
            yield Candidate(scan.truth, scan.name, scan.source, facts, number, places, read)
        else:
            left_out[BARE] += 1


def common_place(a: Candidate, b: Candidate, edge_vox: int) -> Index3 | None:
    """The place nearest to the middle of the crop that both can have; None without one."""
    x, y, z = (
        range(max(one.start, other.start), min(one.stop, other.stop))
        for one, other in zip(a.places, b.places, strict=True)
    )
    return nearest_to_middle((x, y, z), edge_vox)


def nearest_to_middle(places: Places, edge_vox: int) -> Index3 | None:
    """The place nearest to the middle of a crop; None where an axis has none."""
    if not all(places):
        return None
    return index3(min(max(edge_vox // 2, along.start), along.stop - 1) for along in places)


def ball_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the ball of that volume."""
    return math.cbrt(6 * volume_mm3 / math.pi)


def _pieces(scan: Scan, organ: str) -> tuple[npt.NDArray[Any], list[Slices3]]:
    """Connected pieces of the lesion label as numbers, and the box of each; the first is the background."""
    pieces = connected_components(scan.label == tumor_id(organ), 26)
    return pieces, cc3d.statistics(pieces, no_slice_conversion=False)["bounding_boxes"]


def _middle(box: Slices3) -> Index3:
    return index3((side.start + side.stop) // 2 for side in box)


def _places(box: Slices3, usable: Slices3, edge_vox: int) -> Places:
    """Where the middle of a lesion's box can lie in crops inside `usable` that hold the box with its margin."""
    x, y, z = (
        range(
            middle - min(side.start - MARGIN_VOX, use.stop - edge_vox),
            middle - max(side.stop + MARGIN_VOX - edge_vox, use.start) + 1,
        )
        for side, use, middle in zip(box, usable, _middle(box), strict=True)
    )
    return x, y, z


def _cut(
    scan: Scan, pieces: npt.NDArray[Any], number: int, organ: str, box: Slices3, edge_vox: int, place: Index3
) -> Crop:
    origin = index3(np.subtract(_middle(box), place))
    view = slices3(origin, [low + edge_vox for low in origin])
    label = np.where(scan.label[view] == organ_id(organ), ORGAN, 0).astype(np.uint8)
    label[pieces[view] > 0] = OTHERS
    label[pieces[view] == number] = LESION
    return Crop(scan.image[view].copy(), label, place)


def _facts(scan: Scan, crop: Crop, diameter_mm: float) -> Facts | None:
    """None where the crop holds too little parenchyma."""
    reach = max(1, round(AWAY_MM / scan.spacing_mm))
    cross = ndimage.generate_binary_structure(3, 1)
    healthy = ndimage.binary_erosion(crop.label == ORGAN, cross, iterations=reach)
    if np.count_nonzero(healthy) < MIN_PARENCHYMA_VOXELS:
        return None
    hu = crop.image.astype(np.float64)
    along = [_neighbours(hu, healthy, axis) for axis in range(3)]
    (x, noise), (y, _), (z, _) = along
    others = int(connected_components(crop.label == OTHERS, 26).max())
    return Facts(diameter_mm, float(np.median(hu[healthy])), noise, z - (x + y) / 2, others)


def _neighbours(hu: npt.NDArray[np.float64], region: BoolArray, axis: int) -> tuple[float, float]:
    """Correlation of neighbours along an axis in a region, and SD of their difference over sqrt 2; 0 without any."""
    first, second = (
        tuple(slice(a, n - 1 + a) if k == axis else slice(None) for k, n in enumerate(hu.shape)) for a in (0, 1)
    )
    both = region[first] & region[second]
    a, b = hu[first][both], hu[second][both]
    spread = float(a.std() * b.std()) if a.size else 0.0
    if spread == 0:
        return 0.0, 0.0
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread, float((a - b).std()) / math.sqrt(2)
