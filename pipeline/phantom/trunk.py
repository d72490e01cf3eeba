"""Painters of the trunk: skin, fat and muscles of the wall, the chest, the muscles beside the spine.

In: a canvas. Out: nothing; they paint on it.
"""

from __future__ import annotations

import numpy as np

from pipeline.phantom.canvas import Box, Canvas
from pipeline.phantom.curves import CRUS, END_MM, ESOPHAGUS, PSOAS
from pipeline.phantom.geometry import Field, both, ellipsoid, ramp
from pipeline.phantom.tubes import smooth_line, tube_along

_WHOLE = (slice(None), slice(None), slice(None))


def paint_trunk(canvas: Canvas) -> None:
    """Skin, subcutaneous fat, muscle wall with its fat planes, and the fat that fills the cavity."""
    patient, x, y = canvas.patient, canvas.x, canvas.y
    back = np.exp(-((x / 78) ** 4)) * ramp((-10 - y) / 50)
    wall = patient.wall_mm + 24 * back - 3 * ramp((y - 40) / 40)
    front = ramp(y / 80)
    fat = patient.fat_mm * (1 + 0.35 * front - 0.35 * back)
    skin = canvas.cavity - wall - fat
    layer = canvas.cavity / wall
    planes = ramp(np.cos(layer * (2 * np.pi / 0.36)) * 4 - 3) * ramp((np.abs(x) - 45) / 30)
    erector = np.abs(np.hypot((np.abs(x) - 31) / 29, (y + 87) / 17) - 1)
    planes = np.maximum(planes, ramp(2 - erector * 16) * ramp(-y - 60))
    muscle = patient.hu["muscle"] + 3 * canvas.blotch - 60 * planes - 25 * ramp(canvas.fine - 1.0)
    canvas.paint(_WHOLE, skin, patient.hu["skin"])
    canvas.paint(_WHOLE, skin + 2, canvas.fat)
    canvas.paint(_WHOLE, canvas.cavity - wall, muscle)
    canvas.paint(_WHOLE, canvas.cavity, canvas.fat + 75 * _threads(canvas, _WHOLE, 0.14))


def paint_chest(canvas: Canvas) -> None:
    """The diaphragm, and above it lungs, the fat of the mediastinum, heart and esophagus; the vessels come later."""
    hu = canvas.patient.hu
    box = canvas.box((-130, -90, -40), (130, 100, END_MM))
    x, y, z = canvas.at(box)
    cavity, chest = canvas.cavity[box], canvas.chest[box]
    lung = both(cavity + 2, 3 - chest)
    mediastinum = ellipsoid(x + 2, y + 14, 0 * z, (26, 34, 1000))
    heart = ellipsoid(x + 22, y - 36, z - 117, (58, 42, 52))
    canvas.paint(box, both(cavity, -chest), hu["muscle"])
    canvas.paint(box, lung, hu["lung"] + 15 * canvas.coarse[box] + 750 * _threads(canvas, box, 0.16))
    canvas.paint(box, np.maximum(lung, mediastinum), canvas.fat[box])
    canvas.paint(box, np.maximum(lung + 2, heart - 5), canvas.fat[box])
    canvas.paint(box, np.maximum(lung + 4, heart), hu["muscle"] + 30)
    canvas.paint(box, np.maximum(lung + 8, heart + 9), hu["heart"])
    tube = tube_along(canvas, smooth_line(ESOPHAGUS, 60), 4)
    canvas.paint(tube.box, np.maximum(tube.distance, 3 - canvas.chest[tube.box]), hu["bowel_wall"])


def paint_muscles(canvas: Canvas) -> None:
    """Psoas beside the spine, the crura of the diaphragm beside the aorta."""
    for curve, middle in ((PSOAS, 0.0), (CRUS, -9.0)):
        for side in (1, -1):
            tube = tube_along(canvas, smooth_line(curve, 12) * (side, 1, 1, 1) + (middle, 0, 0, 0), 3)
            canvas.paint(tube.box, tube.distance, canvas.patient.hu["muscle"] + 3 * canvas.blotch[tube.box], 0)


def _threads(canvas: Canvas, box: Box, width: float) -> Field:
    """Thin branching lines, 0 to 1: where two smooth fields are both near 0. Small vessels of lung and mesentery."""
    return ramp(1.6 - np.hypot(canvas.blotch[box], canvas.strand[box]) / width)
