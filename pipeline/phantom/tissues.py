"""How bright tissues are in which contrast phase.

Data only: mean HU by tissue and phase, with their sources. `patient` draws the HU of one patient from them.
"""

from __future__ import annotations

PHASES: tuple[str, ...] = ("native", "arterial", "portal_venous")

# Mean HU by phase (native, late arterial, portal venous): round, typical values as radiology texts give them, not the
# statistics of a cohort. Checked against: portal venous liver 89-118 and portal vein 131-146 in three public scans
# (LiTS 117, 3D-IRCADb 17, a TotalSegmentator test case), kidney 30-50 plain and its cortex 170-200 enhanced, and the
# mixed-phase organ ranges of MAISI's training CT: liver 10-162, spleen 17-184, pancreas -29-146, kidney -40-255.
PHASE_HU: dict[str, tuple[float, float, float]] = {
    "liver": (50, 65, 110),
    "spleen": (48, 120, 120),
    "pancreas": (40, 100, 95),
    "kidney_cortex": (32, 170, 180),
    "kidney_medulla": (32, 80, 150),
    "bowel_wall": (36, 80, 88),
    "aorta": (40, 300, 150),
    "inferior_vena_cava": (40, 85, 135),
    "portal_vein": (40, 100, 165),
    "hepatic_vein": (40, 68, 160),
    "heart": (40, 230, 145),
    "muscle": (52, 58, 62),
}
# Tissues that take up no contrast, or too little to matter; same kind of source.
PLAIN_HU: dict[str, float] = {
    "gallbladder": 8,
    "fluid": 18,
    "stool": 25,
    "gas": -950,
    "fat": -102,
    "skin": 20,
    "lung": -845,
    "marrow": 165,
    "cortical": 480,
    "disc": 85,
    "cartilage": 95,
    "spinal_canal": 22,
}
