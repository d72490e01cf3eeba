"""Painter of the large vessels.

In: a canvas. Out: nothing; it paints on it.
"""

from __future__ import annotations

from pipeline.organs import organ_id
from pipeline.phantom.canvas import Canvas
from pipeline.phantom.curves import (
    AORTA,
    ARTERIES,
    MESENTERIC_VEIN,
    PORTAL_VEIN,
    RENAL_VEINS,
    SPLENIC_VEIN,
    VENA_CAVA,
    Curve,
)
from pipeline.phantom.tubes import smooth_line, tube_along


def paint_vessels(canvas: Canvas) -> None:
    """The large vessels in front of the spine; small ones count as background."""
    for curve in (SPLENIC_VEIN, MESENTERIC_VEIN, PORTAL_VEIN):
        _paint_vessel(canvas, curve, "portal_vein", organ_id("portal_vein"))
    for curve in RENAL_VEINS:
        _paint_vessel(canvas, curve, "inferior_vena_cava", 0)
    for curve in ARTERIES:
        _paint_vessel(canvas, curve, "aorta", 0)
    _paint_vessel(canvas, VENA_CAVA, "inferior_vena_cava", organ_id("inferior_vena_cava"))
    _paint_vessel(canvas, AORTA, "aorta", organ_id("aorta"))


def _paint_vessel(canvas: Canvas, curve: Curve, blood: str, label: int) -> None:
    tube = tube_along(canvas, smooth_line(curve, 9), 3)
    canvas.paint(tube.box, tube.distance, canvas.patient.hu[blood], label)
