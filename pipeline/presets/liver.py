"""Liver tumors in portal venous phase. Every number with its source; those marked (choice) are ours, with the reason.

Sources
  [LiTS]      245 lesions >= 3 mm of 32 LiTS cases, measured from the public masks: diameter lognormal(2.546, 0.693).
  [MCT]       MCT-LTDiag, 517 patients: diameters by kind; capsule in 23 % of HCC; rim in 80 % of colorectal metastases.
  [Merlin]    counts of liver lesions in 5,133 Merlin reports: 1: .56, 2: .27, 3: .11, 4: .04, 5 and more: .03.
  [pairs]     tumor minus surrounding liver in public portal venous scans: LiTS-117 -48 HU, 3D-IRCADb-17 -40 HU, and
              -33 to -46 HU in most others, outliers from -20 to +7 HU.
  [texture]   tumors of the same two scans: autocorrelation .64 to .97 at one voxel where parenchyma has .36, so their
              structure is coarse while the noise stays as fine as the donor's.
  [shape]     V / (pi/6 D^3) of real liver lesions is .39 to .54 and the bounding box extent ratio 1.35 (1.20 to 1.67):
              wide half axes U(0.6, 1.3) r reach both.
  [Hu 2023]   Hu et al., CVPR 2023 (arXiv 2303.14869), training generator: tiny tumors of radius 3 to 5 mm matter most.
"""

from __future__ import annotations

from pipeline.presets.kinds import Choice, LogNormal, LogUniform, Mixture, Normal, OrganPreset, TumorKind, Uniform

# Half of the tumors small on purpose: small ones are what networks miss [Hu 2023].
_SMALL_FIRST = LogUniform(4.0, 20.0)

METASTASIS = TumorKind(
    diameter_mm=Mixture(((0.5, LogNormal(2.546, 0.693, 4.0, 80.0)), (0.5, _SMALL_FIRST))),  # [LiTS]
    axis_ratio=Uniform(0.6, 1.3),  # [shape]
    deformation=Uniform(0.08, 0.2),  # (choice) lobulated outline without folds
    edge_mm=Uniform(1.5, 3.5),  # (choice) margins of metastases are blurred over 1 to 2 voxels of 1.5 mm
    contrast_hu=Normal(-42.0, 12.0, -80.0, -15.0),  # [pairs]
    texture_sd_hu=Uniform(3.0, 10.0),  # [texture]
    texture_grain_mm=Uniform(3.0, 8.0),  # [texture]
    rim_hu=Uniform(5.0, 20.0),  # (choice) between core and parenchyma
    rim_share=0.8,  # [MCT]
    rim_mm=Uniform(1.5, 4.0),  # (choice)
    lowest_hu=15.0,  # (choice) solid tissue stays above fluid, 0 to 20 HU
)

HCC = TumorKind(
    diameter_mm=Mixture(((0.5, LogNormal(4.064, 0.562, 4.0, 80.0)), (0.5, _SMALL_FIRST))),  # [MCT]
    axis_ratio=Uniform(0.75, 1.25),  # expansive growth: rounder, the half axes of [Hu 2023]
    deformation=Uniform(0.05, 0.15),  # (choice) lobulated in only 6 % [MCT]
    edge_mm=Uniform(1.0, 2.5),  # (choice) better defined than metastases
    contrast_hu=Normal(-28.0, 12.0, -60.0, -10.0),  # (choice) washout, weaker than metastases
    texture_sd_hu=Uniform(5.0, 14.0),  # mosaic in 78 to 86 % (PMC3487070)
    texture_grain_mm=Uniform(4.0, 12.0),  # (choice)
    rim_hu=Uniform(
        30.0, 70.0
    ),  # enhancing capsule, brighter than parenchyma; [Hu 2023] as re-implemented: 80 HU at most
    rim_share=0.23,  # [MCT] capsule
    rim_mm=Uniform(1.0, 2.0),  # (choice) a capsule is thin
    lowest_hu=15.0,
)

LIVER = OrganPreset(
    kinds={"metastasis": METASTASIS, "hcc": HCC},
    weights={"metastasis": 0.7, "hcc": 0.3},  # (choice) LiTS holds mostly secondary tumors
    count=Choice({1: 0.56, 2: 0.27, 3: 0.11, 4: 0.04, 5: 0.02}),  # [Merlin]
)
