"""The raw dataset folder of nnU-Net v2: names of its files, class ids without gaps, what stands in its documents. Pure.

imagesTr/<sample_id>_0000.nii.gz, labelsTr/<sample_id>.nii.gz    of train and val; imagesTs, labelsTs of test
dataset.json                                                     channel, labels, how many samples
label_mapping.json                                               our class ids and theirs
splits_final.json                                                our split by case as fold 0
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

FOLDER = re.compile(r"Dataset\d{3}_\w+")  # as nnU-Net looks for it
FOLDERS = ("imagesTr", "labelsTr")
DATASET, MAPPING, SPLITS_FINAL = "dataset.json", "label_mapping.json", "splits_final.json"
IGNORE = "ignore"


def files(sample_id: str, split: str) -> tuple[str, str]:
    """Image and label file of a sample, relative to the folder."""
    ending = "Ts" if split == "test" else "Tr"
    return f"images{ending}/{sample_id}_0000.nii.gz", f"labels{ending}/{sample_id}.nii.gz"


def class_ids(classes: Mapping[str, int]) -> dict[int, int]:
    """Our class id -> nnU-Net's: 0, 1, 2, ... in the same order."""
    return {number: k for k, number in enumerate(sorted(classes.values()))}


def ignore_id(classes: Mapping[str, int]) -> int:
    """The id of voxels without an annotation, which nnU-Net wants above all others."""
    return len(classes)


def documents(classes: Mapping[str, int], samples: Sequence[tuple[str, str]], ignore: bool = False) -> dict[str, Any]:
    """The documents by file name, of samples given as (sample_id, split); `ignore`: labels have unannotated voxels.

    `splits_final.json` is among them where there are train and val samples.
    """
    ids = class_ids(classes)
    names = dict(sorted(classes.items(), key=lambda item: item[1]))
    labels = {name: ids[number] for name, number in names.items()}
    fold = {split: [sample for sample, of in samples if of == split] for split in ("train", "val")}
    made: dict[str, Any] = {
        MAPPING: {name: {"phantumor": number, "nnunet": ids[number]} for name, number in names.items()},
        DATASET: {
            "channel_names": {"0": "CT"},
            "labels": labels | ({IGNORE: ignore_id(classes)} if ignore else {}),
            "numTraining": len(fold["train"]) + len(fold["val"]),
            "file_ending": ".nii.gz",
        },
    }
    if all(fold.values()):
        made[SPLITS_FINAL] = [fold]
    return made


def split_note(splits: Collection[str]) -> str:
    """What nnU-Net makes of samples of these splits."""
    if "train" in splits and "val" in splits:
        return f"note: {SPLITS_FINAL} makes our train and val, apart by case, fold 0 of nnU-Net; it has no other"
    return "note: without both train and val samples nnU-Net splits them itself, and mixes those of one case"
