"""The image in the making.

In: a `Patient` and a grid. Out: a `Canvas`, where every voxel is in the patient, and HU and labels that painters cover.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.case import AIR_HU, FloatArray, UInt8Array
from pipeline.phantom.cavity import cavity_distance, diaphragm_distance, rim_share
from pipeline.phantom.geometry import Field, Points, both, ramp
from pipeline.phantom.noise import smooth_field
from pipeline.phantom.patient import Patient, stream

Box = tuple[slice, slice, slice]
_BEND_MM = 9.0  # how far a point is moved at most


class Canvas:
    """The image in the making: patient coordinates of every voxel, HU and labels. Axes (X, Y, Z), lengths mm."""

    def __init__(self, patient: Patient, shape: tuple[int, int, int], spacing_mm: float) -> None:
        self.patient = patient
        self.from_patient = np.linalg.inv(patient.to_patient)
        self.shape = shape
        self.spacing_mm = spacing_mm
        self.edge_mm = float(np.hypot(spacing_mm, 0.8))  # a voxel's width and a little of the scanner's blur
        axes = [np.asarray(spacing_mm * (np.arange(n) - (n - 1) / 2), np.float64) for n in shape]
        self.x, self.y, self.z = self._coordinates(axes)
        texture = stream(patient.seed, "texture")
        self.coarse, self.blotch, self.strand, self.fine = (smooth_field(texture, axes, mm) for mm in (24, 12, 12, 5))
        self.rim = rim_share(self.x, self.y)
        self.cavity = cavity_distance(self.x, self.y, self.rim)
        self.chest = diaphragm_distance(patient, self.x, self.y, self.z, self.rim)
        self.room = both(self.cavity, self.chest, 14)
        self.fat = np.float32(patient.hu["fat"]) + 5 * self.coarse + 5 * self.blotch
        self.hu: Field = np.full(shape, AIR_HU, np.float32)
        self.labels: UInt8Array = np.zeros(shape, np.uint8)

    def _coordinates(self, axes: Sequence[FloatArray]) -> list[Field]:
        """Turned, scaled and bent: no organ keeps a geometric shape."""
        warp = stream(self.patient.seed, "warp")
        x, y, z = (
            a.astype(np.float32).reshape(s) for a, s in zip(axes, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
        )
        bent = []
        for row in self.patient.to_patient.astype(np.float32):
            moved = 3.2 * smooth_field(warp, axes, 65) + 1.0 * smooth_field(warp, axes, 16)
            bent.append(_BEND_MM * np.tanh(moved / _BEND_MM) + row[0] * x + (row[1] * y + row[2] * z))
        return bent

    def box(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Box:
        """The voxels that hold the patient's box `low` to `high`, cut at the grid (possibly empty)."""
        a, b = np.asarray(low, np.float64), np.asarray(high, np.float64)
        middle = self.from_patient @ (a + b) / 2
        half = np.abs(self.from_patient) @ ((b - a) / 2 + _BEND_MM)
        size = np.array(self.shape)
        start = np.clip(np.floor((middle - half) / self.spacing_mm + (size - 1) / 2), 0, size).astype(int)
        stop = np.clip(np.ceil((middle + half) / self.spacing_mm + (size + 1) / 2), start, size).astype(int)
        i, j, k = (slice(int(s), int(e)) for s, e in zip(start, stop, strict=True))
        return i, j, k

    def at(self, box: Box) -> Points:
        """Patient coordinates, mm, of the voxels of a box."""
        return self.x[box], self.y[box], self.z[box]

    def paint(self, box: Box, distance: Field, hu: float | Field, label: int | None = None) -> None:
        """Cover what lies inside `distance`; its voxels get `label` unless that is None."""
        self.hu[box] += ramp(0.5 - distance / self.edge_mm) * (np.float32(hu) - self.hu[box])
        if label is not None:
            self.labels[box][distance < 0] = label

    def organ(self, box: Box, distance: Field, hu: float | Field, label: int, clear_mm: float = 2.0) -> Field:
        """Paint an organ held within the room, `clear_mm` of fat around it; returns its distance there."""
        kept = both(distance, self.room[box] + 2.5, 3)
        self.paint(box, np.maximum(distance - clear_mm, self.room[box] + 1), self.fat[box], 0)
        self.paint(box, kept, hu, label)
        return kept
