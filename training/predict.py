"""A trained network on whole CTs and on stored samples.

In: a run folder and NIfTI images, or a dataset. Out: uint8 class ids, for files on exactly the input's grid.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.case import AIR_HU, FloatArray, Int16Array, UInt8Array
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import SPLITS
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.image import Volume
from pipeline.resample import SAME_SPACING, resample_ct, resample_labels_to
from pipeline.store import Location
from pipeline.volume import read_grid, read_nifti, write_nifti
from training.augment import to_window
from training.checkpoint import load_for_inference
from training.network import ClassTable, Shape3, resolve_device

OVERLAP = 0.5  # of neighbouring windows, as in nnU-Net
SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Segmenter:
    """A network and what it needs to know about its input and output."""

    network: torch.nn.Module
    classes: ClassTable
    window: tuple[float, float]  # HU
    patch_shape: Shape3  # voxels (X, Y, Z) that it was trained on
    spacing_mm: float
    device: torch.device


class Prediction(NamedTuple):
    """One stored sample with the network's answer, both uint8 class ids (X, Y, Z)."""

    sample: int  # its index in the manifest
    truth: UInt8Array
    prediction: UInt8Array


def load_segmenter(run: Path, device: str = "auto") -> Segmenter:
    """The best network of a run, on a device."""
    target = resolve_device(device)
    network, classes, meta = load_for_inference(run)
    return Segmenter(network.to(target), classes, meta.config.window, meta.patch_shape, meta.spacing_mm, target)


def predict_batch(segmenter: Segmenter, image: Tensor) -> Tensor:
    """Class ids (B, 1, X, Y, Z) uint8 of HU images (B, 1, X, Y, Z) of any size, on the image's device.

    Overlapping windows of the training's patch shape, their logits averaged with Gaussian weights (Isensee et al.
    2021, nnU-Net). Images smaller than a window are padded with air.
    """
    from monai.inferers import sliding_window_inference

    air = float(to_window(torch.tensor(AIR_HU), segmenter.window))
    with torch.inference_mode():
        logits = sliding_window_inference(
            to_window(image, segmenter.window),
            roi_size=segmenter.patch_shape,
            sw_batch_size=image.shape[0] if segmenter.device.type == "cpu" else 4,
            predictor=segmenter.network,
            overlap=OVERLAP,
            mode="gaussian",
            padding_mode="constant",
            cval=air,
            sw_device=segmenter.device,
            device=image.device,
        )
        return segmenter.classes.to_ids(logits.argmax(1, keepdim=True))


def predict_volume(segmenter: Segmenter, ct: Int16Array) -> UInt8Array:
    """Class ids (X, Y, Z) of a CT in HU, RAS+ order, at the network's spacing."""
    # Whole CTs are stitched on the CPU: their logits may not fit beside the network on a small GPU.
    image = torch.from_numpy(np.ascontiguousarray(ct))[None, None]
    labels: UInt8Array = predict_batch(segmenter, image)[0, 0].numpy()
    return labels


def predict_grid(segmenter: Segmenter, ct: Volume, shape: Shape3, affine: FloatArray) -> UInt8Array:
    """Class ids of a CT at its own spacing, on a grid of `shape` and `affine` whose axes are parallel to the CT's."""
    at_spacing, grid = resample_ct(ct.data, ct.affine, segmenter.spacing_mm)
    return resample_labels_to(predict_volume(segmenter, at_spacing), grid, shape, affine)


def predict_file(segmenter: Segmenter, image: Path, out: Path) -> Volume:
    """Segment a CT file; writes, and returns, the class ids on exactly its grid: shape, axis order, affine."""
    shape, affine = read_grid(image)
    labels = predict_grid(segmenter, read_nifti(image, "CT"), shape, affine)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(out, labels, affine)
    return Volume(labels, affine)


def predict_folder(run: Path, images: Path, out: Path, log: Callable[[str], None], device: str = "auto") -> list[Path]:
    """Segment every CT of a folder into OUT/<name>.nii.gz; older files of these names are replaced.

    `images` is a folder of NIfTI files, a folder of case folders that hold `ct.nii.gz`, or one case folder.
    """
    sources = find_images(images)
    targets = _targets(sources, out)
    segmenter = load_segmenter(run, device)
    with writing_to(out, "Files that are already there are whole; run the same command again"):
        for k, (name, source) in enumerate(sources.items(), 1):
            started = time.perf_counter()
            labels = predict_file(segmenter, source, targets[name])
            found = describe_volumes(labels, segmenter.classes)
            log(f"{k}/{len(sources)} {name}: {found}, {time.perf_counter() - started:.1f} s -> {targets[name]}")
    return list(targets.values())


def find_images(images: Path) -> dict[str, Path]:
    """The CT of each case, by name, sorted; InputError when there is none."""
    if not images.exists():
        raise InputError(f"{images}: no such folder of images")
    if images.is_file():
        return {_stem(images): images}
    files = _nifti_files(images)
    ct = _case_ct(images)
    if ct and (len(files) > 1 or (images / "segmentations").is_dir()):
        return {images.resolve().name: ct}
    folders = sorted(folder for folder in images.iterdir() if folder.is_dir())
    cases = [(folder.name, ct) for folder in folders if (ct := _case_ct(folder))]
    if not files and not cases:
        raise InputError(
            f"{images}: no images found; it must hold .nii.gz or .nii files, or case folders with ct.nii.gz"
        )
    return _by_name([*((_stem(file), file) for file in files), *cases], images)


def nifti_by_name(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by name without ending, sorted; InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of NIfTI files")
    files = _nifti_files(folder)
    if not files:
        raise InputError(f"{folder}: holds no .nii.gz or .nii file")
    return _by_name([(_stem(file), file) for file in files], folder)


def _nifti_files(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in files if file.name.lower().endswith(SUFFIXES))


def _by_name(found: list[tuple[str, Path]], folder: Path) -> dict[str, Path]:
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{folder}: several images are named {', '.join(twice)}; rename them, results go by name")
    return dict(sorted(found))


def _case_ct(folder: Path) -> Path | None:
    return next((folder / f"ct{end}" for end in SUFFIXES if (folder / f"ct{end}").is_file()), None)


def _stem(file: Path) -> str:
    end = next((end for end in SUFFIXES if file.name.lower().endswith(end)), "")
    return file.name[: len(file.name) - len(end)]


def _targets(sources: dict[str, Path], out: Path) -> dict[str, Path]:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    targets = {name: out / f"{name}.nii.gz" for name in sources}
    for name, source in sources.items():
        if targets[name].resolve() == source.resolve():
            raise InputError(f"{out}: the result would replace the image {source}; give another --out")
    return targets


def describe_volumes(labels: Volume, classes: ClassTable) -> str:
    """The volume of each class in a label image, for people."""
    counts = np.bincount(labels.data.reshape(-1), minlength=256)
    voxel_ml = math.prod(labels.spacing_mm) / 1000
    return ", ".join(f"{name} {counts[classes.classes[name]] * voxel_ml:.1f} ml" for name in classes.names[1:])


def predict_dataset(
    run: Path, dataset: Location | Dataset, split: str, batch_size: int = 2, device: str = "auto"
) -> Iterator[Prediction]:
    """The stored samples of a split (`all` for every sample) with the best network's prediction, by ascending index."""
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    segmenter = load_segmenter(run, device)
    return predict_samples(segmenter, data, samples_to_predict(segmenter, data, split), batch_size)


def samples_to_predict(segmenter: Segmenter, data: Dataset, split: str) -> list[int]:
    """Indices of a split, ascending; InputError when it is empty or the network was trained on another grid."""
    if split not in (*SPLITS, "all"):
        raise InputError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}, all")
    indices = data.indices_of(split)
    if not indices:
        held = ", ".join(f"{name} {count}" for name, count in sorted(data.split_counts().items())) or "no samples"
        raise InputError(f"{data.path}: no samples of split {split!r} (the dataset has {held})")
    if abs(data.info.spacing_mm / segmenter.spacing_mm - 1) > SAME_SPACING:
        raise InputError(
            f"{data.path} has {data.info.spacing_mm:g} mm voxels, the network was trained at "
            f"{segmenter.spacing_mm:g} mm. Evaluate on a dataset of the same spacing"
        )
    return indices


def predict_samples(
    segmenter: Segmenter, dataset: Dataset, indices: Sequence[int], batch_size: int
) -> Iterator[Prediction]:
    """Stored samples with their predictions, read and predicted `batch_size` at a time."""
    for start in range(0, len(indices), batch_size):
        some = indices[start : start + batch_size]
        samples = [dataset.sample(index) for index in some]
        images: npt.NDArray[Any] = np.stack([sample.image for sample in samples])[:, None]
        predicted = predict_batch(segmenter, torch.from_numpy(images).to(segmenter.device)).cpu().numpy()
        for index, sample, prediction in zip(some, samples, predicted, strict=True):
            yield Prediction(index, sample.label, prediction[0])
