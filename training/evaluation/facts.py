"""What is known of true tumors beside their outline: kind, contrast, texture. The report's strata are made of it.

In: a manifest row, or a CT with its true mask. Out: `TumorFact` values in voxels of the scored grid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cc3d
import edt
import numpy as np
import numpy.typing as npt

from pipeline.case import UInt8Array
from pipeline.components import connected_components
from pipeline.grid import Slices3, slices3
from pipeline.image import Volume
from pipeline.measure import SHELL_MM
from pipeline.organs import is_tumor, tumor_id
from training.records import TumorFact

CONTRAST = (
    f"mean HU in the true outline minus mean HU of voxels labelled as its organ that lie {SHELL_MM[0]:g} to "
    f"{SHELL_MM[1]:g} mm from it and not within {SHELL_MM[0]:g} mm of another tumor (of all of the organ where there "
    "are none; vessels are not left out)"
)
# Structure weaker than this is below the noise of any CT; presets call such tumors homogeneous.
HOMOGENEOUS_BELOW_HU = 3.0
COARSE_FROM_MM = 6.0  # the middle of the grains that presets draw

# What tells a tumor of the spec in the row; their numbers do not, as tumors without a voxel in the patch have no row.
_DRAWN = ("organ", "kind", "diameter_mm", "contrast_hu")
_REQUESTED = ("organ", "kind", "requested_diameter_mm", "requested_contrast_hu")

Mask = npt.NDArray[np.bool_]
_Point = tuple[float, float, float]
_Piece = tuple[int, _Point, float | None]


def facts_of_row(row: Mapping[str, Any]) -> list[TumorFact]:
    """The tumors of a stored sample, from its manifest row: measured contrast, and texture as it was drawn."""
    to_voxel = np.linalg.inv(np.reshape(row["affine"], (4, 4)))
    drawn = {tuple(tumor[name] for name in _DRAWN): tumor for tumor in json.loads(row["spec"]).get("tumors", ())}
    return [
        TumorFact(
            instance=tumor["instance"],
            class_id=tumor_id(tumor["organ"]),
            center_vox=_point(to_voxel[:3, :3] @ tumor["center_mm"] + to_voxel[:3, 3]),
            kind=tumor["kind"],
            contrast_hu=tumor["contrast_hu"],
            texture=texture_name(drawn.get(tuple(tumor[name] for name in _REQUESTED), {})),
        )
        for tumor in row["tumors"]
    ]


def texture_name(tumor: Mapping[str, Any]) -> str | None:
    """How a drawn tumor's texture is called; None where nothing was drawn."""
    sd_hu, grain_mm = tumor.get("texture_sd_hu"), tumor.get("texture_grain_mm")
    if sd_hu is None or grain_mm is None:
        return None
    if sd_hu < HOMOGENEOUS_BELOW_HU:
        return f"homogeneous (SD < {HOMOGENEOUS_BELOW_HU:g} HU)"
    if grain_mm < COARSE_FROM_MM:
        return f"fine (grain < {COARSE_FROM_MM:g} mm)"
    return f"coarse (grain >= {COARSE_FROM_MM:g} mm)"


def facts_of_case(ct: Volume, truth: UInt8Array, connectivity: int) -> list[TumorFact]:
    """The tumors of a real case, measured in its CT (HU) and true class ids, both (X, Y, Z); see `CONTRAST`."""
    ids = [int(i) for i in np.flatnonzero(np.bincount(truth.reshape(-1), minlength=1)) if is_tumor(int(i))]
    found = (piece for class_id in ids for piece in _pieces(ct, truth, class_id, connectivity))
    return [
        TumorFact(number, class_id, centroid, None, contrast_hu, None)
        for number, (class_id, centroid, contrast_hu) in enumerate(found, 1)
    ]


def _pieces(ct: Volume, truth: UInt8Array, class_id: int, connectivity: int) -> Iterator[_Piece]:
    """Class, centroid in voxels, and contrast of each component of a tumor class."""
    pieces = connected_components(truth == class_id, connectivity)
    statistics = cc3d.statistics(pieces, no_slice_conversion=False)
    for number in range(1, len(statistics["voxel_counts"])):
        near = _grown(statistics["bounding_boxes"][number], ct.spacing_mm)
        contrast = _contrast_hu(ct, truth, class_id, pieces[near] == number, near)
        yield class_id, _point(statistics["centroids"][number]), contrast


def _contrast_hu(ct: Volume, truth: UInt8Array, class_id: int, inside: Mask, near: Slices3) -> float | None:
    """Of the tumor `inside` the box `near`; None where its organ is not labelled."""
    labels, hu = truth[near], ct.data[near]
    outside_mm = _distance_mm(inside, ct.spacing_mm)
    shell = (labels == class_id - 1) & (outside_mm >= SHELL_MM[0]) & (outside_mm <= SHELL_MM[1])
    others = (labels == class_id) & ~inside
    if others.any():
        shell &= _distance_mm(others, ct.spacing_mm) >= SHELL_MM[0]
    around = hu[shell] if shell.any() else ct.data[truth == class_id - 1]
    if not around.size:
        return None
    return float(hu[inside].mean(dtype=np.float64) - around.mean(dtype=np.float64))


def _distance_mm(mask: Mask, spacing_mm: _Point) -> npt.NDArray[np.float32]:
    distance = edt.edt(np.ascontiguousarray(~mask), anisotropy=spacing_mm, black_border=False, parallel=1)
    return np.asarray(distance, np.float32)


def _grown(box: Slices3, spacing_mm: _Point) -> Slices3:
    margins = [math.ceil(SHELL_MM[1] / size) + 1 for size in spacing_mm]
    low = [max(0, side.start - margin) for side, margin in zip(box, margins, strict=True)]
    return slices3(low, [side.stop + margin for side, margin in zip(box, margins, strict=True)])


def _point(values: Sequence[float]) -> _Point:
    x, y, z = map(float, values)
    return x, y, z
