"""What a request can ask for: tumor kinds by weight, and the diameters that grid, patch and organ allow."""

from __future__ import annotations

import math
from functools import lru_cache

from pipeline.bank import Bank, CaseRecord
from pipeline.case import OrganStats
from pipeline.config import SPLITS, GenerateConfig, Split, TumorSettings
from pipeline.errors import InputError
from pipeline.presets import OrganPreset, TumorKind, WallGrowth, preset_of
from pipeline.spec.distributions import ends

MIN_DIAMETER_VOXELS = 2.5  # smaller balls cover too few voxels to be labelled as they are drawn
# Largest diameter over the organ's largest depth; the largest ball inside the organ has 2. Tumors that leave the organ
# or lie along a thin one can be larger.
_IN_ORGAN, _EXOPHYTIC, _ALONG = 1.8, 3.6, 2.5
_VOLUME_SHARE = 0.5  # of the organ, that one tumor may take
_WALL_SHARE = 0.25  # the same of a hollow organ, lumen included
_PATCH_SHARE = 0.8  # of the patch's shortest edge


def kind_weights(preset: OrganPreset, organ: str, settings: TumorSettings) -> dict[str, float]:
    """The kinds to draw from; InputError for a kind that the organ does not have."""
    weights = settings.kinds if settings.kinds is not None else dict(preset.weights)
    unknown = sorted(set(weights) - set(preset.kinds))
    if unknown:
        raise InputError(f"{organ} has no tumor kind {', '.join(unknown)}; kinds: {', '.join(preset.kinds)}")
    if sum(weights.values()) <= 0:
        raise InputError(f"the weights of the {organ} kinds are all zero")
    return {name: weight for name, weight in weights.items() if weight > 0}


def diameter_limits(
    kind: TumorKind, stats: OrganStats, elongated: bool, config: GenerateConfig, spacing_mm: float
) -> tuple[float, float]:
    """Smallest and largest diameter of a kind in an organ, mm; the smallest is above the largest where none fits."""
    low = MIN_DIAMETER_VOXELS * spacing_mm
    return low, min(_patch_mm(config, spacing_mm), _organ_mm(kind, stats, elongated))


def _patch_mm(config: GenerateConfig, spacing_mm: float) -> float:
    return math.inf if config.whole_cases else _PATCH_SHARE * min(config.patch_shape) * spacing_mm


def _organ_mm(kind: TumorKind, stats: OrganStats, elongated: bool) -> float:
    def of_volume(share: float) -> float:
        return float((6 / math.pi * share * stats.volume_ml * 1000) ** (1 / 3))

    if isinstance(kind.form, WallGrowth):
        return of_volume(_WALL_SHARE)
    if kind.place.exophytic:
        return _EXOPHYTIC * stats.max_depth_mm
    return min((_ALONG if elongated else _IN_ORGAN) * stats.max_depth_mm, of_volume(_VOLUME_SHARE))


def fits(kind: TumorKind, asked_mm: tuple[float, float] | None, limits_mm: tuple[float, float]) -> bool:
    """Whether a size of a kind (of those asked for, or its own) lies within the limits."""
    low, high = asked_mm or ends(kind.diameter_mm)
    return max(low, limits_mm[0]) <= min(high, limits_mm[1])


def possible_kinds(
    preset: OrganPreset, organ: str, stats: OrganStats, elongated: bool, config: GenerateConfig, spacing_mm: float
) -> dict[str, float]:
    """The weights of the kinds of which a wanted size fits the organ."""
    settings = config.tumors.of(organ)
    return {
        name: weight
        for name, weight in kind_weights(preset, organ, settings).items()
        if fits(
            preset.kinds[name],
            settings.diameter_mm,
            diameter_limits(preset.kinds[name], stats, elongated, config, spacing_mm),
        )
    }


@lru_cache(maxsize=8)
def cases_by_split(bank: Bank, organs: tuple[str, ...]) -> dict[Split, tuple[CaseRecord, ...]]:
    """The cases in which one of the organs can take tumors, by split; splits without any are left out."""
    usable = [record for record in bank.records if set(organs) & set(record.usable_organs)]
    return {s: found for s in SPLITS if (found := tuple(r for r in usable if r.split == s))}


def check_bank(bank: Bank, config: GenerateConfig) -> None:
    """InputError when the bank cannot give what the config asks for, naming the limit."""
    for organ in config.organs:
        kind_weights(preset_of(organ, config.presets), organ, config.tumors.of(organ))
        if not any(organ in record.usable_organs for record in bank.records):
            raise InputError(f"{bank.path}: no case has a usable {organ}; prepare one, or leave it out of --organs")
    by_split = cases_by_split(bank, config.organs)
    if not any(config.split_share.of(split) for split in by_split):
        raise InputError(
            f"{bank.path}: its cases are in the splits {', '.join(by_split)}, "
            "and split_share gives none of them a sample"
        )
    _check_times(bank, config)
    for record in (r for r in bank.records if not r.annotated):
        for organ in config.organs:
            if organ in record.usable_organs:
                elongated = f"along/{organ}" in record.arrays
                _check_sizes(config, organ, record.stats[organ], elongated, bank.spacing_mm, record.case_id)


def _check_times(bank: Bank, config: GenerateConfig) -> None:
    annotated = [record.case_id for record in bank.records if record.annotated]
    if annotated and config.series.points > 1:
        raise InputError(
            f"{bank.path}: series.points is {config.series.points}, but {len(annotated)} of its cases are annotated "
            f"({', '.join(annotated[:4])}): a patient's own tumors are known at one time only; make the series from a "
            "bank of healthy cases"
        )


def _check_sizes(
    config: GenerateConfig, organ: str, stats: OrganStats, elongated: bool, spacing_mm: float, case_id: str
) -> None:
    preset = preset_of(organ, config.presets)
    if possible_kinds(preset, organ, stats, elongated, config, spacing_mm):
        return
    weights = kind_weights(preset, organ, config.tumors.of(organ))
    wanted = config.tumors.of(organ).diameter_mm
    sizes = [wanted] if wanted else [ends(preset.kinds[name].diameter_mm) for name in weights]
    least, most = min(low for low, _ in sizes), max(high for _, high in sizes)
    asked = f"of {least:g} mm" if least == most else f"of {least:g} to {most:g} mm"
    organ_mm = max(_organ_mm(preset.kinds[name], stats, elongated) for name in weights)
    raise InputError(
        f"{organ} tumors {asked} are not possible in case {case_id}: the grid of {spacing_mm:g} mm shows "
        f"{MIN_DIAMETER_VOXELS * spacing_mm:.1f} mm or more, the organ ({stats.volume_ml:.0f} ml, "
        f"{stats.max_depth_mm:.0f} mm deep) holds {organ_mm:.0f} mm, the patch {_patch_mm(config, spacing_mm):.0f} mm"
    )
