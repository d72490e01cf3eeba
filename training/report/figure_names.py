"""How the rows of `training.comparison` are called, and how many digits they are read with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.report.cells import class_title

Record = Mapping[str, Any]

_DIGITS = {"": 3, "mm": 1, "ml": 2, "tumors a sample": 2}
_MEASURES = {
    "dice": "Dice",
    "hd95_mm": "HD95",
    "absolute_volume_error_ml": "volume error (absolute)",
    "false_positive_lesions": "false tumors a sample",
    "false_positive_ml": "volume of false tumors",
    "false_negative_ml": "volume of missed tumors",
}
_SHARES = {
    "tumors found (overlap)": "tumors found (touched)",
    "tumors found (iou_0.1)": "tumors found (IoU 0.1 or more)",
    "tumors found (iou_0.5)": "tumors found (IoU 0.5 or more)",
}


def measure_title(row: Record, settings: Record) -> str:
    """`Liver tumor: Dice`."""
    names = {**_MEASURES, "nsd_2mm": f"surface Dice {settings['nsd_tolerance_mm']:g} mm"}
    return f"{class_title(row['class'])}: {names[row['measure']]}"


def share_title(row: Record) -> str:
    """`Liver tumor: tumors found (touched)`."""
    return f"{class_title(row['class'])}: {_SHARES.get(row['measure'], row['measure'])}"


def digits(row: Record) -> int:
    """Digits after the point that a measure is read with."""
    return _DIGITS[row["unit"]]
