"""Painters of the liver, with its shape and the vessels that grow through it, and of the gallbladder under it.

In: a canvas. Out: nothing; they paint on it.
"""

from __future__ import annotations

import numpy as np

from pipeline.case import FloatArray
from pipeline.organs import organ_id
from pipeline.phantom.canvas import Canvas
from pipeline.phantom.cavity import room_distance
from pipeline.phantom.curves import GALLBLADDER, HEPATIC_CONFLUENCE, PORTAL_VEIN
from pipeline.phantom.geometry import Field, both, ellipsoid
from pipeline.phantom.patient import Patient, stream
from pipeline.phantom.tubes import smooth_line, tube_along, tube_of_rods


def paint_liver(canvas: Canvas) -> None:
    """Parenchyma, its vessels (which keep the liver's label), and the fissure of the round ligament."""
    patient = canvas.patient
    box = canvas.box((-100, -85, -105), (125, 100, 115))
    x, y, z = canvas.at(box)
    liver = _liver(patient, x, y, z, canvas.room[box])
    parenchyma = patient.hu["liver"] + 2.5 * canvas.coarse[box] + 1.5 * canvas.blotch[box]
    canvas.paint(box, liver, parenchyma, organ_id("liver"))
    for vessel, segments in _liver_vessels(patient).items():
        tree = tube_of_rods(canvas, segments, 3)
        inside = _liver(patient, *canvas.at(tree.box), canvas.room[tree.box])
        canvas.paint(tree.box, np.maximum(tree.distance, inside + 1.5), patient.hu[vessel])
    sheet = np.abs(x - 2 - 0.2 * (y - 40) + 2 * canvas.blotch[box]) - 0.06 * (y - 22)
    fissure = both(sheet, both(26 - y, z - 18 + 0.2 * y, 6), 3)
    canvas.paint(box, np.maximum(fissure, liver - 2), canvas.fat[box], 0)


def paint_gallbladder(canvas: Canvas) -> None:
    """A bag of bile without a wall of its own."""
    patient = canvas.patient
    line = smooth_line(GALLBLADDER, 7, patient.shift_mm["gallbladder"], patient.size["gallbladder"])
    tube = tube_along(canvas, line, 4)
    canvas.organ(tube.box, tube.distance, patient.hu["gallbladder"], organ_id("gallbladder"), 1.0)


def _liver(patient: Patient, x: Field, y: Field, z: Field, room: Field) -> Field:
    """A wedge under the right dome; its edge runs from low on the right to high on the left, the left lobe in front."""
    down, back, left = patient.liver_reach_mm
    under = (-102 - down + (108 - x) * (1.45 - 0.0054 * (108 - x)) - 0.1 * y - z) / 1.4
    under += 14 * np.exp(-((x - 62) ** 2 + (y - 46) ** 2) / 1000)  # the colon's impression
    behind = (-44 - back + (24 - x) * 0.8 + 0.016 * np.minimum(x - 5 + left + 0.3 * (z - 40), 0) ** 2 - y) / 1.4
    wedge = both(under, behind, 20)
    hollow = ellipsoid(x - 8, y + 6, z + 28, (34, 32, 36))  # the visceral surface bends around what lies under it
    return both(both(wedge, -hollow, 16), room + 2.2, 10)


def _liver_vessels(patient: Patient) -> dict[str, FloatArray]:
    """Portal and hepatic veins as (n, 8) rods, grown towards points spread over the liver."""
    rng = stream(patient.seed, "liver_vessels")
    portal = _spread(rng, patient, 30)
    hepatic = _spread(rng, patient, 27)
    hepatic = hepatic[np.argsort(hepatic[:, 0], kind="stable")]
    hilum, confluence = np.array(PORTAL_VEIN[-1][:3], np.float64), np.array(HEPATIC_CONFLUENCE, np.float64)
    right_to_left = [_grow(confluence, third, 2.0) for third in np.array_split(hepatic, 3)]
    return {
        "portal_vein": np.array(_grow(hilum, portal, 2.0)),
        "hepatic_vein": np.array([rod for tree in right_to_left for rod in tree]),
    }


def _spread(rng: np.random.Generator, patient: Patient, count: int) -> FloatArray:
    """(count, 3) points at least 7 mm deep in the liver, each as far from the others as can be."""
    points = rng.uniform((-60, -75, -75), (118, 85, 85), (4000, 3))
    x, y, z = points.astype(np.float32).T
    inside = points[_liver(patient, x, y, z, room_distance(patient, x, y, z)) < -7]
    chosen = [inside[0]]
    gap = np.full(len(inside), np.inf)
    for _ in range(count - 1):
        gap = np.minimum(gap, ((inside - chosen[-1]) ** 2).sum(1))
        chosen.append(inside[int(gap.argmax())])
    return np.array(chosen)


def _grow(start: FloatArray, targets: FloatArray, leaf_radius: float) -> list[FloatArray]:
    """Rods from `start` to all targets: go part of the way to their middle, split them along their longest side, go on.

    The radius follows Murray's law: its cube is proportional to the number of targets served.
    """
    radius = leaf_radius * len(targets) ** (1 / 3)
    if len(targets) == 1:
        return [np.array([*start, radius, *(start + 0.9 * (targets[0] - start)), 0.7 * leaf_radius])]
    fork = start + 0.42 * (targets.mean(0) - start)
    order = np.argsort(targets[:, int(np.ptp(targets, axis=0).argmax())], kind="stable")
    halves = np.array_split(targets[order], 2)
    thinner = leaf_radius * len(halves[0]) ** (1 / 3)
    rods = [np.array([*start, radius, *fork, thinner])]
    return rods + [rod for half in halves for rod in _grow(fork, half, leaf_radius)]
