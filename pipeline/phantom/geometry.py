"""Distances to simple shapes, and the words of space that all modules here share.

In: offsets or distances of many points, mm. Out: distances to a surface, mm, negative inside. Pure numpy, float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]  # float32 on (X, Y, Z) or a box of it
Point = tuple[float, float, float]  # x, y, z
Points = tuple[Field, Field, Field]  # x, y, z of many


def ramp(x: Field) -> Field:
    """`x` held between 0 and 1."""
    held: Field = np.clip(x, 0, 1)
    return held


def both(a: Field, b: Field, round_mm: float = 0.0) -> Field:
    """Distance to the intersection, its edge rounded over `round_mm` (polynomial smooth maximum)."""
    larger: Field = np.maximum(a, b)
    if round_mm:
        larger += np.maximum(round_mm - np.abs(a - b), 0) ** 2 / (4 * round_mm)
    return larger


def either(first: Field, *others: Field) -> Field:
    """Distance to the union."""
    for other in others:
        first = np.minimum(first, other)
    return first


def ellipsoid(dx: Field, dy: Field, dz: Field, radii: Point) -> Field:
    """First-order distance (g - 1) g / |grad g| with g the norm of the offsets over the radii."""
    u, v, w = dx / radii[0], dy / radii[1], dz / radii[2]
    g = np.sqrt(u * u + v * v + w * w + 1e-6)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2 + 1e-6 / max(radii) ** 2)
    distance: Field = g * (g - 1) / slope
    return distance
