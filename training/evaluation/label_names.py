"""Which of our classes the ids of a folder of label maps are: said by a flag, or by nnU-Net's `dataset.json`.

`nnUNetv2_predict` writes `dataset.json` beside its predictions; its raw datasets have it beside `labelsTr`, its
trained folds two folders above `validation`. Formats: nnU-Net v2, documentation/dataset_format.md and
region_based_training.md: `{"labels": {"background": 0, "liver": 1, "cancer": 2}}`, or regions as lists of ids with
`regions_class_order`. The Medical Segmentation Decathlon turns names and ids round: `{"labels": {"1": "liver"}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.case import UInt8Array
from pipeline.errors import InputError
from pipeline.organs import BACKGROUND, TUMOR_ORGANS, LabelMap, class_of_structure, label_map, organ_id, tumor_id

DATASET = "dataset.json"
_TUMOR_WORDS = frozenset("tumor tumors tumour tumours cancer carcinoma lesion lesions metastasis metastases".split())
_CYST_WORDS = frozenset({"cyst", "cysts"})  # benign, and part of their organ, as in the label map of KiTS
_IGNORE = "ignore"  # nnU-Net's name for voxels that nobody labelled; where they occur, ids are unknown

Flag = Literal["--labels", "--prediction-labels"]


@dataclass(frozen=True)
class FolderLabels:
    """The label map of a folder, where it comes from, and the flag that sets it."""

    map: LabelMap
    flag: Flag
    said_by: Path | None = None  # the file that names the ids
    given: bool = False  # by the flag

    @property
    def classes(self) -> set[int] | None:
        """The classes that the labels can hold, where somebody said so; None: any of ours."""
        return set(self.map.classes.values()) if self.given or self.said_by else None

    def apply(self, labels: npt.NDArray[np.integer], where: Path) -> UInt8Array:
        """Our class ids of a label image (X, Y, Z); InputError for an id that nobody explained."""
        unknown = [int(i) for i in np.unique(labels) if int(i) not in self.map.classes]
        if unknown:
            known = f"{self.said_by} explains" if self.said_by else f"label map {self.map.name!r} knows"
            raise InputError(
                f"{where}: holds the ids {unknown[:12]}, {known} others only. Name the ids with {self.flag}, e.g. "
                f"{self.flag} lits or {self.flag} liver=1,liver_tumor=2"
            )
        return self.map.apply(labels, str(where))


def folder_labels(folder: Path, given: str | None, flag: Flag) -> FolderLabels:
    """What the ids of a folder's label maps mean: the flag's value, else `dataset.json`, else our own class ids."""
    if given is not None:
        return FolderLabels(label_map(given), flag, given=True)
    for place in _places(folder):
        names = _names(place / DATASET)
        if names:
            return FolderLabels(_map_of(names, place / DATASET, flag), flag, place / DATASET)
    return FolderLabels(label_map("phantumor"), flag)


def _places(folder: Path) -> list[Path]:
    """Where the `dataset.json` of a folder of label maps may lie."""
    folder = folder.resolve()
    fold = folder.name == "validation" and folder.parent.name.startswith("fold_")
    return [folder, folder.parent, *([folder.parent.parent] if fold else [])]


def _names(file: Path) -> dict[int, str]:
    """The name of each id in nnU-Net's `dataset.json`; empty where there is none, or one of another kind."""
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a readable JSON file ({error}); mend or remove it") from error
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, dict):
        return {}
    try:
        return _by_id(labels, document.get("regions_class_order"))
    except (TypeError, ValueError) as error:
        raise InputError(f'{file}: "labels" does not name ids as nnU-Net does ({error}); mend or remove it') from error


def _by_id(labels: Mapping[str, Any], order: Any) -> dict[int, str]:
    """Names by id. Of regions, `regions_class_order` says which id stands for each, in the order of their names."""
    if all(isinstance(name, str) for name in labels.values()):
        return {int(value): str(name) for value, name in labels.items()}
    if order is not None:
        regions = [name for name, value in labels.items() if value != BACKGROUND and name != _IGNORE]
        if len(order) != len(regions):
            raise ValueError(f"{len(regions)} regions, but regions_class_order has {len(order)}")
        return {int(value): name for value, name in zip(order, regions, strict=True)}
    return {int(value): name for name, value in labels.items() if name != _IGNORE}


def _map_of(names: Mapping[int, str], file: Path, flag: Flag) -> LabelMap:
    organs = {name.lower() for name in names.values()} & set(TUMOR_ORGANS)
    classes = {BACKGROUND: BACKGROUND}
    for value, name in names.items():
        class_id = _class_of(name, organs)
        if class_id is None:
            raise InputError(
                f"{file}: its label {name!r} ({value}) is none of our classes. Say what the ids are with {flag}, "
                f"e.g. {flag} kits, or {flag} liver=1,liver_tumor=2,liver=3 where 3 counts as liver"
            )
        classes[value] = class_id
    return LabelMap(str(file), classes)


def _class_of(name: str, organs: set[str]) -> int | None:
    """A structure as we or TotalSegmentator spell it, or a word for tumor or cyst with its organ, the only one."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    for spelling in ("_".join(words), "_".join(words).lower()):
        class_id = class_of_structure(spelling)
        if class_id is not None:
            return class_id
    lower = {word.lower() for word in words}
    of = lower & set(TUMOR_ORGANS) or organs
    if len(of) != 1:
        return None
    (organ,) = of
    return tumor_id(organ) if lower & _TUMOR_WORDS else organ_id(organ) if lower & _CYST_WORDS else None
