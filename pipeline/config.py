"""The tree of settings: validated on construction, the resolved copy lies beside every result.

How they are read and explained is in `pipeline.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from cyclopts import Parameter
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)

from pipeline.engine_names import EngineName
from pipeline.errors import InputError
from pipeline.organs import HOLLOW, TUMOR_ORGANS
from pipeline.presets import PresetSet
from pipeline.settings import Settings
from pipeline.steps import switched_off

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"low end {value[0]} is above high end {value[1]}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # one word of a SeedSequence: (seed, index) pairs stay distinct
Edge = Annotated[int, Field(ge=8, le=1024)]
Shape = tuple[Edge, Edge, Edge]
WHOLE_CASES = (0, 0, 0)  # the patch shape `full`: every sample is a whole case


def _full_or(given: Any, shape: ValidatorFunctionWrapHandler) -> Any:
    if _is_full(given):
        return WHOLE_CASES
    if isinstance(given, list | tuple) and len(given) != 3:
        raise ValueError(f"give three numbers of voxels, X Y Z, or full; got {' '.join(map(str, given))}")
    return shape(given)


def _is_full(given: Any) -> bool:
    return given in ("full", ["full"], ("full",), WHOLE_CASES)


PatchShape = Annotated[
    Shape,
    WrapValidator(_full_or),
    PlainSerializer(lambda shape: "full" if shape == WHOLE_CASES else list(shape), when_used="json"),
    Parameter(n_tokens=-1),  # on a command line: three numbers, or `full`
]


class TumorSettings(Settings):
    """What to change of an organ's presets; what is not given keeps the preset's own distribution."""

    kinds: dict[str, Weight] | None = None
    """Weight of each tumor kind, e.g. --tumors.liver.kinds.hcc 1."""
    count: tuple[Count, Annotated[int, Field(le=20)]] | None = None
    """Fewest and most tumors of a sample that has any, uniform."""
    diameter_mm: Range | None = None
    """Volume-equivalent diameter, log-uniform between the two ends."""
    contrast_hu: Range | None = None
    """Mean of the labelled tumor minus parenchyma, uniform between the two ends."""

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> Self:
        if self.count is not None and self.count[0] > self.count[1]:
            raise ValueError(f"count {self.count}: fewest is more than most")
        if self.diameter_mm is not None and self.diameter_mm[0] <= 0:
            raise ValueError(f"diameter_mm {self.diameter_mm}: a diameter is more than 0")
        return self


class _TumorsByOrgan(Settings):
    def of(self, organ: str) -> TumorSettings:
        """The settings of one organ."""
        found: TumorSettings = getattr(self, organ)
        return found


if TYPE_CHECKING:

    class Tumors(_TumorsByOrgan):
        """Changes to the presets, by organ."""
else:  # one field an organ, so that each is a flag: --tumors.liver.diameter-mm 5 30
    Tumors = create_model(
        "Tumors",
        __base__=_TumorsByOrgan,
        __doc__="Changes to the presets, by organ.",
        **{organ: (TumorSettings, TumorSettings()) for organ in TUMOR_ORGANS},
    )


class SeriesSettings(Settings):
    """Several samples that show the same lesions at different times; needs `engine: growth`."""

    points: Annotated[int, Field(ge=1, le=64)] = 1
    """Time points of one lesion: samples 0 to points - 1 are the first series, and so on."""
    interval_days: Annotated[float, Field(gt=0)] = 90.0
    """Days between two time points."""


class SplitShare(Settings):
    """Share of the samples from the cases of each split; a split without cases leaves its share to the others."""

    train: Weight = 0.8
    val: Weight = 0.1
    test: Weight = 0.1

    def of(self, split: Split) -> float:
        """The share of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    @model_validator(mode="after")
    def _some_samples(self) -> Self:
        if self.train + self.val + self.test <= 0:
            raise ValueError("split_share gives no split any sample")
        return self


class GenerateConfig(Settings):
    """Everything that decides the bytes of a dataset, apart from the bank."""

    samples: Annotated[int, Field(ge=1, le=10**9)] = 1000
    """How many samples the whole dataset holds."""
    seed: Seed = 0
    """Decides, with a sample's index, everything about that sample."""
    patch_shape: PatchShape = (96, 96, 96)
    """Voxels (X, Y, Z) at the bank's spacing; or full: whole cases, as the bank has them, cropped to the body."""
    shard_samples: Annotated[int, Field(ge=1, le=4096)] = 64
    """Samples in one shard, the unit of work and of loss; 1 of whole cases."""
    organs: Annotated[tuple[str, ...], Field(min_length=1)] = ("liver",)
    """Organs that are labelled and get tumors."""
    healthy_share: Share = 0.15
    """Share of samples at an organ that get no tumor."""
    body_share: Share = 0.1
    """Share of samples from anywhere in the body, without tumors."""
    distractor_share: Share = 0.0
    """Share of the samples at an organ with benign look-alikes that are labelled as organ or background."""
    split_share: SplitShare = SplitShare()
    presets: PresetSet = "clinical"
    """clinical: the kinds of every organ; seed-paper: the training distributions of Hu et al. 2023, liver only."""
    engine: EngineName = "ellipsoid"
    """How solid tumors get their form: deformed ellipsoids, simulated growth, ... Colon tumors grow along the wall."""
    series: SeriesSettings = SeriesSettings()
    without: tuple[str, ...] = ()
    """Steps or parts of them to leave out, for ablations: location, shape, texture, effects, mass_effect, rim, ..."""
    store: Literal["full", "delta", "recipe"] = "full"
    """full: all pixels; delta: differences from the bank case, 1/70 of the bytes; recipe: none, made when read."""
    tumors: Tumors = Tumors()

    @property
    def whole_cases(self) -> bool:
        """Whether every sample is a whole case instead of a patch."""
        return self.patch_shape == WHOLE_CASES

    def patch_of(self, case_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of a sample from a case of `case_shape` voxels."""
        return case_shape if self.whole_cases else self.patch_shape

    @model_validator(mode="before")
    @classmethod
    def _one_whole_case_a_shard(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and _is_full(given.get("patch_shape")):
            return {"shard_samples": 1, **given}
        return given

    @model_validator(mode="after")
    def _shards_have_a_size(self) -> Self:
        if self.whole_cases and self.shard_samples != 1:
            raise ValueError(f"shard_samples {self.shard_samples}: whole cases (patch_shape full) lie one in a shard")
        return self

    @model_validator(mode="after")
    def _generator_makes_sense(self) -> Self:
        try:
            switched_off(self.without)
        except InputError as error:
            raise ValueError(str(error)) from error
        if self.series.points > 1 and self.engine != "growth":
            raise ValueError("series.points is more than 1: only engine growth makes time series; add --engine growth")
        hollow = [organ for organ in self.organs if organ in HOLLOW]
        if self.series.points > 1 and hollow:
            raise ValueError(
                f"series.points is more than 1: there are no time series of {', '.join(hollow)} tumors, "
                "which grow along a wall; leave the organ out"
            )
        return self

    @model_validator(mode="after")
    def _organs_take_tumors(self) -> Self:
        for organ in self.organs:
            if organ not in TUMOR_ORGANS:
                raise ValueError(f"organs: {organ!r} is no organ for tumors; choose from {', '.join(TUMOR_ORGANS)}")
        if len(set(self.organs)) != len(self.organs):
            raise ValueError(f"organs are named twice: {', '.join(self.organs)}")
        if self.healthy_share + self.body_share > 1:
            raise ValueError(
                f"healthy_share {self.healthy_share} + body_share {self.body_share} is more than all samples"
            )
        return self
