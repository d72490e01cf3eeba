"""The vocabulary of presets: one type for "number or range", and the record of a tumor kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True)
class TumorKind:
    """How tumors of one kind look. Lengths in mm, intensities in HU."""

    diameter_mm: Distribution  # volume-equivalent
    axis_ratio: Distribution  # each half axis over the radius, before the volume is set
    deformation: Distribution  # SD of the elastic displacement over the radius
    edge_mm: Distribution  # width of the soft edge, from 0 to 100 % tumor
    contrast_hu: Distribution  # mean of the labelled tumor minus the parenchyma around it
    texture_sd_hu: Distribution  # coarse structure, on top of the donor's own noise
    texture_grain_mm: Distribution  # size of that structure
    rim_hu: Distribution  # brightness of the rim over the core
    rim_share: float  # share of tumors that have the rim at all
    rim_mm: Distribution  # thickness of the rim
    lowest_hu: float  # the mean of a tumor of this kind is never darker than this


@dataclass(frozen=True)
class OrganPreset:
    """The kinds of one organ with their default weights, and how many tumors a sample holds."""

    kinds: Mapping[str, TumorKind]
    weights: Mapping[str, float]
    count: Choice
