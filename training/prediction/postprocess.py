"""What anatomy and size say against predicted tumors: voxels far from their organ, components too small to be one.

In: class ids on any grid. Out: class ids with fewer tumor voxels, and how many went where.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import cc3d
import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.case import UInt8Array
from pipeline.components import connected_components
from pipeline.errors import InputError
from pipeline.grid import Slices3, bounding_box, slices3
from pipeline.organs import BACKGROUND, organ_id
from training.network import ClassTable

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]
CONNECTIVITY = 26
# How many pieces an organ is in; 1 for those not named. Of the colon every piece counts: gas, stool and collapsed
# stretches break its prediction into many.
PIECES = {organ_id("kidney"): 2, organ_id("colon"): None}
_SLACK_MM = 1e-4  # edt returns float32


@dataclass(frozen=True)
class Rules:
    """What predicted tumors must fulfil; None: nothing."""

    within_organ_mm: float | None = None  # of their organ's largest component
    min_tumor_mm3: float | None = None  # of a 26-connected component

    def __post_init__(self) -> None:
        for what, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{what} {value}: must be 0 or more; leave it out to change nothing")

    def check(self, classes: ClassTable) -> None:
        """InputError when a tumor's organ, which a rule needs, is no class of the network."""
        lacking = [name for name, tumor in classes.tumors.items() if tumor - 1 not in classes.ids]
        if self.within_organ_mm is not None and lacking:
            raise InputError(
                f"--within-organ-mm needs the organ of every tumor, but the network segments {', '.join(lacking)} "
                "without it. Leave the rule out, or train on data whose labels hold the organ"
            )


@dataclass(frozen=True)
class Removed:
    """What the rules took from one tumor class."""

    tumor: str
    outside_mm3: float  # too far from the organ; background now
    small: int  # components below the least volume
    to_organ_mm3: float  # of those, what lay in the organ and is organ now
    to_background_mm3: float

    def line(self) -> str:
        """For people; empty when nothing was taken."""
        parts = [f"{self.outside_mm3 / 1000:.2g} ml too far from its organ"] if self.outside_mm3 else []
        if self.small:
            to_organ, rest = self.to_organ_mm3 / 1000, self.to_background_mm3 / 1000
            parts.append(f"{self.small} too small ({to_organ:.2g} ml now organ, {rest:.2g} ml now background)")
        return f"{self.tumor} removed: {', '.join(parts)}" if parts else ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def postprocess(
    labels: UInt8Array, spacing_mm: Spacing, classes: ClassTable, rules: Rules
) -> tuple[UInt8Array, list[Removed]]:
    """Class ids (X, Y, Z), voxels of `spacing_mm`, after the rules, and what they took from each tumor class.

    First distance, then size. Voxels too far from the organ become background. A small component becomes organ where
    more than half of the voxels around it (26 neighbours, other tumor left out) are organ, else background.
    """
    rules.check(classes)
    labels = labels.copy()
    removed = [_apply(labels, spacing_mm, name, tumor, rules) for name, tumor in classes.tumors.items()]
    return labels, removed


def _apply(labels: UInt8Array, spacing_mm: Spacing, name: str, tumor: int, rules: Rules) -> Removed:
    voxel_mm3 = math.prod(spacing_mm)
    far = small = to_organ = to_background = 0
    if rules.within_organ_mm is not None and (labels == tumor).any():
        far = _remove_far(labels, spacing_mm, tumor, rules.within_organ_mm)
    if rules.min_tumor_mm3 and (labels == tumor).any():
        small, to_organ, to_background = _remove_small(labels, tumor, rules.min_tumor_mm3 / voxel_mm3)
    return Removed(name, far * voxel_mm3, small, to_organ * voxel_mm3, to_background * voxel_mm3)


# ---- distance ----


def _remove_far(labels: UInt8Array, spacing_mm: Spacing, tumor: int, limit_mm: float) -> int:
    """Tumor voxels farther than `limit_mm` from the organ's main component become background; how many.

    The component is one of organ and tumor together: a tumor belongs to its organ's shape, and the core of a large one
    may be far from any voxel that is still called organ. Which is the largest, organ voxels alone decide.
    """
    box = slices3(*bounding_box((labels == tumor) | (labels == tumor - 1)))
    inside = labels[box]
    organ = main_component(inside, tumor)
    stray = (inside == tumor) & ~organ
    if organ.any() and stray.any():
        near = _grown(slices3(*bounding_box(organ)), limit_mm, spacing_mm)
        distance = edt.edt(~organ[near], anisotropy=spacing_mm, black_border=False, parallel=1)
        stray[near] &= distance > limit_mm + _SLACK_MM
    inside[stray] = BACKGROUND
    return int(stray.sum())


def far_from_organ(labels: UInt8Array, spacing_mm: Spacing, tumor: int, limit_mm: float) -> Mask:
    """All voxels (X, Y, Z) that `limit_mm` leaves no tumor in; everywhere where no organ was predicted."""
    far = np.ones(labels.shape, np.bool_)
    organ = main_component(labels, tumor)
    if organ.any():
        near = _grown(slices3(*bounding_box(organ)), limit_mm, spacing_mm)
        distance = edt.edt(~organ[near], anisotropy=spacing_mm, black_border=False, parallel=1)
        far[near] = distance > limit_mm + _SLACK_MM
    return far


def main_component(labels: UInt8Array, tumor: int) -> Mask:
    """The largest component of a tumor's organ with its tumors; of a paired organ both, see `PIECES`."""
    organ = labels == tumor - 1
    components = connected_components(organ | (labels == tumor), CONNECTIVITY)
    voxels = np.bincount(components[organ], minlength=1)
    largest = np.argsort(-voxels, kind="stable")[: PIECES.get(tumor - 1, 1)]
    return np.isin(components, largest[voxels[largest] > 0])


def _grown(box: Slices3, mm: float, spacing_mm: Spacing) -> Slices3:
    margins = [math.ceil(mm / size) + 1 for size in spacing_mm]
    x, y, z = (slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))
    return x, y, z


# ---- size ----


def _remove_small(labels: UInt8Array, tumor: int, least_voxels: float) -> tuple[int, int, int]:
    """Components of fewer voxels become organ or background: how many, and voxels to each."""
    x, y, z = slices3(*bounding_box(labels == tumor))
    # One voxel more on each side, so that the neighbours of every component are there.
    inside = labels[_grown((x, y, z), 0, (1, 1, 1))]
    components = connected_components(inside == tumor, CONNECTIVITY)
    statistics = cc3d.statistics(components)
    small = np.flatnonzero(statistics["voxel_counts"] < least_voxels)
    small = small[small > 0]
    given = {tumor - 1: 0, BACKGROUND: 0}
    for number in small.tolist():
        box = _grown(statistics["bounding_boxes"][number], 0, (1, 1, 1))
        own = components[box] == number
        around = inside[box][ndimage.binary_dilation(own, np.ones((3, 3, 3), np.bool_))]
        around = around[around != tumor]
        goes_to = tumor - 1 if 2 * np.count_nonzero(around == tumor - 1) > around.size else BACKGROUND
        inside[box][own] = goes_to
        given[goes_to] += int(own.sum())
    return len(small), given[tumor - 1], given[BACKGROUND]


def describe(removed: list[Removed]) -> str:
    """All that was taken, for people; empty when nothing was."""
    return "; ".join(line for part in removed if (line := part.line()))
