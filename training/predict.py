"""Trained networks on CTs in memory and on stored samples; `training.prediction.files` has the files.

In: runs, and HU images or a dataset. Out: uint8 class ids on the input's grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.body import body_box, cropped_to
from pipeline.case import FloatArray, Int16Array, UInt8Array
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import SPLITS
from pipeline.errors import InputError
from pipeline.grid import index3
from pipeline.image import Volume
from pipeline.progress import Progress
from pipeline.resample import SAME_SPACING, resample_ct
from pipeline.store import Location
from pipeline.train_config import Heads
from training.augment import to_window
from training.checkpoint import load_for_inference
from training.network import ClassTable, Shape3, class_probabilities, resolve_device
from training.prediction.regrid import labels_onto
from training.prediction.sliding import Slab, count_windows, probability_slabs

OVERLAP = 0.5  # of neighbouring windows, as in nnU-Net
GPU_WINDOWS = 4  # at once: a single one does not fill a GPU
_FLIPS = tuple(axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n))
Watch = Callable[[Slab], None]  # sees the probabilities of each finished slab, see training.prediction.probabilities


def _unseen(slab: Slab) -> None:
    """Nobody wants the probabilities."""


@dataclass(frozen=True)
class Segmenter:
    """A network and what it needs to know about its input and output; with `others`, several that vote."""

    network: torch.nn.Module
    classes: ClassTable
    window: tuple[float, float]  # HU
    patch_shape: Shape3  # voxels (X, Y, Z) that it was trained on
    spacing_mm: float
    device: torch.device
    others: tuple[Segmenter, ...] = ()  # of the same classes, patch shape and spacing; their probabilities are averaged
    overlap: float = OVERLAP
    mirror: bool = False  # average over the 8 flips as well
    heads: Heads = "softmax"

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap {self.overlap}: windows share 0 to less than 1 of their edge; the usual is 0.5")

    def probabilities(self, hu: Tensor) -> Tensor:
        """Class probabilities (N, C, X, Y, Z) of HU windows (N, 1, X, Y, Z) on the network's device."""
        flips = _FLIPS if self.mirror else _FLIPS[:1]
        members = (self, *self.others)
        total = torch.zeros((), device=hu.device)
        for member, axes in itertools.product(members, flips):
            logits = member.network(to_window(hu, member.window).flip(axes))
            total = total + class_probabilities(logits, member.heads).flip(axes)
        return total / (len(members) * len(flips))


class Prediction(NamedTuple):
    """One stored sample with the network's answer, both uint8 class ids (X, Y, Z)."""

    sample: int  # its index in the manifest
    truth: UInt8Array
    prediction: UInt8Array


def load_segmenter(
    runs: Path | Sequence[Path], device: str = "auto", *, overlap: float = OVERLAP, mirror: bool = False
) -> Segmenter:
    """The networks of one or more runs on a device, each the best of a run's folder or a checkpoint `.pt` by itself.

    Each sees its own HU window. InputError when they differ in classes, spacing or patch shape.
    """
    paths = [runs] if isinstance(runs, Path) else list(runs)
    if not paths:
        raise InputError("no run is given: name one or more that `phantumor train` made")
    target = resolve_device(device)
    first, *others = (_load(path, target) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        _check_alike(paths[0], first, path, other)
    return replace(first, others=tuple(others), overlap=overlap, mirror=mirror)


def _load(path: Path, device: torch.device) -> Segmenter:
    network, classes, meta = load_for_inference(path)
    config = meta.config
    grid = meta.patch_shape, meta.spacing_mm
    return Segmenter(network.to(device), classes, config.window, *grid, device, heads=config.network.heads)


def _check_alike(first: Path, a: Segmenter, second: Path, b: Segmenter) -> None:
    """Probabilities are averaged voxel by voxel and class by class, so grids, windows and classes must be the same."""
    same_spacing = abs(a.spacing_mm / b.spacing_mm - 1) <= SAME_SPACING
    compared = (
        (a.classes.ids == b.classes.ids, "classes", *(", ".join(s.classes.names[1:]) for s in (a, b))),
        (same_spacing, "spacings", f"{a.spacing_mm:g} mm", f"{b.spacing_mm:g} mm"),
        (a.patch_shape == b.patch_shape, "patch shapes", a.patch_shape, b.patch_shape),
        (a.heads == b.heads, "heads", a.heads, b.heads),
    )
    differing = [f"{what} ({one} and {two})" for same, what, one, two in compared if not same]
    if differing:
        raise InputError(
            f"{first} and {second} cannot be averaged, their {', '.join(differing)} differ. "
            "Predict with each of them into a folder of its own"
        )


def predict_batch(
    segmenter: Segmenter,
    image: Tensor,
    advance: Callable[[int], None] = lambda windows: None,
    watch: Watch = _unseen,
) -> Tensor:
    """Class ids (B, 1, X, Y, Z) uint8 of HU images (B, 1, X, Y, Z) of any size, on the image's device.

    Overlapping windows of the training's patch shape, their probabilities averaged with Gaussian weights (Isensee et
    al. 2021, nnU-Net). Images smaller than a window are padded with air. Memory: the image, its class ids, and
    probabilities as deep as a window along the longest axis. `advance` hears of finished windows, `watch` sees slabs.
    """
    labels = torch.empty(image.shape, dtype=torch.uint8, device=image.device)
    at_once = 1 if segmenter.device.type == "cpu" else max(1, GPU_WINDOWS // image.shape[0])
    with torch.inference_mode():
        for slab in probability_slabs(
            image,
            segmenter.patch_shape,
            segmenter.probabilities,
            overlap=segmenter.overlap,
            at_once=at_once,
            device=segmenter.device,
            advance=advance,
        ):
            ids = segmenter.classes.to_ids(slab.probabilities.argmax(1, keepdim=True))
            labels.narrow(slab.axis + 2, slab.start, slab.stop - slab.start).copy_(ids)
            watch(slab)
    return labels


def predict_volume(segmenter: Segmenter, ct: Int16Array, name: str | None = None, watch: Watch = _unseen) -> UInt8Array:
    """Class ids (X, Y, Z) of a CT in HU, RAS+ order, at the network's spacing. With a `name`, progress is shown."""
    image = torch.from_numpy(np.ascontiguousarray(ct))[None, None]
    if name is None:
        labels = predict_batch(segmenter, image, watch=watch)
    else:
        total = count_windows(index3(ct.shape), segmenter.patch_shape, segmenter.overlap)
        progress = Progress(total, f"windows of {name}")
        try:
            labels = predict_batch(segmenter, image, progress.advance, watch)
        finally:
            progress.end()
    ids: UInt8Array = labels[0, 0].numpy()
    return ids


def predict_grid(
    segmenter: Segmenter,
    ct: Volume,
    shape: Shape3,
    affine: FloatArray,
    name: str | None = None,
    watch: Watch = _unseen,
) -> UInt8Array:
    """Class ids of a CT at its own spacing, on a grid of `shape` and `affine` whose axes are parallel to the CT's.

    The network is shown what a bank keeps of a CT, the body's box: it never saw the air and the table around it, so
    those are background. `watch` sees slabs on the network's grid, see `shown`.
    """
    return predict_shown(segmenter, shown(ct), shape, affine, name, watch)


def shown(ct: Volume) -> Volume:
    """The part of a CT that networks are shown."""
    return cropped_to(ct, body_box(ct))


def predict_shown(
    segmenter: Segmenter,
    ct: Volume,
    shape: Shape3,
    affine: FloatArray,
    name: str | None = None,
    watch: Watch = _unseen,
) -> UInt8Array:
    """`predict_grid` of a CT that is cropped already."""
    at_spacing, grid = resample_ct(ct.data, ct.affine, segmenter.spacing_mm)
    labels = predict_volume(segmenter, at_spacing, name, watch)
    del at_spacing
    return labels_onto(labels, grid, shape, affine)


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
    segmenter: Segmenter, dataset: Dataset, indices: Sequence[int], batch_size: int, watch: Watch = _unseen
) -> Iterator[Prediction]:
    """Stored samples with their predictions, read and predicted `batch_size` at a time; `watch` sees each batch."""
    for start in range(0, len(indices), batch_size):
        some = indices[start : start + batch_size]
        samples = [dataset.sample(index) for index in some]
        images: npt.NDArray[Any] = np.stack([sample.image for sample in samples])[:, None]
        on_device = torch.from_numpy(images).to(segmenter.device)
        predicted = predict_batch(segmenter, on_device, watch=watch).cpu().numpy()
        for index, sample, prediction in zip(some, samples, predicted, strict=True):
            yield Prediction(index, sample.label, prediction[0])
