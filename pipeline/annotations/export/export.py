"""`phantumor export-annotations`: the annotations of a dataset in the formats that other tools read.

    box       boxes.json              3D boxes in the manner of COCO
    recist    recist.csv              both diameters and their ends
    tag       tags.csv                whether each organ shows a tumor
    report    reports/, reports.jsonl text, and its structured form
    scribble  Dataset501_Scribbles/   raw dataset of nnU-Net v2 with the label `ignore`

`annotations.json` says what the folder is. The folder appears under its name when all of it is written.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from pipeline import nnunet
from pipeline.annotations.export.boxes import BOXES, Boxes
from pipeline.annotations.export.reports import LINES, TEXTS, Reports
from pipeline.annotations.export.scribbles import FOLDER, write_scribbles
from pipeline.annotations.export.sheet import Sheet, one_by_one
from pipeline.annotations.export.tables import RECIST, TAGS, Recist, Tags
from pipeline.annotations.table import Annotations, read_annotations
from pipeline.catalog import Dataset, open_dataset
from pipeline.files import replace_file, whole_folder, writing_to
from pipeline.progress import Progress
from pipeline.sample_files import by_split, check_empty, check_free, selected, source_of
from pipeline.store import Location

ExportedKind = Literal["box", "recist", "tag", "report", "scribble"]
KINDS: tuple[ExportedKind, ...] = get_args(ExportedKind)
FILES: Mapping[ExportedKind, tuple[str, ...]] = {
    "box": (BOXES,),
    "recist": (RECIST,),
    "tag": (TAGS,),
    "report": (TEXTS, LINES),
    "scribble": (FOLDER,),
}
ABOUT = "annotations.json"
VERSION = 1
_REMEDY = "Free space, or give another --out, and run the same command again; nothing was left behind"


@dataclass(frozen=True)
class AnnotationExport:
    """What was written where; `samples` by split."""

    out: Path
    files: tuple[str, ...]
    samples: Mapping[str, int]
    tumors: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "out": str(self.out),
            "files": list(self.files),
            "samples": dict(self.samples),
            "tumors": self.tumors,
        }

    def line(self) -> str:
        """For people."""
        return f"{self.out}: {sum(self.samples.values())} samples, {self.tumors} tumors; {', '.join(self.files)}"


def export_annotations(
    path: Location,
    out: Path,
    kinds: Sequence[ExportedKind] = KINDS,
    *,
    where: str | None = None,
    log: Callable[[str], None] = print,
) -> AnnotationExport:
    """Write the annotations of the samples that meet `where` into the new or empty folder `out`, whole or not at all.

    InputError when the dataset has no annotations, when `out` holds something, and when no sample is selected.
    """
    dataset = open_dataset(path)
    annotations = read_annotations(dataset)
    rows = selected(dataset, where)
    with writing_to(out, _REMEDY), _stopped(out):
        check_empty(out)
        if "scribble" in kinds:
            check_free(out, rows)
        with whole_folder(out) as folder:
            tumors = _write_sheets(dataset, rows, annotations, kinds, folder)
            if "scribble" in kinds:
                log(nnunet.split_note(by_split(rows)))
                write_scribbles(dataset, rows, annotations.of, folder, _REMEDY)
            made = AnnotationExport(out, _files(kinds), by_split(rows), tumors)
            _write_about(dataset, annotations, made, where, folder)
    return made


def _files(kinds: Sequence[ExportedKind]) -> tuple[str, ...]:
    return tuple(name for kind in KINDS if kind in kinds for name in FILES[kind])


@contextlib.contextmanager
def _stopped(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"stopped; nothing was written to {out}. Run the same command again") from stop


def _write_sheets(
    dataset: Dataset, rows: pa.Table, annotations: Annotations, kinds: Sequence[ExportedKind], folder: Path
) -> int:
    """Write what goes sample by sample; how many tumors there are."""
    classes, tumors = dataset.info.classes, 0
    make: Mapping[ExportedKind, Callable[[], Sheet]] = {
        "box": lambda: Boxes(folder, classes, rows),
        "recist": lambda: Recist(folder),
        "tag": lambda: Tags(folder, classes),
        "report": lambda: Reports(folder),
    }
    progress = Progress(rows.num_rows, "samples' annotations exported")
    with contextlib.ExitStack() as stack:
        sheets = [stack.enter_context(contextlib.closing(make[kind]())) for kind in make if kind in kinds]
        for row in one_by_one(rows):
            annotation = annotations.of(row["index"])
            tumors += len(annotation.tumors)
            for sheet in sheets:
                sheet.add(row, annotation)
            progress.advance(1)
    return tumors


def _write_about(
    dataset: Dataset, annotations: Annotations, made: AnnotationExport, where: str | None, folder: Path
) -> None:
    about = {
        "version": VERSION,
        "files": list(made.files),
        "samples": made.samples,
        "tumors": made.tumors,
        "settings": annotations.settings.model_dump(mode="json"),
        "source": {**source_of(dataset), "where": where},
    }
    replace_file(folder / ABOUT, f"{json.dumps(about, indent=1)}\n".encode())
