"""Drawing a sample: case, patch, tumors, look-alikes. All that is random about a sample follows from its index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.bank import Bank, CaseRecord
from pipeline.case import Case
from pipeline.config import GenerateConfig, Split, TumorSettings
from pipeline.grid import Index3, index3
from pipeline.presets import Ellipsoidal, OrganPreset, TumorKind, preset_of
from pipeline.spec.annotated import at_lesion, off_lesions
from pipeline.spec.distributions import choose, weighted
from pipeline.spec.limits import cases_by_split, diameter_limits, fits, kind_weights, possible_kinds
from pipeline.spec.patch import body_voxel, one_of, patch_origin
from pipeline.spec.place import Site, draw_region, place, region_voxels
from pipeline.spec.records import SampleSpec, TumorSpec
from pipeline.spec.series import at_time
from pipeline.spec.tumor import Wanted, draw_tumor
from pipeline.spec.upstream import draw_upstream
from pipeline.steps import switched_off

_REDRAWS = 8  # of a tumor that finds no place
_WALL_REDRAWS = 2  # the same along a wall, where every try is costly
_MOST_DISTRACTORS = 2
# Hu et al. 2023, training generator: tumors in the middle of the liver's height, half of the patches at a tumor.
_MIDDLE = (0.3, 0.7)
_AT_TUMOR_SHARE = 0.5

_SiteOf = Callable[[float], Site]  # where a tumor of a diameter may be


def draw_sample(bank: Bank, config: GenerateConfig, index: int) -> SampleSpec:
    """Draw sample `index` of the dataset that `config` makes from `bank`."""
    points = config.series.points
    series = index // points
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, series)))
    spec = _draw(rng, bank, config, index)
    if points == 1:
        return spec
    return at_time(spec, config, series, index % points, bank.spacing_mm)


def _draw(rng: np.random.Generator, bank: Bank, config: GenerateConfig, index: int) -> SampleSpec:
    split, record = _draw_case(rng, bank, config)
    case = bank.load(record.case_id)
    organs = [organ for organ in config.organs if organ in case.voxels]
    organ = organs[int(rng.integers(len(organs)))]
    kind_of_sample = rng.random()
    in_body = kind_of_sample < config.body_share
    healthy = in_body or kind_of_sample < config.body_share + config.healthy_share
    if case.annotated:
        origin = _annotated_origin(rng, case, organ, config, in_body, healthy)
        return _spec(index, config, split, case, origin, truth="annotated")
    look_alikes = not in_body and rng.random() < config.distractor_share
    drawer = _Drawer(rng, case, organ, config)
    tumors: list[TumorSpec] = []
    if in_body:
        origin = patch_origin(rng, case, body_voxel(rng, case), drawer.patch)
    else:
        origin, tumors = drawer.whole_organ(healthy) if drawer.preset.whole_organ else drawer.in_patch(healthy)
    distractors = tuple(drawer.distractors(origin, tumors) if look_alikes else ())
    return _spec(index, config, split, case, origin, tumors=tuple(tumors), distractors=distractors)


def _spec(index: int, config: GenerateConfig, split: Split, case: Case, origin: Index3, **contents: Any) -> SampleSpec:
    return SampleSpec(
        index=index,
        seed=config.seed,
        split=split,
        case_id=case.case_id,
        origin_vox=origin,
        patch_shape=config.patch_of(index3(case.ct.shape)),
        organs=config.organs,
        **contents,
    )


def _annotated_origin(
    rng: np.random.Generator, case: Case, organ: str, config: GenerateConfig, in_body: bool, healthy: bool
) -> Index3:
    """Where the patch of a case lies that has tumors of its own."""
    patch = config.patch_of(index3(case.ct.shape))
    if config.whole_cases:
        return 0, 0, 0
    if in_body:
        return patch_origin(rng, case, body_voxel(rng, case), patch)
    if healthy or organ not in case.lesions:
        return off_lesions(rng, case, organ, patch, config.organs)
    return at_lesion(rng, case, organ, patch)


def _draw_case(rng: np.random.Generator, bank: Bank, config: GenerateConfig) -> tuple[Split, CaseRecord]:
    by_split = cases_by_split(bank, config.organs)
    splits = [split for split in by_split if config.split_share.of(split) > 0]
    split = splits[weighted(rng, [config.split_share.of(s) for s in splits])]
    return split, by_split[split][int(rng.integers(len(by_split[split])))]


class _Drawer:
    """Draws the tumors of one sample in one organ."""

    def __init__(self, rng: np.random.Generator, case: Case, organ: str, config: GenerateConfig) -> None:
        self.rng, self.case, self.organ, self.config = rng, case, organ, config
        self.patch = config.patch_of(index3(case.ct.shape))
        self.preset: OrganPreset = preset_of(organ, config.presets)
        self.settings = config.tumors.of(organ)
        self.off = switched_off(config.without)
        self.kinds = possible_kinds(self.preset, organ, case.stats[organ], organ in case.along, config, case.spacing_mm)

    def in_patch(self, healthy: bool) -> tuple[Index3, list[TumorSpec]]:
        """A patch around a voxel of the organ (of the region where the first tumor belongs), then tumors in it."""
        names = self._names()
        first = self.preset.kinds[names[0]]
        region = draw_region(self.rng, self.case, self.organ, first, self.off)
        anywhere = self._site((0, 0, 0), index3(self.case.ct.shape), region)
        origin = self._patch_at(one_of(self.rng, region_voxels(anywhere), self.case))
        tumors: list[TumorSpec] = []
        for number, name in enumerate([] if healthy else names):
            kind = self.preset.kinds[name]
            own = region if number == 0 else draw_region(self.rng, self.case, self.organ, kind, self.off)
            self._add(tumors, name, partial(self._within, origin, own), tumors)
        return origin, tumors

    def whole_organ(self, healthy: bool) -> tuple[Index3, list[TumorSpec]]:
        """Tumors in all of the organ, then a patch around one of them, or around any voxel of the organ."""
        shape = self.case.ct.shape
        z = self.case.voxels[self.organ] % shape[2]
        low, high = (int(z.min() + share * (z.max() - z.min())) for share in _MIDDLE)
        site = self._site((0, 0, low), (shape[0], shape[1], high + 1), None)
        tumors: list[TumorSpec] = []
        for name in [] if healthy else self._names():
            self._add(tumors, name, lambda _: site, tumors)
        anchor = one_of(self.rng, self.case.voxels[self.organ], self.case)
        if tumors and self.rng.random() < _AT_TUMOR_SHARE:
            anchor = index3(np.rint(tumors[int(self.rng.integers(len(tumors)))].center_vox))
        origin = self._patch_at(anchor)
        return origin, [t for t in tumors if self._in_patch(t, origin)]

    def distractors(self, origin: Index3, tumors: Sequence[TumorSpec]) -> list[TumorSpec]:
        """Look-alikes beside the tumors, of kinds that are not tumors here."""
        targets = kind_weights(self.preset, self.organ, self.settings)
        weights = {n: w for n, w in self.preset.distractor_weights.items() if n not in targets and w > 0}
        found: list[TumorSpec] = []
        for _ in range(int(self.rng.integers(1, _MOST_DISTRACTORS + 1)) if weights else 0):
            name = list(weights)[weighted(self.rng, list(weights.values()))]
            self._add(found, name, partial(self._within, origin, None), [*tumors, *found])
        return found

    def _names(self) -> list[str]:
        """The kinds of the sample's tumors."""
        if self.preset.mixes and self.settings.kinds is None and self.settings.count is None:
            mix = self.preset.mixes[weighted(self.rng, [m.weight for m in self.preset.mixes])]
            counts = {name: int(self.rng.integers(low, high + 1)) for name, (low, high) in mix.counts.items()}
            return [name for name, count in counts.items() for _ in range(count) if name in self.kinds] or [
                next(iter(self.kinds))
            ]
        count = self.settings.count
        number = (
            choose(self.rng, self.preset.count) if count is None else int(self.rng.integers(count[0], count[1] + 1))
        )
        return [list(self.kinds)[weighted(self.rng, list(self.kinds.values()))] for _ in range(number)]

    def _add(self, drawn: list[TumorSpec], name: str, site_of: _SiteOf, others: Sequence[TumorSpec]) -> None:
        """Draw a tumor (or look-alike) of a kind until one finds a place; add it to `drawn`."""
        is_target = name in self.kinds
        kind = self.preset.kinds[name] if is_target else self.preset.distractors[name]
        settings = self.settings if is_target else TumorSettings()
        limits = diameter_limits(
            kind, self.case.stats[self.organ], self.organ in self.case.along, self.config, self.case.spacing_mm
        )
        if not fits(kind, settings.diameter_mm, limits):
            return
        engine = self.config.engine if is_target else "ellipsoid"
        want = Wanted(self.case, self.organ, name, kind, settings, limits, engine, self.off)
        for _ in range(_REDRAWS if isinstance(kind.form, Ellipsoidal) else _WALL_REDRAWS):
            tumor = draw_tumor(self.rng, want, len(others) + 1)
            if not is_target and tumor.contrast_hu == 0:  # a difference in enhancement, where nothing is enhanced
                return
            placed = place(self.rng, site_of(tumor.diameter_mm), tumor, kind, others)
            if placed is not None:
                drawn.append(self._finished(placed, kind))
                return

    def _finished(self, tumor: TumorSpec, kind: TumorKind) -> TumorSpec:
        if kind.upstream is None:
            return tumor
        upstream = draw_upstream(self.rng, self.case, tumor, kind.upstream)
        return tumor.model_copy(update={"upstream": None if "upstream" in self.off else upstream})

    def _patch_at(self, anchor: Index3) -> Index3:
        return patch_origin(self.rng, self.case, anchor, self.patch)

    def _site(self, low: Index3, high: Index3, region: str | None) -> Site:
        return Site(self.case, self.organ, self.preset, low, high, self.off, region)

    def _within(self, origin: Index3, region: str | None, diameter_mm: float) -> Site:
        """The part of the patch where a tumor's centre may be: half a diameter from its border where that is left."""
        margin = [min(round(diameter_mm / self.case.spacing_mm / 2), p // 4) for p in self.patch]
        low = np.clip(np.add(origin, margin), 0, self.case.ct.shape)
        high = np.clip(np.add(origin, self.patch) - margin, low, self.case.ct.shape)
        return self._site(index3(low), index3(high), region)

    def _in_patch(self, tumor: TumorSpec, origin: Index3) -> bool:
        """Whether a ball of the tumor's size meets the patch."""
        nearest = np.clip(tumor.center_vox, origin, np.add(origin, self.patch) - 1)
        apart = float(np.sqrt(((nearest - np.array(tumor.center_vox)) ** 2).sum())) * self.case.spacing_mm
        return apart < tumor.diameter_mm / 2
