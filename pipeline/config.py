"""The tree of settings: validated on construction, unknown keys are errors, the resolved copy lies beside every result.

Precedence: command line, then the YAML file of `--config`, then the defaults here.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import yaml
from cyclopts import Parameter
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)

from pipeline.engine_names import EngineName
from pipeline.errors import InputError
from pipeline.organs import HOLLOW, TUMOR_ORGANS
from pipeline.presets import PresetSet
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


class Settings(BaseModel):
    """Base of every settings group."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, given: Any) -> Any:
        """YAML reads yes, no, on and off as booleans, which pydantic takes for 1 and 0; no setting is a boolean."""
        for name, value in given.items() if isinstance(given, Mapping) else ():
            if isinstance(value, bool):
                raise ValueError(f"{name}: {value} (yes or no) where a value is needed")
        return given

    def digest(self) -> str:
        """sha256 over the canonical JSON of all settings."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


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


class NetworkConfig(Settings):
    """A MONAI network by name."""

    name: Literal["unet"] = "unet"
    channels: Annotated[tuple[Count, ...], Field(min_length=2)] = (16, 32, 64, 128)
    """Feature maps of each level."""
    strides: tuple[Count, ...] = (2, 2, 2)
    """Down-sampling between levels, one less than channels."""
    res_units: Annotated[int, Field(ge=0)] = 0
    """Residual units of each level."""

    @model_validator(mode="after")
    def _one_stride_between_levels(self) -> Self:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"{len(self.channels)} channel levels need {len(self.channels) - 1} strides, got {len(self.strides)}"
            )
        return self


class AugmentConfig(Settings):
    """Augmentation of training batches, drawn per sample, on the device. Intensities in HU."""

    flip: Share = 0.5
    """Chance of a flip, for each axis."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Contrast factor 1 ± U(0, this) about the window's centre."""
    shift_hu: Weight = 15.0
    """Offset ± U(0, this)."""
    noise_hu: Weight = 5.0
    """SD of added white noise, U(0, this)."""


class TrainConfig(Settings):
    """Everything that decides a training, apart from the dataset."""

    steps: Count = 2000
    batch_size: Count = 2
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of AdamW: linear warm-up, then cosine to 0."""
    weight_decay: Weight = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    clip_norm: Annotated[float, Field(gt=0)] = 12.0
    """Largest norm of the gradient."""
    seed: Seed = 0
    window: Range = (-175.0, 250.0)
    """HU that become -1 and 1."""
    crop_shape: Shape | None = None
    """Train on random crops of this many voxels; default: the whole patch."""
    crop_tumor_share: Share = 0.67
    """Share of crops centred on a tumor, where the sample has one."""
    network: NetworkConfig = NetworkConfig()
    augment: AugmentConfig = AugmentConfig()
    log_every: Count = 20
    """Steps between log lines."""
    validate_every: Count = 250
    """Steps between validations."""
    validate_samples: Count = 32
    """Samples of the fixed validation set."""
    checkpoint_every: Count = 250
    """Steps between checkpoints."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads that read and decode samples."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""

    @model_validator(mode="after")
    def _window_has_width(self) -> Self:
        if self.window[0] == self.window[1]:
            raise ValueError(f"window {self.window} has no width")
        return self


S = TypeVar("S", bound=Settings)


def resolve(model: type[S], file: Path | None, overrides: Mapping[str, Any]) -> S:
    """Settings from the defaults, a YAML file over them, and nested `overrides` (the command line) over both."""
    document = read_yaml(file) if file is not None else {}
    try:
        return model.model_validate(_merged(document, overrides))
    except ValidationError as error:
        where = f"--config {file}: " if file is not None else ""
        raise InputError(where + explain(error, model)) from error


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML would take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        document = yaml.load(file.read_text(), _Loader)
    except OSError as error:
        raise InputError(f"--config {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise InputError(f"--config {file} is not valid YAML{at}: {problem}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"--config {file} must hold `key: value` lines, it holds a {type(document).__name__}")
    return document


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """pydantic's findings as one line: each key, what is wrong, what was given."""
    return "; ".join(_finding(dict(found), model) for found in error.errors())


def _finding(found: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    key = ".".join(map(str, found["loc"]))
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        return f"unknown setting {key!r}{_suggestion(found['loc'], model)}"
    if not key or found["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message[0].lower()}{message[1:]}, got {found['input']!r}"


def _suggestion(loc: tuple[Any, ...], model: type[BaseModel] | None) -> str:
    """` (did you mean 'x'?)` for a misspelt key, from the fields of the settings group it stands in."""
    for name in loc[:-1]:
        field = model.model_fields.get(str(name)) if model else None
        inner = field.annotation if field else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    close = difflib.get_close_matches(str(loc[-1]), list(model.model_fields) if model else [], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def to_yaml(settings: Settings) -> str:
    """The resolved settings as YAML that `--config` reads back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Human-readable differences of two settings trees, as `key: old -> new`."""
    found: list[str] = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found
