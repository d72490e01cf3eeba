"""What the page looks through: samples of a dataset, or cases that a network was scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.explore.facts import Facts
from pipeline.organs import CLASS_NAMES, is_tumor
from pipeline.where import Matches


@dataclass(frozen=True)
class Layer:
    """One image of a sample on the sample's grid: HU int16 or class ids uint8, (X, Y, Z)."""

    data: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]

    @property
    def is_label(self) -> bool:
        return self.data.dtype == np.uint8


class Collection(Protocol):
    """Samples that the page can list, filter and show. Any thread may ask."""

    @property
    def facts(self) -> Facts:
        """Read when first asked for."""

    def about(self) -> dict[str, Any]:
        """What the page is titled and made of: title, lines, labels of layers, examples of `where`."""

    def where(self, expression: str) -> Matches:
        """The samples that meet an expression of the user's, and by which of their tumors; InputError for none."""

    def name(self, position: int) -> str:
        """What a sample is called."""

    def position(self, name: str) -> int:
        """Which sample is called so; InputError when there is none."""

    def document(self, position: int) -> dict[str, Any]:
        """All that is known of a sample: `sections` of (name, value), `tumors`, `commands`, `layers`."""

    def layers(self, position: int, names: Sequence[str]) -> Mapping[str, Layer]:
        """Images of a sample by name; InputError for one that there is not."""


def classes_of(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Class ids with their names and colors, as the page's legend and label layers have them."""
    from pipeline.figures import class_style  # its colors are the project's

    shown = []
    for number in numbers:
        name = CLASS_NAMES.get(number, f"class {number}").replace("_", " ")
        color = class_style(number)[0] if number else "#000000"
        shown.append({"id": number, "name": name, "color": color, "tumor": is_tumor(number)})
    return shown
