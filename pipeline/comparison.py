"""`phantumor inspect A --diff B`: what differs between two datasets, from their manifests. Loads neither ray nor torch.

Two samples are the same when they have the same index and the same pixels (the checksums of image and label, which do
not depend on how a dataset keeps them). Samples of one index with other pixels differ; samples of A whose pixels B has
under another index are counted apart, so that a merge can be told from something new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset
from pipeline.inspection import summarise, tumor_table
from pipeline.manifest import TUMOR_TYPE
from pipeline.settings import differences

# What a row tells of its sample beside the pixels; the others say where it lies, or how it was asked for.
_FACTS = tuple("split case_id organs spacing_mm shape_vox origin_vox n_tumors tumor_voxels annotated_classes".split())
_PIXELS = ("image", "label")
_MEASURED = ("diameter_mm", "contrast_hu")
_SHOWN = ("p5", "p50", "p95")
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class _Pixels(NamedTuple):
    """Checksums of all samples, by index."""

    indices: IntArray  # (n,)
    crc32c: dict[str, IntArray]  # by array name, (n,)

    def both(self) -> npt.NDArray[np.uint64]:
        """One number a sample that tells its pixels apart."""
        image, label = (self.crc32c[name].astype(np.uint64) for name in _PIXELS)
        return (image << np.uint64(32)) | label


def compare(a: Dataset, b: Dataset) -> dict[str, Any]:
    """What differs between two datasets, ready for JSON."""
    return {
        "a": summarise(a),
        "b": summarise(b),
        "settings": differences(_settings(a), _settings(b)),
        "samples": _compare_samples(a, b),
        "shift": {name: _largest_gap(_values(a, name), _values(b, name)) for name in _MEASURED},
    }


def _settings(dataset: Dataset) -> dict[str, Any]:
    """Everything that decides what a dataset holds; of a view, of its sources."""
    info = dataset.info
    bank = {"bank_fingerprint": info.bank_fingerprint[:12], "spacing_mm": info.spacing_mm, "classes": info.classes}
    return {**info.config.model_dump(mode="json"), **bank, "software": info.software}


# -- samples ----------------------------------------------------------------------------------------------------------


def _compare_samples(a: Dataset, b: Dataset) -> dict[str, Any]:
    of_a, of_b = _pixels(a), _pixels(b)
    common, at_a, at_b = np.intersect1d(of_a.indices, of_b.indices, assume_unique=True, return_indices=True)
    other = {name: of_a.crc32c[name][at_a] != of_b.crc32c[name][at_b] for name in _PIXELS}
    changed = other["image"] | other["label"]
    facts, told = dict[str, int](), np.zeros(len(common), bool)
    for name, wrong in _other_facts(a, b, at_a, at_b):
        facts |= {name: int(wrong.sum())} if wrong.any() else {}
        told |= wrong
    return {
        "only_in_a": len(of_a.indices) - len(common),
        "only_in_b": len(of_b.indices) - len(common),
        "in_both": len(common),
        "identical_pixels": int((~changed).sum()),
        "other_image": int(other["image"].sum()),
        "other_label": int(other["label"].sum()),
        "other_facts": int(told.sum()),
        "other_facts_by_column": facts,
        "first_other_pixels": [int(index) for index in common[changed][:5]],
        "of_a_under_another_index_in_b": _moved(of_a, of_b, at_a[~changed]),
    }


def _pixels(dataset: Dataset) -> _Pixels:
    table = dataset.columns(["index", *(f"{name}_crc32c" for name in _PIXELS)])
    columns = {name: table[f"{name}_crc32c"].to_numpy() for name in _PIXELS}
    return _Pixels(table["index"].to_numpy(), columns)


def _moved(a: _Pixels, b: _Pixels, identical: IntArray) -> int:
    """How many samples of A, the identical ones left out, are in B under another index."""
    elsewhere = np.isin(a.both(), b.both())
    elsewhere[identical] = False
    return int(elsewhere.sum())


def _other_facts(a: Dataset, b: Dataset, at_a: IntArray, at_b: IntArray) -> Iterator[tuple[str, Flags]]:
    """By column, which of the common samples are told something else of; fields of tumors as `tumors.kind`."""
    for name in _FACTS:
        yield name, _unequal(*(_rows(dataset, name, at) for dataset, at in ((a, at_a), (b, at_b))))
    for field in TUMOR_TYPE.names:
        of_a, of_b = (_rows(dataset, f"tumors.{field}", at) for dataset, at in ((a, at_a), (b, at_b)))
        yield f"tumors.{field}", _unequal_lists(of_a, of_b, field)


def _rows(dataset: Dataset, name: str, at: IntArray) -> pa.Array:
    """A column's values in these rows, in one piece."""
    column = dataset.columns([name])[name.partition(".")[0]].combine_chunks()
    return column if len(at) == len(column) else column.take(pa.array(at))


def _unequal(a: pa.Array, b: pa.Array) -> Flags:
    """Where two arrays differ; missing values are alike."""
    if pa.types.is_fixed_size_list(a.type):
        a, b = (x.cast(pa.list_(x.type.value_type)) for x in (a, b))
    if pa.types.is_list(a.type):
        return _unequal_lists(a, b, None)
    same = pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(pc.is_null(a), pc.is_null(b)))
    found: Flags = np.logical_not(same.to_numpy(zero_copy_only=False))
    return found


def _unequal_lists(a: pa.Array, b: pa.Array, field: str | None) -> Flags:
    """Where lists differ in length, or in a value (of a field of the structs in them)."""
    lengths = [pc.fill_null(pc.list_value_length(x), -1).to_numpy(zero_copy_only=False) for x in (a, b)]
    wrong: Flags = np.asarray(lengths[0] != lengths[1])
    alike = np.flatnonzero(~wrong)
    a, b = (x.take(pa.array(alike)) if len(alike) < len(x) else x for x in (a, b))
    values = [pc.list_flatten(x) for x in (a, b)]
    if field is not None:
        values = [pc.struct_field(x, field) for x in values]
    parents = pc.list_parent_indices(a).to_numpy(zero_copy_only=False)
    wrong[alike[np.unique(parents[_unequal(*values)])]] = True
    return wrong


# -- distributions ----------------------------------------------------------------------------------------------------


def _values(dataset: Dataset, name: str) -> npt.NDArray[np.float64]:
    """A measured fact of all tumors, ascending."""
    values: npt.NDArray[np.float64] = np.sort(tumor_table(dataset.columns([f"tumors.{name}"]))[name].to_numpy())
    return values


def _largest_gap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    """Largest distance of two cumulative distributions, 0 to 1 (Kolmogorov-Smirnov); None without values."""
    if not a.size or not b.size:
        return None
    shares = [np.searchsorted(values, np.concatenate([a, b]), side="right") / values.size for values in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


# -- for people -------------------------------------------------------------------------------------------------------


def describe_difference(found: Mapping[str, Any]) -> list[str]:
    """The comparison as lines for people."""
    a, b = found["a"], found["b"]
    return [
        f"A          {a['path']}: {a['samples']} samples",
        f"B          {b['path']}: {b['samples']} samples",
        *_setting_lines(found["settings"]),
        *_sample_lines(found["samples"]),
        *_side_by_side("splits", a["splits"], b["splits"]),
        *_side_by_side("kinds", a["kinds"], b["kinds"]),
        *(_spread_line(name, a[name], b[name], found["shift"][name]) for name in _MEASURED),
    ]


def _setting_lines(changed: Sequence[str]) -> list[str]:
    return [f"settings   {line}" for line in changed] or ["settings   the same"]


def _sample_lines(samples: Mapping[str, Any]) -> list[str]:
    first = ", ".join(map(str, samples["first_other_pixels"]))
    facts = ", ".join(f"{name} {count}" for name, count in samples["other_facts_by_column"].items())
    moved = samples["of_a_under_another_index_in_b"]
    return [
        f"samples    {samples['in_both']} in both by index, {samples['only_in_a']} only in A, "
        f"{samples['only_in_b']} only in B",
        f"pixels     {samples['identical_pixels']} identical, {samples['other_image']} with another image, "
        f"{samples['other_label']} with another label{f' (first: {first})' if first else ''}",
        *([f"moved      {moved} samples of A are in B under another index"] if moved else []),
        f"facts      {samples['other_facts']} told differently{f' ({facts})' if facts else ''}",
    ]


def _side_by_side(name: str, a: Mapping[str, int], b: Mapping[str, int]) -> Iterator[str]:
    """A line for each value: count and share in A and in B."""
    totals = [max(1, sum(counts.values())) for counts in (a, b)]
    for value in dict.fromkeys([*a, *b]):
        shown = [f"{c.get(value, 0)} ({100 * c.get(value, 0) / t:.1f} %)" for c, t in zip((a, b), totals, strict=True)]
        yield f"{name:10} {value}: {shown[0]} | {shown[1]}"


def _spread_line(name: str, a: Mapping[str, float] | None, b: Mapping[str, float] | None, gap: float | None) -> str:
    quantity, _, unit = name.rpartition("_")
    shown = [", ".join(f"{q} {of[q]:.1f}" for q in _SHOWN) if of else "no tumors" for of in (a, b)]
    ending = "" if gap is None else f"; distributions at most {gap:.3f} apart"
    return f"{quantity:10} {shown[0]} | {shown[1]} {'HU' if unit == 'hu' else unit}{ending}"
