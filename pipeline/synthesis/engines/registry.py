"""The engines by name, and what the renderer asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import torch

from pipeline.synthesis.engines import ellipsoid, growth, wall
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import TumorSpec


class Engine(Protocol):
    """What `pipeline.synthesis` asks of an engine module."""

    def extent_mm(self, tumor: TumorSpec) -> tuple[float, float, float]:
        """How far from the centre, along each axis of the case, the depth can be above `-edge_mm / 2`. Strict."""
        ...

    def depth_mm(self, tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
        """Depth below each tumor's surface in mm, negative outside, (B, X, Y, Z) float32."""
        ...


_MODULES: dict[str, ModuleType] = {"ellipsoid": ellipsoid, "growth": growth, "wall": wall}
ENGINES: dict[str, Engine] = {name: cast(Engine, module) for name, module in _MODULES.items()}


def engine_of(tumor: TumorSpec) -> Engine:
    """The engine that a tumor's form was drawn for."""
    return ENGINES[tumor.form.engine]


def reach_mm(tumor: TumorSpec) -> float:
    """No voxel farther from the centre is touched by the tumor itself (its mass effect may reach farther)."""
    if tumor.form.engine == "ellipsoid":
        return ellipsoid.reach_mm(tumor)
    x, y, z = engine_of(tumor).extent_mm(tumor)
    return float((x * x + y * y + z * z) ** 0.5) if tumor.form.engine == "wall" else max(x, y, z)


def is_coarse(tumor: TumorSpec, spacing_mm: float) -> bool:
    """Whether the engine works on coarse points; coarse and fine tumors are not rendered in one call."""
    return tumor.form.engine == "ellipsoid" and ellipsoid.coarse_step_mm(tumor, spacing_mm) is not None
