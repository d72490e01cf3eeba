"""Liver tumors by contrast phase. Every number with its source; those marked (choice) are ours, with the reason.

Sources
  [LiTS]       245 lesions >= 3 mm of 32 LiTS cases, measured from the public masks: diameter lognormal(2.546, 0.693).
  [MCT]        MCT-LTDiag, 517 patients: diameters by kind; shares with arterial enhancement, washout, capsule, rim,
               scar, lobulation. Its diameters are the longest, so they are scaled by the share of the ball on that
               diameter which the lesion fills, measured there: metastasis .54, HCC .47, ICC .39.
  [Merlin]     5,133 Merlin reports with liver lesions: counts 1: .56, 2: .27, 3: .11, 4: .04, 5 and more: .03; largest
               diameter of any lesion, cysts and hemangiomas included, lognormal(2.892, 0.909).
  [pairs]      tumor minus surrounding liver in public portal venous scans: LiTS-117 -48 HU, 3D-IRCADb-17 -40 HU, and
               -33 to -46 HU in most others, outliers from -20 to +7 HU.
  [IRCAD]      3D-IRCADb-17: parenchyma 103 HU, vessels 146 HU, a tumor with dense deposits of up to 285 HU.
  [texture]    tumors of two public scans: autocorrelation .64 to .97 at one voxel where parenchyma has .36, so their
               structure is coarse while the noise stays as fine as the donor's. If r is the structure's share of the
               variance, autocorrelation is r + (1 - r) .36, so r is .44 to .95 and the SD .9 to 4 times the noise's,
               which is 10 to 15 HU: 9 HU or more. Both tumors are large.
  [shape]      V / (pi/6 D^3) of real liver lesions is .39 to .54 and the bounding box extent ratio 1.35 (1.20 to 1.67):
               wide half axes U(0.6, 1.3) r reach both.
  [Hu 2023]    Hu et al., CVPR 2023 (arXiv 2303.14869): half axes; mass effect I = 30 as re-implemented by others.
  [Lee 2012]   PMC3487070, 243 HCC: 78 % hypervascular in arterial phase.
  [Mayo 2014]  Abdom Imaging 39:1247, 124 HCC: in arterial phase at least 10 HU above liver in 50 %.
  [mosaic]     PMID 14975963: mosaic pattern in 78 to 86 % of HCC.
  [Tu 2024]    World J Hepatol 16:800: doubling time of HCC, median 163 days, quartiles 72 and 302.
  [Finlay]     Br J Surg 1988;75:641: doubling time of colorectal metastases, mean 155 days overt, 86 days occult.
  [blood]      seekhealthz.com, CT of hemangioma: as dense as blood vessels without contrast, nodules like blood pool
               after it; liver without contrast 50 to 70 HU.
  [cyst]       summary of the ACR paper on incidental findings: 0 to 20 HU, homogeneous, no enhancement, sharp margin.
  [focal fat]  med-ed.virginia.edu, elearnrad.com, Medscape 405311: geographic outline, margin sharp or not, no mass
               effect, vessels run through.

Numbers per phase without another tag: liver has about 60 HU without contrast [blood], 75 in late arterial and 105 in
portal venous phase (choice), tumor tissue that takes up little contrast stays at 45 to 65.
"""

from __future__ import annotations

from dataclasses import replace
from math import log

from pipeline.presets.distributions import half_small, lobulated
from pipeline.presets.kinds import (
    Absolute,
    BySize,
    Calcification,
    Choice,
    Core,
    Ellipsoidal,
    LogNormal,
    LogUniform,
    MassEffect,
    Mixture,
    Normal,
    OrganPreset,
    Place,
    Relative,
    Rim,
    Septa,
    TumorKind,
    Uniform,
)

METASTASIS = TumorKind(
    diameter_mm=half_small(LogNormal(2.546, 0.693, 4.0, 80.0)),  # [LiTS]
    form=Ellipsoidal(
        axis_ratio=Uniform(0.6, 1.3),  # [shape]
        lobulation=lobulated(0.15),  # [MCT]
        deformation=Uniform(0.08, 0.2),  # (choice) irregular outline without folds
    ),
    edge_mm=Uniform(1.5, 3.5),  # (choice) margins of metastases are blurred over 1 to 2 voxels of 1.5 mm
    level={
        "native": Relative(Normal(-15.0, 7.0, -35.0, 0.0)),  # (choice) 45 against 60 HU
        # 8 % enhance beyond liver [MCT], the rest stays darker (choice): 53 against 75 HU
        "arterial": Relative(Mixture(((0.92, Normal(-22.0, 10.0, -50.0, -2.0)), (0.08, Uniform(5.0, 25.0))))),
        "portal_venous": Relative(Normal(-42.0, 12.0, -80.0, -15.0)),  # [pairs]
    },
    texture_sd_hu=Uniform(8.0, 22.0),  # [texture]
    texture_grain_mm=Uniform(4.0, 12.0),  # [texture]
    lowest_hu=15.0,  # (choice) solid tissue stays above fluid, 0 to 20 HU
    rim=Rim(
        share=0.8,  # [MCT]
        hu=Uniform(5.0, 20.0),  # (choice) between core and parenchyma
        mm=Uniform(1.5, 4.0),  # (choice) visible at 1 mm voxels, thinner than the tumor
    ),
    core=Core(
        share=BySize(60.0, 15.0, 0.5),  # (choice) large ones outgrow their supply
        hu=Uniform(-30.0, -12.0),  # (choice) towards fluid
        size=Uniform(0.3, 0.6),  # (choice) inside the rim
    ),
    calcification=Calcification(
        share=0.1,  # (choice) seen in a minority, mostly mucinous ones
        hu=Uniform(60.0, 180.0),  # deposits of 285 HU over about 100 [IRCAD], partial volume below
        density=Uniform(0.002, 0.02),  # (choice) specks, not a shell
    ),
    mass_effect=MassEffect(share=0.3, strength=Uniform(0.1, 0.3)),  # (choice) weaker than HCC; 0.3 is [Hu 2023]
    doubling_days=LogNormal(4.61, 0.6, 30.0, 500.0),  # [Finlay] mean 120 days, between occult and overt
)

HCC = TumorKind(
    diameter_mm=half_small(LogNormal(4.064 + log(0.47) / 3, 0.562, 4.0, 80.0)),  # [MCT] 58 mm longest, 45 equivalent
    form=Ellipsoidal(
        axis_ratio=Uniform(0.75, 1.25),  # expansive growth: rounder, the half axes of [Hu 2023]
        lobulation=lobulated(0.06),  # [MCT]
        deformation=Uniform(0.05, 0.15),  # (choice) smoother than metastases
    ),
    edge_mm=Uniform(1.0, 2.5),  # (choice) better defined than metastases
    level={
        "native": Relative(Normal(-10.0, 7.0, -30.0, 3.0)),  # (choice) slightly dark
        # 78 % brighter than liver [Lee 2012], 57 % by 10 HU or more ([Mayo 2014]: 50 %)
        "arterial": Relative(Mixture(((0.78, Normal(12.0, 14.0, 2.0, 60.0)), (0.22, Normal(-10.0, 8.0, -30.0, 2.0))))),
        # washout in half [MCT: .48], weaker than in metastases (choice); the others close to liver (choice)
        "portal_venous": Relative(
            Mixture(((0.5, Normal(-28.0, 12.0, -60.0, -10.0)), (0.5, Normal(-10.0, 8.0, -25.0, 10.0))))
        ),
    },
    texture_sd_hu=Uniform(8.0, 24.0),  # (choice) mosaic, so more than metastases
    texture_grain_mm=Uniform(4.0, 12.0),  # (choice) nodules in the nodule
    lowest_hu=15.0,  # (choice) as metastases
    rim=Rim(
        share=0.23,  # [MCT] capsule
        late=True,  # (choice) a capsule is fibrous: it enhances in portal venous and later phases
        hu=Uniform(30.0, 70.0),  # (choice) brighter than parenchyma; 80 HU at most in re-implementations of [Hu 2023]
        mm=Uniform(1.0, 2.0),  # (choice) a capsule is thin
    ),
    core=Core(
        share=BySize(60.0, 15.0, 0.6),  # (choice) necrosis of large ones
        hu=Uniform(-35.0, -15.0),  # (choice) towards fluid
        size=Uniform(0.25, 0.55),  # (choice) within the capsule
    ),
    septa=Septa(
        share=0.8,  # [mosaic]
        hu=Uniform(4.0, 12.0),  # (choice) faint: half of the texture
        spacing_mm=Uniform(6.0, 14.0),  # (choice) compartments of a mosaic, so none in tumors below 1 cm
    ),
    mass_effect=MassEffect(share=0.6, strength=Uniform(0.15, 0.35)),  # (choice) expansive; around the 0.3 of [Hu 2023]
    doubling_days=LogNormal(5.096, 1.06, 20.0, 900.0),  # [Tu 2024] sigma = log(302 / 72) / 1.349
)

ICC = TumorKind(
    diameter_mm=half_small(LogNormal(4.161 + log(0.39) / 3, 0.485, 4.0, 80.0)),  # [MCT] 64 mm longest, 47 equivalent
    form=Ellipsoidal(
        axis_ratio=Uniform(0.55, 1.35),  # (choice) wider than [shape]: the least compact of the three
        lobulation=lobulated(0.34),  # [MCT]
        deformation=Uniform(0.1, 0.25),  # (choice) infiltrative
    ),
    edge_mm=Uniform(2.0, 4.0),  # (choice) ill-defined
    level={
        "native": Relative(Normal(-14.0, 6.0, -30.0, 0.0)),  # (choice) as metastases
        # 18 % enhance as a whole [MCT], the rest stays darker (choice)
        "arterial": Relative(Mixture(((0.82, Normal(-15.0, 9.0, -40.0, -2.0)), (0.18, Uniform(5.0, 30.0))))),
        "portal_venous": Relative(Normal(-28.0, 12.0, -60.0, -8.0)),  # (choice) fibrous: fills in slowly, from outside
    },
    texture_sd_hu=Uniform(8.0, 20.0),  # [texture]
    texture_grain_mm=Uniform(4.0, 12.0),  # (choice) coarser than metastases, as the tumors are larger
    lowest_hu=15.0,  # (choice) as metastases
    place=Place(vessel_clearance=0.0),  # (choice) it grows along the portal tracts and encases vessels
    rim=Rim(
        share=0.61,  # [MCT]
        hu=Uniform(8.0, 25.0),  # (choice) stronger than in metastases
        mm=Uniform(1.5, 5.0),  # (choice) irregular, so wider
    ),
    core=Core(
        share=BySize(70.0, 20.0, 0.5),  # (choice) fibrosis and necrosis of large ones
        hu=Uniform(-25.0, -10.0),  # (choice) fibrosis is denser than necrosis
        size=Uniform(0.3, 0.6),  # (choice) inside the rim
    ),
)

HEMANGIOMA = TumorKind(
    diameter_mm=half_small(LogNormal(2.892, 0.909, 4.0, 80.0)),  # [Merlin]; those of [MCT] were operated on: giants
    form=Ellipsoidal(
        axis_ratio=Uniform(0.7, 1.3),  # (choice) round to oval
        lobulation=lobulated(0.21),  # [MCT]
        deformation=Uniform(0.05, 0.15),  # (choice) smooth
    ),
    edge_mm=Uniform(1.0, 2.0),  # (choice) well defined
    level={
        "native": Relative(Normal(-18.0, 7.0, -35.0, -5.0)),  # blood of 40 to 45 HU in liver of 50 to 70 [blood]
        "arterial": Relative(Normal(-12.0, 12.0, -35.0, 30.0)),  # (choice) bright nodules, unfilled middle
        "portal_venous": Relative(Normal(-6.0, 18.0, -35.0, 43.0)),  # half filled; filled is +43, vessels in [IRCAD]
    },
    texture_sd_hu=Uniform(3.0, 8.0),  # (choice) the nodules carry the structure
    texture_grain_mm=Uniform(4.0, 10.0),  # (choice) pools of blood
    lowest_hu=20.0,  # (choice) blood is denser than fluid
    rim=Rim(
        share=0.83,  # [MCT] peripheral nodular
        hu=Uniform(45.0, 100.0),  # blood pool over unfilled blood: 146 - 45 [IRCAD, blood], less where it mixes
        mm=Uniform(4.0, 12.0),  # (choice) nodules reach some mm inward
        nodular=1.0,  # [MCT] discontinuous
    ),
    core=Core(
        share=0.17,  # [MCT] central scar
        hu=Uniform(-25.0, -10.0),  # (choice) never fills
        size=Uniform(0.2, 0.4),  # (choice) a cleft in the middle
    ),
    mass_effect=MassEffect(share=0.3, strength=Uniform(0.05, 0.2)),  # (choice) soft: displaces little
)

CYST = TumorKind(
    diameter_mm=half_small(LogNormal(2.892, 0.909, 4.0, 80.0)),  # [Merlin] most lesions of reports are benign
    form=Ellipsoidal(
        axis_ratio=Uniform(0.85, 1.15),  # (choice) round: fluid under pressure
        lobulation=Uniform(0.0, 0.03),  # (choice) smooth
        deformation=Uniform(0.0, 0.06),  # (choice) smooth
    ),
    edge_mm=Uniform(0.5, 1.0),  # [cyst] sharp: only the scanner's blur
    level=Absolute(Uniform(0.0, 20.0)),  # [cyst]
    texture_sd_hu=Uniform(0.0, 2.0),  # [cyst] homogeneous
    texture_grain_mm=Uniform(4.0, 10.0),  # (choice) nearly without effect at that SD
    mass_effect=MassEffect(share=0.8, strength=Uniform(0.1, 0.3)),  # (choice) displaces vessels; 0.3 is [Hu 2023]
)

FOCAL_FAT = TumorKind(
    diameter_mm=LogUniform(8.0, 40.0),  # (choice) from a nodule to part of a segment
    form=Ellipsoidal(
        axis_ratio=Uniform(0.5, 1.5),  # [focal fat] not round
        lobulation=Uniform(0.08, 0.2),  # [focal fat] geographic
        deformation=Uniform(0.15, 0.3),  # [focal fat] geographic
    ),
    edge_mm=Uniform(1.0, 5.0),  # [focal fat] sharp or not; the numbers are a (choice)
    level=Relative(Uniform(-35.0, -15.0)),  # (choice) does not depend on contrast; below -15 it would not mislead
    texture_sd_hu=Uniform(1.0, 4.0),  # (choice) patchy
    texture_grain_mm=Uniform(5.0, 12.0),  # (choice) lobules merge
    lowest_hu=-10.0,  # (choice) fatty liver reaches 0 HU and below
    base="donor",  # [focal fat] vessels run through
    place=Place(vessel_clearance=0.0),  # [focal fat]
)

VESSEL_END_ON = TumorKind(
    diameter_mm=LogUniform(4.0, 10.0),  # (choice) branches that a slice cuts across
    form=Ellipsoidal(
        axis_ratio=Uniform(0.8, 1.4),  # (choice) a short piece of a tube
        lobulation=Uniform(0.0, 0.02),  # (choice) smooth
        deformation=Uniform(0.0, 0.05),  # (choice) smooth
    ),
    edge_mm=Uniform(0.5, 1.5),  # (choice) as sharp as vessels are
    level={
        "native": Relative(Uniform(-25.0, -10.0)),  # blood of 40 to 45 HU in liver of 50 to 70 [blood]
        "arterial": Relative(Uniform(10.0, 60.0)),  # (choice) portal branches filling up to arteries
        "portal_venous": Relative(Uniform(30.0, 55.0)),  # +43 in [IRCAD]
    },
    texture_sd_hu=Uniform(0.0, 2.0),  # (choice) blood is homogeneous
    texture_grain_mm=Uniform(4.0, 8.0),  # (choice) nearly without effect at that SD
    place=Place(vessel_clearance=0.0),  # (choice) a branch lies beside branches
)

PERFUSION_DIFFERENCE = TumorKind(
    diameter_mm=LogUniform(8.0, 35.0),  # (choice) a subsegment
    form=Ellipsoidal(
        axis_ratio=Uniform(0.5, 1.5),  # (choice) elongated, towards a wedge
        lobulation=Uniform(0.03, 0.1),  # (choice) follows lobules
        deformation=Uniform(0.1, 0.25),  # (choice) no round outline
    ),
    edge_mm=Uniform(2.0, 5.0),  # (choice) fades
    level={
        "native": Relative(Uniform(0.0, 0.0)),  # blood flow alone is invisible without contrast
        "arterial": Relative(Uniform(10.0, 25.0)),  # (choice) liver is at 75 there, at 105 when fully supplied
        "portal_venous": Relative(Uniform(0.0, 8.0)),  # (choice) evens out
    },
    texture_sd_hu=Uniform(1.0, 3.0),  # (choice) parenchyma otherwise
    texture_grain_mm=Uniform(5.0, 12.0),  # (choice) lobules
    base="donor",  # parenchyma with its vessels, only better supplied
    place=Place(vessel_clearance=0.0, subcapsular=True),  # (choice) where supply is uneven
)

PRESET = OrganPreset(
    kinds={"metastasis": METASTASIS, "hcc": HCC, "icc": ICC, "hemangioma": HEMANGIOMA, "cyst": CYST},
    # (choice) LiTS holds mostly secondary tumors. The class `liver_tumor` means malignant ones unless a user asks for
    # hemangiomas or cysts, hence their 0.
    weights={"metastasis": 0.7, "hcc": 0.2, "icc": 0.1, "hemangioma": 0.0, "cyst": 0.0},
    count=Choice({1: 0.56, 2: 0.27, 3: 0.11, 4: 0.04, 5: 0.02}),  # [Merlin]
    distractors={
        "cyst": replace(CYST, diameter_mm=LogUniform(4.0, 30.0)),  # (choice) beside a tumor, not in its place
        "hemangioma": replace(HEMANGIOMA, diameter_mm=LogUniform(5.0, 30.0)),  # (choice) as cysts
        "focal_fat": FOCAL_FAT,
        "vessel_end_on": VESSEL_END_ON,
        "perfusion_difference": PERFUSION_DIFFERENCE,
    },
    distractor_weights={  # (choice) cysts are the most common look-alike, the rest equal
        "cyst": 0.4,
        "hemangioma": 0.15,
        "focal_fat": 0.15,
        "vessel_end_on": 0.15,
        "perfusion_difference": 0.15,
    },
)
