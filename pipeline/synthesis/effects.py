"""Parts of a tumor: rim, core, septa, calcification. Each adds HU where it is; all from depth and smooth fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pipeline.synthesis.fields import FieldGrid
from pipeline.synthesis.shape import step
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.spec.records import CalcificationSpec, CoreSpec, SeptaSpec, TumorSpec

_NODULE_KEY, _SEPTA_KEY, _CALCIFICATION_KEY = 24, 32, 40
_NODULES = 0.35  # grain of nodules over the tumor's radius
_NODULE_MM = 3.0  # and no finer than this
_NODULE_STEEPNESS = 0.9  # of their border, per SD of the field: about six tenths of the surface have one
_SEPTA_WIDTH = 0.22  # SD of the field within which a septum lies
_RAGGED = 0.12  # how far, in radii per SD of the structure, a core's border wanders
_SPECK_EDGE = 0.6  # SD of the field over which a speck fades


def profile(tumors: Sequence[TumorSpec], depth: torch.Tensor, structure: torch.Tensor, window: Window) -> torch.Tensor:
    """What structure and parts add to plain tissue, HU, (B, X, Y, Z) float32. `structure` is of SD 1."""
    total = structure * window.parameter([t.texture_sd_hu for t in tumors])
    axes = window.axes_mm([t.center_vox for t in tumors])

    def field(key: int, grains: Sequence[float]) -> torch.Tensor:
        return FieldGrid(axes, grains, window.device).field([t.key + key for t in tumors])

    if any(t.rim for t in tumors):
        rims = [t.rim for t in tumors]
        below = depth / window.parameter([r.mm if r else 1.0 for r in rims])
        shell = _even_rim(below)
        if any(r and r.nodular for r in rims):
            nodules = field(_NODULE_KEY, [max(_NODULES * t.diameter_mm / 2, _NODULE_MM) for t in tumors])
            share = window.parameter([r.nodular if r else 0.0 for r in rims])
            shell.mul_(1 - share).add_(_nodules(below, nodules).mul_(share))
        total.add_(shell.mul_(window.parameter([r.hu if r else 0.0 for r in rims])))
    if any(t.core for t in tumors):
        ragged = structure * window.parameter([_RAGGED * t.diameter_mm / 2 for t in tumors])
        total.add_(_core([t.core for t in tumors], ragged.add_(depth), window))
    if any(t.septa for t in tumors):
        walls = field(_SEPTA_KEY, [t.septa.spacing_mm if t.septa else 5.0 for t in tumors])
        total.add_(_septa([t.septa for t in tumors], walls, window))
    if any(t.calcification for t in tumors):
        specks = field(_CALCIFICATION_KEY, [t.calcification.grain_mm if t.calcification else 5.0 for t in tumors])
        total.add_(_calcification([t.calcification for t in tumors], specks, window))
    return total


def _even_rim(below: torch.Tensor) -> torch.Tensor:
    """A parabolic bump of height 1; `below` is the depth in units of the rim's thickness."""
    t = below.clamp(0, 1)
    return t.mul(1 - t).mul_(4)


def _nodules(below: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """Blobs of height 1 that sit on the surface and reach into the tumor, the higher the field the deeper."""
    return step(field.mul_(_NODULE_STEEPNESS).add_(0.5).sub_(below).clamp_(0, 1)).mul_(below > 0)


def _core(cores: Sequence[CoreSpec | None], depth: torch.Tensor, window: Window) -> torch.Tensor:
    begins = window.parameter([c.depth_mm if c else 0.0 for c in cores])
    edge = window.parameter([c.edge_mm if c else 1.0 for c in cores])
    inner = step(depth.sub(begins).div_(edge).add_(0.5).clamp_(0, 1))
    return inner.mul_(window.parameter([c.hu if c else 0.0 for c in cores]))


def _septa(septa: Sequence[SeptaSpec | None], walls: torch.Tensor, window: Window) -> torch.Tensor:
    near = walls.abs_().mul_(-1 / _SEPTA_WIDTH).add_(1).clamp_(0, 1)
    return near.mul_(window.parameter([s.hu if s else 0.0 for s in septa]))


def _calcification(specks: Sequence[CalcificationSpec | None], field: torch.Tensor, window: Window) -> torch.Tensor:
    above = field.sub_(window.parameter([c.threshold if c else 0.0 for c in specks])).mul_(1 / _SPECK_EDGE)
    return step(above.clamp_(0, 1)).mul_(window.parameter([c.hu if c else 0.0 for c in specks]))
