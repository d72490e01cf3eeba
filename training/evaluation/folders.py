"""Pairs of NIfTI label maps in two folders, of whatever origin: ours, a challenge's, nnU-Net's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.case import UInt8Array
from pipeline.errors import InputError
from pipeline.image import check_same_grid
from pipeline.organs import BACKGROUND, CLASS_NAMES, is_tumor
from pipeline.volume import read_nifti
from training.evaluation.label_names import FolderLabels, folder_labels
from training.evaluation.pairs import Pair, Spacing
from training.prediction.images import nifti_by_name

_FIRST_CHANNEL = "_0000"  # ends the names of nnU-Net's images, and of what was predicted from them by name
Log = Callable[[str], None]


class LabelFolders:
    """Truth and prediction of the same name, on one grid; a class is scored when any file holds it."""

    def __init__(
        self,
        truth: Path,
        predictions: Path,
        labels: str | None,
        prediction_labels: str | None,
        limit: int | None,
        log: Log,
    ) -> None:
        """`labels` and `prediction_labels` are label maps; without them nnU-Net's `dataset.json`, else our ids."""
        self._files = _matched(nifti_by_name(truth), nifti_by_name(predictions), predictions, log)
        self._files = dict(list(self._files.items())[:limit])
        self._labels = folder_labels(truth, labels, "--labels")
        self._prediction_labels = folder_labels(predictions, prediction_labels, "--prediction-labels")
        for folder, found in ((truth, self._labels), (predictions, self._prediction_labels)):
            if found.said_by:
                log(f"note: the ids in {folder} are those of {found.said_by} ({found.flag} says otherwise)")

    def __len__(self) -> int:
        return len(self._files)

    def pairs(self) -> Iterator[Pair]:
        """Pairs by name."""
        classes = self._classes()
        for name in self._files:
            truth, prediction, spacing = self._read(name)
            yield Pair(name, name, None, truth, prediction, spacing, classes)

    def _read(self, name: str) -> tuple[UInt8Array, UInt8Array, Spacing]:
        files = self._files[name]
        truth, prediction = (read_nifti(file, "mask") for file in files)
        check_same_grid(truth, prediction, *map(str, files))
        sides: tuple[FolderLabels, FolderLabels] = (self._labels, self._prediction_labels)
        ours, theirs = (side.apply(v.data, f) for side, v, f in zip(sides, (truth, prediction), files, strict=True))
        return ours, theirs, truth.spacing_mm

    def _classes(self) -> dict[str, int]:
        """Classes that occur, as far as the truth can hold them, and the tumors it can hold of organs that occur.

        So scans without a tumor on either side count as clean, where the truth's label map says what it can hold.
        """
        ids: set[int] = set()
        for name in self._files:
            ids.update(*(map(int, np.unique(labels)) for labels in self._read(name)[:2]))
        judged = self._labels.classes
        if judged is not None:
            ids = (ids | {i + 1 for i in ids if i != BACKGROUND and is_tumor(i + 1)}) & judged
        ids -= {BACKGROUND}
        if not ids:
            raise InputError("no label map holds anything to score: all of it is background")
        return {CLASS_NAMES[i]: i for i in sorted(ids)}

    def example(self, case_id: str, caption: str) -> None:
        """No CT is at hand for a picture."""
        return None


def _matched(
    truth: Mapping[str, Path], predictions: Mapping[str, Path], folder: Path, log: Log
) -> dict[str, tuple[Path, Path]]:
    """Both files of each case, by the name of the truth."""
    found = {name: _partner(name, predictions) for name in truth}
    missing = [name for name, partner in found.items() if partner is None]
    if missing:
        raise InputError(
            f"{folder}: no prediction for {', '.join(missing[:8])}; files are matched by name, with or without "
            f"nnU-Net's {_FIRST_CHANNEL} (it holds {', '.join(list(predictions)[:8])})"
        )
    extra = sorted(set(predictions) - set(found.values()))
    if extra:
        log(f"note: predictions without a truth are left out: {', '.join(extra[:8])}")
    return {name: (truth[name], predictions[partner]) for name, partner in found.items() if partner is not None}


def _partner(name: str, others: Mapping[str, Path]) -> str | None:
    spellings = (name, name + _FIRST_CHANNEL, name.removesuffix(_FIRST_CHANNEL))
    return next((spelling for spelling in spellings if spelling in others), None)
