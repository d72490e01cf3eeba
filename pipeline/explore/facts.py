"""What the page filters, sorts and counts: a few facts of each sample and of each tumor, as arrays in memory.

A million samples take about 100 MB. Names (organ, kind, split, case) are kept as numbers into a sorted list of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pipeline.catalog import Dataset

Level = Literal["sample", "tumor"]
_MOST_BARS = 24  # of a histogram
_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0)
# In the order of the page; the case last, as there may be hundreds.
_SAMPLE_NAMES = ("split", "case_id")
_TUMOR_NAMES = ("organ", "kind")
_TUMOR_NUMBERS = ("diameter_mm", "contrast_hu")


@dataclass(frozen=True)
class Names:
    """A fact that is one of a few names: `names` ascending, and for each row which one."""

    level: Level
    names: tuple[str, ...]
    codes: npt.NDArray[np.int32]
    quoted: bool = True  # in an expression; False of whole numbers


@dataclass(frozen=True)
class Numbers:
    """A fact that is a number (NaN: unknown), and the edges of its histogram, whose outer bars are open."""

    level: Level
    values: npt.NDArray[np.float64]
    edges: tuple[float, ...]


Fact = Names | Numbers


@dataclass(frozen=True)
class Facts:
    """Facts by name, in the page's order; `parents`: the sample of each tumor, by position, ascending."""

    ids: npt.NDArray[np.int64]  # (samples,), the index of each sample
    facts: Mapping[str, Fact]
    parents: npt.NDArray[np.int64]  # (tumors,)
    extra: Mapping[str, npt.NDArray[Any]]  # numbers of samples that the table shows beside them

    @property
    def samples(self) -> int:
        return len(self.ids)


def dataset_facts(dataset: Dataset) -> Facts:
    """The facts of all samples of a dataset."""
    fields = (*_TUMOR_NAMES, *_TUMOR_NUMBERS)
    columns = ["index", *_SAMPLE_NAMES, "n_tumors", "tumor_voxels", *(f"tumors.{name}" for name in fields)]
    table = dataset.columns(columns)
    tumors = table["tumors"].combine_chunks()
    flat = pc.list_flatten(tumors)
    field = {name: pc.struct_field(flat, name) for name in fields}
    facts: dict[str, Fact] = {
        **{name: _names("tumor", field[name]) for name in _TUMOR_NAMES},
        **{name: numbers("tumor", field[name].to_numpy(zero_copy_only=False)) for name in _TUMOR_NUMBERS},
        "n_tumors": whole_numbers("sample", table["n_tumors"].to_numpy()),
        **{name: _names("sample", table[name].combine_chunks()) for name in _SAMPLE_NAMES},
    }
    extra = {"tumor_voxels": table["tumor_voxels"].to_numpy()}
    return Facts(table["index"].to_numpy(), facts, pc.list_parent_indices(tumors).to_numpy().astype(np.int64), extra)


def _names(level: Level, column: pa.Array) -> Names:
    encoded = column.dictionary_encode()
    found = encoded.dictionary.to_pylist()
    order = np.argsort(np.array(found, dtype=object)) if found else np.zeros(0, np.int64)
    rank = np.empty(len(found), np.int32)
    rank[order] = np.arange(len(found), dtype=np.int32)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return Names(level, tuple(found[k] for k in order), rank[codes])


def names(level: Level, values: list[str]) -> Names:
    """A fact from one name a row."""
    return _names(level, pa.array(values, pa.string()))


def whole_numbers(level: Level, values: npt.NDArray[Any]) -> Names:
    """A fact that takes a few whole numbers, each of which is a name."""
    found, codes = np.unique(values, return_inverse=True)
    return Names(level, tuple(str(int(value)) for value in found), codes.astype(np.int32), quoted=False)


def numbers(level: Level, values: npt.NDArray[Any]) -> Numbers:
    """A fact of numbers with round edges, between which 99 % of them lie."""
    known = np.asarray(values, np.float64)
    finite = known[np.isfinite(known)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 1.0)
    return Numbers(level, known, round_edges(float(low), float(high)))


def round_edges(low: float, high: float) -> tuple[float, ...]:
    """Edges at multiples of 1, 2 or 5 times a power of ten, at most as many as a histogram shows well."""
    span = high - low if high - low > 1e-6 * max(abs(low), abs(high)) else 1.0
    power = 10.0 ** np.floor(np.log10(span / _MOST_BARS))
    step = next(power * factor for factor in _STEPS if span / (power * factor) <= _MOST_BARS - 2)
    first, last = np.floor(low / step), np.ceil(high / step)
    return tuple(float(f"{k * step:.6g}") for k in np.arange(first, max(last, first + 1) + 1))
