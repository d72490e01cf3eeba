"""Which samples of a dataset are streamed, and how often: split, filter and weights, from manifest columns.

In: a dataset's manifest. Out: what reading needs of the chosen rows, and whole weights. Which sample comes when is
`training.order`'s matter.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.reader import Located, column_names, located
from pipeline.shard import DTYPES
from pipeline.where import Positions, positions
from training.order import IntArray, whole_weights

Weights = Mapping[str, float] | npt.NDArray[np.floating[Any]] | Sequence[float]


@dataclass(frozen=True)
class SplitSamples:
    """The chosen samples of a split by ascending index: what reading needs of their manifest rows."""

    rows: Located
    numbers: Positions  # (n,), of the rows in the manifest
    digest: str  # of the indices and pixel checksums: the same for the same samples, however they are stored


def split_samples(dataset: Dataset, split: str, where: str | None = None) -> SplitSamples:
    """Take what reading needs of a split's rows (`all` for every sample) that fulfil `where` out of the manifest.

    InputError when there is no such row.
    """
    numbers = _of_split(dataset, split)
    if where is not None:
        numbers = np.intersect1d(numbers, positions(dataset, where), assume_unique=True)
        if not len(numbers):
            raise InputError(
                f"{dataset.path}: no sample of split {split!r} fulfils {where!r}. "
                f"`phantumor inspect {dataset.path} --where` shows what a condition selects"
            )
    table = dataset.columns(column_names(dataset))
    if len(numbers) < dataset.rows:
        table = table.take(pa.array(numbers))
    rows = located(dataset, table)
    if (np.diff(rows.index) <= 0).any():
        by_index = np.argsort(rows.index)
        rows, numbers = located(dataset, table.take(pa.array(by_index))), numbers[by_index]
    digest = hashlib.sha256(rows.index.astype("<i8").tobytes())
    for name in DTYPES:
        digest.update(rows.crc32c[name].astype("<u4").tobytes())
    return SplitSamples(rows, numbers, digest.hexdigest()[:16])


def _of_split(dataset: Dataset, split: str) -> Positions:
    """The manifest rows of a split."""
    if split == "all":
        found = np.arange(dataset.rows)
    else:
        column = dataset.columns(["split"])["split"]
        if column.null_count:
            raise InputError(
                f"{dataset.path}: the manifest has rows without split. `phantumor verify` finds such shards"
            )
        found = np.flatnonzero(pc.equal(column, split).to_numpy())
    if not len(found):
        raise _empty_split(dataset, split)
    return found


def _empty_split(dataset: Dataset, split: str) -> InputError:
    counts = (
        ", ".join(f"{name} {count}" for name, count in sorted(dataset.split_counts().items())) or "no sample at all"
    )
    return InputError(
        f"{dataset.path}: split {split!r} holds no sample (the dataset has: {counts}). Name another split, or "
        "generate a dataset from a bank whose cases are spread over all splits"
    )


def sample_weights(dataset: Dataset, samples: SplitSamples, weights: Weights | None) -> IntArray | None:
    """The weight of each sample as a whole number, (n,); None where all come alike. InputError for what is no weight.

    A condition that none of the samples fulfils gives a warning: it changes nothing.
    """
    if weights is None:
        return None
    n = len(samples.numbers)
    if isinstance(weights, Mapping):
        found = _by_conditions(dataset, samples, weights)
    else:
        found = np.asarray(weights, np.float64)
        if found.shape != (n,):
            raise InputError(f"{dataset.path}: weights of shape {found.shape}; give one for each of the {n} samples")
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise InputError(f"{dataset.path}: weights must be 0 or more, finite, and not all 0")
    return None if (found == found[0]).all() else whole_weights(found)


def _by_conditions(dataset: Dataset, samples: SplitSamples, factors: Mapping[str, float]) -> npt.NDArray[np.float64]:
    weights = np.ones(len(samples.numbers))
    for condition, factor in factors.items():
        fulfils = np.zeros(dataset.rows, bool)
        fulfils[positions(dataset, condition)] = True
        chosen = fulfils[samples.numbers]
        if not chosen.any():
            warnings.warn(
                f"{dataset.path}: none of the {len(chosen)} samples fulfils {condition!r}: its weight has no effect",
                stacklevel=2,
            )
        weights[chosen] *= factor
    return weights
