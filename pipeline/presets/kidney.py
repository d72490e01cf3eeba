"""Kidney tumors by contrast phase. Every number with its source; those marked (choice) are ours, with the reason.

Sources
  [KiTS]     KiTS23 case records and every 4th mask: radiographic size by histology (lognormal), 63 % clear cell,
             9 papillary, 8 chromophobe, 5 oncocytoma, 2 angiomyolipoma (8 of 482); one tumor in 92 % of the cases;
             necrosis in 0 % below 2 cm, 9 % at 2 to 4, 22 % at 4 to 7, 66 % at 7 to 10, 55 % above; tumors fill .96 of
             their moment ellipsoid, whose axis ratio is 1.36 (1.25 to 1.44): smooth ovoids; share of the surface
             outside the kidney by size; cysts: equivalent diameter
             lognormal(2.414, 0.644), in about half of the cases. Radiographic size is the longest diameter. Equivalent
             diameters of 339 masks have mu 3.567 where radiographic sizes have 3.714, so every mu below is lowered by
             that 0.147.
  [uj]       doi 10.5301/uj.5000256, tumors <= 4 cm, mean and SD without contrast, corticomedullary, nephrographic:
             hypervascular clear cell (13 of 23) 34.0 7.1, 173.1 45.2, 148.8 34.3; hypervascular oncocytoma (9 of 21)
             31.3 8.1, 151.1 36.0, 137.1 33.9; the others lower in both enhanced phases.
  [GWU]      hsrc.himmelfarb.gwu.edu/smhs_rad_facpubs/990, homogeneous papillary: 15 to 51 HU without contrast, 32 to
             100 corticomedullary, 41 to 95 portal venous.
  [Choi]     Korean J Urol 2015;56:695: chromophobe darker than oncocytoma in both enhanced phases; central scar in some
             oncocytomas.
  [plain]    seekhealthz.com: kidney without contrast 30 to 50 HU.
  [phases]   PMID 17367973: cortex minus medulla 110 to 140 HU corticomedullary, below 30 nephrographic.
  [fat]      Radiology abstract, scholars.duke.edu/display/pub782892: -20 HU separates angiomyolipoma from carcinoma;
             Park, AJR: 95 % of angiomyolipomas are fat-rich.
  [cyst]     summary of the ACR paper on incidental findings: 0 to 20 HU, homogeneous, no enhancement.
  [Finelli]  Eur Urol, 136 small carcinomas under surveillance, first 23 mm: clear cell grows 0.25 cm a year, papillary
             0.02.
  [Kurup]    BJU Int 2012: oncocytoma of 17 mm grows 2.9 mm a year.

Parenchyma that the contrasts refer to, mean of cortex and medulla: 40 HU [plain]; arterial 150: cortex 185 (choice) and
medulla 110 HU less [phases], two thirds cortex; portal venous 170: cortex 175 (choice), medulla 15 less [phases]. SD of
tumors are narrowed to what separates them from parenchyma (choice): dose and timing move both alike.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.presets.distributions import half_small
from pipeline.presets.kinds import (
    Absolute,
    BySize,
    Calcification,
    Choice,
    Core,
    Ellipsoidal,
    Exophytic,
    LogNormal,
    LogUniform,
    MassEffect,
    Mixture,
    Normal,
    OrganPreset,
    Place,
    Relative,
    TumorKind,
    Uniform,
)

_TO_EQUIVALENT = 3.567 - 3.714  # [KiTS] log of equivalent over radiographic diameter

_OVOID = Ellipsoidal(
    axis_ratio=Uniform(0.7, 1.3),  # [KiTS] longest over shortest of three draws is 1.36 on average
    lobulation=Uniform(0.0, 0.04),  # [KiTS] smooth
    deformation=Uniform(0.02, 0.08),  # [KiTS] smooth
)
_PLACE = Place(
    vessel_clearance=0.5,  # (choice) they push the vessels of the sinus aside, but reach them
    exophytic=Exophytic(base=0.35, per_mm=0.006, above_mm=35.0, sd=0.17),  # [KiTS]
)
_NECROSIS = Core(
    # [KiTS] fitted: .06 at 30 mm radiographic diameter, .25 at 55, .53 at 85, at most .6
    share=BySize(50.0, 11.0, 0.6),
    hu=Uniform(-80.0, -40.0),  # (choice) from enhanced tissue towards fluid
    size=Uniform(0.3, 0.65),  # (choice) a shell of solid tissue stays
)

CLEAR_CELL = TumorKind(
    diameter_mm=half_small(LogNormal(3.754 + _TO_EQUIVALENT, 0.595, 4.0, 90.0)),  # [KiTS]
    form=_OVOID,
    lowest_hu=20.0,  # (choice) solid tissue stays above fluid
    edge_mm=Uniform(1.0, 2.0),  # (choice) well defined, pseudocapsule
    level={
        "native": Relative(Normal(-6.0, 6.0, -20.0, 8.0)),  # 34 - 40 [uj, plain]
        # hypervascular .57: 173 - 150 [uj]; the others (choice) at 95 HU
        "arterial": Relative(
            Mixture(((0.57, Normal(23.0, 25.0, -25.0, 80.0)), (0.43, Normal(-55.0, 20.0, -95.0, -15.0))))
        ),
        # hypervascular .57: 149 - 170 [uj]; the others (choice) at 105 HU
        "portal_venous": Relative(
            Mixture(((0.57, Normal(-21.0, 20.0, -60.0, 20.0)), (0.43, Normal(-65.0, 20.0, -105.0, -25.0))))
        ),
    },
    texture_sd_hu=Uniform(6.0, 20.0),  # (choice) the most mixed of the carcinomas
    texture_grain_mm=Uniform(4.0, 12.0),  # (choice) solid next to cystic parts
    place=_PLACE,
    core=_NECROSIS,
    calcification=Calcification(
        share=0.1,  # (choice) a minority
        hu=Uniform(100.0, 300.0),  # (choice) above enhanced tissue
        density=Uniform(0.002, 0.015),  # (choice) specks
    ),
    mass_effect=MassEffect(share=0.5, strength=Uniform(0.1, 0.3)),  # (choice) displaces what it does not replace
    doubling_days=LogNormal(6.706, 0.7, 120.0, 3000.0),  # 23 to 25.5 mm in a year is 817 days [Finelli]; sigma (choice)
)

PAPILLARY = TumorKind(
    diameter_mm=half_small(LogNormal(3.538 + _TO_EQUIVALENT, 0.545, 4.0, 90.0)),  # [KiTS]
    form=_OVOID,
    lowest_hu=20.0,  # (choice) solid tissue stays above fluid
    edge_mm=Uniform(1.0, 2.0),  # (choice) well defined
    # means: the middle of the ranges in [GWU] minus 40, 150, 170; cut at the ends of those ranges
    level={
        "native": Relative(Normal(-7.0, 9.0, -25.0, 11.0)),  # [GWU, plain] 33 - 40
        "arterial": Relative(Normal(-84.0, 17.0, -118.0, -50.0)),  # [GWU] 66 - 150
        "portal_venous": Relative(Normal(-102.0, 14.0, -129.0, -75.0)),  # [GWU] 68 - 170
    },
    texture_sd_hu=Uniform(2.0, 8.0),  # (choice) homogeneous, as in [GWU]
    texture_grain_mm=Uniform(4.0, 10.0),  # (choice) little structure
    place=_PLACE,
    core=replace(_NECROSIS, hu=Uniform(-45.0, -20.0)),  # (choice) solid parts enhance less, so the step is smaller
    mass_effect=MassEffect(share=0.5, strength=Uniform(0.1, 0.3)),  # (choice) as clear cell
)

CHROMOPHOBE = TumorKind(
    diameter_mm=half_small(LogNormal(3.899 + _TO_EQUIVALENT, 0.669, 4.0, 90.0)),  # [KiTS]
    form=_OVOID,
    lowest_hu=20.0,  # (choice) solid tissue stays above fluid
    edge_mm=Uniform(1.0, 2.0),  # (choice) well defined
    level={  # (choice) between papillary and the brighter oncocytomas [Choi]
        "native": Relative(Normal(-5.0, 6.0, -18.0, 8.0)),
        "arterial": Relative(Normal(-45.0, 20.0, -90.0, -10.0)),
        "portal_venous": Relative(Normal(-60.0, 18.0, -100.0, -25.0)),
    },
    texture_sd_hu=Uniform(3.0, 10.0),  # (choice) homogeneous
    texture_grain_mm=Uniform(4.0, 12.0),  # (choice) little structure
    place=_PLACE,
    core=_NECROSIS,
    mass_effect=MassEffect(share=0.5, strength=Uniform(0.1, 0.3)),  # (choice) as clear cell
)

ONCOCYTOMA = TumorKind(
    diameter_mm=half_small(LogNormal(3.490 + _TO_EQUIVALENT, 0.586, 4.0, 90.0)),  # [KiTS]
    form=_OVOID,
    lowest_hu=20.0,  # (choice) solid tissue stays above fluid
    edge_mm=Uniform(0.8, 1.8),  # (choice) well defined
    level={
        "native": Relative(Normal(-9.0, 6.0, -22.0, 6.0)),  # 31 - 40 [uj, plain]
        # hypervascular .43: 151 - 150 [uj]; the others (choice) at 100 HU
        "arterial": Relative(
            Mixture(((0.43, Normal(1.0, 20.0, -40.0, 50.0)), (0.57, Normal(-50.0, 18.0, -85.0, -15.0))))
        ),
        # hypervascular .43: 137 - 170 [uj]; the others (choice) at 110 HU
        "portal_venous": Relative(
            Mixture(((0.43, Normal(-33.0, 18.0, -70.0, 5.0)), (0.57, Normal(-60.0, 18.0, -95.0, -25.0))))
        ),
    },
    texture_sd_hu=Uniform(2.0, 8.0),  # (choice) homogeneous but for the scar
    texture_grain_mm=Uniform(4.0, 10.0),  # (choice) little structure
    place=_PLACE,
    core=Core(
        share=0.33,  # (choice) scar [Choi]: a sign of some, not of most; no necrosis [KiTS]
        hu=Uniform(-60.0, -30.0),  # (choice) scars enhance late
        size=Uniform(0.15, 0.35),  # (choice) small and central
    ),
    mass_effect=MassEffect(share=0.5, strength=Uniform(0.1, 0.3)),  # (choice) as clear cell
    doubling_days=LogNormal(6.283, 0.7, 120.0, 3000.0),  # 17 to 19.9 mm in a year is 535 days [Kurup]; sigma (choice)
)

ANGIOMYOLIPOMA = TumorKind(
    diameter_mm=half_small(LogNormal(3.100 + _TO_EQUIVALENT, 0.433, 4.0, 60.0)),  # [KiTS]
    form=_OVOID,
    edge_mm=Uniform(0.7, 1.5),  # (choice) fat against kidney is sharp
    level=Absolute(Uniform(-80.0, -20.0)),  # [fat]; the lower end, nearly pure fat, is a (choice)
    texture_sd_hu=Uniform(15.0, 35.0),  # (choice) fat, muscle and vessels mixed
    texture_grain_mm=Uniform(3.0, 8.0),  # (choice) strands and lobules
    place=_PLACE,
    mass_effect=MassEffect(share=0.3, strength=Uniform(0.05, 0.2)),  # (choice) soft
)

CYST = TumorKind(
    diameter_mm=half_small(LogNormal(2.414, 0.644, 4.0, 60.0)),  # [KiTS] equivalent already
    form=Ellipsoidal(
        axis_ratio=Uniform(0.85, 1.15),  # (choice) round: fluid under pressure
        lobulation=Uniform(0.0, 0.03),  # (choice) smooth
        deformation=Uniform(0.0, 0.05),  # (choice) smooth
    ),
    edge_mm=Uniform(0.5, 1.0),  # (choice) sharp: only the scanner's blur
    level=Absolute(Uniform(0.0, 20.0)),  # [cyst]
    texture_sd_hu=Uniform(0.0, 2.0),  # [cyst] homogeneous
    texture_grain_mm=Uniform(4.0, 10.0),  # (choice) nearly without effect at that SD
    place=_PLACE,
    mass_effect=MassEffect(share=0.8, strength=Uniform(0.1, 0.3)),  # (choice) under pressure
)

PERFUSION_DEFECT = TumorKind(
    diameter_mm=LogUniform(8.0, 35.0),  # (choice) a lobe of cortex
    form=Ellipsoidal(
        axis_ratio=Uniform(0.5, 1.5),  # (choice) elongated, towards a wedge
        lobulation=Uniform(0.03, 0.1),  # (choice) not round
        deformation=Uniform(0.1, 0.25),  # (choice) not round
    ),
    edge_mm=Uniform(1.5, 4.0),  # (choice) from the sharp border of an infarct to nephritis
    level={
        "native": Relative(Uniform(0.0, 0.0)),  # blood flow alone is invisible without contrast
        "arterial": Relative(Uniform(-40.0, -15.0)),  # (choice) less supplied, not dead
        "portal_venous": Relative(Uniform(-40.0, -15.0)),  # (choice) as arterial
    },
    texture_sd_hu=Uniform(2.0, 6.0),  # (choice) striated
    texture_grain_mm=Uniform(3.0, 8.0),  # (choice) striae
    base="donor",  # cortex and medulla stay visible
    place=Place(vessel_clearance=0.0, subcapsular=True),  # (choice) the base of the wedge is the capsule
)

PRESET = OrganPreset(
    kinds={
        "clear_cell": CLEAR_CELL,
        "papillary": PAPILLARY,
        "chromophobe": CHROMOPHOBE,
        "oncocytoma": ONCOCYTOMA,
        "angiomyolipoma": ANGIOMYOLIPOMA,
        "cyst": CYST,
    },
    # [KiTS] in percent; cysts are no tumors there, so a user has to ask for them
    weights={
        "clear_cell": 63.0,
        "papillary": 9.0,
        "chromophobe": 8.0,
        "oncocytoma": 5.0,
        "angiomyolipoma": 2.0,
        "cyst": 0.0,
    },
    count=Choice({1: 0.92, 2: 0.08}),  # [KiTS]; more than two are counted as two
    distractors={"cyst": CYST, "perfusion_defect": PERFUSION_DEFECT},
    distractor_weights={"cyst": 0.75, "perfusion_defect": 0.25},  # (choice) cysts in about half of [KiTS], defects rare
)
