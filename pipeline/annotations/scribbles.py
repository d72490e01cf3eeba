"""Scribbles: in some axial slices, a stroke through the middle of each class and one along the inside of its border.

Both kinds of strokes for every class, background and organs included, is what Gotkowski et al. recommend
(arXiv 2403.12834). Where they run is ours: the middle is the inner half of a piece of the class, by depth; its stroke
is part of the longest of all shortest ways through it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from pipeline.annotations.instances import TumorMask
from pipeline.annotations.records import IntArray
from pipeline.annotations.settings import AnnotationSettings
from pipeline.organs import is_tumor, tumor_id

_Plane = npt.NDArray[np.bool_]  # (X, Y)
_Flat = npt.NDArray[np.int64]  # flat indices of a plane
_WITH_CORNERS = np.ones((3, 3), bool)


def draw_scribbles(
    label: npt.NDArray[np.uint8],
    tumors: Sequence[TumorMask],
    classes: Sequence[int],
    spacing_mm: float,
    settings: AnnotationSettings,
    rng: np.random.Generator,
) -> Mapping[int, IntArray]:
    """By class of `classes` that `label` (X, Y, Z) shows: flat C-order indices of its scribbled voxels, ascending.

    Slices are the same for all classes. Whoever lies between them gets the largest of its slices: each tumor, and each
    other class.
    """
    step = max(1, round(settings.scribble_every_mm / spacing_mm))
    levels = range(int(rng.integers(step)), label.shape[2], step)
    found: dict[int, IntArray] = {}
    for class_id in sorted(set(classes)):
        drawn = [
            stroke * label.shape[2] + z
            for z, plane in _planes(label, class_id, tumors, levels)
            for stroke in _strokes(plane, settings.scribble_length, rng)
        ]
        if drawn:
            found[class_id] = np.unique(np.concatenate(drawn)).astype(np.int32)
    return found


def _planes(
    label: npt.NDArray[np.uint8], class_id: int, tumors: Sequence[TumorMask], levels: Sequence[int]
) -> Iterator[tuple[int, _Plane]]:
    """Slices to scribble in, each with the voxels of one tumor there, or of one other class."""
    if not is_tumor(class_id):
        volume = label == class_id
        yield from ((z, np.ascontiguousarray(volume[:, :, z])) for z in _shown(volume, levels))
        return
    for tumor in tumors:
        if tumor_id(tumor.facts["organ"]) == class_id:
            x, y, z = tumor.box
            for level in _shown(tumor.mask, [k - z.start for k in levels if z.start <= k < z.stop]):
                plane = np.zeros(label.shape[:2], bool)
                plane[x, y] = tumor.mask[:, :, level]
                yield z.start + level, plane


def _shown(volume: npt.NDArray[np.bool_], levels: Sequence[int]) -> list[int]:
    """The slices of `levels` that a mask (X, Y, Z) reaches, else its largest one, if any."""
    found = [z for z in levels if volume[:, :, z].any()]
    if found:
        return found
    areas = np.count_nonzero(volume, axis=(0, 1))
    return [int(areas.argmax())] if areas.any() else []


def _strokes(plane: _Plane, share: float, rng: np.random.Generator) -> Iterator[_Flat]:
    """The strokes in one piece of a slice, each as flat indices; larger pieces are chosen more often."""
    piece, place, start = rng.random(3)
    voxels = np.flatnonzero(plane)
    pieces, _ = ndimage.label(plane, _WITH_CORNERS)
    own = pieces == pieces.flat[voxels[int(piece * len(voxels))]]
    yield _middle_stroke(own, share, place)
    border = np.flatnonzero(own & _beside_others(own))
    if border.size:
        yield _border_stroke(border, plane.shape, share, start)


def _middle_stroke(own: _Plane, share: float, place: float) -> _Flat:
    """Part of the longest way through the inner half of a piece; `place`, 0 to 1, says which part."""
    depth = ndimage.distance_transform_cdt(np.pad(own, 1), "chessboard")[1:-1, 1:-1]
    inner = np.flatnonzero(2 * depth > depth.max())
    graph = _neighbours(inner, own.shape)
    deepest = int(depth.flat[inner].argmax())
    one_end = csgraph.breadth_first_order(graph, deepest, return_predecessors=False)[-1]
    order, before = csgraph.breadth_first_order(graph, one_end)
    way = [int(order[-1])]
    while way[-1] != one_end:
        way.append(int(before[way[-1]]))
    length = _drawn(len(way), share)
    first = int(place * (len(way) - length + 1))
    return inner[way[first : first + length]]


def _border_stroke(border: _Flat, shape: tuple[int, ...], share: float, start: float) -> _Flat:
    """Part of a connected stretch of border voxels, growing to both sides of where it starts."""
    graph = _neighbours(border, shape)
    order = csgraph.breadth_first_order(graph, int(start * len(border)), return_predecessors=False)
    drawn: _Flat = border[order[: _drawn(len(order), share)]]
    return drawn


def _drawn(voxels: int, share: float) -> int:
    return max(1, round(voxels * share))


def _beside_others(own: _Plane) -> _Plane:
    """Voxels of a slice with another class above, below, left or right of them; the end of the patch is none."""
    padded = np.pad(own, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return ~inside


def _neighbours(voxels: _Flat, shape: tuple[int, ...]) -> sparse.csr_matrix:
    """The 8-connected graph of ascending flat indices of a slice; its nodes are positions among `voxels`."""
    width = shape[1] + 2  # with a margin all around
    at = voxels + width + 1 + 2 * (voxels // shape[1])
    node = np.full((shape[0] + 2) * width, -1, np.int32)
    node[at] = np.arange(len(voxels))
    beside = node[at[:, None] + np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])]
    held = beside >= 0
    starts = np.concatenate([[0], held.sum(axis=1).cumsum()])
    ends = beside[held]
    return sparse.csr_matrix((np.ones(len(ends)), ends, starts), (len(voxels), len(voxels)))
