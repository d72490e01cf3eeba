"""One patient's healthy CT on an isotropic grid, with organs and the maps that tumor placement needs.

In: a CT and an organ label array that already share one isotropic grid. Out: a `Case`. Pure, no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

AIR_HU = -1000
HU_RANGE = (-1024, 3071)  # what 12-bit CT stores; padding values outside it are clipped to it

Int16Array = npt.NDArray[np.int16]
UInt8Array = npt.NDArray[np.uint8]
Float16Array = npt.NDArray[np.float16]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OrganStats:
    """What was measured of one organ in a case. HU figures leave vessels out."""

    volume_ml: float
    mean_hu: float
    sd_hu: float
    max_depth_mm: float  # largest distance of an organ voxel to the organ's surface


@dataclass(frozen=True)
class Case:
    """Axes `(X, Y, Z)` in RAS+ order. The arrays may be read-only memory maps; nothing writes to them."""

    case_id: str
    ct: Int16Array  # HU
    organs: UInt8Array  # class ids of pipeline.organs
    vessels: UInt8Array  # 1 inside vessels of the tumor organs
    surface_distance_mm: Float16Array  # to the nearest voxel outside the voxel's own organ; 0 outside organs
    vessel_distance_mm: Float16Array  # to the nearest vessel voxel, for organ voxels; 0 elsewhere
    voxels: Mapping[str, npt.NDArray[np.int32]]  # flat C-order indices of each tumor organ's voxels
    stats: Mapping[str, OrganStats]  # by organ
    spacing_mm: float
    affine: FloatArray  # (4, 4), voxel index to RAS mm
    phase: str = "unknown"  # native, arterial, portal_venous or unknown
    split: str = "train"
    sources: Mapping[str, str] = field(default_factory=dict)  # source file name -> sha256

    def __post_init__(self) -> None:
        shape = self.ct.shape
        for name in ("organs", "vessels", "surface_distance_mm", "vessel_distance_mm"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{self.case_id}: {name} has shape {getattr(self, name).shape}, ct has {shape}")
