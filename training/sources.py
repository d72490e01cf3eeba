"""What a stream draws from: stored samples, samples made on the fly, or several of these mixed.

In: a description (`Stored`, `Endless`, `Mixture`) and the manifest columns that it takes. Out: a `Drawn`, which says
which sample comes at a position. Index arithmetic alone: pixels are `training.reader`'s.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.bank import Bank, open_bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import SPLITS, GenerateConfig, SplitShare
from pipeline.description import dataset_classes, recipe_digest
from pipeline.errors import InputError
from pipeline.grid import Index3
from pipeline.reader import Located
from pipeline.spec import check_bank
from pipeline.store import Location
from training.order import (
    MIX_BLOCK,
    WINDOW_SHARDS,
    EpochOrder,
    EpochRules,
    IntArray,
    Shuffle,
    mix_counts,
    mixed,
    part_seed,
)
from training.selection import Weights, sample_weights, split_samples


@dataclass(frozen=True)
class Stored:
    """Samples of a dataset: of a split (`all` for every one), of these the ones that fulfil `where`.

    `weights` is {condition: factor}, conditions as in `where`: a sample's weight is the product of the factors of the
    conditions that it fulfils. Or an array, a weight for each sample by ascending index. An epoch still has as many
    draws as samples; a sample comes in proportion to its weight, rounded up or down.
    """

    dataset: Dataset | Location
    split: str = "train"
    where: str | None = None
    weights: Weights | None = field(default=None, hash=False, compare=False)


@dataclass(frozen=True)
class Endless:
    """Samples made when they are read: index `first_index`, then the next one; none comes twice, there are no epochs.

    They are those that `generate` with this config would store under these indices, had it a split_share of `split`
    alone.
    """

    bank: Bank | Location
    config: GenerateConfig
    split: str = "train"
    first_index: int = 0


@dataclass(frozen=True)
class Mixture:
    """Several sources by their shares, which are made to sum up to 1 and rounded to 1/4096.

    Any 4096 positions from a multiple of 4096 on hold exactly as many samples of each. Each source goes through its
    own order at its own pace. They may be kept in different ways, but have one patch shape and one spacing. Classes
    are united: what a source does not annotate is background in its samples. A dataset, or the place of one, is the
    same as `Stored` of it.
    """

    parts: Sequence[tuple[Source | Dataset | Location, float]]


Source = Stored | Endless | Mixture


# -- opened -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    place: str  # for messages
    classes: Mapping[str, int]
    patch_shape: Index3
    spacing_mm: float
    identity: Mapping[str, Any]  # what a position depends on


@dataclass(frozen=True, eq=False)
class StoredPart(_Part):
    """Stored samples with their order."""

    dataset: Dataset
    rows: Located
    order: EpochOrder

    @property
    def samples(self) -> int:
        """Draws of an epoch."""
        return self.order.n

    @cached_property
    def window(self) -> int:
        """Nearly as many positions as hold the samples of the shards that are shuffled together, an epoch at most."""
        shards = len(np.unique(self.rows.shard))
        return self.order.n * min(WINDOW_SHARDS - 1, shards) // shards

    def places(self, positions: IntArray) -> IntArray:
        """Which of `rows` come at its own positions."""
        return self.order.places(positions)


@dataclass(frozen=True, eq=False)
class EndlessPart(_Part):
    """Samples of one split that bank and config give."""

    bank: Bank
    config: GenerateConfig
    first_index: int

    @property
    def samples(self) -> None:
        """There are no epochs."""
        return None

    def places(self, positions: IntArray) -> IntArray:
        """The indices of the samples at its own positions."""
        return positions + self.first_index


Part = StoredPart | EndlessPart


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a stream draws from, opened: parts, and which of them each position is of."""

    parts: tuple[Part, ...]
    counts: IntArray | None  # of a mixture: positions of each part in a block
    seed: int
    shuffle: Shuffle

    @property
    def samples(self) -> int | None:
        """Of an epoch; of a mixture as many as its stored parts hold together; None where all is made on the fly."""
        held = [part.samples for part in self.parts if part.samples is not None]
        return sum(held) if held else None

    @cached_property
    def window(self) -> int | None:
        """How far ahead the samples come of shards that are opened next, in positions; None of other shuffles.

        A bit less than a window, so that shards are given up before those after the next ones are asked for.
        """
        stored = [(k, part.window) for k, part in enumerate(self.parts) if isinstance(part, StoredPart)]
        if self.shuffle != "shard" or not stored:
            return None
        if self.counts is None:
            return stored[0][1]
        return min(window * MIX_BLOCK // int(self.counts[k]) for k, window in stored)

    @property
    def place(self) -> str:
        return " + ".join(part.place for part in self.parts)

    @property
    def patch_shape(self) -> Index3:
        return self.parts[0].patch_shape

    @property
    def spacing_mm(self) -> float:
        return self.parts[0].spacing_mm

    @property
    def classes(self) -> dict[str, int]:
        """Name to id, by id, of all parts."""
        united = {name: number for part in self.parts for name, number in part.classes.items()}
        return dict(sorted(united.items(), key=lambda item: item[1]))

    @property
    def identity(self) -> dict[str, Any]:
        """What a position depends on, JSON-able."""
        common = {"seed": self.seed, "shuffle": self.shuffle}
        if self.counts is None:
            return common | dict(self.parts[0].identity)
        parts = {str(number): dict(part.identity) for number, part in enumerate(self.parts)}
        return common | {"mixture": parts, f"shares_of_{MIX_BLOCK}": self.counts.tolist()}

    def find(self, at: IntArray) -> tuple[IntArray, IntArray]:
        """Part number, and place in that part, of each global position."""
        if self.counts is None:
            return np.zeros_like(at), self.parts[0].places(at)
        source, own = mixed(at, self.counts, self.seed)
        place = np.empty_like(own)
        for number in np.unique(source):
            here = source == number
            place[here] = self.parts[number].places(own[here])
        return source, place


def open_source(source: Source, seed: int, shuffle: Shuffle) -> Drawn:
    """Open what a stream is to draw from; InputError when there is nothing, or what does not go together."""
    if not isinstance(source, Mixture):
        return Drawn((_open_part(source, seed, shuffle),), None, seed, shuffle)
    counts = _checked_counts([share for _, share in source.parts])
    parts = [_open_part(part, part_seed(seed, k), shuffle) for k, (part, _) in enumerate(source.parts)]
    for one, other in combinations(parts, 2):
        _check_alike(one, other)
    return Drawn(tuple(parts), counts, seed, shuffle)


def _open_part(source: object, seed: int, shuffle: Shuffle) -> Part:
    match source:
        case Endless():
            return _open_endless(source)
        case Stored():
            return _open_stored(source, seed, shuffle)
        case Dataset() | str() | os.PathLike():
            return _open_stored(Stored(source), seed, shuffle)
    kind = type(source).__name__
    raise InputError(f"Mixture: a part is a {kind}; parts are datasets, Stored or Endless, so name the inner ones")


def _checked_counts(shares: Sequence[float]) -> IntArray:
    if not shares or not all(math.isfinite(share) and share > 0 for share in shares):
        raise InputError(f"Mixture: shares {list(shares)}: give one or more sources, each with a share above 0")
    counts = mix_counts(shares)
    if not counts.all():
        raise InputError(
            f"Mixture: shares {list(shares)}: the smallest is less than 1/{MIX_BLOCK} of all and would never come; "
            "leave that source out, or give it a larger share"
        )
    return counts


def _check_alike(first: Part, other: Part) -> None:
    """InputError unless samples of both fit into one batch."""
    found = [
        f"{part.place} has patches {'x'.join(map(str, part.patch_shape))} of {part.spacing_mm:g} mm"
        for part in (first, other)
    ]
    if first.patch_shape != other.patch_shape or not math.isclose(first.spacing_mm, other.spacing_mm, rel_tol=1e-6):
        raise InputError(
            f"Mixture: {' and '.join(found)}: sources of one stream need the same patch shape and spacing; generate "
            "one of them anew from a bank of that spacing"
        )
    named = {number: name for name, number in first.classes.items()}
    for name, number in other.classes.items():
        if named.get(number, name) != name or first.classes.get(name, number) != number:
            raise InputError(
                f"Mixture: class {number} is {named.get(number, 'none')} in {first.place} and {name} in {other.place}: "
                "sources of one stream need the same classes; generate one of them anew with this phantumor"
            )


def _open_stored(source: Stored, seed: int, shuffle: Shuffle) -> StoredPart:
    dataset = source.dataset if isinstance(source.dataset, Dataset) else open_dataset(source.dataset)
    patch_shape = dataset.info.patch_shape  # an InputError where samples differ in shape
    chosen = split_samples(dataset, source.split, source.where)
    weights = sample_weights(dataset, chosen, source.weights)
    count = len(chosen.numbers)
    identity: dict[str, Any] = {"split": source.split, "samples": count, "manifest": chosen.digest}
    if source.where is not None:
        identity["where"] = source.where
    if weights is not None:
        identity["weights"] = hashlib.sha256(weights.astype("<i8").tobytes()).hexdigest()[:16]
    shards = chosen.rows.shard if shuffle == "shard" else None
    order = EpochOrder(EpochRules(count, seed, shuffle, weights, shards))
    info = dataset.info
    return StoredPart(dataset.path, info.classes, patch_shape, info.spacing_mm, identity, dataset, chosen.rows, order)


def _open_endless(source: Endless) -> EndlessPart:
    if source.split not in SPLITS:
        raise InputError(f"Endless: split {source.split!r}: must be one of {', '.join(SPLITS)}")
    if source.first_index < 0:
        raise InputError(f"Endless: first_index must be at least 0, got {source.first_index}")
    if source.config.whole_cases:
        raise InputError("Endless: patch_shape full gives samples of different shapes; batches need a patch shape")
    bank = source.bank if isinstance(source.bank, Bank) else open_bank(source.bank)
    if not any(record.split == source.split for record in bank.records):
        raise InputError(f"{bank.place}: no case is of split {source.split!r}; name another split, or prepare more")
    share = SplitShare(**{split: float(split == source.split) for split in SPLITS})
    config = source.config.model_copy(update={"split_share": share})
    check_bank(bank, config)
    identity = {"bank": bank.fingerprint[:16], "recipe": recipe_digest(config)[:16], "first_index": source.first_index}
    classes = dataset_classes(config.organs)
    return EndlessPart(
        bank.place, classes, config.patch_shape, bank.spacing_mm, identity, bank, config, source.first_index
    )
