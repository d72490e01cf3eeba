"""Cases that a network was scored on, as `phantumor evaluate` leaves them; `scored_images` has their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.explore.facts import Fact, Facts, names, numbers
from pipeline.explore.kept import Kept
from pipeline.explore.scored_images import NAMES, FromTraining, Images, ScoredImages
from pipeline.where import Matches

CASES, LESIONS, METRICS = "cases.parquet", "lesions.parquet", "metrics.json"
_KEPT_CASES = 2  # whole CTs take some hundred MB
_AGAIN = "Run `phantumor evaluate` into that folder again"
_SCORES = ("dice", "nsd_2mm", "hd95_mm", "truth_ml", "predicted_ml")
_COUNTS = ("truth_lesions", "found_lesions", "false_positive_lesions")
_ABOUT = ("case_id", "group", "class_name")
_OF_CASES = {*_ABOUT, "tumor", "dice", *_COUNTS}
_OF_LESIONS = {*_ABOUT, "source", "matched", "diameter_mm", "volume_mm3", *(f"centroid_{axis}_vox" for axis in "xyz")}


def is_evaluation(place: str) -> bool:
    """Whether a place is a folder that `phantumor evaluate` wrote."""
    return (Path(place) / CASES).is_file() and (Path(place) / METRICS).is_file()


class ScoredCases:
    """Cases of an evaluation, one line each; its tumors are the true lesions."""

    def __init__(
        self, folder: Path, training: FromTraining, labels: str | None = None, prediction_labels: str | None = None
    ) -> None:
        """`labels` and `prediction_labels`: label maps, where they are not those that were scored with."""
        self._folder = folder
        rows = _rows(folder / CASES, _OF_CASES)
        self._scores: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            self._scores.setdefault(row["case_id"], []).append(row)
        self._lesions = [row for row in _rows(folder / LESIONS, _OF_LESIONS) if row["case_id"] in self._scores]
        self._context = _context(folder / METRICS)
        self._names = list(self._scores)
        self._images: Kept[Images] = Kept(_KEPT_CASES)
        said = {"labels": labels, "prediction labels": prediction_labels}
        context = self._context | {name: value for name, value in said.items() if value is not None}
        self._pictures = ScoredImages(folder, context, training)

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

    def where(self, expression: str) -> Matches:
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
            "layers": list(NAMES),
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
        return self._images.get(name, lambda: self._pictures.read(name))


def _rows(file: Path, needed: set[str]) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(file) as opened:
            table = opened.read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{file}: not readable as Parquet ({error}). {_AGAIN}") from error
    missing = sorted(needed - set(table.column_names))
    if missing:
        raise InputError(f"{file}: written by another version, it lacks the columns {', '.join(missing)}. {_AGAIN}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _context(file: Path) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(file.read_bytes())["context"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not the metrics of an evaluation ({error!r}). {_AGAIN}") from error
