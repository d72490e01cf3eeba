"""The spaces that hold the organs: the cavity within the wall, the diaphragm's domes, the room of the abdomen.

In: patient coordinates, mm. Out: distances to their surfaces, mm, negative inside.
"""

from __future__ import annotations

import numpy as np

from pipeline.phantom.geometry import Field, both
from pipeline.phantom.patient import Patient


def rim_share(x: Field, y: Field) -> Field:
    """From 0 in the middle of the cavity to 1 at its wall, a superellipse of 122 x 81 mm half axes."""
    u, v = np.abs(x / 122), np.abs((y - 6) / 81)
    rim: Field = (u * u * np.sqrt(u) + v * v * np.sqrt(v) + 1e-6) ** 0.4
    return rim


def cavity_distance(x: Field, y: Field, rim: Field) -> Field:
    """Distance to the inside of the wall; `rim` is `rim_share` of the same points."""
    distance: Field = np.hypot(x, y - 6) * (1 - 1 / rim)
    return distance


def diaphragm_distance(patient: Patient, x: Field, y: Field, z: Field, rim: Field) -> Field:
    """Negative below two domes, a hollow for the heart between them, that fall to a rim, lowest at the back."""
    right, left = patient.domes_mm
    rise = (
        (right + left) / 2
        + (right - left) / 2 * np.tanh(x / 25)
        - 22 * np.exp(-((x + 18) ** 2 + 0.3 * (y - 36) ** 2) / 1300)
    )
    floor = 13 + 0.22 * y + 0.3 * np.maximum(y - 20, 0)
    above: Field = z - floor - rise * (1 - np.minimum(rim, 1) ** 3)
    return above * 0.72  # the nearest point of a dome is not straight below


def room_distance(patient: Patient, x: Field, y: Field, z: Field) -> Field:
    """Where abdominal organs may be: within the wall, under the diaphragm."""
    rim = rim_share(x, y)
    return both(cavity_distance(x, y, rim), diaphragm_distance(patient, x, y, z, rim), 14)
