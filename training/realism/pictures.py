"""Pictures of lesions side by side: real beside synthetic, same size on paper, same window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.case import AIR_HU
from pipeline.figures import Panel, largest_cross_section, panels, png_bytes
from pipeline.grid import Index3, crop

SHOWN_MM = 80.0  # edge of the picture: a 55 mm lesion with its margin
WINDOW_HU = (-60.0, 220.0)  # a liver window: level 80, width 280


class Tile(NamedTuple):
    """Axial slice through a lesion where it is largest: HU and lesion mask, both (X, Y), `SHOWN_MM` wide."""

    hu: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    spacing_mm: float


def tile(image: npt.NDArray[np.int16], lesion: npt.NDArray[np.bool_], origin: Index3, spacing_mm: float) -> Tile:
    """Cut the picture of a lesion from its image (X, Y, Z); `lesion` is the mask of a box at `origin` in it.

    The lesion's slice lies in the middle; beyond the image there is air.
    """
    z = largest_cross_section(2 * lesion.astype(np.uint8), 2)
    edge = round(SHOWN_MM / spacing_mm)
    occupied = np.argwhere(lesion[:, :, z])
    middle = (occupied.min(axis=0) + occupied.max(axis=0) + 1) // 2
    x, y = (int(m) - edge // 2 for m in middle)
    hu = crop(image, (origin[0] + x, origin[1] + y, origin[2] + z), (edge, edge, 1), AIR_HU)
    mask = crop(lesion.view(np.uint8), (x, y, z), (edge, edge, 1), 0)
    return Tile(hu[:, :, 0], mask[:, :, 0] > 0, spacing_mm)


def row_picture(tiles: Sequence[tuple[str, Tile]], outlined: bool) -> bytes:
    """PNG of captioned tiles side by side at one scale and window, the lesions marked or not."""
    columns = [
        Panel(caption, shown.hu, 2 * shown.mask.astype(np.uint8) if outlined else None) for caption, shown in tiles
    ]
    return png_bytes(panels(columns, spacing_mm=tiles[0][1].spacing_mm, window=WINDOW_HU), dpi=110)
