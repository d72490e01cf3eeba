"""`dataset.json`: what a dataset was planned to be, from which bank, with which software."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.organs import CLASS_IDS
from pipeline.plan import Plan
from pipeline.settings import Settings, differences, explain
from pipeline.store import Store

FORMAT_VERSION = 2
INFO = "dataset.json"
# A description may come from anybody; beyond these a dataset would fill the memory of whoever opens it.
MOST_SAMPLES = 10**9  # sample ids have nine digits
MOST_VOXELS = 2**30  # of a sample: a whole body at 1 mm takes half of it
_NotNegative = Annotated[int, Field(ge=0)]


class Source(Settings):
    """A dataset that a view takes samples from."""

    place: str  # folder relative to the view where both lie on disks, else absolute; or a URL
    config_digest: str
    bank_fingerprint: str
    first_index: _NotNegative  # of its samples in the view: index there + this one
    first_shard: _NotNegative


class DatasetInfo(Settings):
    """`dataset.json`: what was planned, from which bank, with which software."""

    format_version: int = FORMAT_VERSION
    config: GenerateConfig
    config_digest: str
    bank: str  # folder of the bank, relative to the dataset where both move together, else absolute; or a URL
    bank_fingerprint: str
    spacing_mm: Annotated[float, Field(gt=0)]
    classes: dict[str, Annotated[int, Field(ge=0, le=255)]]
    shards: _NotNegative
    grown: tuple[int, ...] = ()  # how many samples it held when it was made, and each time before it grew
    sources: tuple[Source, ...] = ()  # of a view
    software: dict[str, str]

    @model_validator(mode="after")
    def _size_makes_sense(self) -> Self:
        samples, voxels = self.config.samples, math.prod(self.config.patch_shape)
        if samples > MOST_SAMPLES:
            raise ValueError(f"samples: {samples} are more than {MOST_SAMPLES}, the most of a dataset")
        if voxels > MOST_VOXELS:
            raise ValueError(f"patch_shape: {voxels} voxels are more than {MOST_VOXELS}, the most of a sample")
        if any(a >= b for a, b in pairwise((0, *self.grown, samples))):
            raise ValueError(f"grown: a dataset only grows, {(*self.grown, samples)} does not")
        if any(a.first_shard >= b.first_shard for a, b in pairwise(self.sources)):
            raise ValueError("sources: not in the order of first_shard")
        return self

    @property
    def plan(self) -> Plan:
        """Which samples each shard holds."""
        return Plan(self.config.samples, self.config.shard_samples, self.grown)

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Of every sample; InputError where samples are whole cases, each of its own shape."""
        if self.config.whole_cases:
            raise InputError(
                "this dataset holds whole cases (patch_shape full), which differ in shape; batches and training need "
                "patches: generate with --patch-shape 96 96 96"
            )
        return self.config.patch_shape


def dataset_classes(organs: tuple[str, ...]) -> dict[str, int]:
    """Names and ids of the classes in labels of these organs, background first."""
    names = ["background", *(name for organ in organs for name in (organ, f"{organ}_tumor"))]
    return {name: CLASS_IDS[name] for name in sorted(names, key=lambda name: CLASS_IDS[name])}


def recipe_digest(config: GenerateConfig) -> str:
    """sha256 of what decides the bytes of each sample: the settings but for how many samples there are."""
    return config.model_copy(update={"samples": 1}).digest()


def read_info(store: Store) -> DatasetInfo:
    """Read and check `dataset.json`."""
    where = f"{store.url}/{INFO}"
    try:
        document = json.loads(store.read(INFO))
        version = document.get("format_version")
        if version == FORMAT_VERSION:
            return DatasetInfo.model_validate(document)
    except (FileNotFoundError, NotADirectoryError) as error:
        there = store.folder is None or store.folder.exists()
        what = f"it holds no {INFO}" if there else "no such folder"
        raise InputError(f"{store.url} is not a phantumor dataset: {what}. `phantumor generate` makes one") from error
    except OSError as error:
        raise PhantumorError(f"{where}: cannot be read: {error.strerror or error}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        reason = explain(error, DatasetInfo) if isinstance(error, ValidationError) else error
        raise InputError(
            f"{where}: not a readable dataset description: {reason}. Restore the file from a copy, or generate the "
            "dataset again into a new folder"
        ) from error
    raise InputError(
        f"{where}: dataset format {version}, this phantumor reads format {FORMAT_VERSION}. "
        "Use the phantumor that made it, or generate the dataset again"
    )


def info_bytes(info: DatasetInfo) -> bytes:
    """The bytes of `dataset.json`."""
    return json.dumps(info.model_dump(mode="json"), indent=2).encode()


def create_info(store: Store, info: DatasetInfo) -> None:
    """Write `dataset.json` once; the same dataset again is a resume, another one is refused."""
    if not store.create(INFO, info_bytes(info)):
        check_same(store, read_info(store), info)


def check_same(store: Store, old: DatasetInfo, info: DatasetInfo) -> None:
    """InputError when the dataset there was made with other settings or another bank than `info`."""
    before, now = ({"config": d.config.model_dump(mode="json")} for d in (old, info))
    changed = differences(before, now)
    if old.bank_fingerprint != info.bank_fingerprint:
        changed.append(
            f"the bank is another one, or its cases changed (fingerprint {old.bank_fingerprint[:12]} -> "
            f"{info.bank_fingerprint[:12]}; a bank that was only moved keeps its own)"
        )
    if changed:
        raise InputError(
            f"{store.url} already holds a dataset made with other settings: {'; '.join(changed)}. "
            "Use the old settings to resume it, or another --out"
        )
