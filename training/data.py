"""What a training reads: its datasets as one source of the stream, its validation samples, and what they are alike in.

In: opened datasets and `TrainConfig`. Out: a source for `ShardStream`, and lists of validation samples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from pipeline.organs import is_tumor
from pipeline.store import Location
from pipeline.train_config import LabelKind, TrainConfig
from pipeline.where import positions
from training.network import ClassTable, Shape3
from training.sources import Endless, Mixture, Source, Stored
from training.supervision.annotated import Annotated, annotated_by_all
from training.supervision.kinds import kinds_of
from training.supervision.labels import CodedLabels, Masks, Origin
from training.supervision.source import AnnotationSource

Data = Location | Dataset | Sequence[Location | Dataset]


@dataclass(frozen=True)
class TrainingData:
    """The datasets of a training; the stream refuses those that do not go together."""

    datasets: tuple[Dataset, ...]
    config: TrainConfig

    def __post_init__(self) -> None:
        places = [data.path for data in self.datasets]
        if len(set(places)) < len(places):
            raise InputError(f"{self.paths}: a dataset is named twice; mix sets how often samples of each come")
        shares = self.config.mix
        if shares is not None and len(shares) != len(self.datasets):
            raise InputError(f"mix names {len(shares)} shares for {len(self.datasets)} datasets; give one for each")
        if self.config.endless == 1 and len(self.datasets) > 1:
            raise InputError("endless 1 makes all samples by the recipe of the first dataset; name that one alone")
        for data, kind in zip(self.datasets, self.kinds, strict=True):
            if kind != "mask" and not any(map(is_tumor, self._annotated[data.path].ids)):
                raise InputError(
                    f"labels {kind}: no sample of {data.path} annotates tumors, so there is nothing to derive such "
                    "labels from. Use mask for it"
                )

    @property
    def patch_shape(self) -> Shape3:
        return self.datasets[0].info.patch_shape

    @property
    def spacing_mm(self) -> float:
        return self.datasets[0].info.spacing_mm

    @cached_property
    def classes(self) -> ClassTable:
        """Of all datasets together; class ids are the same in every dataset."""
        return ClassTable({name: number for data in self.datasets for name, number in data.info.classes.items()})

    @cached_property
    def kinds(self) -> tuple[LabelKind, ...]:
        """What is seen of the tumors of each dataset."""
        return kinds_of(self.config, len(self.datasets))

    @cached_property
    def _annotated(self) -> dict[str, Annotated]:
        return {data.path: Annotated.of(data) for data in self.datasets}

    @cached_property
    def _annotations(self) -> dict[str, AnnotationSource]:
        """Of the datasets whose tumors are not seen as masks."""
        named = zip(self.datasets, self.kinds, strict=True)
        return {
            data.path: AnnotationSource(data, scribbles=kind == "scribble") for data, kind in named if kind != "mask"
        }

    @cached_property
    def labels(self) -> Masks:
        """What the samples of `source` are trained towards."""
        origins, config = self._origins(), self.config
        partial = any(ids < set(self.classes.ids) for origin in origins for ids in origin.annotated.selections)
        if not self._annotations and not (partial and config.supervision.partial == "marginal"):
            return Masks(self.classes, self.spacing_mm)
        return CodedLabels(origins, self.classes, self.spacing_mm, config.supervision, config.augment, config.seed)

    def _origins(self) -> list[Origin]:
        """The parts of `source`, in its order."""
        origins = [
            Origin(data.path, self._annotated[data.path], kind, self._annotations.get(data.path))
            for data, kind in zip(self.datasets, self.kinds, strict=True)
        ]
        if self.config.endless == 0:
            return origins
        bank, organs = self.datasets[0].bank, self.datasets[0].info.config.organs
        on_the_fly = Origin(bank.place, Annotated.everywhere(annotated_by_all(bank, organs, "train")))
        return [on_the_fly] if self.config.endless == 1 else [*origins, on_the_fly]

    def annotated(self, dataset: Dataset, index: int) -> frozenset[int]:
        """The class ids that a sample annotates."""
        return self._annotated[dataset.path].selection(index)

    @property
    def source(self) -> Source:
        """Where the training samples come from."""
        stored = [
            Stored(data, "train", self.config.where, self.config.sample_weights or None) for data in self.datasets
        ]
        endless = self.config.endless
        if len(stored) == 1 and endless == 0:
            return stored[0]
        if endless == 1:
            return self._made_on_the_fly()
        shares = self.config.mix or [float(max(1, self.held(data))) for data in self.datasets]
        parts: list[tuple[Source, float]] = [
            (source, (1 - endless) * share / sum(shares)) for source, share in zip(stored, shares, strict=True)
        ]
        return Mixture([*parts, (self._made_on_the_fly(), endless)] if endless else parts)

    def _made_on_the_fly(self) -> Endless:
        """Samples by the first dataset's recipe, of indices that it does not hold."""
        first = self.datasets[0]
        if first.info.sources:
            raise InputError(f"endless: {first.path} is a view of other datasets; name a dataset of its own first")
        return Endless(first.bank, first.info.config, "train", first.info.config.samples)

    def lines(self) -> list[str]:
        """For people: where samples come from, what is seen of their tumors, and what is not annotated everywhere."""
        return [*self._shares(), *self._kinds_seen(), *self._not_annotated()]

    def _shares(self) -> list[str]:
        source = self.source
        if not isinstance(source, Mixture):
            return []
        total = sum(share for _, share in source.parts)
        names = [*(f"{data.path} ({self.held(data)} samples)" for data in self.datasets), "made on the fly"]
        found = ", ".join(f"{name} {share / total:.0%}" for name, (_, share) in zip(names, source.parts, strict=False))
        return [f"samples come from: {found}"]

    def _kinds_seen(self) -> list[str]:
        if not self._annotations:
            return []
        where = {path: "as stored" if source.stored else "derived" for path, source in self._annotations.items()}
        seen = [
            f"{kind} in {data.path}" + (f" ({where[data.path]})" if data.path in where else "")
            for data, kind in zip(self.datasets, self.kinds, strict=True)
        ]
        return [f"tumors are seen as: {'; '.join(seen)}"]

    def _not_annotated(self) -> list[str]:
        missing = []
        for data in self.datasets:
            of_all = dict(self._annotated[data.path].lacking(self.classes.classes))
            for count in sorted(set(of_all.values()), reverse=True):
                names = ", ".join(name for name, without in of_all.items() if without == count)
                missing.append(f"{names} in {'' if count == data.rows else f'{count} samples of '}{data.path}")
        if not missing:
            return []
        marginal = self.config.supervision.partial == "marginal"
        learnt = "taken as unknown (background or one of these)" if marginal else "CAUTION: trained as background"
        return [f"{learnt}, as it is not annotated there: {'; '.join(missing)}"]

    def held(self, dataset: Dataset) -> int:
        """How many samples of a dataset may be trained on."""
        if self.config.where is None:
            return dataset.split_counts().get("train", 0)
        chosen = dataset.columns(["split"])["split"].take(pa.array(positions(dataset, self.config.where)))
        return int(pc.sum(pc.equal(chosen, "train")).as_py() or 0)

    @cached_property
    def validation(self) -> tuple[tuple[Dataset, int], ...]:
        """The fixed validation samples: the first of each dataset's split `val`, taken from the datasets in turns."""
        queues = [data.indices_of("val")[: self.config.validate_samples] for data in self.datasets]
        turns = [
            (data, queue[k])
            for k in range(max(map(len, queues)))
            for data, queue in zip(self.datasets, queues, strict=True)
            if k < len(queue)
        ]
        return tuple(turns[: self.config.validate_samples])

    @property
    def paths(self) -> str:
        return ", ".join(data.path for data in self.datasets)

    @property
    def digest(self) -> str:
        """Which samples these are, wherever they lie: recipes, banks, how much of each is there, and annotations."""
        parts = [f"{data.info.config_digest}-{data.info.bank_fingerprint}-{data.rows}" for data in self.datasets]
        return "+".join([*parts, *(source.digest for source in self._annotations.values())])


def open_data(data: Data, config: TrainConfig) -> TrainingData:
    """Open what a user names: one dataset or several."""
    several = [data] if isinstance(data, str | os.PathLike | Dataset) else data
    opened = tuple(item if isinstance(item, Dataset) else open_dataset(item) for item in several)
    if not opened:
        raise InputError("no dataset to train on: name one or more with --data")
    return TrainingData(opened, config)
