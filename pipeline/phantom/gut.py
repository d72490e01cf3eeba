"""Painters of the gut: stomach, duodenum, colon, and the loops of the small bowel.

In: a canvas. Out: nothing; they paint on it.
"""

from __future__ import annotations

import numpy as np

from pipeline.organs import organ_id
from pipeline.phantom.canvas import Canvas
from pipeline.phantom.curves import COLON, DUODENUM, STOMACH, Curve
from pipeline.phantom.geometry import ramp
from pipeline.phantom.patient import as_point, stream
from pipeline.phantom.tubes import smooth_line, tube_along


def paint_guts(canvas: Canvas) -> None:
    """Duodenum, stomach and colon."""
    for name, curve in (("duodenum", DUODENUM), ("stomach", STOMACH), ("colon", COLON)):
        _paint_gut(canvas, name, curve)


def paint_small_bowel(canvas: Canvas) -> None:
    """Short bent loops packed into the middle, each clearing a little fat from those painted before."""
    patient = canvas.patient
    rng = stream(patient.seed, "loops")
    for _ in range(170):
        middle = rng.uniform((-68, 2, -250), (58, 62, -38))
        ahead, aside = rng.normal(0, (1, 1, 0.5), (2, 3))
        ahead, aside = ahead / np.abs(ahead).max() * 26, aside / np.abs(aside).max() * 18
        radius, content = rng.uniform(9, 12.5), rng.uniform(8, 45)
        arc = [(*as_point(middle + t * ahead + (1 - abs(t)) * aside), radius) for t in (-1.0, 0.0, 1.0)]
        loop = tube_along(canvas, smooth_line(tuple(arc), 9), 3)
        if loop.distance.size:
            kept = canvas.organ(loop.box, loop.distance, patient.hu["bowel_wall"], organ_id("small_bowel"), 1.2)
            canvas.paint(loop.box, kept + 2.2, content + 8 * canvas.fine[loop.box])


def _paint_gut(canvas: Canvas, name: str, curve: Curve) -> None:
    """Wall, content, and gas that rises to the front of a patient lying on the back."""
    patient = canvas.patient
    colon = name == "colon"
    line = smooth_line(curve, 9, patient.shift_mm[name], patient.size[name])
    tube = tube_along(canvas, line, 4, 0.12 if colon else 0.0)
    box, fine = tube.box, canvas.fine[tube.box]
    kept = canvas.organ(box, tube.distance, patient.hu["bowel_wall"], organ_id(name))
    lumen = kept + (2.4 if colon else 3.5 + 0.9 * canvas.blotch[box])
    stool = patient.hu["stool"] + 40 * fine - 260 * ramp(fine - 0.8)
    canvas.paint(box, lumen, stool if colon else patient.hu["fluid"] + 5 * fine)
    if name in patient.gas_level_mm:
        level = patient.gas_level_mm[name]
        gas = level + 6 * canvas.coarse[box] - tube.above if colon else level + 22 - canvas.y[box]
        canvas.paint(box, np.maximum(lumen, gas), patient.hu["gas"])
