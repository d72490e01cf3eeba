"""Where tubes run: hollow organs, pancreas, vessels and long muscles of the patient before they are moved and bent.

Data only: centre lines with radii, mm from the centre of the field of view (x to the right, y anterior, z superior).
"""

from __future__ import annotations

from pipeline.phantom.geometry import Point

Curve = tuple[tuple[float, float, float, float], ...]  # x, y, z, radius; mm

# fmt: off
STOMACH: Curve = ((-35, -2, 62, 24), (-44, 22, 42, 26), (-47, 40, 16, 24), (-37, 48, -8, 21), (-10, 49, -18, 18),
                  (16, 41, -12, 14), (32, 32, -5, 9))
DUODENUM: Curve = ((34, 32, -4, 9), (56, 22, -10, 11), (62, 8, -30, 12), (54, 0, -52, 12), (25, 0, -64, 11),
                   (-10, 2, -62, 11), (-30, 12, -48, 10))
COLON: Curve = ((86, 10, -260, 20), (88, 8, -96, 20), (90, 9, -78, 20), (84, 20, -66, 19), (66, 44, -65, 18),
                (36, 60, -64, 18), (0, 66, -62, 18), (-40, 62, -46, 17), (-72, 42, -14, 17), (-91, 26, -8, 16),
                (-100, 2, -26, 14), (-98, -10, -50, 13), (-94, -10, -90, 13), (-90, -8, -260, 13))
PANCREAS: Curve = ((38, 11, -34, 12), (32, 14, -18, 16), (15, 23, -5, 12), (-8, 25, 2, 12), (-30, 16, 8, 12.5),
                   (-50, -1, 14, 12), (-64, -13, 18, 9))
GALLBLADDER: Curve = ((47, 20, -9, 6), (52, 30, -16, 12), (57, 43, -26, 14))
ESOPHAGUS: Curve = ((-8, -4, 60, 6), (-8, -8, 250, 6))
AORTA: Curve = ((-9, -22, 200, 11), (-10, -21, 96, 11), (-8, -16, 0, 10), (-4, -14, -90, 9), (-4, -14, -260, 9))
VENA_CAVA: Curve = ((21, -19, -260, 10), (21, -18, -60, 10.5), (20, -15, 0, 10.5), (19, -9, 42, 11.5), (17, 0, 76, 13),
                    (13, 8, 120, 13))
HEPATIC_CONFLUENCE: Point = (18, 2, 70)
SPLENIC_VEIN: Curve = ((-68, -20, 20, 3.2), (-50, -10, 12, 4), (-30, 6, 7, 4.5), (-5, 13, 0, 5), (10, 14, -6, 6))
PORTAL_VEIN: Curve = ((10, 14, -6, 6.5), (24, 13, 7, 6.5), (40, 14, 20, 6.5))
MESENTERIC_VEIN: Curve = ((10, 22, -260, 4), (12, 19, -60, 5), (10, 14, -6, 6))
ARTERIES: tuple[Curve, ...] = (
    ((-8, -10, -2, 4), (-7, 4, -14, 3.6), (-3, 12, -60, 3.5), (0, 16, -260, 3)),  # superior mesenteric
    ((-8, -10, 14, 3.5), (-6, 4, 18, 3.2), (-34, 2, 17, 2.6), (-66, -20, 25, 2.2)),  # celiac and splenic
    ((-6, 4, 18, 3), (14, 10, 16, 2.6), (36, 12, 22, 2.2)),  # common hepatic
    ((-10, -17, -18, 3.2), (-24, -26, -22, 3), (-38, -28, -26, 2.6)),  # left renal
    ((-6, -17, -20, 3.2), (20, -31, -28, 3), (38, -29, -36, 2.6)),  # right renal
)
RENAL_VEINS: tuple[Curve, ...] = (
    ((-40, -22, -25, 3.6), (-18, -4, -20, 4), (6, -3, -21, 4), (18, -13, -22, 4.5)),
    ((40, -24, -38, 4), (22, -16, -35, 4.5)),
)
# Paired: the right one; the left is its mirror image.
PSOAS: Curve = ((23, -44, 12, 5), (29, -43, -30, 12), (37, -41, -80, 18), (46, -36, -260, 22))
CRUS: Curve = ((13, -24, 66, 4), (13, -26, 20, 5), (11, -29, -34, 3))
# fmt: on
END_MM = 260.0  # above and below the centre there is only the trunk, no organs
