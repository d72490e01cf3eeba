"""Equal boxes of voxels around several tumors, each in its own case: what one kernel sequence works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.case import AIR_HU, Case
from pipeline.grid import Index3, crop, index3
from pipeline.synthesis.fields import Axes


@dataclass(frozen=True)
class Window:
    """B boxes of one `size`. `corners` (B, 3) are the case voxels of their first voxels; they may lie outside."""

    cases: tuple[Case, ...]
    corners: npt.NDArray[np.int64]
    size: Index3
    device: torch.device

    @property
    def spacing_mm(self) -> float:
        """Of all cases: they are of one bank."""
        return self.cases[0].spacing_mm

    def axes_mm(self, centers_vox: Sequence[Sequence[float]]) -> Axes:
        """Coordinates of the voxels relative to a point of each box's case, mm, (B, n) along each axis."""
        centers = np.array(centers_vox, np.float64)
        # Whole voxels first: so a voxel's coordinate has the same bits in every window.
        voxels = (self.corners[:, a, None] + np.arange(n) for a, n in enumerate(self.size))
        x, y, z = ((v - centers[:, a, None]) * self.spacing_mm for a, v in enumerate(voxels))
        return x, y, z

    def volume(self, name: str, fill: int, margin: int = 0) -> torch.Tensor:
        """A volume of the cases (an attribute of `Case`) in the boxes, `margin` voxels wider, in its own type."""
        size = index3(n + 2 * margin for n in self.size)
        boxes = [
            volume_box(case, name, index3(corner - margin), size, fill, self.device)
            for case, corner in zip(self.cases, self.corners, strict=True)
        ]
        return boxes[0][None] if len(boxes) == 1 else torch.stack(boxes)

    def smooth(self, margin: int = 0) -> torch.Tensor:
        """CT without its fine noise in the boxes, `margin` voxels wider, int16 HU."""
        return self.volume("ct", AIR_HU, margin) - self.volume("noise", 0, margin)

    def offsets_mm(self, centers_vox: Sequence[Sequence[float]]) -> list[torch.Tensor]:
        """`axes_mm` as float32 on the device, (B, n) for each axis."""
        return [torch.from_numpy(axis.astype(np.float32)).to(self.device) for axis in self.axes_mm(centers_vox)]

    def parameter(self, values: Sequence[float]) -> torch.Tensor:
        """One number a box as (B, 1, 1, 1) float32."""
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1, 1)


def volume_box(case: Case, name: str, corner: Index3, size: Index3, fill: int, device: torch.device) -> torch.Tensor:
    """A box of one of a case's volumes, padded with `fill` outside."""
    if device.type == "cpu":
        return torch.from_numpy(crop(getattr(case, name), corner, size, fill))
    return _device_crop(_resident(case, name, device), corner, size, fill)


def _device_crop(volume: torch.Tensor, corner: Index3, size: Index3, fill: int) -> torch.Tensor:
    low = [max(c, 0) for c in corner]
    high = [min(c + n, limit) for c, n, limit in zip(corner, size, volume.shape, strict=True)]
    inside = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    if all(a == c and b == c + n for a, b, c, n in zip(low, high, corner, size, strict=True)):
        return volume[inside]
    box = torch.full(size, fill, dtype=volume.dtype, device=volume.device)
    box[tuple(slice(s.start - c, s.stop - c) for s, c in zip(inside, corner, strict=True))] = volume[inside]
    return box


# Volumes that lie in a GPU's memory, the last used ones last. The case is held beside its tensor, so that its id stays
# its own.
_residents: dict[tuple[int, str, str], tuple[Case, torch.Tensor]] = {}
_RESIDENT_BYTES = 8 << 30


def _resident(case: Case, name: str, device: torch.device) -> torch.Tensor:
    key = (id(case), name, str(device))
    found = _residents.pop(key, None) or (case, torch.from_numpy(np.array(getattr(case, name))).to(device))
    _residents[key] = found
    while sum(t.nbytes for _, t in _residents.values()) > _RESIDENT_BYTES and len(_residents) > 1:
        _residents.pop(next(iter(_residents)))
    return found[1]
