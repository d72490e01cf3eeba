"""What a dataset holds: numbers from the manifest, one sample in detail, pictures. Loads neither ray nor torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset, Sample
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.progress import size
from pipeline.where import columns_named, select

_COLUMNS = ("split", "case_id", "n_tumors")
_RANGES = ("image_range", "label_range")
_FACTS = ("organ", "kind", "diameter_mm", "contrast_hu")
DIAMETER_EDGES_MM = (0.0, 5.0, 10.0, 20.0, 50.0)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FIGURE_SAMPLES = 12


def tumor_table(manifest: pa.Table) -> pa.Table:
    """One row a tumor, with the fields of `tumors` that the manifest's rows were read with."""
    flat = pc.list_flatten(manifest["tumors"].combine_chunks())
    return pa.Table.from_arrays([pc.struct_field(flat, f.name) for f in flat.type], [f.name for f in flat.type])


def summarise(dataset: Dataset, where: str | None = None) -> dict[str, Any]:
    """Counts, organs, sizes, contrasts and disk size of a dataset or of a selection, ready for JSON."""
    apart = where is not None or bool(dataset.info.sources)  # from what else lies in the shards
    names = [*_COLUMNS, *(_RANGES if apart else ()), *(f"tumors.{name}" for name in _FACTS)]
    rows = _read(dataset, where, names)
    tumors = tumor_table(rows)
    return {
        "path": dataset.path,
        "where": where,
        "complete": dataset.complete,
        "samples": rows.num_rows,
        **_settings(dataset),
        "shards": {"committed": len(dataset.parts), "planned": dataset.info.shards},
        "splits": _counts(rows["split"]),
        "cases": _counts(rows["case_id"]),
        "healthy_samples": pc.sum(pc.equal(rows["n_tumors"], 0)).as_py() or 0,
        "tumors": tumors.num_rows,
        "organs": _counts(tumors["organ"]),
        "kinds": _counts(tumors["kind"]),
        "diameter_mm": _spread(tumors["diameter_mm"]),
        "diameter_bins": _diameter_bins(tumors["diameter_mm"].to_numpy()),
        "contrast_hu": _spread(tumors["contrast_hu"]),
        "disk_bytes": dataset.parts.file_bytes,
        "stored_bytes": _stored_bytes(rows) if apart else dataset.parts.file_bytes,
    }


def _settings(dataset: Dataset) -> dict[str, Any]:
    """What `dataset.json` tells."""
    info = dataset.info
    return {
        "planned_samples": info.config.samples,
        "grown": list(info.grown),
        "sources": [home.store.url for home in dataset.homes] if info.sources else [],
        "store": info.config.store,
        "patch_shape": None if info.config.whole_cases else list(info.patch_shape),
        "spacing_mm": info.spacing_mm,
        "classes": dict(info.classes),
        "seed": info.seed,
        "config_digest": info.config_digest,
        "bank_fingerprint": info.bank_fingerprint,
    }


def _read(dataset: Dataset, where: str | None, columns: Sequence[str]) -> pa.Table:
    """These columns of all rows, or of those that meet `where`."""
    if where is None:
        return dataset.columns(columns)
    return select(dataset.columns(list(dict.fromkeys([*columns, *columns_named(where)]))), where)


def _counts(column: Any) -> dict[str, int]:
    pairs = ((entry["values"], entry["counts"]) for entry in pc.value_counts(column).to_pylist())
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _spread(column: Any) -> dict[str, float] | None:
    """Mean and quantiles of a column; None without values."""
    values = column.to_numpy()
    if values.size == 0:
        return None
    quantiles = np.quantile(values, _QUANTILES)
    named = {f"p{round(100 * q)}": float(v) for q, v in zip(_QUANTILES, quantiles, strict=True)}
    return {"mean": float(values.mean()), "min": float(values.min()), **named, "max": float(values.max())}


def _diameter_bins(values: npt.NDArray[np.float64]) -> dict[str, int]:
    counts = np.histogram(values, bins=[*DIAMETER_EDGES_MM, np.inf])[0]
    pairs = zip(DIAMETER_EDGES_MM, [*DIAMETER_EDGES_MM[1:], None], strict=True)
    names = [f"{low:g}-{high:g} mm" if high else f">{low:g} mm" for low, high in pairs]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _stored_bytes(manifest: pa.Table) -> int:
    """Bytes of the samples in their shard objects; recipes have none."""
    lengths = (pc.list_element(manifest[name], 1) for name in _RANGES)
    return sum(pc.sum(column).as_py() or 0 for column in lengths)


def describe(summary: Mapping[str, Any]) -> list[str]:
    """The summary as lines for people."""
    shards, shape = summary["shards"], summary["patch_shape"]
    state = "complete" if summary["complete"] else f"{shards['committed']} of {shards['planned']} shards committed"
    what = f"samples of {'x'.join(map(str, shape))} voxels" if shape else "whole cases"
    lines = [
        f"{summary['path']}: {summary['samples']} {what} at {summary['spacing_mm']:g} mm, {state}",
        *([f"where      {summary['where']}"] if summary["where"] else []),
        *([f"view of    {', '.join(summary['sources'])}"] if summary["sources"] else []),
        *([_growth_line(summary)] if summary["grown"] else []),
        f"splits     {_listing(summary['splits'])}",
        f"cases      {_listing(summary['cases'])}",
        f"classes    {', '.join(f'{number} {name}' for name, number in summary['classes'].items())}",
        f"tumors     {summary['tumors']} in {summary['samples'] - summary['healthy_samples']} samples, "
        f"{summary['healthy_samples']} samples without: {_listing(summary['kinds'])}",
    ]
    if summary["tumors"]:
        lines += [
            f"diameter   {_range_line(summary['diameter_mm'], 'mm')}; {_listing(summary['diameter_bins'])}",
            f"contrast   {_range_line(summary['contrast_hu'], 'HU')}",
        ]
    return [*lines, f"disk       {_disk_line(summary)}"]


def _growth_line(summary: Mapping[str, Any]) -> str:
    steps = ", then ".join(map(str, [*summary["grown"], summary["planned_samples"]]))
    return f"grown      made with {steps} samples"


def _disk_line(summary: Mapping[str, Any]) -> str:
    if summary["store"] == "recipe":
        return "store recipe: no pixels, samples are made when they are read"
    per_sample = size(summary["stored_bytes"] / max(1, summary["samples"]))
    if summary["where"]:
        return f"store {summary['store']}: {size(summary['stored_bytes'])} of these samples, {per_sample} a sample"
    held = f"{size(summary['disk_bytes'])} in {summary['shards']['committed']} shards"
    return f"store {summary['store']}: {held}{' of the sources' if summary['sources'] else ''}, {per_sample} a sample"


def _listing(counts: Mapping[str, int], most: int = 8) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:most]]
    more = [f"and {len(counts) - most} more"] if len(counts) > most else []
    return ", ".join(shown + more) or "none"


def _range_line(spread: Mapping[str, float], unit: str) -> str:
    return (
        f"median {spread['p50']:.1f} {unit}, middle half {spread['p25']:.1f} to {spread['p75']:.1f}, "
        f"all {spread['min']:.1f} to {spread['max']:.1f}"
    )


def parse_sample(dataset: Dataset, text: str) -> int:
    """The index that `--sample` names: an index or a sample id."""
    digits = text.removeprefix("s")
    if not digits.isdecimal() or len(digits) > 18:  # int64
        raise InputError(f"--sample {text!r}: give an index such as 42 or an id such as s000000042")
    index = int(digits)
    dataset.position(index)
    return index


def sample_document(sample: Sample) -> dict[str, Any]:
    """A sample's row with the spec unfolded and what its arrays hold, ready for JSON."""
    ids, counts = np.unique(sample.label, return_counts=True)
    return {
        **sample.row,
        "spec": json.loads(sample.row["spec"]),
        "image_hu": {
            "min": int(sample.image.min()),
            "max": int(sample.image.max()),
            "mean": float(sample.image.mean()),
        },
        "label_voxels": {str(i): int(n) for i, n in zip(ids.tolist(), counts.tolist(), strict=True)},
    }


def describe_sample(document: Mapping[str, Any]) -> list[str]:
    """One sample as lines for people."""
    hu = document["image_hu"]
    lines = [
        f"{document['sample_id']}: split {document['split']}, case {document['case_id']}, "
        f"shard {document['shard']} row {document['row']}, patch origin {tuple(document['origin_vox'])}",
        f"image      {hu['min']} to {hu['max']} HU, mean {hu['mean']:.0f}; label voxels "
        + ", ".join(f"{name}: {count}" for name, count in document["label_voxels"].items()),
        f"tumors     {document['n_tumors']}",
    ]
    lines += [
        f"  {t['instance']} {t['organ']} {t['kind']}: {t['diameter_mm']:.1f} mm "
        f"({_asked(t['requested_diameter_mm'])}), RECIST {t['recist_long_mm']:.0f} x {t['recist_short_mm']:.0f} mm, "
        f"{t['mean_hu']:.0f} HU, "
        f"{t['contrast_hu']:+.0f} HU against parenchyma, {_vessel(t['vessel_distance_mm'])}, "
        f"{t['surface_distance_mm']:.0f} mm deep"
        for t in document["tumors"]
    ]
    return lines


def _asked(diameter_mm: float | None) -> str:
    return "the patient's own" if diameter_mm is None else f"asked {diameter_mm:.1f}"


def _vessel(distance_mm: float | None) -> str:
    return "no vessels known" if distance_mm is None else f"{distance_mm:.0f} mm to a vessel"


def write_sample_figure(sample: Sample, folder: Path) -> list[Path]:
    """A picture of one sample, as a PNG file."""
    from pipeline.figures import grid_figure, save_png

    with writing_to(folder, "Choose another --figures"):
        folder.mkdir(parents=True, exist_ok=True)
        return [save_png(grid_figure([_picture(sample)], columns=1), folder / f"{sample.row['sample_id']}.png")]


def write_figures(dataset: Dataset, folder: Path, where: str | None = None) -> list[Path]:
    """Histograms of diameter and contrast, and a sheet of sample pictures, as PNG files."""
    rows = _read(dataset, where, ["index", *(f"tumors.{name}" for name in _FACTS)])
    with writing_to(folder, "Choose another --figures"):
        folder.mkdir(parents=True, exist_ok=True)
        return _save_figures(dataset, rows, tumor_table(rows), folder)


def _save_figures(dataset: Dataset, rows: pa.Table, tumors: pa.Table, folder: Path) -> list[Path]:
    from pipeline.figures import grid_figure, histogram_figure, save_png

    written = []
    for field, unit in (("diameter_mm", "mm"), ("contrast_hu", "HU")):
        if tumors.num_rows:
            name = field.rpartition("_")[0]
            label = f"measured {name} ({unit})"
            figure = histogram_figure(tumors[field].to_numpy(), xlabel=label, ylabel="tumors", title=f"Tumor {name}")
            written.append(save_png(figure, folder / f"{name}.png"))
    pictures = [_picture(dataset.sample(index)) for index in rows["index"][:_FIGURE_SAMPLES].to_pylist()]
    if pictures:
        written.append(save_png(grid_figure(pictures, columns=4), folder / "samples.png"))
    return written


def _picture(sample: Sample) -> tuple[str, npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """The axial slice through the largest tumor cross-section, or the middle one, with a caption."""
    tumor = (sample.label > 0) & (sample.label % 2 == 0)
    z = int(tumor.sum(axis=(0, 1)).argmax()) if tumor.any() else sample.label.shape[2] // 2
    return f"{sample.row['index']}: {_caption(sample.row['tumors'])}", sample.image[:, :, z], sample.label[:, :, z]


def _caption(tumors: Sequence[Mapping[str, Any]]) -> str:
    """The largest tumor and how many others, short enough to stand over a small picture."""
    if not tumors:
        return "no tumor"
    largest = max(tumors, key=lambda tumor: float(tumor["diameter_mm"]))
    others = f" +{len(tumors) - 1}" if len(tumors) > 1 else ""
    return f"{largest['kind']} {largest['diameter_mm']:.0f} mm{others}"
