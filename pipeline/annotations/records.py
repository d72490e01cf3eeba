"""The annotations of a sample as records: what every kind of label shows of it, and no more.

Kinds: mask, scribble, box, recist, circle, point, tag, report. Voxels are those of the patch, axes (X, Y, Z) in RAS+
order; mm are in the patch's spacing. A circle is the ellipsoid that the two RECIST axes and the height span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.annotations.findings import Finding

IntArray = npt.NDArray[np.int32]
Box6 = tuple[int, int, int, int, int, int]  # two voxels: x0 y0 z0 x1 y1 z1
Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class TumorAnnotation:
    """One tumor as the patch shows it; `instance` and `organ` are those of the manifest's `tumors`."""

    instance: int
    organ: str
    class_id: int  # of the tumor class
    box_vox: Box6  # half open; jittered where the settings say so, never outside the patch
    point_vox: Voxel  # a voxel of the tumor, the deepest inside
    long_axis_vox: Box6  # end voxels of the RECIST long axis, both in one axial slice
    short_axis_vox: Box6  # the ends of the widest extent perpendicular to it, same slice
    long_mm: float  # as `pipeline.measure.recist`
    short_mm: float
    height_mm: float  # extent along Z
    volume_mm3: float  # of the mask; no weak label tells it


@dataclass(frozen=True)
class SampleAnnotation:
    """All annotations of one sample."""

    index: int
    sample_id: str
    tags: Mapping[str, bool]  # by organ that the sample shows and whose tumors it annotates: whether it shows a tumor
    tumors: tuple[TumorAnnotation, ...]
    scribbles: Mapping[int, IntArray]  # by class id: flat C-order voxel indices, ascending, of all strokes
    findings: tuple[Finding, ...]
    report: str  # the findings as text, marked as machine-generated
