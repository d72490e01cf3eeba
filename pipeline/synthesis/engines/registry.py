"""The engines by name, and what the renderer and the drawing ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch

from pipeline.engine_names import engine_names, solid_engines
from pipeline.synthesis.engines._form import EngineForm
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.presets.kinds import Ellipsoidal
    from pipeline.spec.records import TumorSpec


class Engine(Protocol):
    """What `pipeline.synthesis` asks of an engine module."""

    Form: type[EngineForm]  # the record of its drawn parameters; its field `engine` is the literal name of the module

    def extent_mm(self, tumor: TumorSpec) -> tuple[float, float, float]:
        """How far from the centre, along each axis of the case, the depth can be above `-edge_mm / 2`. Strict."""
        ...

    def reach_mm(self, tumor: TumorSpec) -> float:
        """How far from the centre, in any direction, the depth can be above `-edge_mm / 2`. Strict."""
        ...

    def is_coarse(self, tumor: TumorSpec, spacing_mm: float) -> bool:
        """Whether the depth is computed on coarse points; coarse and fine tumors are not in one call of `depth_mm`."""
        ...

    def depth_mm(self, tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
        """Depth below each tumor's surface in mm, negative outside, (B, X, Y, Z) float32."""
        ...


class SolidEngine(Engine, Protocol):
    """What `pipeline.spec` asks of an engine that a user can choose. (That of walls draws around a voxel of a wall.)"""

    def draw_form(
        self, rng: np.random.Generator, look: Ellipsoidal, diameter_mm: float, off: frozenset[str]
    ) -> EngineForm:
        """A form with the volume of a ball of `diameter_mm`; `off` names the parts of the shape that are left out."""
        ...


_OF_ALL = ("Form", "draw_form", "extent_mm", "reach_mm", "is_coarse", "depth_mm")


def _load(name: str) -> ModuleType:
    """An engine module; a TypeError says what it lacks."""
    module = import_module(f"{__package__}.{name}")
    missing = [part for part in _OF_ALL if not hasattr(module, part)]
    if missing:
        raise TypeError(f"engine {name!r} ({module.__file__}) has no {', '.join(missing)}; see docs/adding-an-organ.md")
    called = module.Form.model_fields["engine"].default
    if called != name:
        raise TypeError(f"engine {name!r} ({module.__file__}): its Form calls itself {called!r}; name it as the file")
    return module


_MODULES = {name: _load(name) for name in engine_names()}
ENGINES: dict[str, Engine] = {name: cast(Engine, module) for name, module in _MODULES.items()}
SOLID_ENGINES: dict[str, SolidEngine] = {name: cast(SolidEngine, _MODULES[name]) for name in solid_engines()}


def engine_of(tumor: TumorSpec) -> Engine:
    """The engine that a tumor's form was drawn for."""
    return ENGINES[tumor.form.engine]


def reach_mm(tumor: TumorSpec) -> float:
    """No voxel farther from the centre is touched by the tumor itself (its mass effect may reach farther)."""
    return engine_of(tumor).reach_mm(tumor)


def is_coarse(tumor: TumorSpec, spacing_mm: float) -> bool:
    """Whether the engine works on coarse points; coarse and fine tumors are not rendered in one call."""
    return engine_of(tumor).is_coarse(tumor, spacing_mm)
