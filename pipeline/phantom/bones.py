"""Painter of the bones: spine and ribs, with discs, spinal canal and rib cartilage.

In: a canvas. Out: nothing; it paints on it.
"""

from __future__ import annotations

import numpy as np

from pipeline.organs import organ_id
from pipeline.phantom.canvas import Box, Canvas
from pipeline.phantom.curves import END_MM
from pipeline.phantom.geometry import Field, both, either, ellipsoid, ramp

_VERTEBRA_MM = 36.0  # body and disc


def paint_bones(canvas: Canvas) -> None:
    """Vertebrae, then ribs."""
    _paint_vertebrae(canvas)
    _paint_ribs(canvas)


def _paint_vertebrae(canvas: Canvas) -> None:
    hu = canvas.patient.hu
    box = canvas.box((-60, -125, -END_MM), (60, -15, END_MM))
    x, y, z = canvas.at(box)
    level = (z - 6) - _VERTEBRA_MM * np.rint((z - 6) / _VERTEBRA_MM)  # height above the middle of the nearest vertebra
    side = np.abs(x)
    column = ellipsoid(x, y + 45, 0 * z, (23, 17, 1000)) + 1.6 * (1 - (level / 13) ** 2)  # bodies have a waist
    body = both(column, np.abs(level) - 13.5, 3)
    roof = 0.82 * (y + 81 - 0.65 * side)  # laminae run from the spinous process to the front and the side
    lamina = both(both(np.abs(roof) - 3.5, np.abs(level + 5) - 12, 2), side - 16, 2)
    pedicle = both(np.hypot(side - 13.5, 0.7 * (level - 3)) - 4.5, np.abs(y + 66) - 9, 2)
    spinous = both(both(side - 2.8, np.abs(y + 90) - 12, 2), np.abs(level + 8) - 9, 2)
    transverse = both(np.hypot(y + 72 + 0.15 * side, level) - 4, side - 37, 2)
    joint = ellipsoid(side - 15, y + 74, level + 17, (6.5, 7, 9))
    arch = either(pedicle, lamina, spinous, transverse, joint)
    canvas.paint(box, np.maximum(column, np.abs(level) - 30), hu["disc"], 0)
    _paint_bone(canvas, box, arch, hu["cortical"])
    _paint_bone(canvas, box, body, 0.65 * hu["cortical"])
    canvas.paint(box, ellipsoid(x, y + 69, 0 * z, (9, 7, 1000)), hu["spinal_canal"], 0)


def _paint_bone(canvas: Canvas, box: Box, bone: Field, shell_hu: float) -> None:
    """Marrow in a shell of about 1.5 mm."""
    hu = canvas.patient.hu
    shell = ramp((bone + 2.2) / 1.2)
    marrow = hu["marrow"] + 18 * canvas.fine[box]
    canvas.paint(box, bone, marrow + (shell_hu - marrow) * shell, organ_id("bone"))


def _paint_ribs(canvas: Canvas) -> None:
    """Rings in the wall that fall towards the front, down to the costal margin; cartilage in front."""
    box = canvas.box((-150, -110, -90), (150, 120, END_MM))
    x, y, z = canvas.at(box)
    turn = np.arctan2(np.abs(x) / 122, (6 - y) / 81)  # 0 at the spine, pi in front
    fall = z + 55 * turn + 8
    level = fall - 27 * np.rint(fall / 27)
    ring = np.sqrt((level / 6.5) ** 2 + ((canvas.cavity[box] - 5.5) / 3.4) ** 2 + 1e-6)
    rib = both((ring - 1) * 3.4, 48 * turn - 105 - z, 3)  # the costal margin rises to the front
    rib = both(rib, (0.3 - turn) * 60, 2)
    front = (turn - 2.35) * 60
    canvas.paint(box, both(rib, -front), canvas.patient.hu["cartilage"], 0)
    _paint_bone(canvas, box, both(rib, front), canvas.patient.hu["cortical"])
