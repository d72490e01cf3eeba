"""Distributions that several organs' presets share.

Sources
  [Hu 2023]  Hu et al., CVPR 2023 (arXiv 2303.14869): sensitivity to small tumors comes from small synthetic tumors.
  [MCT]      MCT-LTDiag, 517 patients: shares of lobulated tumors by kind (in the presets that use `lobulated`).
"""

from __future__ import annotations

from pipeline.presets.kinds import LogNormal, LogUniform, Mixture, Uniform

SMALL_FIRST = LogUniform(4.0, 20.0)  # (choice) diameters in mm below what screening finds; small on purpose [Hu 2023]


def half_small(clinical: LogNormal) -> Mixture:
    """Half the diameters as in the clinic, half small on purpose: small tumors are what networks miss."""
    return Mixture(((0.5, clinical), (0.5, SMALL_FIRST)))  # (choice) equal halves


def lobulated(share: float) -> Mixture:
    """SD of the radius over the radius: `share` of the tumors visibly lobulated, the rest close to smooth."""
    # (choice) below 3 % of the radius an outline reads as smooth, from 8 % on as lobulated
    return Mixture(((1.0 - share, Uniform(0.0, 0.03)), (share, Uniform(0.08, 0.18))))
