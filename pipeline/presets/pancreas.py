"""Pancreas tumors by contrast phase. Every number with its source; those marked (choice) are ours, with the reason.

Sources
  [Prokesch]   PMID 12202711, 53 carcinomas: 74.8 (SD 35.6) HU below pancreas in pancreatic phase; 11 % iso-attenuating,
               9.3 (11.3) HU apart, 5 of those 6 with an interrupted duct, 3 with atrophy.
  [Ishigami]   PMID 17961951, 57 carcinomas: contrast in portal venous phase 40.5 (23.0) HU; 14 % iso-attenuating there,
               7.1 (4.7) HU apart; diameter 30.3 (9.0) mm, of the iso-attenuating 12.4 (4.8).
  [Lu]         Radiology 1996;199:697: contrast 67 (19) HU in pancreatic and 39 (16) HU in hepatic phase, in agreement.
  [site]       Radiopaedia: two thirds of the carcinomas in head and uncinate process, one third in body and tail.
  [duct]       seekhealthz.com: the duct behind a carcinoma is wider than 2 to 3 mm.
  [gland]      radiologykey.com/22-pancreas: thickness 30 mm at the head, 25 at the body, 20 at the tail; fatty parts of
               -40 to -10 HU, mostly in the front of the head.
  [MDCT]       "Time to progression of pancreatic cancer: evaluation with multi-detector computed tomography", 100
               untreated patients: doubling time 132 (132) days, 20 to 977.
  [Kojima]     PMC13026872, 80 neuroendocrine tumors: median diameter 18 mm (6 to 150), 80 % brighter than pancreas.
  [Belousova]  PMC5552195: arterial enhancement ratio of neuroendocrine tumors 1.53 (0.45) in grade 1, 1.01 (0.33) in
               grade 2.
  [obstruct]   html.rhhz.net/dejydxxb/html/2020/10/20200304.htm: duct dilated in 25 of 200 neuroendocrine tumors.
  [Merlin]     1,594 Merlin reports: largest diameter of any pancreas lesion, cysts included, lognormal(2.822, 0.961).
  [cyst]       fluid of 0 to 20 HU, as cysts of other organs (summary of the ACR paper on incidental findings).

Pancreas that the contrasts refer to: 40 HU without contrast, 100 to 120 arterial (choice).
"""

from __future__ import annotations

from pipeline.presets.distributions import half_small, lobulated
from pipeline.presets.kinds import (
    Absolute,
    BySize,
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
    Septa,
    TumorKind,
    Uniform,
    Upstream,
)

PDAC = TumorKind(
    diameter_mm=half_small(LogNormal(3.369, 0.291, 4.0, 60.0)),  # [Ishigami] lognormal of mean 30.3 and SD 9.0
    form=Ellipsoidal(
        axis_ratio=Uniform(0.65, 1.35),  # (choice) along the gland
        lobulation=Uniform(0.02, 0.1),  # (choice) irregular
        deformation=Uniform(0.1, 0.25),  # (choice) infiltrative
    ),
    edge_mm=Uniform(2.0, 4.0),  # (choice) ill-defined, the mark of this tumor
    level={
        "native": Relative(Normal(-5.0, 5.0, -18.0, 6.0)),  # (choice) nearly invisible without contrast
        # the second part: iso-attenuating, mean distance 8 HU
        "arterial": Relative(  # [Prokesch]
            Mixture(((0.89, Normal(-74.8, 35.6, -130.0, -20.0)), (0.11, Normal(0.0, 10.0, -20.0, 20.0))))
        ),
        "portal_venous": Relative(  # [Ishigami]
            Mixture(((0.86, Normal(-40.5, 23.0, -90.0, -10.0)), (0.14, Normal(0.0, 8.0, -15.0, 15.0))))
        ),
    },
    texture_sd_hu=Uniform(3.0, 10.0),  # (choice) fibrous, little structure
    texture_grain_mm=Uniform(3.0, 8.0),  # (choice) as metastases of the liver
    lowest_hu=20.0,  # (choice) solid tissue stays above fluid
    # [site]; body to tail 3 to 2 (choice). It encases vessels.
    place=Place(vessel_clearance=0.0, regions={"head": 0.667, "body": 0.2, "tail": 0.133}),
    upstream=Upstream(
        share=0.8,  # [Prokesch] 5 of 6; less (choice) for tumors beside the duct
        duct_mm=Uniform(3.0, 8.0),  # [duct] above 3; the upper end is a (choice)
        duct_hu=Uniform(0.0, 20.0),  # [cyst] pancreatic juice is fluid
        atrophy=Uniform(0.0, 0.4),  # (choice) little in half of them, as seen in 3 of 6 [Prokesch]
    ),
    doubling_days=LogNormal(4.538, 0.833, 20.0, 977.0),  # [MDCT] lognormal of mean 132 and SD 132
)

PNET = TumorKind(
    diameter_mm=half_small(LogNormal(2.89, 0.7, 4.0, 60.0)),  # [Kojima] median 18; sigma (choice) from the range
    form=Ellipsoidal(
        axis_ratio=Uniform(0.8, 1.2),  # (choice) round: expansive
        lobulation=Uniform(0.0, 0.05),  # (choice) smooth
        deformation=Uniform(0.02, 0.1),  # (choice) smooth
    ),
    edge_mm=Uniform(0.8, 1.5),  # (choice) sharp
    level={
        "native": Relative(Normal(-2.0, 5.0, -12.0, 8.0)),  # (choice) as the gland
        # shares [Kojima]; mean +30 lies between ratios of 1.5 and 1.0 at 100 to 120 HU [Belousova]
        "arterial": Relative(Mixture(((0.8, Normal(30.0, 20.0, 5.0, 90.0)), (0.2, Normal(-25.0, 12.0, -60.0, -5.0))))),
        # shares [Kojima]; (choice) half of the arterial contrast
        "portal_venous": Relative(
            Mixture(((0.8, Normal(15.0, 12.0, 0.0, 50.0)), (0.2, Normal(-20.0, 10.0, -45.0, -5.0))))
        ),
    },
    texture_sd_hu=Uniform(3.0, 10.0),  # (choice) mixed when large
    texture_grain_mm=Uniform(3.0, 8.0),  # (choice) as carcinoma
    place=Place(vessel_clearance=0.3),  # (choice) displaces vessels, rarely encases them
    core=Core(
        share=BySize(50.0, 12.0, 0.4),  # (choice) cystic or necrotic when large
        hu=Uniform(-60.0, -25.0),  # (choice) from enhanced tissue towards fluid
        size=Uniform(0.3, 0.6),  # (choice) an enhancing shell stays
    ),
    mass_effect=MassEffect(share=0.5, strength=Uniform(0.1, 0.3)),  # (choice) expansive
    upstream=Upstream(
        share=0.125,  # [obstruct]
        duct_mm=Uniform(3.0, 8.0),  # [obstruct] at least 3; the upper end is a (choice)
        duct_hu=Uniform(0.0, 20.0),  # [cyst] pancreatic juice is fluid
        atrophy=Uniform(0.0, 0.2),  # (choice) less than behind carcinoma
    ),
)

CYST = TumorKind(
    diameter_mm=half_small(LogNormal(2.822, 0.961, 4.0, 60.0)),  # [Merlin] mostly cysts
    form=Ellipsoidal(
        axis_ratio=Uniform(0.75, 1.25),  # (choice) oval
        lobulation=lobulated(0.5),  # (choice) branch-duct IPMN look like grapes, others are smooth
        deformation=Uniform(0.02, 0.1),  # (choice) smooth
    ),
    edge_mm=Uniform(0.5, 1.0),  # (choice) sharp: only the scanner's blur
    level=Absolute(Uniform(0.0, 20.0)),  # [cyst]
    texture_sd_hu=Uniform(0.0, 2.0),  # [cyst] homogeneous
    texture_grain_mm=Uniform(4.0, 10.0),  # (choice) nearly without effect at that SD
    place=Place(vessel_clearance=0.3),  # (choice) displaces vessels
    septa=Septa(
        share=0.5,  # (choice) the grape-like half
        hu=Uniform(20.0, 45.0),  # (choice) tissue over fluid, thinner than a voxel
        spacing_mm=Uniform(5.0, 12.0),  # (choice) side branches
    ),
    mass_effect=MassEffect(share=0.5, strength=Uniform(0.05, 0.2)),  # (choice) soft
)

FOCAL_FAT = TumorKind(
    diameter_mm=LogUniform(6.0, 25.0),  # (choice) up to the thickness of the gland
    form=Ellipsoidal(
        axis_ratio=Uniform(0.5, 1.5),  # (choice) geographic
        lobulation=Uniform(0.08, 0.2),  # (choice) between lobules
        deformation=Uniform(0.15, 0.3),  # (choice) geographic
    ),
    edge_mm=Uniform(1.5, 4.0),  # (choice) interdigitates
    level=Relative(Uniform(-50.0, -20.0)),  # (choice) half of the way from gland to the -40 to -10 HU of [gland]
    texture_sd_hu=Uniform(5.0, 15.0),  # [gland] inhomogeneous; the numbers are a (choice)
    texture_grain_mm=Uniform(3.0, 6.0),  # (choice) lobules
    lowest_hu=-40.0,  # [gland]
    base="donor",  # replaces no tissue, lies between it
    place=Place(vessel_clearance=0.0, regions={"head": 0.8, "body": 0.1, "tail": 0.1}),  # [gland]; shares (choice)
)

PRESET = OrganPreset(
    kinds={"pdac": PDAC, "pnet": PNET, "cyst": CYST},
    weights={"pdac": 0.8, "pnet": 0.1, "cyst": 0.1},  # (choice) carcinoma prevails; MSD labels all three as tumor
    count=Choice({1: 1.0}),  # (choice) a carcinoma is single, and two would share one duct
    regions={"head": (0.0, 0.4), "body": (0.4, 0.7), "tail": (0.7, 1.0)},  # (choice) of the length, uncinate with head
    distractors={"focal_fat": FOCAL_FAT},
    distractor_weights={"focal_fat": 1.0},  # the only one: cysts are labelled as tumors here
)
