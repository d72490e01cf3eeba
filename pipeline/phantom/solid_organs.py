"""Painters of spleen, kidneys and pancreas; the liver, with vessels of its own, has its own module.

In: a canvas. Out: nothing; they paint on it.
"""

from __future__ import annotations

import numpy as np

from pipeline.organs import organ_id
from pipeline.phantom.canvas import Canvas
from pipeline.phantom.curves import PANCREAS
from pipeline.phantom.geometry import both, ellipsoid, ramp
from pipeline.phantom.tubes import smooth_line, tube_along


def paint_spleen(canvas: Canvas) -> None:
    """A tilted ellipsoid, hollow towards the stomach."""
    patient = canvas.patient
    (sx, sy, sz), size = patient.shift_mm["spleen"], patient.size["spleen"]
    box = canvas.box((-130, -100, -50), (-25, 50, 115))
    x, y, z = canvas.at(box)
    long = z - 30 - sz
    spleen = ellipsoid(x + 84 - sx - 0.15 * long, y + 33 - sy + 0.25 * long, long, (38 * size, 48 * size, 60 * size))
    hollow = ellipsoid(x + 38, y - 8, z - 28, (26, 34, 46))
    canvas.organ(box, both(spleen, -hollow, 8), patient.hu["spleen"] + 2 * canvas.coarse[box], organ_id("spleen"))


def paint_kidneys(canvas: Canvas) -> None:
    """The right one lies lower."""
    for name, side, height in (("kidney_right", 1.0, -37.0), ("kidney_left", -1.0, -27.0)):
        _paint_kidney(canvas, name, side, height)


def paint_pancreas(canvas: Canvas) -> None:
    """Lobulated, with fat between the lobules."""
    patient = canvas.patient
    line = smooth_line(PANCREAS, 7, patient.shift_mm["pancreas"], patient.size["pancreas"])
    tube = tube_along(canvas, line, 12)
    lobules = 1.1 * canvas.fine[tube.box] + 0.8 * canvas.blotch[tube.box]
    hu = patient.hu["pancreas"] + 4 - 14 * ramp(canvas.fine[tube.box] - 0.3)
    canvas.organ(tube.box, tube.distance + lobules, hu, organ_id("pancreas"), 1.5)


def _paint_kidney(canvas: Canvas, name: str, side: float, height: float) -> None:
    """A bean along the psoas, its hilum to the front and the middle; cortex, pyramids, sinus fat, pelvis."""
    patient = canvas.patient
    (sx, sy, sz), size = patient.shift_mm[name], patient.size[name]
    box = canvas.box((side * 58 - 50, -85, height - 75), (side * 58 + 50, 30, height + 75))
    x, y, z = canvas.at(box)
    w = z - height - sz
    across, front = side * (x - sx) - 58 + 0.2 * w, y - sy + 31 + 0.12 * w  # upper poles lie further in and back
    u, v = 0.87 * across - 0.5 * front, 0.5 * across + 0.87 * front
    radii = (28 * size, 24.5 * size, 54 * size)
    bed = ellipsoid(u, np.maximum(v, 0.4 * v), 1.06 * w, radii) - 4 - 1.5 * canvas.coarse[box]  # fat, thick behind
    canvas.paint(box, np.maximum(bed, canvas.room[box] + 1), canvas.fat[box], 0)
    bean = ellipsoid(u, v, w, radii) + 0.6 * canvas.blotch[box]
    sinus = ellipsoid(u + 17 * size, v, w, (17, 8, 21)) + 1.2 * canvas.blotch[box]
    pyramids = np.cos(w * (2 * np.pi / 19)) + 0.8 * np.cos(3 * np.arctan2(v, u + 6) + canvas.blotch[box]) + 0.3
    medulla = ramp((-bean - 5) / 2) * ramp(pyramids * 2)
    cortex_hu, medulla_hu = patient.hu["kidney_cortex"], patient.hu["kidney_medulla"]
    parenchyma = cortex_hu + (medulla_hu - cortex_hu) * medulla
    kept = canvas.organ(box, both(bean, -sinus, 4), parenchyma, organ_id("kidney"))
    pelvis = ellipsoid(u + 15 * size, v, w + 2, (10, 4, 9))
    canvas.paint(box, np.maximum(pelvis, 1 - kept), patient.hu["fluid"])
