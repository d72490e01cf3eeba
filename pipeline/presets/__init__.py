"""Presets: what one kind of tumor in one organ looks like, as ranges with their sources.

Data only. `pipeline.spec` draws from them, `pipeline.synthesis` applies what was drawn.
"""

from pipeline.errors import InputError
from pipeline.presets.kinds import (
    Choice,
    Distribution,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    OrganPreset,
    TumorKind,
    Uniform,
)
from pipeline.presets.liver import LIVER

__all__ = [
    "PRESETS",
    "Choice",
    "Distribution",
    "LogNormal",
    "LogUniform",
    "Mixture",
    "Normal",
    "OrganPreset",
    "TumorKind",
    "Uniform",
    "preset_of",
]

PRESETS: dict[str, OrganPreset] = {"liver": LIVER}


def preset_of(organ: str) -> OrganPreset:
    """The preset of an organ; an InputError for an organ that has none yet."""
    if organ not in PRESETS:
        raise InputError(f"no tumor presets for {organ!r} yet; organs with presets: {', '.join(PRESETS)}")
    return PRESETS[organ]
