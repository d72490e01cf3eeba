"""recist.csv, one line a tumor, and tags.csv, one line a sample: comma-separated, UTF-8, a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.annotations.export.sheet import SAMPLE, Row, affine_of, place_mm, rounded
from pipeline.annotations.records import SampleAnnotation, TumorAnnotation
from pipeline.files import Replacement
from pipeline.organs import ORGANS

RECIST, TAGS = "recist.csv", "tags.csv"
_ENDS = ("long_start", "long_end", "short_start", "short_end")
_PLACES = [f"{end}_{axis}_vox" for end in _ENDS for axis in "xy"] + [
    f"{end}_{axis}_mm" for end in _ENDS for axis in "ras"
]
_TUMOR = ("instance", "organ", "long_mm", "short_mm", "slice_z_vox", *_PLACES)


class Recist:
    """Writes recist.csv: both diameters of each tumor and where they end."""

    def __init__(self, out: Path) -> None:
        self._table = _Table(out / RECIST, [*SAMPLE, *_TUMOR])

    def add(self, row: Row, annotation: SampleAnnotation) -> None:
        """Write a line for each tumor of a sample."""
        self._table.write([row[name] for name in SAMPLE] + _measured(row, tumor) for tumor in annotation.tumors)

    def close(self) -> None:
        """End the file."""
        self._table.close()


def _measured(row: Row, tumor: TumorAnnotation) -> list[Any]:
    axes = (tumor.long_axis_vox, tumor.short_axis_vox)
    ends = [end for axis in axes for end in (axis[:3], axis[3:])]
    in_slice = [index for end in ends for index in end[:2]]
    affine = affine_of(row)
    in_mm = [value for end in ends for value in place_mm(affine, end)]
    diameters = [rounded(tumor.long_mm), rounded(tumor.short_mm)]
    return [tumor.instance, tumor.organ, *diameters, ends[0][2], *in_slice, *in_mm]


class Tags:
    """Writes tags.csv: for each organ 1 (shows a tumor), 0 (shows none) or nothing (not shown, or nobody looked)."""

    def __init__(self, out: Path, classes: Mapping[str, int]) -> None:
        self._organs = [organ for organ in ORGANS if f"{organ}_tumor" in classes]
        self._table = _Table(out / TAGS, [*SAMPLE, *self._organs])

    def add(self, row: Row, annotation: SampleAnnotation) -> None:
        """Write the line of a sample."""
        tags = annotation.tags
        said = [int(tags[organ]) if organ in tags else "" for organ in self._organs]
        self._table.write([[*(row[name] for name in SAMPLE), *said]])

    def close(self) -> None:
        """End the file."""
        self._table.close()


class _Table:
    """A CSV file in the making."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._file = Replacement(path)
        self.write([header])

    def write(self, lines: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._file.write(text.getvalue().encode())

    def close(self) -> None:
        self._file.finish()
