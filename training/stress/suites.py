"""The suites: which factor each varies, over which levels, and how a base sample becomes the variant of a level.

In: `Base` records. Out: `Variant` records, paired: the variants of one base differ in the suite's factor alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.case import Case
from pipeline.presets import TumorKind
from pipeline.spec.records import SampleSpec, TumorSpec
from training.stress.base import Base, least_contrast_hu, with_tumor
from training.stress.edit import elongated, moved, resized
from training.stress.levels import ANY_ORGAN, DEPTH_SOURCE, STEPS, Level, Quantity, Stressed, kept


@dataclass(frozen=True)
class Variant:
    """A sample to predict: a spec, and what is done to its image afterwards."""

    spec: SampleSpec
    noise_sd_hu: float = 0.0
    thickness_mm: float | None = None
    hidden: bool = False  # the tumor is not painted: the control, whose truth is where it would be


@dataclass(frozen=True)
class Setting:
    """What levels depend on besides the base."""

    numbers: Stressed
    kind: TumorKind
    size_limits_mm: tuple[float, float]


class Suite(ABC):
    """One factor."""

    name: str
    factor: str  # what is varied, as a title
    explanation: str  # for readers of the report
    unit: str
    digits: int = 0

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def quantity(self, base: Base) -> Quantity:
        """Mean and SD of the factor in the base's case."""

    @abstractmethod
    def limits(self, base: Base) -> tuple[float, float]:
        """What is physical there."""

    @abstractmethod
    def variant(self, base: Base, value: float) -> Variant:
        """The base with the factor at a value."""

    def where(self, base: Base) -> str:
        """Of which cases the base's mean and SD are."""
        return "every case"

    def level(self, base: Base, k: int) -> Level:
        """Level k for a base."""
        return self.quantity(base).at(k, *self.limits(base))


class _OfTumor(Suite):
    """A factor of the tumor: only its record changes."""

    @abstractmethod
    def change(self, tumor: TumorSpec, value: float, case: Case) -> TumorSpec:
        """The tumor with the factor at a value."""

    def variant(self, base: Base, value: float) -> Variant:
        return Variant(with_tumor(base.spec, base.case, self.change(base.tumor, value, base.case)))


class Size(_OfTumor):
    """Diameter."""

    explanation = (
        "The tumor's outline and core scale, its edge and rim stay in mm. All places have room for the largest level, "
        "so they lie deeper than those of the other suites."
    )
    name, factor, unit, digits = "size", "Diameter", "mm", 1

    def quantity(self, base: Base) -> Quantity:
        return self.setting.numbers.diameter_mm

    def limits(self, base: Base) -> tuple[float, float]:
        return self.setting.size_limits_mm

    def change(self, tumor: TumorSpec, value: float, case: Case) -> TumorSpec:
        return resized(tumor, value)


class Contrast(_OfTumor):
    """Mean of the tumor minus parenchyma."""

    explanation = (
        "Mean of the tumor minus the parenchyma around it. Mean and SD are those of the case's contrast phase; no "
        "tumor is darker than its kind can be."
    )
    name, factor, unit = "contrast", "Contrast to parenchyma", "HU"

    def quantity(self, base: Base) -> Quantity:
        return self.setting.numbers.contrast_hu[base.phase]

    def where(self, base: Base) -> str:
        return f"{base.phase.replace('_', ' ')} phase"

    def limits(self, base: Base) -> tuple[float, float]:
        return least_contrast_hu(base, self.setting.kind), float("inf")

    def change(self, tumor: TumorSpec, value: float, case: Case) -> TumorSpec:
        return tumor.model_copy(update={"contrast_hu": value})


class Location(_OfTumor):
    """Depth of the centre."""

    explanation = (
        "Depth of the tumor's centre, deep enough that the surface does not cut the tumor. It moves to the nearest "
        "place of that depth, and the patch with it: here place and surroundings are the factor."
    )
    name, factor, unit, digits = "location", "Depth below the organ's surface", "mm", 1

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._of_case: dict[str, Quantity] = {}

    def quantity(self, base: Base) -> Quantity:
        name = base.case.case_id
        if name not in self._of_case:
            depths = base.case.surface_distance_mm.reshape(-1)[base.case.voxels[base.tumor.organ]].astype(np.float64)
            self._of_case[name] = Quantity(float(depths.mean()), float(depths.std()), DEPTH_SOURCE)
        return self._of_case[name]

    def where(self, base: Base) -> str:
        return f"case {base.case.case_id}"

    def limits(self, base: Base) -> tuple[float, float]:
        """Deep enough that the organ's surface does not cut the tumor, which would change its size."""
        deepest = base.case.stats[base.tumor.organ].max_depth_mm
        return min(base.tumor.diameter_mm / 2, deepest / 2), deepest

    def change(self, tumor: TumorSpec, value: float, case: Case) -> TumorSpec:
        return moved(tumor, case, value, self.setting.kind.place.vessel_clearance)


class Shape(_OfTumor):
    """Longest over shortest half axis."""

    explanation = "At equal volume; 1 is round. The lobes and irregularities of the outline stay."
    name, factor, unit, digits = "shape", "Elongation (longest over shortest axis)", "", 2

    def quantity(self, base: Base) -> Quantity:
        return self.setting.numbers.elongation

    def limits(self, base: Base) -> tuple[float, float]:
        return 1.0, float("inf")

    def change(self, tumor: TumorSpec, value: float, case: Case) -> TumorSpec:
        return elongated(tumor, value)


class Texture(_OfTumor):
    """Structure inside."""

    explanation = "Coarse structure inside the tumor, on top of the scan's own noise; the tumor's mean stays."
    name, factor, unit, digits = "texture", "SD of the structure inside", "HU", 1

    def quantity(self, base: Base) -> Quantity:
        return self.setting.numbers.texture_sd_hu

    def limits(self, base: Base) -> tuple[float, float]:
        return 0.0, float("inf")

    def change(self, tumor: TumorSpec, value: float, case: Case) -> TumorSpec:
        return tumor.model_copy(update={"texture_sd_hu": value})


class Noise(Suite):
    """Noise of the scan."""

    explanation = "White noise added to the whole patch, one field at every SD. None can be taken away."
    name, factor, unit, digits = "noise", "Added noise, SD", "HU", 1

    def quantity(self, base: Base) -> Quantity:
        return ANY_ORGAN.noise_sd_hu

    def limits(self, base: Base) -> tuple[float, float]:
        return 0.0, float("inf")

    def variant(self, base: Base, value: float) -> Variant:
        return Variant(base.spec, noise_sd_hu=value)


class SliceThickness(Suite):
    """Slices of the scan."""

    explanation = (
        "The whole patch averaged to slices of that thickness and brought back to the grid by linear interpolation; "
        "the truth stays. Thinner slices than the grid's are not possible."
    )
    name, factor, unit, digits = "slice-thickness", "Slice thickness", "mm", 2

    def quantity(self, base: Base) -> Quantity:
        return ANY_ORGAN.thickness_mm

    def limits(self, base: Base) -> tuple[float, float]:
        return base.case.spacing_mm, base.case.spacing_mm * base.spec.patch_shape[2]

    def variant(self, base: Base, value: float) -> Variant:
        # A thickness of one voxel is the grid itself: the same sample as that of other suites.
        return Variant(base.spec, thickness_mm=value if value > base.case.spacing_mm else None)


SUITES: dict[str, type[Suite]] = {
    suite.name: suite for suite in (Size, Contrast, Location, Shape, Texture, Noise, SliceThickness)
}


@dataclass(frozen=True)
class Step:
    """Level k of a suite: for each base, in order, its level and variant."""

    k: int
    levels: tuple[Level, ...]
    variants: tuple[Variant, ...]


def steps(suite: Suite, bases: Sequence[Base]) -> tuple[Step, ...]:
    """The levels of a suite that differ from each other, from low to high k."""
    by_k = {k: [suite.level(base, k) for base in bases] for k in STEPS}
    return tuple(
        Step(
            k,
            tuple(by_k[k]),
            tuple(suite.variant(base, level.value) for base, level in zip(bases, by_k[k], strict=True)),
        )
        for k in kept(by_k)
    )


def control(bases: Sequence[Base]) -> tuple[Variant, ...]:
    """The bases without their tumors: what is marked there is marked without a tumor."""
    return tuple(Variant(base.spec, hidden=True) for base in bases)
