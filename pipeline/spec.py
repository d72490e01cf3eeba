"""The record of a sample, and the only place that draws: `draw_sample(bank, config, index)`.

Everything random about a sample is decided here, from `SeedSequence((seed, index))`, and kept in a `SampleSpec`.
Applying a spec (`pipeline.synthesis`) is a pure function. Small-scale randomness (deformation, texture) is a hash of a
tumor's `key`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline.bank import Bank, CaseRecord
from pipeline.case import Case
from pipeline.config import SPLITS, GenerateConfig, Settings, Split, TumorSettings
from pipeline.errors import InputError
from pipeline.grid import Index3, index3, slices3
from pipeline.organs import organ_id
from pipeline.presets import (
    Choice,
    Distribution,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    OrganPreset,
    TumorKind,
    Uniform,
    preset_of,
)
from pipeline.synthesis.location import Ball, best_center

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

BODY_HU = -300  # voxels above it are body, not air or lung
MIN_DIAMETER_VOXELS = 2.5  # smaller balls cover too few voxels to be labelled as they are drawn
_CANDIDATES = 512  # centres tried
_REDRAWS = 8  # of a tumor that finds no place
_LEAST_CONTRAST_HU = 8.0  # what is fainter cannot be told from parenchyma
_BRIGHTER_HU = 25.0
_DRAWS = 64  # tries to hit the inside of a cut distribution


class TumorSpec(Settings):
    """Every drawn parameter of one tumor. Lengths in mm along the case's voxel axes, intensities in HU."""

    instance: Annotated[int, Field(ge=1)]
    organ: str
    kind: str
    center_vox: Vector  # voxels of the bank case
    diameter_mm: Annotated[float, Field(gt=0)]  # volume-equivalent, before the elastic deformation
    half_axes_mm: Vector
    rotation: Matrix  # rows: the ellipsoid's axes in case axes
    deformation_mm: Annotated[float, Field(ge=0)]  # SD of each displacement component
    deformation_grid_mm: Annotated[float, Field(gt=0)]
    edge_mm: Annotated[float, Field(gt=0)]
    contrast_hu: float
    texture_sd_hu: Annotated[float, Field(ge=0)]
    texture_grain_mm: Annotated[float, Field(gt=0)]
    rim_hu: float
    rim_mm: Annotated[float, Field(gt=0)]
    key: Annotated[int, Field(ge=0, lt=2**63)]  # of the hashed random fields

    @property
    def reach_mm(self) -> float:
        """No voxel farther from the centre is touched, but for one deformation in a thousand."""
        return max(self.half_axes_mm) + 3.3 * self.deformation_mm + self.edge_mm / 2


class SampleSpec(Settings):
    """Every drawn parameter of one sample. With the bank it decides image and label bit for bit."""

    index: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    split: Split
    case_id: str
    origin_vox: Index3  # patch corner in the bank case; may lie outside, air is padded
    patch_shape: Index3
    organs: tuple[str, ...]  # labelled organs
    tumors: tuple[TumorSpec, ...] = ()


# ---- distributions ----


def draw(rng: np.random.Generator, distribution: Distribution) -> float:
    """One value of a distribution."""
    match distribution:
        case Uniform(low, high):
            return float(rng.uniform(low, high))
        case LogUniform(low, high):
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        case Normal(mean, sd, low, high):
            return _cut(rng, lambda: float(rng.normal(mean, sd)), low, high)
        case LogNormal(mu, sigma, low, high):
            return _cut(rng, lambda: math.exp(rng.normal(mu, sigma)), low, high)
        case Mixture(parts):
            return draw(rng, parts[_weighted(rng, [weight for weight, _ in parts])][1])


def _cut(rng: np.random.Generator, once: Callable[[], float], low: float, high: float) -> float:
    for _ in range(_DRAWS):
        value = once()
        if low <= value <= high:
            return value
    return float(rng.uniform(low, high))


def _within(rng: np.random.Generator, distribution: Distribution, low: float, high: float) -> float:
    """A value of `distribution` cut to [low, high]."""
    return _cut(rng, lambda: draw(rng, distribution), low, high)


def _weighted(rng: np.random.Generator, weights: Sequence[float]) -> int:
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))


def _rotation(rng: np.random.Generator) -> Matrix:
    """A uniformly distributed rotation, from a normalised quaternion of four normals (Muller 1959)."""
    w, x, y, z = _unit(rng.normal(size=4))
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )


def _unit(vector: npt.NDArray[np.float64]) -> list[float]:
    return [float(v) for v in vector / math.sqrt(float(vector @ vector))]


# ---- the sample ----


def draw_sample(bank: Bank, config: GenerateConfig, index: int) -> SampleSpec:
    """Draw sample `index` of the dataset that `config` makes from `bank`."""
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, index)))
    split, record = _draw_case(rng, bank, config)
    case = bank.load(record.case_id)
    organs = [organ for organ in config.organs if organ in case.voxels]
    organ = organs[int(rng.integers(len(organs)))]
    place = rng.random()
    anywhere = place < config.body_share
    anchor = _body_voxel(rng, case) if anywhere else _organ_voxel(rng, case, organ)
    origin = _patch_origin(rng, case, anchor, config.patch_shape)
    spec = SampleSpec(
        index=index,
        seed=config.seed,
        split=split,
        case_id=case.case_id,
        origin_vox=origin,
        patch_shape=config.patch_shape,
        organs=config.organs,
    )
    if place < config.body_share + config.healthy_share:
        return spec
    tumors = _draw_tumors(rng, case, organ, origin, config)
    return spec.model_copy(update={"tumors": tumors})


@lru_cache(maxsize=8)
def _cases_by_split(bank: Bank, organs: tuple[str, ...]) -> dict[Split, tuple[CaseRecord, ...]]:
    usable = [record for record in bank.records if set(organs) & set(record.usable_organs)]
    return {s: found for s in SPLITS if (found := tuple(r for r in usable if r.split == s))}


def check_bank(bank: Bank, config: GenerateConfig) -> None:
    """InputError when the bank cannot give what the config asks for, naming the limit."""
    for organ in config.organs:
        preset = preset_of(organ)
        _kinds(preset, organ, config.tumors.of(organ))
        if not any(organ in record.usable_organs for record in bank.records):
            raise InputError(f"{bank.path}: no case has a usable {organ}; prepare one, or leave it out of --organs")
    by_split = _cases_by_split(bank, config.organs)
    if not any(config.split_share.of(split) for split in by_split):
        raise InputError(
            f"{bank.path}: its cases are in the splits {', '.join(by_split)}, "
            "and split_share gives none of them a sample"
        )
    for record in bank.records:
        for organ in set(config.organs) & set(record.usable_organs):
            _diameter_limits(config, organ, record.stats[organ].max_depth_mm, bank.spacing_mm, record.case_id)


def _draw_case(rng: np.random.Generator, bank: Bank, config: GenerateConfig) -> tuple[Split, CaseRecord]:
    by_split = _cases_by_split(bank, config.organs)
    splits = [split for split in by_split if config.split_share.of(split) > 0]
    split = splits[_weighted(rng, [config.split_share.of(s) for s in splits])]
    return split, by_split[split][int(rng.integers(len(by_split[split])))]


def _organ_voxel(rng: np.random.Generator, case: Case, organ: str) -> Index3:
    voxels = case.voxels[organ]
    return index3(np.unravel_index(int(voxels[int(rng.integers(len(voxels)))]), case.ct.shape))


def _body_voxel(rng: np.random.Generator, case: Case) -> Index3:
    """A voxel of the body anywhere in the case (the last one tried where a case is nearly all air)."""
    tried = rng.integers(0, case.ct.shape, size=(256, 3))
    inside = np.flatnonzero(case.ct[tried[:, 0], tried[:, 1], tried[:, 2]] > BODY_HU)
    return index3(tried[inside[0] if inside.size else -1])


def _patch_origin(rng: np.random.Generator, case: Case, anchor: Index3, patch: Index3) -> Index3:
    """A patch with the anchor in its middle half, inside the case where it fits, centred on it where it does not."""
    return index3(
        min(max(a - p // 4 - int(rng.integers(p // 2)), 0), n - p) if n >= p else (n - p) // 2
        for a, p, n in zip(anchor, patch, case.ct.shape, strict=True)
    )


# ---- the tumors ----


def _kinds(preset: OrganPreset, organ: str, settings: TumorSettings) -> dict[str, float]:
    weights = settings.kinds if settings.kinds is not None else dict(preset.weights)
    unknown = sorted(set(weights) - set(preset.kinds))
    if unknown:
        raise InputError(f"{organ} has no tumor kind {', '.join(unknown)}; kinds: {', '.join(preset.kinds)}")
    if sum(weights.values()) <= 0:
        raise InputError(f"the weights of the {organ} kinds are all zero")
    return dict(weights)


def _diameter_limits(
    config: GenerateConfig, organ: str, depth_mm: float, spacing_mm: float, case_id: str
) -> tuple[float, float]:
    """Smallest and largest diameter that fits grid, patch and organ; an InputError when a request cannot be met."""
    low = MIN_DIAMETER_VOXELS * spacing_mm
    patch_mm = 0.8 * min(config.patch_shape) * spacing_mm
    organ_mm = 1.8 * depth_mm  # the largest ball inside the organ has 2 * depth
    high = min(patch_mm, organ_mm)
    wanted = config.tumors.of(organ).diameter_mm
    if wanted is not None and (wanted[0] > high or wanted[1] < low):
        raise InputError(
            f"{organ} tumors of {wanted[0]:g} to {wanted[1]:g} mm are not possible in case {case_id}: the grid of "
            f"{spacing_mm:g} mm shows {low:.1f} mm or more, the organ holds {organ_mm:.0f} mm, "
            f"the patch {patch_mm:.0f} mm"
        )
    if high < low:
        raise InputError(
            f"no {organ} tumor fits case {case_id}: at least {low:.1f} mm are needed on a grid of {spacing_mm:g} mm, "
            f"the organ holds {organ_mm:.0f} mm, the patch {patch_mm:.0f} mm"
        )
    return low, high


def _draw_tumors(
    rng: np.random.Generator, case: Case, organ: str, origin: Index3, config: GenerateConfig
) -> tuple[TumorSpec, ...]:
    settings = config.tumors.of(organ)
    preset = preset_of(organ)
    kinds = _kinds(preset, organ, settings)
    limits = _diameter_limits(config, organ, case.stats[organ].max_depth_mm, case.spacing_mm, case.case_id)
    tumors: list[TumorSpec] = []
    for _ in range(_draw_count(rng, preset.count, settings)):
        for _ in range(_REDRAWS):
            name = list(kinds)[_weighted(rng, list(kinds.values()))]
            tumor = draw_tumor(rng, case, organ, name, settings, limits, instance=len(tumors) + 1)
            center = _draw_center(rng, case, tumor, origin, config.patch_shape, tumors)
            if center is not None:
                tumors.append(tumor.model_copy(update={"center_vox": center}))
                break
    return tuple(tumors)


def _draw_count(rng: np.random.Generator, count: Choice, settings: TumorSettings) -> int:
    if settings.count is not None:
        return int(rng.integers(settings.count[0], settings.count[1] + 1))
    numbers = list(count.weights)
    return numbers[_weighted(rng, list(count.weights.values()))]


def draw_tumor(
    rng: np.random.Generator,
    case: Case,
    organ: str,
    name: str,
    settings: TumorSettings,
    limits: tuple[float, float],
    instance: int,
) -> TumorSpec:
    """A tumor of the kind `name`, not yet placed: its centre is the case's first voxel."""
    kind = preset_of(organ).kinds[name]
    diameter = _draw_diameter(rng, kind, settings, limits)
    radius = diameter / 2
    deformation = draw(rng, kind.deformation) * radius
    has_rim = rng.random() < kind.rim_share
    rim_hu = draw(rng, kind.rim_hu)
    return TumorSpec(
        instance=instance,
        organ=organ,
        kind=name,
        center_vox=(0.0, 0.0, 0.0),
        diameter_mm=diameter,
        half_axes_mm=_half_axes(rng, kind, radius),
        rotation=_rotation(rng),
        deformation_mm=deformation,
        deformation_grid_mm=0.8 * radius,  # coarser than the displacement: the map stays free of folds
        edge_mm=min(draw(rng, kind.edge_mm), 0.8 * radius),
        contrast_hu=_draw_contrast(rng, kind, settings, case.stats[organ].mean_hu),
        texture_sd_hu=draw(rng, kind.texture_sd_hu),
        texture_grain_mm=draw(rng, kind.texture_grain_mm),
        rim_hu=rim_hu if has_rim else 0.0,
        rim_mm=min(draw(rng, kind.rim_mm), 0.5 * radius),
        key=int(rng.integers(2**63)),
    )


def _draw_diameter(
    rng: np.random.Generator, kind: TumorKind, settings: TumorSettings, limits: tuple[float, float]
) -> float:
    low, high = limits
    wanted = settings.diameter_mm
    if wanted is not None:
        return draw(rng, LogUniform(max(low, wanted[0]), min(high, wanted[1])))
    return _within(rng, kind.diameter_mm, low, high)


def _half_axes(rng: np.random.Generator, kind: TumorKind, radius: float) -> Vector:
    """Three half axes of the kind's elongation whose ellipsoid has the volume of a ball of `radius`."""
    ratios = [draw(rng, kind.axis_ratio) for _ in range(3)]
    scale = radius / math.prod(ratios) ** (1 / 3)
    return (ratios[0] * scale, ratios[1] * scale, ratios[2] * scale)


def _draw_contrast(rng: np.random.Generator, kind: TumorKind, settings: TumorSettings, parenchyma_hu: float) -> float:
    if settings.contrast_hu is not None:
        return draw(rng, Uniform(*settings.contrast_hu))
    drawn, darkest = draw(rng, kind.contrast_hu), kind.lowest_hu - parenchyma_hu
    if drawn >= darkest:
        return drawn
    if darkest > -_LEAST_CONTRAST_HU:  # in a fatty liver solid tumors are the brighter ones
        return max(darkest + float(rng.uniform(0, _BRIGHTER_HU)), _LEAST_CONTRAST_HU)
    # Dark parenchyma (native phase) leaves less room below it: spread over that room, not at its end.
    return float(rng.uniform(darkest, min(0.4 * darkest, -_LEAST_CONTRAST_HU)))


def _draw_center(
    rng: np.random.Generator,
    case: Case,
    tumor: TumorSpec,
    origin: Index3,
    patch: Index3,
    placed: Sequence[TumorSpec],
) -> Vector | None:
    """A centre in organ and patch, away from vessels and other tumors; None where there is no room."""
    margin = [min(round(tumor.diameter_mm / case.spacing_mm / 2), p // 4) for p in patch]
    low = np.clip(np.add(origin, margin), 0, case.ct.shape)
    high = np.clip(np.add(origin, patch) - margin, low, case.ct.shape)
    inner = case.organs[slices3(low.tolist(), high.tolist())]
    voxels = np.flatnonzero(inner == organ_id(tumor.organ))
    if not voxels.size:
        return None
    chosen = voxels[rng.integers(len(voxels), size=_CANDIDATES)]
    candidates = np.stack(np.unravel_index(chosen, inner.shape), axis=1) + low
    others = [Ball(t.center_vox, t.reach_mm) for t in placed]
    found = best_center(case, candidates, tumor.organ, tumor.diameter_mm / 2, tumor.reach_mm, others)
    if found is None:
        return None
    jitter = rng.uniform(-0.5, 0.5, size=3)
    return (float(found[0] + jitter[0]), float(found[1] + jitter[1]), float(found[2] + jitter[2]))
