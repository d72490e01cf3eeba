"""The images of a scored case: CT, truth and prediction, from where `phantumor evaluate` found or left them.

Of real cases the predictions lie in the folder; of samples of a dataset the run predicts them again when they are
shown, without the rules that `evaluate` may have been given; of two folders of label maps there is no CT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.catalog import Dataset, open_dataset
from pipeline.description import INFO
from pipeline.errors import InputError
from pipeline.explore.collection import Layer
from pipeline.store import open_store

NAMES = "image", "truth", "prediction"
Labels = npt.NDArray[np.uint8]
Images = Mapping[str, Layer]
Flag = Literal["--labels", "--prediction-labels"]
Predict = Callable[[str, Dataset, int], Labels]  # run, dataset, index of a sample
ClassIds = Callable[[npt.NDArray[Any], Path], Labels]  # ids of a label map (X, Y, Z) and its file; InputError
FolderIds = Callable[[Path, str | None, Flag], ClassIds]  # folder, label map (None: what lies there says), its flag
_FIRST_CHANNEL = "_0000"  # ends the names of nnU-Net's images, and of what was predicted from them by name


@dataclass(frozen=True)
class FromTraining:
    """What `training` can do, which this package does not import."""

    predict: Predict
    folder_ids: FolderIds


class ScoredImages:
    """The images of the cases of an evaluation, by name."""

    def __init__(self, folder: Path, context: Mapping[str, str], training: FromTraining) -> None:
        """`context`: what was scored, as metrics.json has it; `labels` and `prediction labels` are label maps."""
        self._folder, self._context, self._training = folder, context, training

    def read(self, name: str) -> Images:
        """`NAMES` of a case; InputError where they are no longer where they were."""
        if "predictions" in self._context:
            return self._from_folders(Path(self._context["truth"]), Path(self._context["predictions"]), name)
        data = self._context.get("data")
        if data is None:
            raise InputError(
                f"{self._folder}: metrics.json does not say what was scored. Run `phantumor evaluate` into that folder "
                "again"
            )
        store = open_store(data)
        if store.folder is None or store.exists(INFO):
            return self._from_dataset(open_dataset(store), name)
        return self._from_real(store.folder, name)

    def _from_dataset(self, dataset: Dataset, name: str) -> Images:
        digits = name.removeprefix("s")
        if not digits.isdecimal():
            raise InputError(
                f"{dataset.path}: is a dataset now, and holds no case {name}; {self._folder} was scored on"
            )
        sample = dataset.sample(int(digits))
        prediction = self._training.predict(self._context["run"], dataset, int(sample.row["index"]))
        affine = np.array(sample.row["affine"], np.float64).reshape(4, 4)
        return _layers(affine, sample.image, sample.label, prediction)

    def _from_real(self, data: Path, name: str) -> Images:
        from pipeline.intake import read_native
        from pipeline.organs import label_map
        from pipeline.sources import find_cases
        from pipeline.volume import read_nifti

        text = self._context.get("labels")
        known = label_map(text) if text else None
        found = {case.case_id: case for case in find_cases(data, None, None, known).cases}
        if name not in found:
            raise InputError(f"{data}: holds no case {name} any more, which {self._folder} was scored on")
        image, truth = read_native(found[name], known)
        prediction = read_nifti(self._folder / "predictions" / f"{name}.nii.gz", "mask")
        return _layers(image.affine, image.data, truth, prediction.data.astype(np.uint8))

    def _from_folders(self, truth: Path, predictions: Path, name: str) -> Images:
        """Two label maps of one case over an empty image, as no CT is known."""
        from pipeline.image import check_same_grid
        from pipeline.volume import read_nifti

        files = _file_of(truth, (name,)), _file_of(predictions, _spellings(name))
        maps = [read_nifti(file, "mask") for file in files]
        check_same_grid(maps[0], maps[1], *map(str, files))
        asked: tuple[tuple[Flag, str], ...] = (("--labels", "labels"), ("--prediction-labels", "prediction labels"))
        ids = [
            self._training.folder_ids(folder, self._context.get(said), flag)
            for folder, (flag, said) in zip((truth, predictions), asked, strict=True)
        ]
        shown = [of(found.data, file) for of, found, file in zip(ids, maps, files, strict=True)]
        return _layers(maps[0].affine, np.zeros(maps[0].shape, np.int16), *shown)


def _layers(affine: npt.NDArray[np.float64], *arrays: npt.NDArray[Any]) -> Images:
    return {key: Layer(array, affine) for key, array in zip(NAMES, arrays, strict=True)}


def _spellings(name: str) -> tuple[str, ...]:
    """What a prediction may be called: as its truth, with or without nnU-Net's channel."""
    return name, name + _FIRST_CHANNEL, name.removesuffix(_FIRST_CHANNEL)


def _file_of(folder: Path, names: tuple[str, ...]) -> Path:
    paths = [folder / f"{name}{end}" for name in names for end in (".nii.gz", ".nii")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise InputError(
            f"{folder}: {names[0]}.nii.gz is not here any more; put it back, or run `phantumor evaluate` again"
        )
    return found
