"""Folders of public datasets in which images and label maps lie apart from each other. Looks at names only.

In: a folder. Out: pairs of files.

    imagesTr/X.nii.gz       labelsTr/X.nii.gz     Medical Segmentation Decathlon
    imagesTr/X_0000.nii.gz  labelsTr/X.nii.gz     nnU-Net; X_0001 is another channel, which a CT has not
    volume-7.nii            segmentation-7.nii    LiTS
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError

IMAGES, LABELS = "imagesTr", "labelsTr"
_LITS_IMAGE, _LITS_LABEL = "volume-", "segmentation-"
_FIRST_CHANNEL, _SECOND_CHANNEL = "_0000", "_0001"


class Pair(NamedTuple):
    """An image and its label map."""

    case_id: str
    image: Path
    label: Path


def pairs_of(folder: Path, stems: Mapping[str, Path]) -> list[Pair]:
    """The pairs of a folder of one of these layouts, by name; none where it has another layout.

    `stems`: the folder's own NIfTI files by their names without ending. InputError for a label without its image.
    """
    if (folder / IMAGES).is_dir() and (folder / LABELS).is_dir():
        return list(_training_pairs(folder))
    return list(_lits_pairs(stems))


def _training_pairs(folder: Path) -> Iterator[Pair]:
    images, labels = _by_stem(folder / IMAGES), _by_stem(folder / LABELS)
    if not labels:
        raise InputError(f"{folder / LABELS}: holds no NIfTI file; a label map X.nii.gz is wanted for each image")
    for stem, label in labels.items():
        if stem + _SECOND_CHANNEL in images:
            raise InputError(
                f"{images[stem + _SECOND_CHANNEL]}: case {stem!r} has several channels, a CT has one; take a CT dataset"
            )
        image = images.get(stem) or images.get(stem + _FIRST_CHANNEL)
        if image is None:
            raise InputError(
                f"{label}: no image {stem}.nii.gz or {stem}{_FIRST_CHANNEL}.nii.gz lies in {folder / IMAGES}; add it, "
                "or take the label away"
            )
        yield Pair(stem, image, label)


def _lits_pairs(stems: Mapping[str, Path]) -> Iterator[Pair]:
    for stem, image in stems.items():
        label = stems.get(_LITS_LABEL + stem.removeprefix(_LITS_IMAGE))
        if stem.startswith(_LITS_IMAGE) and label is not None:
            yield Pair(stem, image, label)


def _by_stem(folder: Path) -> dict[str, Path]:
    """NIfTI files by name without ending, sorted; hidden ones are what macOS leaves beside each file."""
    found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    endings = {p: next((e for e in (".nii.gz", ".nii") if p.name.lower().endswith(e)), "") for p in found}
    return {p.name[: -len(ending)]: p for p, ending in endings.items() if ending}
