"""Colon tumors by contrast phase. Every number with its source; those marked (choice) are ours, with the reason.

Sources
  [forms]    Abdominal Radiology 2024, s00261-024-04219-6: annular (most common on routine CT), polypoid, asymmetric;
             short segment, below 10 cm.
  [Merlin]   415 Merlin reports: largest extent of colon lesions lognormal(3.560, 0.756), median 39 mm (5 to 95 %: 10 to
             100); one in .87, two in .10.
  [dual]     PMC5508947, dual energy CT of colon cancer: 28 HU (11 to 56) without contrast, iodine +54, so about 80 HU
             enhanced; stool -135 HU without contrast.
  [70 keV]   PMID 28500383, arterial phase: 48.6 (9.0) HU in well, 64.0 (15.9) HU in poorly differentiated carcinomas.
  [Burke]    PMC8370463: doubling time of colorectal carcinoma, median 211 days, quartiles 112 and 404.

From the longest extent L to the volume-equivalent diameter, for a lumen of 15 mm radius (choice) and growth whose
thickness averages half of its maximum T (choice): V = share of the circumference * 2 pi 15 * L * T / 2.
  annular     L = 39, T = 13 (slimness 3), all around:     V = 24 ml, D = 36 mm, ratio .9
  asymmetric  L = 39, T = 17 (slimness 2.3), half around:  V = 16 ml, D = 31 mm, ratio .8
  polypoid    L = 20, T = 17 (slimness 1.2), a fifth:      V = 3 ml,  D = 18 mm, ratio .9
Contrasts refer to the wall: 35 HU without contrast, 60 arterial, 85 portal venous (choice).
"""

from __future__ import annotations

from math import log

from pipeline.presets.kinds import (
    Absolute,
    Choice,
    Ellipsoidal,
    Levels,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    OrganPreset,
    Place,
    Relative,
    TumorKind,
    Uniform,
    WallGrowth,
)

_LEVEL: Levels = {
    "native": Relative(Normal(-5.0, 8.0, -20.0, 12.0)),  # 28 - 35 [dual], rounded towards the wall
    "arterial": Relative(Normal(-4.0, 13.0, -25.0, 25.0)),  # [70 keV] 56, the middle of both, - 60
    "portal_venous": Relative(Uniform(-15.0, 15.0)),  # [dual] 70 to 100 around 80, - 85
}
_LOWEST_HU = 25.0  # (choice) solid tissue, where gas or fat blurs into the wall's mean
_TOUCHING = Place(vessel_clearance=0.0)  # vessels reach the wall from outside
_DOUBLING = LogNormal(5.352, 0.951, 50.0, 1500.0)  # [Burke] sigma = log(404 / 112) / 1.349
_TEXTURE_SD_HU = Uniform(5.0, 12.0)  # (choice) ulcers and mucus
_TEXTURE_GRAIN_MM = Uniform(3.0, 8.0)  # (choice) some voxels

ANNULAR = TumorKind(
    diameter_mm=LogNormal(3.56 + log(0.9), 0.756, 20.0, 70.0),  # [Merlin]; below 20 (choice) the ring would be too thin
    form=WallGrowth(
        around=Uniform(1.0, 1.0),  # [forms] the whole circumference
        slimness=Uniform(1.5, 3.0),  # (choice) thick for its length, as an apple core
        inward=Uniform(0.65, 0.95),  # (choice) narrows the lumen more than it thickens outward
        roughness=Uniform(0.1, 0.25),  # (choice) shouldered, ulcerated
    ),
    edge_mm=Uniform(0.8, 2.0),  # (choice) sharp to gas, blurred to fat
    level=_LEVEL,
    texture_sd_hu=_TEXTURE_SD_HU,
    texture_grain_mm=_TEXTURE_GRAIN_MM,
    lowest_hu=_LOWEST_HU,
    place=_TOUCHING,
    doubling_days=_DOUBLING,
)

ASYMMETRIC = TumorKind(
    diameter_mm=LogNormal(3.56 + log(0.8), 0.756, 12.0, 60.0),  # [Merlin]; below 12 it is a polyp (choice)
    form=WallGrowth(
        around=Uniform(0.4, 0.7),  # (choice) around half of the circumference
        slimness=Uniform(1.5, 3.0),  # (choice) thicker than annular ones
        inward=Uniform(0.3, 0.7),  # (choice) both ways
        roughness=Uniform(0.1, 0.25),  # (choice) as annular
    ),
    edge_mm=Uniform(0.8, 2.0),  # (choice) as annular
    level=_LEVEL,
    texture_sd_hu=_TEXTURE_SD_HU,
    texture_grain_mm=_TEXTURE_GRAIN_MM,
    lowest_hu=_LOWEST_HU,
    place=_TOUCHING,
    doubling_days=_DOUBLING,
)

POLYPOID = TumorKind(
    diameter_mm=Mixture(
        (
            (0.5, LogNormal(3.56 + log(0.9), 0.756, 6.0, 40.0)),  # [Merlin], below the lumen's width
            (0.5, LogUniform(6.0, 20.0)),  # (choice) small on purpose, from the size that is reported
        )
    ),
    form=WallGrowth(
        around=Uniform(0.1, 0.3),  # (choice) a narrow base
        slimness=Uniform(0.8, 1.6),  # (choice) about as high as long
        inward=Uniform(0.85, 1.0),  # (choice) into the lumen
        roughness=Uniform(0.05, 0.2),  # (choice) smoother
    ),
    edge_mm=Uniform(0.7, 1.5),  # (choice) sharp to gas
    level=_LEVEL,
    texture_sd_hu=_TEXTURE_SD_HU,
    texture_grain_mm=_TEXTURE_GRAIN_MM,
    lowest_hu=_LOWEST_HU,
    place=_TOUCHING,
    doubling_days=_DOUBLING,
)

STOOL = TumorKind(
    diameter_mm=LogUniform(8.0, 30.0),  # (choice) from a crumb to the lumen's width
    form=Ellipsoidal(
        axis_ratio=Uniform(0.6, 1.4),  # (choice) any
        lobulation=Uniform(0.05, 0.2),  # (choice) lumpy
        deformation=Uniform(0.1, 0.3),  # (choice) lumpy
    ),
    edge_mm=Uniform(0.8, 2.0),  # (choice) as sharp as tumors
    level=Absolute(Uniform(-100.0, 60.0)),  # (choice) from the gas-filled -135 of [dual] to tissue
    texture_sd_hu=Uniform(30.0, 60.0),  # (choice) mottled by gas, which tells it from a tumor
    texture_grain_mm=Uniform(2.0, 6.0),  # (choice) bubbles
    place=Place(vessel_clearance=0.0, lumen=True),  # in what the colon holds
)

PRESET = OrganPreset(
    kinds={"annular": ANNULAR, "asymmetric": ASYMMETRIC, "polypoid": POLYPOID},
    weights={"annular": 0.5, "asymmetric": 0.3, "polypoid": 0.2},  # [forms] annular most common; shares (choice)
    count=Choice({1: 0.87, 2: 0.10, 3: 0.03}),  # [Merlin]; more than three are counted as three
    distractors={"stool": STOOL},
    distractor_weights={"stool": 1.0},  # the only one
)
