"""`phantumor export`: samples of a dataset as NIfTI files, for tools that read those. Loads neither ray nor torch.

    nifti    OUT/<sample_id>/image.nii.gz and label.nii.gz, labels with our class ids
    nnunet   the raw dataset folder of nnU-Net v2, class ids without gaps; see `pipeline.nnunet`

`OUT/dataset.json` is written last: a folder without it is an export that was cut off.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import nnunet
from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from pipeline.files import replace_file, writing_to
from pipeline.organs import CLASS_NAMES
from pipeline.sample_files import Relabel, by_split, check_empty, check_free, selected, source_of, write_samples
from pipeline.store import Location

Format = Literal["nifti", "nnunet"]
ExportSplit = Literal["train", "val", "test", "all"]
LAST = "dataset.json"


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
    rows = selected(dataset, where, split, limit)
    again = f"Remove {shlex.quote(str(out))} before you run the same command again"
    with writing_to(out, f"Mend that, or choose another --out. {again}"):
        check_empty(out, LAST)
        check_free(out, rows)
        for note in _notes(dataset, rows, out, format):
            log(note)
        try:
            for folder in (out, *(out / name for name in (nnunet.FOLDERS if format == "nnunet" else ()))):
                folder.mkdir(parents=True, exist_ok=True)
            names = nnunet.files if format == "nnunet" else _nifti_files
            write_samples(dataset, rows, out, names, _relabel(dataset, format), again)
            _write_documents(dataset, rows, out, format, {"where": where, "split": split, "limit": limit})
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"stopped; {out} is half an export, it has no {LAST}. {again}") from stop
    return ExportSummary(out, format, by_split(rows))


def _notes(dataset: Dataset, rows: pa.Table, out: Path, format: Format) -> Iterator[str]:
    """What the reader of the files could get wrong."""
    wanted = set(dataset.info.classes.values())
    lacking = [missing for ids in rows["annotated_classes"].to_pylist() if (missing := wanted - set(ids))]
    if lacking:
        names = ", ".join(CLASS_NAMES[number] for number in sorted(set().union(*lacking)))
        yield f"note: {len(lacking)} samples are from cases without annotation of {names}: there it is background"
    if format == "nnunet":
        if not nnunet.FOLDER.fullmatch(out.resolve().name):
            yield f"note: nnU-Net looks for folders with names such as Dataset501_Tumors; rename {out} before using it"
        yield nnunet.split_note(by_split(rows))


def _nifti_files(sample_id: str, split: str) -> tuple[str, str]:
    """Image and label file of a sample, relative to the export."""
    return f"{sample_id}/image.nii.gz", f"{sample_id}/label.nii.gz"


def _relabel(dataset: Dataset, format: Format) -> Relabel:
    """Labels with the class ids of the format."""
    classes = dataset.info.classes
    ids = nnunet.class_ids(classes) if format == "nnunet" else {number: number for number in classes.values()}
    return lambda row, label: _with_ids(label, ids, f"{dataset.path}: sample {row['index']}")


def _with_ids(label: npt.NDArray[np.uint8], ids: Mapping[int, int], where: str) -> npt.NDArray[np.uint8]:
    unknown = sorted(set(np.unique(label).tolist()) - set(ids))
    if unknown:
        raise InputError(f"{where}: label ids {unknown} are no classes of the dataset. See `phantumor verify`")
    table = np.zeros(256, np.uint8)
    table[list(ids)] = list(ids.values())
    mapped: npt.NDArray[np.uint8] = table[label]
    return mapped


def _write_documents(
    dataset: Dataset, rows: pa.Table, out: Path, format: Format, selection: Mapping[str, object]
) -> None:
    """Write what tells what the files are."""
    if format == "nnunet":
        samples = list(zip(rows["sample_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
        documents = nnunet.documents(dataset.info.classes, samples)
    else:
        documents = _nifti_documents(dataset, rows)
    documents[LAST] |= {"source": {**source_of(dataset), **selection}}
    for name in sorted(documents, key=lambda name: name == LAST):
        replace_file(out / name, f"{json.dumps(documents[name], indent=1)}\n".encode())


def _nifti_documents(dataset: Dataset, rows: pa.Table) -> dict[str, Any]:
    columns = ["sample_id", "index", "split", "case_id"]
    return {
        LAST: {
            "labels": dict(dataset.info.classes),
            "spacing_mm": dataset.info.spacing_mm,
            "samples": rows.select(columns).to_pylist(),
        }
    }
