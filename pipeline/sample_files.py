"""Samples of a dataset as NIfTI files, image and label: which ones, whether they fit on the disk, the writing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset
from pipeline.config import SPLITS
from pipeline.description import DatasetInfo
from pipeline.errors import InputError, PhantumorError
from pipeline.progress import Progress, size
from pipeline.reader import SampleReader, column_names, located
from pipeline.shard import DTYPES
from pipeline.store import Store
from pipeline.threads import in_threads
from pipeline.where import chosen

Label = npt.NDArray[np.uint8]
Names = Callable[[str, str], tuple[str, str]]  # of a sample's id and split: its image and label file
Relabel = Callable[[Mapping[str, Any], Label], Label]  # of a sample's row and label: the label to write
# What is told of the samples, beside what reading them takes.
_COLUMNS = ("sample_id", "index", "split", "case_id", "affine", "annotated_classes")
_GZIPPED = 0.4  # of the bytes of image and label; CT with noise, labels and all


def selected(dataset: Dataset, where: str | None, split: str = "all", limit: int | None = None) -> pa.Table:
    """The rows of the samples to export, with the columns that it takes; InputError where there are none."""
    positions = chosen(dataset, where, split, limit)
    if not positions.size:
        asked = [
            *([f"--where {where!r}"] if where is not None else []),
            *([f"--split {split}"] if split != "all" else []),
        ]
        raise InputError(f"{dataset.path}: no sample to export {'meets ' + ' and '.join(asked) if asked else 'yet'}")
    names = list(dict.fromkeys([*_COLUMNS, *column_names(dataset)]))
    return dataset.columns(names).take(pa.array(positions))


def by_split(rows: pa.Table) -> dict[str, int]:
    """How many of the rows each split has."""
    splits = rows["split"].to_pylist()
    return {split: splits.count(split) for split in SPLITS if split in splits}


def check_empty(out: Path, last: str | None = None) -> None:
    """InputError when `out` is a file or holds something; `last`: what is written last where that is done in place."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a new or an empty folder")
    if out.is_dir() and any(out.iterdir()):
        whole = last is None or (out / last).exists()
        cut_off = "" if whole else f" (without {last}: perhaps an export that was cut off)"
        raise InputError(f"--out {out}: the folder holds something{cut_off}; give a new or an empty folder")


def check_free(out: Path, rows: pa.Table) -> None:
    """PhantumorError when the disk of `out` has no room for image and label of these samples."""
    x, y, z = (pc.list_element(rows["shape_vox"], axis).to_numpy().astype(float) for axis in range(3))
    needed = _GZIPPED * float((x * y * z).sum()) * sum(dtype.itemsize for dtype in DTYPES.values())
    here = out.resolve()
    free = shutil.disk_usage(next(place for place in (here, *here.parents) if place.exists())).free
    if needed > free:
        raise PhantumorError(
            f"{out}: {rows.num_rows} samples need about {size(needed)}, its disk has {size(free)} free. "
            "Free space, or export fewer with --limit or --where"
        )


def source_of(dataset: Dataset) -> dict[str, object]:
    """Where the samples lie and what they were made from; of a view, also its sources and the first index of each."""
    told = _told(dataset.store, dataset.info)
    if not dataset.info.sources:
        return told
    homes = [{**_told(home.store, home.info), "first_index": home.first_index} for home in dataset.homes]
    return {**told, "sources": homes}


def _told(store: Store, info: DatasetInfo) -> dict[str, object]:
    return {
        "dataset": str(store.folder.resolve()) if store.folder else store.url,
        "seed": info.seed,
        "store": info.config.store,
        "config_digest": info.config_digest,
        "bank_fingerprint": info.bank_fingerprint,
        "phantumor": info.software.get("phantumor"),
    }


def write_samples(dataset: Dataset, rows: pa.Table, out: Path, names: Names, relabel: Relabel, remedy: str) -> None:
    """Write image (int16 HU) and label (uint8) of each row below `out`; `remedy` ends the message of a full disk."""
    progress = Progress(rows.num_rows, "samples exported")
    with contextlib.closing(_Writer(dataset, rows, out, names, relabel, remedy)) as writer:
        for _ in in_threads(writer.write, range(rows.num_rows)):
            progress.advance(1)


class _Writer:
    """Writes the samples of `rows` as files, any of them in any thread."""

    def __init__(
        self, dataset: Dataset, rows: pa.Table, out: Path, names: Names, relabel: Relabel, remedy: str
    ) -> None:
        self._dataset, self._rows, self._out = dataset, rows, out
        self._names, self._relabel, self._remedy = names, relabel, remedy
        self._samples = SampleReader(dataset, located(dataset, rows))

    def write(self, k: int) -> None:
        """Write the sample of row `k`."""
        row = self._rows.slice(k, 1).to_pylist()[0]
        shape = self._dataset.checked_shape(row["shard"], self._samples.rows.shape_of(k))
        image, label = np.empty(shape, np.int16), np.empty(shape, np.uint8)
        self._samples.read(k, image, label)
        label = self._relabel(row, label)
        affine = np.array(row["affine"], np.float64).reshape(4, 4)
        image_file, label_file = self._names(row["sample_id"], row["split"])
        self._write_file(image_file, image, affine)
        self._write_file(label_file, label, affine)

    def _write_file(self, name: str, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        from pipeline.volume import write_nifti

        file = self._out / name
        file.parent.mkdir(exist_ok=True)
        try:
            write_nifti(file, array, affine)
        except PhantumorError as error:
            raise PhantumorError(f"{error}. {self._remedy}") from error

    def close(self) -> None:
        """Close what was read."""
        self._samples.close()
