"""The records of a sample: every drawn parameter, nothing else. With the bank they decide image and label bit for bit.

Lengths in mm, intensities in HU, points in voxels of the bank case. A part of a tumor that is None is not there.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Split
from pipeline.grid import Index3
from pipeline.settings import Settings
from pipeline.synthesis.engines._form import EngineForm
from pipeline.synthesis.engines.registry import ENGINES

if TYPE_CHECKING:
    Form = EngineForm
else:  # any engine's record, told by its field `engine`
    Form = Annotated[reduce(or_, (engine.Form for engine in ENGINES.values())), Field(discriminator="engine")]
Vector = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class RimSpec(Settings):
    """A shell just inside the surface."""

    hu: float
    mm: Positive
    nodular: Annotated[float, Field(ge=0, le=1)] = 0.0


class CoreSpec(Settings):
    """Necrosis or a scar: what lies deeper than `depth_mm`."""

    hu: float
    depth_mm: NotNegative
    edge_mm: Positive


class SeptaSpec(Settings):
    """Thin walls, the zero surfaces of a smooth field."""

    hu: float
    spacing_mm: Positive


class CalcificationSpec(Settings):
    """Bright specks where a fine field is above `threshold` of its SD."""

    hu: float
    grain_mm: Positive
    threshold: float


class MassEffectSpec(Settings):
    """The scaling warp: tissue at distance d from the centre comes from d * (1 - strength * (1 - d / reach_mm)^2)."""

    strength: Annotated[float, Field(gt=0, lt=1)]
    reach_mm: Positive


class UpstreamSpec(Settings):
    """A dilated duct along a line of points, and a gland thinned by `atrophy_mm` from its surface around them."""

    duct: tuple[Vector, ...]  # voxels of the bank case
    duct_mm: NotNegative  # diameter
    duct_hu: float
    atrophy_mm: NotNegative


class TumorSpec(Settings):
    """One tumor (or, as a distractor, something that looks like one)."""

    instance: Annotated[int, Field(ge=1)]
    organ: str
    kind: str
    center_vox: Vector
    diameter_mm: Positive  # volume-equivalent
    form: Form
    edge_mm: NotNegative  # width of the soft edge; 0 is a hard one
    contrast_hu: float  # mean over the label minus parenchyma
    base: Literal["parenchyma", "mean", "donor"] = "parenchyma"  # what the tumor's tissue starts from
    room: Literal["organ", "outside", "lumen"] = "organ"  # where it may be; outside: also in the fat around the organ
    noise: Literal[0, 1] = 1  # whether the donor's own noise is kept
    texture_sd_hu: NotNegative = 0.0
    texture_grain_mm: Positive = 5.0
    rim: RimSpec | None = None
    core: CoreSpec | None = None
    septa: SeptaSpec | None = None
    calcification: CalcificationSpec | None = None
    mass_effect: MassEffectSpec | None = None
    upstream: UpstreamSpec | None = None
    doubling_days: Positive | None = None  # of the volume; None: stable
    key: Annotated[int, Field(ge=0, lt=2**63)]  # of the hashed random fields


class SampleSpec(Settings):
    """One sample."""

    index: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    split: Split
    case_id: str
    origin_vox: Index3  # patch corner in the bank case; may lie outside, air is padded
    patch_shape: Index3
    organs: tuple[str, ...]  # labelled organs
    tumors: tuple[TumorSpec, ...] = ()
    distractors: tuple[TumorSpec, ...] = ()  # rendered like tumors, labelled as what they replace
    series_id: Annotated[int, Field(ge=0)] | None = None  # samples that show the same lesions at different times
    time_days: NotNegative | None = None
    truth: Literal["annotated"] | None = None  # the tumors are the patient's own; nothing is put in

    @model_validator(mode="after")
    def _true_tumors_stay_alone(self) -> Self:
        if self.truth and (self.tumors or self.distractors):
            raise ValueError("truth: a sample of a patient's own tumors holds no synthetic ones")
        return self
