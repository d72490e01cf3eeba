"""The vocabulary of presets: one type for "number or range", and the record of a tumor kind.

Data only, no draws. Lengths are mm, intensities HU, shares 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Uniform:
    """Uniform between two ends; equal ends make a plain number."""

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm, between two positive ends."""

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """Normal, cut at both ends."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class LogNormal:
    """exp of a normal with `mu` and `sigma` of the logarithm, cut at both ends."""

    mu: float
    sigma: float
    low: float
    high: float


@dataclass(frozen=True)
class Mixture:
    """One of several distributions, by weight."""

    parts: tuple[tuple[float, Distribution], ...]


@dataclass(frozen=True)
class Choice:
    """One of several whole numbers, by weight."""

    weights: Mapping[int, float]


Distribution = Uniform | LogUniform | Normal | LogNormal | Mixture


# ---- intensity ----


@dataclass(frozen=True)
class Relative:
    """Mean of the labelled tumor minus the parenchyma around it, HU."""

    hu: Distribution


@dataclass(frozen=True)
class Absolute:
    """Mean HU of the labelled tumor, whatever the parenchyma: fluid, fat."""

    hu: Distribution


Phase = Literal["native", "arterial", "portal_venous"]
# One level for all phases, or one for each; a case of unknown phase is taken as portal venous.
Levels = Relative | Absolute | Mapping[Phase, Relative | Absolute]


# ---- form ----


@dataclass(frozen=True)
class Ellipsoidal:
    """An ellipsoid under lobulation and elastic deformation; `engine: growth` grows a lesion of that size instead."""

    axis_ratio: Distribution  # each half axis over the radius, before the volume is set
    lobulation: Distribution  # SD of the radius over the surface, as a share of the radius: harmonics of degree 2 to 4
    deformation: Distribution  # SD of the elastic displacement over the radius


@dataclass(frozen=True)
class WallGrowth:
    """Growth along the wall of a hollow organ: thickest in the middle, thinning out along and around the lumen."""

    around: Distribution  # share of the circumference that is thickened; 1 is annular
    slimness: Distribution  # length along the organ over the greatest thickness
    inward: Distribution  # share of the thickness that narrows the lumen; the rest goes outward
    roughness: Distribution  # SD of the thickness, as a share of it


# ---- parts of a tumor; `share` is the share of tumors that have it ----


@dataclass(frozen=True)
class BySize:
    """A share that grows with the diameter D: `cap / (1 + exp(-(D - middle_mm) / width_mm))`."""

    middle_mm: float
    width_mm: float
    cap: float


@dataclass(frozen=True)
class Rim:
    """A shell just inside the surface, brighter (or darker) than the rest: capsule, enhancing rim."""

    share: float
    hu: Distribution
    mm: Distribution  # thickness
    nodular: float = 0.0  # 0: even; 1: broken up into nodules that reach inward
    late: bool = False  # enhances late: in the arterial phase it shows as little as without contrast agent


@dataclass(frozen=True)
class Core:
    """A core that differs from the rest: necrosis, scar."""

    share: float | BySize
    hu: Distribution  # over the solid part, before the mean is set
    size: Distribution  # radius of the core over the radius of the tumor


@dataclass(frozen=True)
class Septa:
    """Thin walls through the tumor."""

    share: float
    hu: Distribution
    spacing_mm: Distribution


@dataclass(frozen=True)
class Calcification:
    """Bright specks."""

    share: float
    hu: Distribution
    density: Distribution  # share of the tumor's volume


@dataclass(frozen=True)
class MassEffect:
    """Tissue around the tumor is pushed outward."""

    share: float
    strength: Distribution  # I / 100 of the scaling warp, 0 to 1


@dataclass(frozen=True)
class Upstream:
    """What a tumor that blocks the duct does to the gland between it and the tail."""

    share: float
    duct_mm: Distribution  # diameter of the dilated duct
    duct_hu: Distribution  # absolute
    atrophy: Distribution  # share of the gland's thickness that is lost


# ---- place ----


@dataclass(frozen=True)
class Exophytic:
    """Share of the surface outside the organ: N(base + per_mm * max(0, D - above_mm), sd), cut to [0, 0.85]."""

    base: float
    per_mm: float
    above_mm: float
    sd: float


@dataclass(frozen=True)
class Place:
    """Where in the organ."""

    vessel_clearance: float = 1.0  # radii to keep from vessels; 0: may touch and enclose them
    exophytic: Exophytic | None = None  # None: the tumor stays in its organ
    regions: Mapping[str, float] | None = None  # weight of the organ's regions; None: anywhere
    subcapsular: bool = False  # at the organ's surface
    lumen: bool = False  # inside a hollow organ, in what it holds, instead of in its wall


@dataclass(frozen=True)
class TumorKind:
    """How tumors of one kind look."""

    diameter_mm: Distribution  # volume-equivalent
    form: Ellipsoidal | WallGrowth
    edge_mm: Distribution  # width of the soft edge, from 0 to 100 % tumor
    level: Levels
    texture_sd_hu: Distribution  # coarse structure, on top of the donor's own noise
    texture_grain_mm: Distribution  # size of that structure
    lowest_hu: float = 10.0  # the mean of a tumor with a relative level is never darker than this
    # What the tumor is laid over. `parenchyma`: the organ's own tissue without its vessels. `donor`: the CT as it is,
    # vessels run through.
    base: Literal["parenchyma", "donor"] = "parenchyma"
    place: Place = field(default_factory=Place)
    rim: Rim | None = None
    core: Core | None = None
    septa: Septa | None = None
    calcification: Calcification | None = None
    mass_effect: MassEffect | None = None
    upstream: Upstream | None = None
    native_parts: float = 0.25  # without contrast agent, rim, core and septa differ from the rest by this share
    # Volume-doubling time in days, for series; None: stable.
    doubling_days: Distribution | None = None


@dataclass(frozen=True)
class SampleMix:
    """One way to fill a sample: how many tumors of each kind, uniform between two ends."""

    weight: float
    counts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class OrganPreset:
    """The kinds of one organ with their default weights, and how many tumors a sample holds."""

    kinds: Mapping[str, TumorKind]
    weights: Mapping[str, float]
    count: Choice
    # Part of an elongated organ's length (0 at the patient's right end), for `Place.regions`.
    regions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    # Benign look-alikes that stay labelled as organ or background; drawn where the user asks for hard negatives.
    distractors: Mapping[str, TumorKind] = field(default_factory=dict)
    distractor_weights: Mapping[str, float] = field(default_factory=dict)
    mixes: tuple[SampleMix, ...] = ()  # instead of weights and count
    whole_organ: bool = False  # tumors are drawn in the whole organ, then the patch around one of them
