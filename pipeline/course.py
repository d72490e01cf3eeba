"""How far along an elongated organ each of its voxels lies, e.g. from the pancreas' head to its tail.

In: the organ's voxels. Out: one number for each. Pure, no files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse, spatial
from scipy.sparse import csgraph

from pipeline.case import UInt8Array

COURSE_GRID_MM = 3.0  # steps of the walk along the organ; a pancreas is 100 to 200 mm long

_Cells = npt.NDArray[np.int64]


def along(voxels: npt.NDArray[np.int32], shape: tuple[int, ...], spacing_mm: float) -> UInt8Array:
    """Position along an organ, 0 at its end at the patient's right (larger x) and 255 at the other, for each voxel.

    `voxels` are flat C-order indices into a volume of `shape`, axes (X, Y, Z) in RAS+ order. The position is the length
    of the shortest way inside the organ on a grid of about COURSE_GRID_MM from that end, over the length to the other;
    the ends are the two cells farthest apart. Pieces apart from the largest take the nearest position in that.
    """
    step = max(1, round(COURSE_GRID_MM / spacing_mm))
    cells, cell_of_voxel = np.unique(np.stack(np.unravel_index(voxels, shape), -1) // step, axis=0, return_inverse=True)
    graph = _neighbours(cells)
    piece = csgraph.connected_components(graph, directed=False)[1]
    largest = np.flatnonzero(piece == np.bincount(piece).argmax())
    position = _positions(graph[largest][:, largest], cells[largest])
    nearest = spatial.cKDTree(cells[largest]).query(cells)[1]
    return np.asarray(np.rint(255 * position[nearest]).astype(np.uint8)[cell_of_voxel.ravel()], np.uint8)


def _neighbours(cells: _Cells) -> sparse.csr_array:
    """The distance between each two cells that touch, by face, edge or corner: one half of a symmetric matrix."""
    pairs = spatial.cKDTree(cells).query_pairs(1.8, output_type="ndarray")  # sqrt(3) < 1.8 < 2
    lengths = np.linalg.norm(cells[pairs[:, 0]] - cells[pairs[:, 1]], axis=1)
    return sparse.csr_array((lengths, (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))


def _positions(graph: sparse.csr_array, cells: _Cells) -> npt.NDArray[np.float64]:
    """Position of each cell of one connected piece, 0 to 1.

    The cell farthest from any cell is an end, and the one farthest from that the other: true of trees, and near enough
    for organs that are much longer than wide.
    """
    one = _distances(graph, 0).argmax()
    other = _distances(graph, one).argmax()
    first = one if cells[one, 0] >= cells[other, 0] else other
    way = _distances(graph, first)
    return np.asarray(way / max(way.max(), 1.0))


def _distances(graph: sparse.csr_array, start: int | np.intp) -> npt.NDArray[np.float64]:
    return np.asarray(csgraph.dijkstra(graph, directed=False, indices=[int(start)])[0], np.float64)
