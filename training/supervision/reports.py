"""What a radiology report tells of an organ's tumors: their volume altogether.

The volume loss of R-Super (Bassi et al., MICCAI 2025), with its constants. Where each may be is in
`training.supervision.balls`.
"""

from __future__ import annotations

import math

from torch import Tensor

# Both of the published code. The first lets a volume of 0 be reported, and weighs small tumors less; the second is the
# share of a volume that costs nothing, for a report's diameters are rounded.
_OFFSET_MM3 = 500.0
_TOLERANCE = 0.1
_TOLERATED_MM3 = 100.0  # up to this volume there is no tolerance


def ellipsoid_mm3(diameters_mm: tuple[float, ...]) -> float:
    """Volume of a tumor with 1 to 3 diameters: a sphere of one, of two the third is their mean."""
    a = diameters_mm[0]
    b = diameters_mm[1] if len(diameters_mm) > 1 else a
    c = diameters_mm[2] if len(diameters_mm) > 2 else (a + b) / 2
    return math.pi / 6 * a * b * c


def volume_loss(predicted_mm3: Tensor, reported_mm3: float, at_least: bool) -> Tensor:
    """clip(|V - V_r| / (V + V_r + 500 mm3) - tolerance, 0, 1) of a predicted volume V, a scalar.

    The tolerance is the same expression for a volume 10 % below the reported one: nearer than that costs nothing.
    With `at_least`, for not all tumors were measured, neither does a larger volume.
    """
    edge = max((1 - _TOLERANCE) * reported_mm3, min(reported_mm3, _TOLERATED_MM3))
    tolerance = abs(edge - reported_mm3) / (edge + reported_mm3 + _OFFSET_MM3)
    missing = reported_mm3 - predicted_mm3
    error = (missing if at_least else missing.abs()) / (predicted_mm3 + reported_mm3 + _OFFSET_MM3)
    return (error - tolerance).clamp(0, 1)
