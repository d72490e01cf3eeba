"""One patient's CT on an isotropic grid, with organs and the maps that tumor placement needs.

In: a CT and an organ label array that already share one isotropic grid. Out: a `Case`. Pure, no files.
A case is healthy, or *annotated*: then its label holds the patient's own tumors, and none are put into it.
What is measured, and by which rules, is in `pipeline.anatomy`, `pipeline.tissue` and `pipeline.course`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.organs import CLASS_NAMES, ELONGATED, organ_id, tumor_id

AIR_HU = -1000
BODY_HU = -300  # skin and fat lie above, air, lung and most blankets below
HU_RANGE = (-1024, 3071)  # what 12-bit CT stores; padding values outside it are clipped to it

MOST_LESIONS = 1000  # of an organ; the liver with the most of LiTS has 75
PARENCHYMA_GRID_MM = 4.0  # parenchyma is averaged over 8 mm, so that points 4 mm apart hold all of it

Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
UInt8Array = npt.NDArray[np.uint8]
Float16Array = npt.NDArray[np.float16]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OrganStats:
    """What was measured of one organ in a case. HU leave vessels out; those of hollow organs are of the wall."""

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
    noise: Int8Array  # HU, what the CT differs by from the mean of the same tissue around; see pipeline.tissue
    voxels: Mapping[str, npt.NDArray[np.int32]]  # flat C-order indices of each tumor organ's voxels
    parenchyma: Mapping[str, Int16Array]  # HU of each tumor organ's tissue on a coarse grid, see parenchyma_shape
    along: Mapping[str, UInt8Array]  # of elongated organs, parallel to `voxels`; see pipeline.course
    stats: Mapping[str, OrganStats]  # by organ
    spacing_mm: float
    affine: FloatArray  # (4, 4), voxel index to RAS mm
    phase: str = "unknown"  # native, arterial, portal_venous or unknown
    split: str = "train"
    sources: Mapping[str, str] = field(default_factory=dict)  # source file name -> sha256
    annotated: tuple[int, ...] = ()  # tumor classes of which `organs` shows every tumor; () of a healthy case
    # Of organs with annotated tumors: flat index of each tumor voxel, and the number of its lesion, (n, 2) by lesion.
    lesions: Mapping[str, npt.NDArray[np.int32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.ct.shape
        for name in ("organs", "vessels", "surface_distance_mm", "vessel_distance_mm", "noise"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{self.case_id}: {name} has shape {getattr(self, name).shape}, ct has {shape}")
        voxels, lesions = ({o: a.shape[0] for o, a in held.items()} for held in (self.voxels, self.lesions))
        expected = organ_shapes(voxels, lesions, shape, self.spacing_mm)
        names = ("voxels", "parenchyma", "along", "lesions")
        found = {(name, o): array.shape for name in names for o, array in getattr(self, name).items()}
        if found != expected:
            raise ValueError(f"{self.case_id}: the arrays of its organs have shapes {found}, not {expected}")


def parenchyma_cell(spacing_mm: float) -> int:
    """Voxels from one point of a parenchyma grid to the next, about 4 mm; point g lies at voxel g * cell."""
    return max(1, round(PARENCHYMA_GRID_MM / spacing_mm))


def parenchyma_shape(shape: tuple[int, ...], spacing_mm: float) -> tuple[int, int, int]:
    """Points (X, Y, Z) of the parenchyma grid of a volume of `shape` voxels: every voxel lies between two points."""
    x, y, z = ((n - 1) // parenchyma_cell(spacing_mm) + 2 for n in shape)
    return x, y, z


def organ_shapes(
    voxels: Mapping[str, int], lesions: Mapping[str, int], shape: tuple[int, ...], spacing_mm: float
) -> dict[tuple[str, str], tuple[int, ...]]:
    """The shape of every array that a case has per organ, by (array, organ), from numbers of organ and tumor voxels."""
    shapes: dict[tuple[str, str], tuple[int, ...]] = {("voxels", organ): (n,) for organ, n in voxels.items()}
    shapes |= {("parenchyma", organ): parenchyma_shape(shape, spacing_mm) for organ in voxels}
    shapes |= {("along", organ): (n,) for organ, n in voxels.items() if organ in ELONGATED}
    return shapes | {("lesions", organ): (n, 2) for organ, n in lesions.items()}


def build_case(
    case_id: str,
    ct: Int16Array,
    organs: UInt8Array,
    affine: FloatArray,
    spacing_mm: float,
    *,
    split: str = "train",
    sources: Mapping[str, str] | None = None,
    annotated: Collection[int] = (),
    allow_implausible: bool = False,
) -> Case:
    """Measure everything that a case holds, from a CT (HU) and class ids, both (X, Y, Z) in RAS+ order.

    `affine` (4, 4) must have columns of length `spacing_mm`. Tumor organs that the scan cuts off stay in `organs` and
    `stats` but not in `voxels`. Raises InputError when a mask is implausible or no organ can take a tumor.

    `annotated`: tumor classes of which `organs` shows every tumor. Those of organs that the case has make it an
    annotated case: its organs reach over their tumors, and only those whose tumors are annotated stay in `voxels`.
    """
    from pipeline import anatomy, course, tissue  # scipy, edt, cc3d: whoever only reads a bank needs none of them

    ct, organs = np.ascontiguousarray(ct), np.ascontiguousarray(organs)
    _check_arrays(case_id, ct, organs, affine, spacing_mm)
    vessels = anatomy.find_vessels(ct, organs, spacing_mm)
    whole = np.where((organs > 0) & (organs % 2 == 0), organs - np.uint8(1), organs) if annotated else organs
    surface = anatomy.surface_distance_mm(whole, spacing_mm)
    stats = anatomy.organ_stats(ct, organs, vessels, surface, spacing_mm)
    usable = anatomy.usable_organs(stats, case_id, allow_implausible)
    true_tumors = tuple(sorted(c for c in annotated if CLASS_NAMES[c - 1] in stats))
    if annotated:
        usable = _with_annotated_tumors(case_id, usable, annotated)
    voxels = {organ: np.flatnonzero(organs == organ_id(organ)).astype(np.int32) for organ in usable}
    return Case(
        case_id=case_id,
        ct=ct,
        organs=organs,
        vessels=vessels,
        surface_distance_mm=surface,
        vessel_distance_mm=anatomy.vessel_distance_mm(whole, vessels, spacing_mm),
        noise=tissue.donor_noise(ct, organs, vessels, surface, spacing_mm),
        voxels=voxels,
        parenchyma={o: tissue.parenchyma(ct, organs, vessels, surface, o, stats[o], spacing_mm) for o in usable},
        along={o: course.along(voxels[o], organs.shape, spacing_mm) for o in usable if o in ELONGATED},
        stats=stats,
        spacing_mm=spacing_mm,
        affine=affine,
        phase=anatomy.estimate_phase(stats),
        split=split,
        sources=dict(sources or {}),
        annotated=true_tumors,
        lesions=_lesions(case_id, organs, usable) if annotated else {},
    )


def _with_annotated_tumors(case_id: str, usable: list[str], annotated: Collection[int]) -> list[str]:
    found = [organ for organ in usable if tumor_id(organ) in annotated]
    if not found:
        raise InputError(
            f"{case_id}: its masks show tumors of {', '.join(CLASS_NAMES[c - 1] for c in sorted(annotated))}, but the "
            f"organs that are whole in this scan are {', '.join(usable)}; add the mask of the tumor's organ"
        )
    return found


def _lesions(case_id: str, organs: UInt8Array, usable: list[str]) -> dict[str, npt.NDArray[np.int32]]:
    from pipeline import anatomy

    found = {organ: lesions for organ in usable if len(lesions := anatomy.lesions(organs, organ))}
    for organ, lesions in found.items():
        if lesions[-1, 1] >= MOST_LESIONS:
            raise InputError(
                f"{case_id}: the {organ} tumors are in {lesions[-1, 1] + 1} separate pieces, a patient has "
                f"{MOST_LESIONS} at most: the mask is noise or of something else; clean it, or read it with the right "
                "--labels"
            )
    return found


def _check_arrays(case_id: str, ct: Int16Array, organs: UInt8Array, affine: FloatArray, spacing_mm: float) -> None:
    """What the caller promises; users never see these."""
    if ct.dtype != np.int16 or organs.dtype != np.uint8:
        raise ValueError(f"{case_id}: ct must be int16 and organs uint8, found {ct.dtype} and {organs.dtype}")
    if ct.ndim != 3 or ct.shape != organs.shape or ct.size > np.iinfo(np.int32).max:
        raise ValueError(f"{case_id}: ct {ct.shape} and organs {organs.shape} must be one 3-D shape below 2^31 voxels")
    if int(organs.max()) not in CLASS_NAMES:
        raise ValueError(f"{case_id}: organs hold the id {int(organs.max())}, class ids end at {max(CLASS_NAMES)}")
    if not np.allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing_mm, rtol=2e-3):
        raise ValueError(f"{case_id}: the affine has another spacing than {spacing_mm} mm:\n{affine}")
