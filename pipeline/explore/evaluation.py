"""Cases that a network was scored on, as `phantumor evaluate` leaves them: prediction beside the truth.

Of real cases the predictions lie in the folder; of samples of a dataset the run predicts them again when they are
shown, without the rules that `evaluate` may have been given; of two folders of label maps there is no CT.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog import Dataset, Sample, open_dataset
from pipeline.description import INFO
from pipeline.errors import InputError
from pipeline.explore.collection import Layer
from pipeline.explore.facts import Fact, Facts, names, numbers
from pipeline.explore.kept import Kept
from pipeline.store import open_store

CASES, LESIONS, METRICS = "cases.parquet", "lesions.parquet", "metrics.json"
Labels = npt.NDArray[np.uint8]
Predict = Callable[[str, Dataset, int], Labels]  # run, dataset, index of a sample
Images = Mapping[str, Layer]
_KEPT_CASES = 2  # whole CTs take some hundred MB
_AGAIN = "Run `phantumor evaluate` into that folder again"
_SCORES = ("dice", "nsd_2mm", "hd95_mm", "truth_ml", "predicted_ml")
_COUNTS = ("truth_lesions", "found_lesions", "false_positive_lesions")
_SHOWN = "image", "truth", "prediction"


def is_evaluation(place: str) -> bool:
    """Whether a place is a folder that `phantumor evaluate` wrote."""
    return (Path(place) / CASES).is_file() and (Path(place) / METRICS).is_file()


class ScoredCases:
    """Cases of an evaluation, one line each; its tumors are the true lesions."""

    def __init__(self, folder: Path, predict: Predict, labels: str | None = None) -> None:
        self._folder, self._labels = folder, labels
        rows = _rows(folder / CASES)
        self._scores: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            self._scores.setdefault(row["case_id"], []).append(row)
        self._lesions = [row for row in _rows(folder / LESIONS) if row["case_id"] in self._scores]
        self._context = _context(folder / METRICS)
        self._names = list(self._scores)
        self._images: Kept[Images] = Kept(_KEPT_CASES)
        self._predict = predict

    @cached_property
    def facts(self) -> Facts:
        place = {name: k for k, name in enumerate(self._names)}
        true = sorted((row for row in self._lesions if row["source"] == "truth"), key=lambda row: place[row["case_id"]])
        facts: dict[str, Fact] = {
            "class_name": names("tumor", [row["class_name"] for row in true]),
            "found": names("tumor", ["found" if row["matched"] else "missed" for row in true]),
            "diameter_mm": numbers("tumor", np.array([row["diameter_mm"] for row in true], np.float64)),
            "dice": numbers("sample", np.array([self._lowest_dice(name) for name in self._names], np.float64)),
            "group": names("sample", [self._scores[name][0]["group"] for name in self._names]),
        }
        parents = np.array([place[row["case_id"]] for row in true], np.int64)
        extra = {name: np.array([self._sum(case, name) for case in self._names]) for name in _COUNTS}
        return Facts(np.arange(len(self._names)), facts, parents, extra)

    def _tumor_scores(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self._scores[name] if row["tumor"]]

    def _lowest_dice(self, name: str) -> float:
        """Of the tumor classes; NaN where there is none to be outlined."""
        return min((row["dice"] for row in self._tumor_scores(name) if row["dice"] is not None), default=float("nan"))

    def _sum(self, name: str, count: str) -> int:
        return sum(row[count] or 0 for row in self._tumor_scores(name))

    def about(self) -> dict[str, Any]:
        told = [
            f"{name} {self._context[name]}" for name in ("run", "data", "truth", "predictions") if name in self._context
        ]
        return {
            "kind": "evaluation",
            "title": str(self._folder),
            "lines": told,
            "labels": {"truth": "truth", "prediction": "prediction"},
            "extra": {name: name.replace("_", " ") for name in _COUNTS},
            "where": False,
        }

    def where(self, expression: str) -> npt.NDArray[np.int64]:
        raise InputError(f"{self._folder}: expressions select samples of a dataset; use the histograms here")

    def name(self, position: int) -> str:
        return self._names[position]

    def position(self, name: str) -> int:
        if name not in self._scores:
            raise InputError(f"{self._folder}: no case {name!r} was scored")
        return self._names.index(name)

    def document(self, position: int) -> dict[str, Any]:
        name = self._names[position]
        lesions = [row for row in self._lesions if row["case_id"] == name]
        hidden = ("case_id", "group", "organ", *(key for key in (lesions or [{}])[0] if key.startswith("centroid")))
        sections = {
            row["class_name"]: {key: row[key] for key in (*_SCORES, *_COUNTS) if row.get(key) is not None}
            for row in self._scores[name]
        }
        return {
            "sections": sections,
            "tumors": [{key: value for key, value in row.items() if key not in hidden} for row in lesions],
            "focus_mm": self._focus(name, lesions),
            "drawn": None,
            "commands": {},
            "layers": list(_SHOWN),
        }

    def _focus(self, name: str, lesions: Sequence[Mapping[str, Any]]) -> list[float] | None:
        """Where the worst is: the largest missed tumor, else the largest false one, else the largest."""
        ranked = sorted(lesions, key=lambda row: (not row["matched"], row["source"] == "truth", row["volume_mm3"]))
        if not ranked:
            return None
        affine = self._of_case(name)["truth"].affine
        voxel = [ranked[-1][f"centroid_{axis}_vox"] for axis in "xyz"]
        return [float(mm) for mm in affine[:3, :3] @ voxel + affine[:3, 3]]

    def layers(self, position: int, names: Sequence[str]) -> Images:
        images = self._of_case(self._names[position])
        missing = [name for name in names if name not in images]
        if missing:
            raise InputError(f"{missing[0]}: a case has {', '.join(images)}")
        return {name: images[name] for name in names}

    def _of_case(self, name: str) -> Images:
        return self._images.get(name, lambda: self._read(name))

    def _read(self, name: str) -> Images:
        if "predictions" in self._context:
            return _from_folders(Path(self._context["truth"]), Path(self._context["predictions"]), name)
        data = self._context.get("data")
        if data is None:
            raise InputError(f"{self._folder / METRICS}: does not say what was scored. {_AGAIN}")
        store = open_store(data)
        if store.folder is None or store.exists(INFO):
            return self._from_dataset(open_dataset(store), name)
        return self._from_real(store.folder, name)

    def _from_dataset(self, dataset: Dataset, name: str) -> Images:
        sample: Sample = dataset.sample(int(name.removeprefix("s")))
        prediction = self._predict(self._context["run"], dataset, int(sample.row["index"]))
        affine = np.array(sample.row["affine"], np.float64).reshape(4, 4)
        arrays: tuple[npt.NDArray[Any], ...] = (sample.image, sample.label, prediction)
        return {key: Layer(array, affine) for key, array in zip(_SHOWN, arrays, strict=True)}

    def _from_real(self, data: Path, name: str) -> Images:
        from pipeline.intake import read_native
        from pipeline.organs import label_map
        from pipeline.sources import find_cases
        from pipeline.volume import read_nifti

        text = self._labels or self._context.get("labels")
        known = label_map(text) if text else None
        found = {case.case_id: case for case in find_cases(data, None, None, known).cases}
        if name not in found:
            raise InputError(f"{data}: holds no case {name} any more, which {self._folder} was scored on")
        image, truth = read_native(found[name], known)
        prediction = read_nifti(self._folder / "predictions" / f"{name}.nii.gz", "mask")
        arrays: tuple[npt.NDArray[Any], ...] = (image.data, truth, prediction.data.astype(np.uint8))
        return {key: Layer(array, image.affine) for key, array in zip(_SHOWN, arrays, strict=True)}


def _from_folders(truth: Path, predictions: Path, name: str) -> Images:
    """Two label maps of one name over an empty image, as no CT is known."""
    from pipeline.volume import read_nifti

    files = [
        next((f for f in (folder / f"{name}{end}" for end in (".nii.gz", ".nii")) if f.is_file()), None)
        for folder in (truth, predictions)
    ]
    if files[0] is None or files[1] is None:
        raise InputError(f"{truth} and {predictions}: {name}.nii.gz is not in both any more")
    maps = [read_nifti(file, "mask") for file in files if file is not None]
    arrays: tuple[npt.NDArray[Any], ...] = (
        np.zeros(maps[0].shape, np.int16),
        *(found.data.astype(np.uint8) for found in maps),
    )
    return {key: Layer(array, maps[0].affine) for key, array in zip(_SHOWN, arrays, strict=True)}


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(file).read(use_threads=False).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{file}: not readable as Parquet ({error}). {_AGAIN}") from error
    needed = {"case_id", "group", "class_name"}
    if rows and not needed <= set(rows[0]):
        raise InputError(f"{file}: lacks the columns {', '.join(sorted(needed - set(rows[0])))}. {_AGAIN}")
    return rows


def _context(file: Path) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(file.read_bytes())["context"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not the metrics of an evaluation ({error!r}). {_AGAIN}") from error
