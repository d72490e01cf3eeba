"""Area of the surface that crosses a 2x2x2 neighbourhood of voxels, for each of its 256 codes.

In: a spacing in mm. Out: a table in mm². Bit `4x + 2y + z` of a code is set when the voxel at corner (x, y, z) of the
neighbourhood is inside the mask.

The surface is that of marching cubes (Lorensen and Cline 1987) with vertices at the middle of the cube's edges. Where
that leaves a choice, the choices here give the areas of the surface Dice of Nikolov et al. (arXiv 1809.04430):
a code and its complement have the same surface; with up to four corners inside, corners that share no edge are
apart; a loop of vertices is filled by the triangles with the greatest area in the unit cube.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Corner = tuple[int, int, int]

CORNERS: tuple[Corner, ...] = tuple((x, y, z) for x, y, z in itertools.product((0, 1), repeat=3))


def surface_area_table(spacing_mm: tuple[float, float, float]) -> FloatArray:
    """Area in mm² by neighbour code, (256,), for voxels of that spacing along X, Y, Z."""
    x, y, z = spacing_mm
    codes, normals = _unit_triangles()
    # The cross product of two vectors scaled by (x, y, z) is scaled by (yz, xz, xy).
    areas = np.linalg.norm(normals * (y * z, x * z, x * y), axis=1)
    return np.bincount(codes, weights=areas, minlength=256).astype(np.float64, copy=False)


@cache
def _unit_triangles() -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Code (n,) and area vector (n, 3) of all triangles of all 256 surfaces in the unit cube."""
    rows = [(code, vector) for code in range(256) for vector in _area_vectors(code)]
    return np.array([code for code, _ in rows]), np.array([vector for _, vector in rows])


def _area_vectors(code: int) -> Iterator[FloatArray]:
    inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
    fewer = inside if len(inside) <= 4 else set(CORNERS) - inside
    for part in _edge_connected(sorted(fewer)):
        yield from max(_triangulations(_vertex_loop(part)), key=_total_area)


def _edge_connected(corners: Iterable[Corner]) -> list[set[Corner]]:
    """Corners grouped so that those that share an edge of the cube are together."""
    parts: list[set[Corner]] = []
    for corner in corners:
        joined = [part for part in parts if any(_share_edge(corner, other) for other in part)]
        parts = [part for part in parts if part not in joined] + [{corner}.union(*joined)]
    return parts


def _share_edge(a: Corner, b: Corner) -> bool:
    return sum(p != q for p, q in zip(a, b, strict=True)) == 1


def _vertex_loop(part: set[Corner]) -> FloatArray:
    """Middles of the edges that leave the part, (n, 3), in the order of the loop around it."""
    left = [(np.array(a) + b) / 2 for a in sorted(part) for b in CORNERS if b not in part and _share_edge(a, b)]
    loop = [left.pop()]
    while left:
        # A face of the cube holds two vertices of the loop or none, so the next one is on the same face.
        follower = next(k for k, vertex in enumerate(left) if _share_face(loop[-1], vertex))
        loop.append(left.pop(follower))
    return np.array(loop)


def _share_face(a: FloatArray, b: FloatArray) -> bool:
    return bool(np.any((a == b) & (a != 0.5)))


def _triangulations(loop: FloatArray) -> Iterator[list[FloatArray]]:
    """Every way to fill a loop of vertices (n, 3) with triangles, each as the triangles' area vectors."""
    if len(loop) < 3:
        yield []
        return
    for apex in range(1, len(loop) - 1):
        closing = np.cross(loop[apex] - loop[0], loop[-1] - loop[0]) / 2
        for before in _triangulations(loop[: apex + 1]):
            for after in _triangulations(loop[apex:]):
                yield [*before, closing, *after]


def _total_area(vectors: list[FloatArray]) -> float:
    return float(sum(np.linalg.norm(vector) for vector in vectors))
