"""Drawing one tumor of a kind: everything but its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from pipeline.case import Case
from pipeline.config import TumorSettings
from pipeline.presets import (
    Absolute,
    BySize,
    Calcification,
    Core,
    Ellipsoidal,
    Levels,
    LogUniform,
    MassEffect,
    Relative,
    Rim,
    Septa,
    TumorKind,
    Uniform,
    WallGrowth,
)
from pipeline.spec.distributions import draw, within
from pipeline.spec.records import (
    CalcificationSpec,
    CoreSpec,
    MassEffectSpec,
    RimSpec,
    SeptaSpec,
    TumorSpec,
)
from pipeline.synthesis.engines import ellipsoid
from pipeline.synthesis.engines._form import EngineForm
from pipeline.synthesis.engines.registry import SOLID_ENGINES

_LEAST_CONTRAST_HU = 8.0  # what is fainter cannot be told from parenchyma
_BRIGHTER_HU = 25.0
_SPECK_GRAIN_MM = (2.0, 4.0)
_MASS_REACH = 1.8  # radii
# (choice) tumors are the more mixed the larger they are: the full structure from 20 mm on, two fifths of it at 8 mm
_MIXED_MM, _LEAST_MIXED = 20.0, 0.4
_LEAST_EDGE_VOXELS = 1.1  # a scanner blurs every edge over about a voxel
_HARD_EDGE_MM = 0.0


@dataclass(frozen=True)
class Wanted:
    """What a tumor is drawn for."""

    case: Case
    organ: str
    kind_name: str
    kind: TumorKind
    settings: TumorSettings
    limits: tuple[float, float]  # of the diameter, mm
    engine: str
    off: frozenset[str]  # parts of steps that are left out


def draw_tumor(rng: np.random.Generator, want: Wanted, instance: int) -> TumorSpec:
    """A tumor that is not yet placed: its centre is the case's first voxel. Kinds of the wall get a ball for a form."""
    kind, off = want.kind, want.off
    diameter = draw_diameter(rng, want)
    radius = diameter / 2
    contrast, base = _draw_level(rng, want)
    enhanced = kind.native_parts if want.case.phase == "native" else 1.0
    edge = max(min(draw(rng, kind.edge_mm), 0.8 * radius), _LEAST_EDGE_VOXELS * want.case.spacing_mm)
    texture_sd, grain = draw(rng, kind.texture_sd_hu), draw(rng, kind.texture_grain_mm)
    texture_sd *= min(max(diameter / _MIXED_MM, _LEAST_MIXED), 1.0)
    tumor = TumorSpec(
        instance=instance,
        organ=want.organ,
        kind=want.kind_name,
        center_vox=(0.0, 0.0, 0.0),
        diameter_mm=diameter,
        form=_draw_form(rng, want, diameter),
        edge_mm=_HARD_EDGE_MM if "soft_edge" in off else edge,
        contrast_hu=contrast,
        base=base,
        room=_room(kind),
        noise=0 if "noise" in off else 1,
        texture_sd_hu=0.0 if "structure" in off else texture_sd,
        texture_grain_mm=grain,
        rim=_draw_rim(rng, kind.rim, radius, enhanced if want.case.phase != "arterial" else _late(kind)),
        core=_draw_core(rng, kind.core, diameter, enhanced),
        septa=_draw_septa(rng, kind.septa, enhanced),
        calcification=_draw_calcification(rng, kind.calcification, diameter),
        mass_effect=_draw_mass_effect(rng, kind.mass_effect, radius),
        doubling_days=draw(rng, kind.doubling_days) if kind.doubling_days else None,
        key=int(rng.integers(2**63)),
    )
    left_out: dict[str, None] = {
        part: None for part in ("rim", "core", "septa", "calcification", "mass_effect") if part in off
    }
    return tumor.model_copy(update=left_out)


def _room(kind: TumorKind) -> Literal["organ", "outside", "lumen"]:
    if kind.place.lumen:
        return "lumen"
    return "outside" if kind.place.exophytic or isinstance(kind.form, WallGrowth) else "organ"


def draw_diameter(rng: np.random.Generator, want: Wanted) -> float:
    """A diameter within what fits; log-uniform where the user gave two ends."""
    low, high = want.limits
    wanted = want.settings.diameter_mm
    if wanted is not None:
        return draw(rng, LogUniform(max(low, wanted[0]), min(high, wanted[1])))
    return within(rng, want.kind.diameter_mm, low, high)


def _draw_form(rng: np.random.Generator, want: Wanted, diameter: float) -> EngineForm:
    look = want.kind.form
    if not isinstance(look, Ellipsoidal):
        one = Uniform(1.0, 1.0)
        nothing = Uniform(0.0, 0.0)
        return ellipsoid.draw_form(rng, Ellipsoidal(one, nothing, nothing), diameter, want.off)
    return SOLID_ENGINES[want.engine].draw_form(rng, look, diameter, want.off)


def _draw_level(rng: np.random.Generator, want: Wanted) -> tuple[float, Literal["parenchyma", "mean", "donor"]]:
    """Contrast to the organ's parenchyma, HU, and what the tissue starts from."""
    parenchyma = want.case.stats[want.organ].mean_hu
    base = want.kind.base
    if want.settings.contrast_hu is not None:
        return draw(rng, Uniform(*want.settings.contrast_hu)), base
    level = level_in(want.kind.level, want.case.phase)
    if isinstance(level, Absolute):
        contrast = draw(rng, level.hu) - parenchyma
        seen = math.copysign(max(abs(contrast), _LEAST_CONTRAST_HU), contrast)
        return seen, "mean" if base == "parenchyma" else base
    return _above_lowest(rng, draw(rng, level.hu), want.kind.lowest_hu - parenchyma), base


def level_in(levels: Levels, phase: str) -> Relative | Absolute:
    """The level of a kind in a phase; an unknown phase counts as portal venous."""
    if isinstance(levels, Relative | Absolute):
        return levels
    return levels["arterial" if phase == "arterial" else "native" if phase == "native" else "portal_venous"]


def _above_lowest(rng: np.random.Generator, drawn: float, darkest: float) -> float:
    """A contrast that leaves the tumor as bright as solid tissue is at least."""
    if drawn >= darkest:
        return drawn
    if darkest > -_LEAST_CONTRAST_HU:  # in a fatty liver solid tumors are the brighter ones
        return max(darkest + float(rng.uniform(0, _BRIGHTER_HU)), _LEAST_CONTRAST_HU)
    # Dark parenchyma (native phase) leaves less room below it: spread over that room, not at its end.
    return float(rng.uniform(darkest, min(0.4 * darkest, -_LEAST_CONTRAST_HU)))


# ---- parts: each draws all of its numbers before it says whether it is there ----


def share_at(share: float | BySize, diameter_mm: float) -> float:
    """The share of tumors of a diameter that have a part."""
    if isinstance(share, BySize):
        return share.cap / (1 + math.exp(-(diameter_mm - share.middle_mm) / share.width_mm))
    return share


def _late(kind: TumorKind) -> float:
    """How much of a kind's rim shows in the arterial phase."""
    return kind.native_parts if kind.rim and kind.rim.late else 1.0


def _draw_rim(rng: np.random.Generator, rim: Rim | None, radius: float, enhanced: float) -> RimSpec | None:
    if rim is None:
        return None
    there, hu, mm = rng.random() < rim.share, draw(rng, rim.hu), draw(rng, rim.mm)
    return RimSpec(hu=enhanced * hu, mm=min(mm, 0.6 * radius), nodular=rim.nodular) if there else None


def _draw_core(rng: np.random.Generator, core: Core | None, diameter: float, enhanced: float) -> CoreSpec | None:
    if core is None:
        return None
    there, hu, size = rng.random() < share_at(core.share, diameter), draw(rng, core.hu), draw(rng, core.size)
    radius = diameter / 2
    if not there:
        return None
    return CoreSpec(hu=enhanced * hu, depth_mm=(1 - size) * radius, edge_mm=max(0.15 * radius, 1.0))


def _draw_septa(rng: np.random.Generator, septa: Septa | None, enhanced: float) -> SeptaSpec | None:
    if septa is None:
        return None
    there, hu, spacing = rng.random() < septa.share, draw(rng, septa.hu), draw(rng, septa.spacing_mm)
    return SeptaSpec(hu=enhanced * hu, spacing_mm=spacing) if there else None


def _draw_calcification(
    rng: np.random.Generator, specks: Calcification | None, diameter: float
) -> CalcificationSpec | None:
    if specks is None:
        return None
    there, hu, density = rng.random() < specks.share, draw(rng, specks.hu), draw(rng, specks.density)
    grain = min(float(rng.uniform(*_SPECK_GRAIN_MM)), diameter / 4)
    return CalcificationSpec(hu=hu, grain_mm=grain, threshold=NormalDist().inv_cdf(1 - density)) if there else None


def _draw_mass_effect(rng: np.random.Generator, effect: MassEffect | None, radius: float) -> MassEffectSpec | None:
    if effect is None:
        return None
    there, strength = rng.random() < effect.share, draw(rng, effect.strength)
    return MassEffectSpec(strength=strength, reach_mm=_MASS_REACH * radius) if there and strength > 0 else None
