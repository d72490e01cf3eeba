"""Tubes along curves: gut, vessels, long muscles.

In: a curve of points and radii, mm, and a canvas. Out: a `Tube`, the voxels near it with their distance to its wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.case import FloatArray
from pipeline.phantom.canvas import Box, Canvas
from pipeline.phantom.curves import Curve
from pipeline.phantom.geometry import Field, Point, Points, ramp


@dataclass(frozen=True)
class Tube:
    """What is near a tube: its box, the distance to its wall, and the height above its centre line (along y)."""

    box: Box
    distance: Field
    above: Field


def smooth_line(curve: Curve, step_mm: float, shift: Point = (0, 0, 0), size: float = 1.0) -> FloatArray:
    """(n, 4) points and radii of the smooth line (Catmull-Rom) through a curve, about `step_mm` apart."""
    knots = np.array(curve, np.float64)
    ends = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    line = [knots[:1]]
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        steps = max(1, round(float(np.sqrt(((c - b)[:3] ** 2).sum())) / step_mm))
        t = np.arange(1, steps + 1)[:, None] / steps
        line.append(b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * b - a - 3 * c + d))))
    return np.concatenate(line) * (1, 1, 1, size) + (*shift, 0)


def tube_along(canvas: Canvas, line: FloatArray, reach_mm: float, haustra: float = 0.0) -> Tube:
    """A tube along (n, 4) points and radii; `haustra` is the depth of its folds as a share of the radius."""
    return tube_of_rods(canvas, np.hstack([line[:-1], line[1:]]), reach_mm, haustra)


def tube_of_rods(canvas: Canvas, segments: FloatArray, reach_mm: float, haustra: float = 0.0) -> Tube:
    """The union of tapered rods (n, 8): start x y z radius, end x y z radius; exact up to `reach_mm` outside."""
    starts, ends = segments[:, :4], segments[:, 4:]
    pad = np.maximum(starts[:, 3:], ends[:, 3:]) * (1 + haustra) + reach_mm
    lows, highs = np.minimum(starts, ends)[:, :3] - pad, np.maximum(starts, ends)[:, :3] + pad
    box = canvas.box(lows.min(0), highs.max(0))
    tube = Tube(box, np.full(canvas.x[box].shape, reach_mm, np.float32), np.zeros(canvas.x[box].shape, np.float32))
    walked = 0.0
    for start, end, low, high in zip(starts, ends, lows, highs, strict=True):
        part = canvas.box(low, high)
        length = float(np.sqrt(((end - start)[:3] ** 2).sum()))
        inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
        distance, above = _rod(canvas.at(part), start, end, haustra, walked)
        closer = distance < tube.distance[inner]
        np.copyto(tube.distance[inner], distance, where=closer)
        np.copyto(tube.above[inner], above, where=closer)
        walked += length
    return tube


def _rod(at: Points, start: FloatArray, end: FloatArray, haustra: float, walked: float) -> tuple[Field, Field]:
    """Distance to one rod, and height above it; folds every 27 mm of the way from the tube's beginning."""
    along = (end - start)[:3]
    length = max(float(np.sqrt((along**2).sum())), 1e-6)
    dx, dy, dz = (p - float(s) for p, s in zip(at, start[:3], strict=True))
    ux, uy, uz = (float(v) for v in along)
    t = ramp((dx * ux + dy * uy + dz * uz) / length**2)
    dx, dy, dz = dx - t * ux, dy - t * uy, dz - t * uz
    radius = float(start[3]) + t * float(end[3] - start[3])
    if haustra:
        radius = radius * (1 + haustra * np.cos((2 * np.pi / 27) * (walked + t * length)))
    return np.sqrt(dx * dx + dy * dy + dz * dz) - radius, dy
