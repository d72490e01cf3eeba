"""The steps of making a tumor, by name, so that each can be switched off for ablations. Data only."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import InputError

STEPS: dict[str, tuple[str, ...]] = {
    "location": ("vessels", "depth", "regions"),
    "shape": ("axis_ratio", "lobulation", "deformation", "soft_edge"),
    "texture": ("structure", "noise"),
    "effects": ("mass_effect", "rim", "core", "septa", "calcification", "upstream"),
}
PARTS: tuple[str, ...] = tuple(part for parts in STEPS.values() for part in parts)


def switched_off(without: Sequence[str]) -> frozenset[str]:
    """The parts that `without`, names of steps and parts, leaves out; InputError for another name."""
    parts: set[str] = set()
    for name in without:
        if name not in STEPS and name not in PARTS:
            raise InputError(f"without: no step {name!r}; steps: {', '.join(STEPS)}; their parts: {', '.join(PARTS)}")
        parts.update(STEPS.get(name, (name,)))
    return frozenset(parts)
