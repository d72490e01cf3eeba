"""Presets: what one kind of tumor in one organ looks like, as ranges with their sources.

Data only: `pipeline.spec` draws from them, `pipeline.synthesis` applies what was drawn. A new organ is one module here,
named after the organ, with the constant `PRESET`, and a line in `pipeline.organs`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Literal, get_args

from pipeline.errors import InputError
from pipeline.organs import TUMOR_ORGANS
from pipeline.presets.kinds import (
    Absolute,
    BySize,
    Calcification,
    Choice,
    Core,
    Distribution,
    Ellipsoidal,
    Exophytic,
    Levels,
    LogNormal,
    LogUniform,
    MassEffect,
    Mixture,
    Normal,
    OrganPreset,
    Phase,
    Place,
    Relative,
    Rim,
    SampleMix,
    Septa,
    TumorKind,
    Uniform,
    Upstream,
    WallGrowth,
)

__all__ = [
    "PRESET_SETS",
    "Absolute",
    "BySize",
    "Calcification",
    "Choice",
    "Core",
    "Distribution",
    "Ellipsoidal",
    "Exophytic",
    "Levels",
    "LogNormal",
    "LogUniform",
    "MassEffect",
    "Mixture",
    "Normal",
    "OrganPreset",
    "Phase",
    "Place",
    "PresetSet",
    "Relative",
    "Rim",
    "SampleMix",
    "Septa",
    "TumorKind",
    "Uniform",
    "Upstream",
    "WallGrowth",
    "preset_of",
]

# clinical: what the literature says. seed-paper: the training generator of Hu et al. 2023, liver only, for comparison.
PresetSet = Literal["clinical", "seed-paper"]
PRESET_SETS: tuple[PresetSet, ...] = get_args(PresetSet)
_SEED_PAPER_ORGAN = "liver"


def preset_of(organ: str, presets: str = "clinical") -> OrganPreset:
    """The preset of an organ from one of `PRESET_SETS`; an InputError names the organs and the sets there are."""
    if presets not in PRESET_SETS:
        raise InputError(f"unknown preset set {presets!r}; choose from {', '.join(PRESET_SETS)}")
    if organ not in TUMOR_ORGANS:
        raise InputError(f"no tumor presets for {organ!r}; organs with presets: {', '.join(TUMOR_ORGANS)}")
    if presets == "clinical":
        return _load(organ)
    if organ != _SEED_PAPER_ORGAN:
        raise InputError(
            f"the preset set {presets!r} has no {organ}, only {_SEED_PAPER_ORGAN}; use 'clinical' for {organ}"
        )
    return _load("seed_paper")


def _load(module: str) -> OrganPreset:
    name = f"{__name__}.{module}"
    if find_spec(name) is None:
        raise InputError(
            f"{module} is listed as an organ that takes tumors, but has no presets: add pipeline/presets/{module}.py "
            "with the constant PRESET"
        )
    preset: OrganPreset = import_module(name).PRESET
    return preset
