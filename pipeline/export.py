"""`phantumor export`: samples of a dataset as NIfTI files, for tools that read those. Loads neither ray nor torch.

    nifti    OUT/<sample_id>/image.nii.gz and label.nii.gz, labels with our class ids
    nnunet   OUT/imagesTr/<sample_id>_0000.nii.gz and OUT/labelsTr/<sample_id>.nii.gz (imagesTs and labelsTs for the
             split `test`); class ids without gaps, as nnU-Net v2 wants them, explained in OUT/label_mapping.json

`OUT/dataset.json` is written last: a folder without it is an export that was cut off.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset, open_dataset
from pipeline.config import SPLITS
from pipeline.description import DatasetInfo
from pipeline.errors import InputError, PhantumorError
from pipeline.files import replace_file, writing_to
from pipeline.organs import CLASS_NAMES
from pipeline.progress import Progress, size
from pipeline.reader import SampleReader, column_names, located
from pipeline.shard import DTYPES
from pipeline.store import Location, Store
from pipeline.threads import in_threads
from pipeline.where import chosen

Format = Literal["nifti", "nnunet"]
ExportSplit = Literal["train", "val", "test", "all"]
LAST = "dataset.json"
# What is told of the samples, beside what reading them takes.
_COLUMNS = ("sample_id", "index", "split", "case_id", "affine", "annotated_classes")
_GZIPPED = 0.4  # of the bytes of image and label; CT with noise, labels and all
_NNUNET_FOLDER = re.compile(r"Dataset\d{3}_\w+")


@dataclass(frozen=True)
class ExportSummary:
    """What was written where; `samples` by split."""

    out: Path
    format: Format
    samples: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"out": str(self.out), "format": self.format, "samples": dict(self.samples)}

    def line(self) -> str:
        """For people."""
        splits = ", ".join(f"{split} {count}" for split, count in self.samples.items())
        return f"{self.out}: {sum(self.samples.values())} samples as {self.format} ({splits})"


def export(
    path: Location,
    out: Path,
    format: Format,
    *,
    where: str | None = None,
    split: ExportSplit = "all",
    limit: int | None = None,
    log: Callable[[str], None] = print,
) -> ExportSummary:
    """Write the samples of a split that meet `where`, of these the first `limit`, into the new or empty folder `out`.

    InputError when `out` holds something, when no sample is selected, and for a broken shard.
    """
    dataset = open_dataset(path)
    rows = _selected(dataset, where, split, limit)
    again = f"Remove {shlex.quote(str(out))} before you run the same command again"
    with writing_to(out, f"Mend that, or choose another --out. {again}"):
        _check_empty(out)
        _check_free(out, rows)
        for note in _notes(dataset, rows, out, format):
            log(note)
        try:
            _write_samples(dataset, rows, out, format, again)
            _write_documents(dataset, rows, out, format, {"where": where, "split": split, "limit": limit})
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"stopped; {out} is half an export, it has no {LAST}. {again}") from stop
    return ExportSummary(out, format, _by_split(rows))


def _selected(dataset: Dataset, where: str | None, split: ExportSplit, limit: int | None) -> pa.Table:
    """The rows of the samples to export, with the columns that it takes."""
    positions = chosen(dataset, where, split, limit)
    if not positions.size:
        asked = [
            *([f"--where {where!r}"] if where is not None else []),
            *([f"--split {split}"] if split != "all" else []),
        ]
        raise InputError(f"{dataset.path}: no sample to export {'meets ' + ' and '.join(asked) if asked else 'yet'}")
    names = list(dict.fromkeys([*_COLUMNS, *column_names(dataset)]))
    return dataset.columns(names).take(pa.array(positions))


def _by_split(rows: pa.Table) -> dict[str, int]:
    splits = rows["split"].to_pylist()
    return {split: splits.count(split) for split in SPLITS if split in splits}


# ---- before anything is written ----


def _check_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a new or an empty folder")
    if out.is_dir() and any(out.iterdir()):
        cut_off = "" if (out / LAST).exists() else f" (without {LAST}: perhaps an export that was cut off)"
        raise InputError(f"--out {out}: the folder holds something{cut_off}; give a new or an empty folder")


def _check_free(out: Path, rows: pa.Table) -> None:
    x, y, z = (pc.list_element(rows["shape_vox"], axis).to_numpy().astype(float) for axis in range(3))
    needed = _GZIPPED * float((x * y * z).sum()) * sum(dtype.itemsize for dtype in DTYPES.values())
    here = out.resolve()
    free = shutil.disk_usage(next(place for place in (here, *here.parents) if place.exists())).free
    if needed > free:
        raise PhantumorError(
            f"{out}: {rows.num_rows} samples need about {size(needed)}, its disk has {size(free)} free. "
            "Free space, or export fewer with --limit or --where"
        )


def _notes(dataset: Dataset, rows: pa.Table, out: Path, format: Format) -> Iterator[str]:
    """What the reader of the files could get wrong."""
    wanted = set(dataset.info.classes.values())
    lacking = [missing for ids in rows["annotated_classes"].to_pylist() if (missing := wanted - set(ids))]
    if lacking:
        names = ", ".join(CLASS_NAMES[number] for number in sorted(set().union(*lacking)))
        yield f"note: {len(lacking)} samples are from cases without annotation of {names}: there it is background"
    if format == "nnunet":
        if not _NNUNET_FOLDER.fullmatch(out.resolve().name):
            yield f"note: nnU-Net looks for folders with names such as Dataset501_Tumors; rename {out} before using it"
        splits = _by_split(rows)
        if "train" in splits and "val" in splits:
            yield "note: splits_final.json makes our train and val, apart by case, fold 0 of nnU-Net; it has no other"
        else:
            yield "note: without both train and val samples nnU-Net splits them itself, and mixes those of one case"


# ---- samples ----


def _write_samples(dataset: Dataset, rows: pa.Table, out: Path, format: Format, again: str) -> None:
    folders = ("imagesTr", "labelsTr") if format == "nnunet" else ()
    for folder in (out, *(out / name for name in folders)):
        folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(rows.num_rows, "samples exported")
    with contextlib.closing(_Writer(dataset, rows, out, format, again)) as writer:
        for _ in in_threads(writer.write, range(rows.num_rows)):
            progress.advance(1)


class _Writer:
    """Writes the samples of `rows` as files, any of them in any thread."""

    def __init__(self, dataset: Dataset, rows: pa.Table, out: Path, format: Format, again: str) -> None:
        self._dataset, self._rows, self._out, self._format, self._again = dataset, rows, out, format, again
        self._samples = SampleReader(dataset, located(dataset, rows))
        self._ids = _exported_ids(dataset, format)

    def write(self, k: int) -> None:
        """Write the sample of row `k`."""
        row = self._rows.slice(k, 1).to_pylist()[0]
        shape = self._dataset.checked_shape(row["shard"], self._samples.rows.shape_of(k))
        image, label = np.empty(shape, np.int16), np.empty(shape, np.uint8)
        self._samples.read(k, image, label)
        label = _with_ids(label, self._ids, f"{self._dataset.path}: sample {row['index']}")
        affine = np.array(row["affine"], np.float64).reshape(4, 4)
        image_file, label_file = _files(self._format, row["sample_id"], row["split"])
        self._write_file(image_file, image, affine)
        self._write_file(label_file, label, affine)

    def _write_file(self, name: str, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
        from pipeline.volume import write_nifti

        file = self._out / name
        file.parent.mkdir(exist_ok=True)
        try:
            write_nifti(file, array, affine)
        except PhantumorError as error:
            raise PhantumorError(f"{error}. {self._again}") from error

    def close(self) -> None:
        """Close what was read."""
        self._samples.close()


def _files(format: Format, sample_id: str, split: str) -> tuple[str, str]:
    """Image and label file of a sample, relative to the export."""
    if format == "nifti":
        return f"{sample_id}/image.nii.gz", f"{sample_id}/label.nii.gz"
    ending = "Ts" if split == "test" else "Tr"
    return f"images{ending}/{sample_id}_0000.nii.gz", f"labels{ending}/{sample_id}.nii.gz"


def _exported_ids(dataset: Dataset, format: Format) -> dict[int, int]:
    """Our class id -> the one in the exported labels."""
    classes = sorted(dataset.info.classes.values())
    return {number: k if format == "nnunet" else number for k, number in enumerate(classes)}


def _with_ids(label: npt.NDArray[np.uint8], ids: Mapping[int, int], where: str) -> npt.NDArray[np.uint8]:
    unknown = sorted(set(np.unique(label).tolist()) - set(ids))
    if unknown:
        raise InputError(f"{where}: label ids {unknown} are no classes of the dataset. See `phantumor verify`")
    table = np.zeros(256, np.uint8)
    table[list(ids)] = list(ids.values())
    mapped: npt.NDArray[np.uint8] = table[label]
    return mapped


# ---- what tells what the files are ----


def _write_documents(
    dataset: Dataset, rows: pa.Table, out: Path, format: Format, selection: Mapping[str, object]
) -> None:
    documents = _nnunet_documents(dataset, rows) if format == "nnunet" else _nifti_documents(dataset, rows)
    info = dataset.info
    documents[LAST] |= {"source": {**_told(dataset.store, info), **selection, **_sources(dataset)}}
    for name in sorted(documents, key=lambda name: name == LAST):
        replace_file(out / name, f"{json.dumps(documents[name], indent=1)}\n".encode())


def _told(store: Store, info: DatasetInfo) -> dict[str, object]:
    """Where a dataset lies and what it was made from."""
    return {
        "dataset": str(store.folder.resolve()) if store.folder else store.url,
        "seed": info.seed,
        "store": info.config.store,
        "config_digest": info.config_digest,
        "bank_fingerprint": info.bank_fingerprint,
        "phantumor": info.software.get("phantumor"),
    }


def _sources(dataset: Dataset) -> dict[str, object]:
    """Of a view: the datasets that its samples lie in, and what was added to their indices there."""
    if not dataset.info.sources:
        return {}
    return {"sources": [{**_told(home.store, home.info), "first_index": home.first_index} for home in dataset.homes]}


def _nifti_documents(dataset: Dataset, rows: pa.Table) -> dict[str, Any]:
    columns = ["sample_id", "index", "split", "case_id"]
    return {
        LAST: {
            "labels": dict(dataset.info.classes),
            "spacing_mm": dataset.info.spacing_mm,
            "samples": rows.select(columns).to_pylist(),
        }
    }


def _nnunet_documents(dataset: Dataset, rows: pa.Table) -> dict[str, Any]:
    """`dataset.json` as nnU-Net v2 reads it, the label mapping, and our split by case as nnU-Net's one fold."""
    ids = _exported_ids(dataset, "nnunet")
    names = {CLASS_NAMES[number]: number for number in sorted(ids)}
    pairs = list(zip(rows["sample_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    fold = {split: [sample for sample, of in pairs if of == split] for split in ("train", "val")}
    documents: dict[str, Any] = {
        "label_mapping.json": {name: {"phantumor": number, "nnunet": ids[number]} for name, number in names.items()},
        LAST: {
            "channel_names": {"0": "CT"},
            "labels": {name: ids[number] for name, number in names.items()},
            "numTraining": len(fold["train"]) + len(fold["val"]),
            "file_ending": ".nii.gz",
        },
    }
    if all(fold.values()):
        documents["splits_final.json"] = [fold]
    return documents
