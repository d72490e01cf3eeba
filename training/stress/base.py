"""The samples that suites start from: one tumor each, everything that a suite varies at its mean.

In: a bank and a seed. Out: `Base` records. Places and all that no suite varies (outline, rim, core, septa, specks, keys
of the textures) are drawn by `pipeline.spec`, as for a dataset. Parts that act on the tissue around a tumor (mass
effect, blocked duct) are left out: they depend on the place, and would change with it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipeline.bank import Bank, CaseRecord
from pipeline.case import Case
from pipeline.config import SPLITS, GenerateConfig
from pipeline.errors import InputError
from pipeline.grid import Index3, index3
from pipeline.presets import TumorKind, preset_of
from pipeline.presets.kinds import Phase
from pipeline.spec import draw_sample
from pipeline.spec.limits import diameter_limits
from pipeline.spec.records import SampleSpec, TumorSpec
from training.stress.edit import elongated, resized
from training.stress.levels import Quantity, Stressed

_TRIES = 20  # for every sample that is asked for
# Of the patch's shortest edge: a tumor of mean elongation is 1.2 times as long as its diameter, and has lobes.
_PATCH_SHARE = 0.65
_STRESS = 0x57E  # tells this use of a seed from a dataset's, so that its places are not a training's
LEFT_OUT = ("mass_effect", "upstream")


@dataclass(frozen=True)
class Base:
    """One sample with one tumor, and what its case says about levels."""

    spec: SampleSpec
    case: Case

    @property
    def tumor(self) -> TumorSpec:
        return self.spec.tumors[0]

    @property
    def phase(self) -> Phase:
        """The contrast phase; an unknown one counts as portal venous, as for presets."""
        return (
            "native"
            if self.case.phase == "native"
            else "arterial"
            if self.case.phase == "arterial"
            else "portal_venous"
        )


@dataclass(frozen=True)
class Drawn:
    """Base samples, and how many draws they took: where a draw finds no place for its tumor, the next is taken."""

    bases: tuple[Base, ...]
    draws: int


@dataclass(frozen=True)
class Request:
    """What bases are drawn for."""

    bank: Bank
    organ: str
    numbers: Stressed
    split: str  # or all
    patch_shape: Index3
    seed: int

    @property
    def kind(self) -> TumorKind:
        return preset_of(self.organ).kinds[self.numbers.kind]

    @property
    def records(self) -> tuple[CaseRecord, ...]:
        """The cases to draw from."""
        return tuple(r for r in self.bank.records if self.organ in r.usable_organs and self.split in (r.split, "all"))

    def config(self, diameter_mm: float) -> GenerateConfig:
        """Settings that give every sample one tumor of the kind and diameter, each case as likely as any other."""
        words = np.random.SeedSequence((self.seed, _STRESS)).generate_state(1)
        cases = Counter(record.split for record in self.records)
        tumor = {"kinds": {self.numbers.kind: 1.0}, "count": (1, 1), "diameter_mm": (diameter_mm, diameter_mm)}
        return GenerateConfig.model_validate(
            {
                "seed": int(words[0]),
                "patch_shape": self.patch_shape,
                "organs": (self.organ,),
                "healthy_share": 0.0,
                "body_share": 0.0,
                "split_share": {split: float(cases[split]) for split in SPLITS},
                "without": LEFT_OUT,
                "tumors": {self.organ: tumor},
            }
        )


def check_cases(request: Request) -> None:
    """InputError when there is nothing to draw from, saying what the bank has."""
    bank, organ = request.bank, request.organ
    usable = Counter(record.split for record in bank.records if organ in record.usable_organs)
    if not usable:
        raise InputError(f"{bank.place}: no case has a usable {organ}; prepare one, or choose another --organ")
    if not request.records:
        held = ", ".join(f"{split} {usable[split]}" for split in SPLITS if usable[split])
        raise InputError(
            f"{bank.place}: no case of split {request.split} has a usable {organ} (cases with one: {held}). "
            "Choose --split, or prepare held-out cases with `phantumor prepare --split test`"
        )


def size_limits_mm(request: Request) -> tuple[float, float]:
    """Smallest and largest diameter that grid, patch and the smallest organ allow."""
    config, spacing = request.config(1.0), request.bank.spacing_mm
    limits = [
        diameter_limits(request.kind, r.stats[request.organ], f"along/{request.organ}" in r.arrays, config, spacing)
        for r in request.records
    ]
    patch = _PATCH_SHARE * min(request.patch_shape) * spacing
    low, high = max(a for a, _ in limits), min(patch, *(b for _, b in limits))
    if low > high:
        raise InputError(
            f"{request.bank.place}: the grid of {spacing:g} mm shows tumors from {low:.1f} mm, the network's patch "
            f"and the smallest {request.organ} hold {high:.1f} mm. Use a finer bank, or leave that case out"
        )
    return low, high


def draw_bases(request: Request, samples: int, diameter_mm: float, place_mm: float) -> Drawn:
    """`samples` bases with tumors of `diameter_mm`, at places where one of `place_mm` has room.

    InputError when `_TRIES` draws a sample do not find them.
    """
    config = request.config(place_mm)
    bases: list[Base] = []
    draws = 0
    while len(bases) < samples:
        if draws == _TRIES * samples:
            raise InputError(
                f"{request.bank.place}: {draws} draws gave {len(bases)} places for {request.organ} tumors of "
                f"{place_mm:.0f} mm, {samples} are needed; add cases with a larger {request.organ}, or leave the "
                "suite `size` out of --suites"
            )
        spec = draw_sample(request.bank, config, draws)
        draws += 1
        if spec.tumors:
            bases.append(_at_means(spec, request, diameter_mm))
    return Drawn(tuple(bases), draws)


def _at_means(spec: SampleSpec, request: Request, diameter_mm: float) -> Base:
    """The drawn sample with every varied factor at its mean, and its patch around the tumor."""
    case, numbers = request.bank.load(spec.case_id), request.numbers
    base = Base(spec, case)
    tumor = elongated(resized(base.tumor, diameter_mm), numbers.elongation.at(0).value)
    contrast = contrast_limited(base, request.kind, numbers.contrast_hu[base.phase])
    changes = {"contrast_hu": contrast, "texture_sd_hu": numbers.texture_sd_hu.at(0).value}
    return Base(with_tumor(spec, case, tumor.model_copy(update=changes)), case)


def contrast_limited(base: Base, kind: TumorKind, quantity: Quantity) -> float:
    """The mean contrast in a case, HU."""
    return quantity.at(0, low=least_contrast_hu(base, kind)).value


def least_contrast_hu(base: Base, kind: TumorKind) -> float:
    """The contrast of a tumor that is as dark as its kind can be."""
    return kind.lowest_hu - base.case.stats[base.tumor.organ].mean_hu


def with_tumor(spec: SampleSpec, case: Case, tumor: TumorSpec) -> SampleSpec:
    """The sample with this one tumor and a patch around its centre, inside the case where it fits."""
    center = np.rint(tumor.center_vox).astype(int)
    origin = [
        min(max(int(c) - p // 2, 0), n - p) if n >= p else (n - p) // 2
        for c, p, n in zip(center, spec.patch_shape, case.ct.shape, strict=True)
    ]
    return spec.model_copy(update={"tumors": (tumor,), "origin_vox": index3(origin)})
