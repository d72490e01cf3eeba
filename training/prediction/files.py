"""Trained networks on the CTs of a folder: NIfTI or DICOM in, NIfTI label maps on exactly the input's grid out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.image import Volume
from pipeline.volume import write_nifti
from training.network import ClassTable
from training.predict import OVERLAP, Segmenter, load_segmenter, predict_grid
from training.prediction.images import find_images, read_image
from training.prediction.postprocess import Removed, Rules, describe, postprocess


@dataclass(frozen=True)
class Segmented:
    """One CT and where its class ids were written."""

    name: str
    image: Path  # file, or folder of a DICOM series
    out: Path
    volumes_ml: dict[str, float]  # by class, background left out
    removed: list[Removed] = field(default_factory=list)  # by the rules of post-processing

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "image": str(self.image),
            "out": str(self.out),
            "volumes_ml": self.volumes_ml,
            "removed": [part.to_json() for part in self.removed],
        }


def predict_folder(
    runs: Path | Sequence[Path],
    images: Path,
    out: Path,
    log: Callable[[str], None],
    device: str = "auto",
    *,
    overlap: float = OVERLAP,
    mirror: bool = False,
    rules: Rules | None = None,
) -> list[Segmented]:
    """Segment every CT of `find_images(images)` into OUT/<name>.nii.gz; older files of these names are replaced.

    Several runs are averaged, see `load_segmenter`. Of several images those that cannot be read are told of and left
    out, with a PhantumorError that names them at the end.
    """
    sources = find_images(images)
    targets = _targets(sources, out)
    segmenter = load_segmenter(runs, device, overlap=overlap, mirror=mirror)
    rules = rules or Rules()
    rules.check(segmenter.classes)
    done, failed = [], []
    with writing_to(out, "Files that are already there are whole; run the same command again"):
        for k, (name, source) in enumerate(sources.items(), 1):
            started = time.perf_counter()
            try:
                labels, removed = _segment(segmenter, source, targets[name], rules, name)
            except InputError as error:
                if len(sources) == 1:
                    raise
                failed.append(name)
                log(f"{k}/{len(sources)} {name}: not segmented: {error}")
                continue
            volumes = volumes_ml(labels, segmenter.classes)
            done.append(Segmented(name, source, targets[name], volumes, removed))
            found = "; ".join(filter(None, (_describe(volumes), describe(removed))))
            log(f"{k}/{len(sources)} {name}: {found}, {time.perf_counter() - started:.1f} s -> {targets[name]}")
    if failed:
        raise PhantumorError(
            f"{len(failed)} of {len(sources)} images were not segmented, for the reasons above: {', '.join(failed)}. "
            f"The others are in {out}"
        )
    return done


def predict_file(
    segmenter: Segmenter, image: Path, out: Path, rules: Rules | None = None, name: str | None = None
) -> tuple[Volume, list[Removed]]:
    """Segment a CT; writes, and returns, the class ids on exactly its grid, and what the rules removed.

    The grid is a NIfTI file's with shape, axis order and affine, or the voxels of a DICOM series in RAS+ order. With
    a `name`, progress is shown under it.
    """
    ct, (shape, affine) = read_image(image)
    labels = predict_grid(segmenter, ct, shape, affine, name)
    del ct
    removed: list[Removed] = []
    if rules is not None and rules != Rules():
        labels, removed = postprocess(labels, Volume(labels, affine).spacing_mm, segmenter.classes, rules)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(out, labels, affine)
    return Volume(labels, affine), removed


def _segment(segmenter: Segmenter, image: Path, out: Path, rules: Rules, name: str) -> tuple[Volume, list[Removed]]:
    try:
        return predict_file(segmenter, image, out, rules, name)
    except torch.OutOfMemoryError as error:
        reason = str(error).strip().partition("\n")[0]
        raise PhantumorError(
            f"{image}: the memory of {segmenter.device} is full ({reason}). Free it, or use --device cpu"
        ) from error


def _targets(sources: dict[str, Path], out: Path) -> dict[str, Path]:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    targets = {name: out / f"{name}.nii.gz" for name in sources}
    for name, source in sources.items():
        if targets[name].resolve() == source.resolve():
            raise InputError(f"{out}: the result would replace the image {source}; give another --out")
    return targets


def volumes_ml(labels: Volume, classes: ClassTable) -> dict[str, float]:
    """The volume of each class but background in a label image."""
    counts = np.bincount(labels.data.reshape(-1), minlength=256)
    voxel_ml = math.prod(labels.spacing_mm) / 1000
    return {name: float(counts[classes.classes[name]] * voxel_ml) for name in classes.names[1:]}


def _describe(volumes: dict[str, float]) -> str:
    return ", ".join(f"{name} {volume:.1f} ml" for name, volume in volumes.items())
