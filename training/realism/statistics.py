"""Published size and shape of real lesions, from the CSV files of `--statistics`.

In: a folder with `uls23_lesions.csv` or `kits19_components.csv` (columns as below). Out: `Shape` lists by reference.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from pipeline.errors import InputError
from training.realism.definitions import MIN_DIAMETER_MM
from training.realism.shape import Shape

Row = Mapping[str, str]

ULS23, KITS19 = "uls23_lesions.csv", "kits19_components.csv"
ULS23_DATASETS: dict[str, tuple[str, ...]] = {
    "liver": ("LiTS",),
    "pancreas": ("Pancreas", "RadboudPancreas"),
    "kidney": ("KiTS21",),
    "colon": ("Colon",),
}
KITS19_TUMOR = "2"
_FALSE_SPACING = range(28, 47)  # LiTS cases whose headers say 1 mm and are wrong


def read_statistics(folder: Path, organ: str) -> dict[str, list[Shape]]:
    """Shapes of real lesions of an organ of at least 3 mm, by name of the reference; lesions cut by the image are not
    taken. InputError for a folder without either file, a broken file, or an organ that neither knows.
    """
    files = [folder / name for name in (ULS23, KITS19) if (folder / name).is_file()]
    if not files:
        raise InputError(f"--statistics {folder}: holds neither {ULS23} nor {KITS19}")
    references = {
        name: [shape for shape in shapes if shape.diameter_mm >= MIN_DIAMETER_MM]
        for file in files
        for name, shapes in _shapes(file, organ).items()
    }
    if not any(references.values()):
        raise InputError(f"--statistics {folder}: no lesion of the {organ} in {', '.join(f.name for f in files)}")
    return {name: shapes for name, shapes in references.items() if shapes}


def _shapes(file: Path, organ: str) -> dict[str, list[Shape]]:
    try:
        with file.open(newline="") as text:
            rows = list(csv.DictReader(text))
        if file.name == KITS19:
            return {"KiTS19": list(_parsed(rows, _is_kits19_tumor, _kits19_shape))} if organ == "kidney" else {}
        return {
            dataset: list(_parsed(rows, partial(_is_whole, dataset=dataset), _uls23_shape))
            for dataset in ULS23_DATASETS.get(organ, ())
        }
    except (OSError, KeyError, ValueError, SyntaxError, TypeError) as error:
        raise InputError(
            f"{file}: not the expected table of lesions ({error!r}); take the file as published"
        ) from error


def _parsed(
    rows: list[dict[str, str]], wanted: Callable[[Row], bool], parse: Callable[[Row], Shape]
) -> Iterator[Shape]:
    return (parse(row) for row in rows if wanted(row))


def _is_whole(row: Row, dataset: str) -> bool:
    """Rows of a dataset with a true spacing whose lesion lies wholly in its image."""
    if row["dataset"] != dataset or row["at_voi_border"] != "0":
        return False
    number = re.search(r"(\d+)$", row["case"])
    return not (dataset == "LiTS" and number is not None and int(number[1]) in _FALSE_SPACING)


def _uls23_shape(row: Row) -> Shape:
    extents = [float(row[name]) for name in ("ex_mm", "ey_mm", "ez_mm")]
    fill, sphericity = float(row["bbox_fill"]), float(row["sphericity"])
    return Shape(float(row["eqdiam_mm"]), sphericity, fill, max(extents) / min(extents))


def _is_kits19_tumor(row: Row) -> bool:
    return row["label"] == KITS19_TUMOR


def _kits19_shape(row: Row) -> Shape:
    x, y, z = (float(extent) for extent in ast.literal_eval(row["extent_mm"]))
    return Shape(float(row["eqdiam_mm"]), None, float(row["vol_mm3"]) / (x * y * z), max(x, y, z) / min(x, y, z))
