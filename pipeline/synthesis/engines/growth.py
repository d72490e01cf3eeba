"""Engine `growth`: a tumor's development simulated on a grid, so that one lesion can be shown at several times.

A population that diffuses with D and proliferates with rho advances as a front of speed 2 sqrt(D rho) (Fisher 1937,
Ann. Eugen. 7:355; Kolmogorov, Petrovsky and Piskunov 1937; of gliomas Swanson, Alvord and Murray 2000, Cell Prolif.
33:317; by front arrival times as here Konukoglu et al. 2007, IPMI). Each point's arrival time T from a seed solves
|grad T| = 1 / speed. Proliferation varies smoothly; vessels and the organ's border slow invasion down. The lesion of a
given volume is what the front has reached by the time at which it has that volume: earlier ones lie inside later ones.

The simulation runs on the host (`engines._arrival`), on a grid fixed to the tumor's centre; voxels interpolate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from pipeline.case import Case
from pipeline.grid import crop, index3
from pipeline.organs import organ_id
from pipeline.synthesis.engines._arrival import (
    NEVER,
    BoolGrid,
    FloatGrid,
    distances_mm,
    first_arrivals,
    run_on,
    signed_distance_mm,
    time_of_volume,
)
from pipeline.synthesis.engines._form import EngineForm
from pipeline.synthesis.fields import VALUE_LIMIT, FieldGrid, FloatArray, Interpolation
from pipeline.synthesis.shape import FAT_RANGE_HU, SURFACE_HU
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.presets.kinds import Ellipsoidal
    from pipeline.spec.records import TumorSpec

Vector = tuple[float, float, float]
T = TypeVar("T", bound=np.generic)

_CELLS = 24  # grid points across the full-grown lesion: bounds the cost of large ones
_SPREAD = 1.5  # radii of the full-grown lesion that it may reach from its seed; a half ball has 1.26, choice
_FIELD_KEY = 64  # added to a tumor's key, apart from the keys of its other fields
_LEAST_RHO = 0.1  # of the mean: nothing inside the organ stands still
_LEAST_SPEED = 0.02  # of parenchyma's, inside vessels
_BORDER_SPEED = 0.2  # of parenchyma's, at the organ's surface: capsule; choice
_FAT_SPEED = 0.5  # of parenchyma's, in the fat around the organ; choice
_VESSEL_MM = 2.0  # how far a vessel slows the front around it: its wall and sheath; choice


class GrowthForm(EngineForm):
    """Drawn parameters of the form. `full_diameter_mm` is the same at all times of a series: all cut one field."""

    engine: Literal["growth"] = "growth"
    full_diameter_mm: Annotated[float, Field(gt=0)]  # the largest of the series, volume-equivalent
    roughness: Annotated[float, Field(ge=0, le=1)]  # SD of proliferation over its mean
    roughness_grain_mm: Annotated[float, Field(gt=0)]
    vessel_speed: Annotated[float, Field(ge=0, le=1)]  # of the front inside vessels, over that in parenchyma
    border_mm: Annotated[float, Field(ge=0)]  # from the organ's surface, where the front slows down

    @property
    def reach_mm(self) -> float:
        """No part of the lesion is farther from the centre, at any time."""
        return _SPREAD * self.full_diameter_mm / 2


Form = GrowthForm


def diameters_mm(full_diameter_mm: float, doubling_days: float, times_days: Sequence[float]) -> tuple[float, ...]:
    """Volume-equivalent diameters at `times_days`; the last time in it is that of the full diameter.

    Exponential growth, V(t) = V_full 2^(-(t_end - t) / doubling time): Collins, Loeffler and Tivey 1956, AJR 76:988;
    Schwartz 1961, Cancer 14:1272.
    """
    end = max(times_days)
    return tuple(full_diameter_mm * 2.0 ** (-(end - t) / (3 * doubling_days)) for t in times_days)


def draw_form(rng: np.random.Generator, look: Ellipsoidal, diameter_mm: float, off: frozenset[str]) -> GrowthForm:
    """A form as irregular as the ellipsoids of the kind are by their lobes and deformation, without those in `off`.

    `diameter_mm` is the full one: a series makes the tumors of earlier times smaller and keeps the form.
    """
    from pipeline.spec.distributions import draw  # pipeline.spec names the engines in its records

    irregular = {"lobulation": draw(rng, look.lobulation), "deformation": draw(rng, look.deformation)}
    kept = math.hypot(*(sd for part, sd in irregular.items() if part not in off))
    grain = float(rng.uniform(0.15, 0.35))  # over the full diameter; choice, as are the numbers below
    return GrowthForm(
        full_diameter_mm=diameter_mm,
        roughness=min(1.0, kept / _radius_sd(grain)),
        roughness_grain_mm=grain * diameter_mm,
        vessel_speed=float(rng.uniform(0.15, 0.5)),
        border_mm=float(rng.uniform(0.05, 0.15)) * diameter_mm,
    )


def _radius_sd(grain: float) -> float:
    """SD of the radius over the radius per roughness, by the grain over the full diameter (0.15 to 0.35).

    Measured in free tissue at 3/4 of the full diameter, 8 keys each: 0.25, 0.20 and 0.15 at grains 0.15, 0.25 and 0.35
    up to a roughness of 0.5; at a roughness of 1 a quarter less.
    """
    return 0.325 - 0.5 * grain


def extent_mm(tumor: TumorSpec) -> Vector:
    """How far from the centre, along each axis of the case, the tumor can be."""
    extent = _form(tumor).reach_mm + tumor.edge_mm / 2
    return extent, extent, extent


def reach_mm(tumor: TumorSpec) -> float:
    """How far from the centre, in any direction, the tumor can be."""
    return extent_mm(tumor)[0]


def is_coarse(tumor: TumorSpec, spacing_mm: float) -> bool:
    """All are simulated on a grid of their own: large and small ones can be in one call of `depth_mm`."""
    return False


def _form(tumor: TumorSpec) -> GrowthForm:
    if not isinstance(tumor.form, GrowthForm):
        raise TypeError(f"tumor {tumor.instance} is of engine {tumor.form.engine}")
    return tumor.form


def depth_mm(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Depth below each tumor's surface in mm, negative outside, (B, X, Y, Z) float32.

    Interpolated between grid points that are fixed to the tumor's centre, so the same voxel gets the same depth
    whatever the window.
    """
    axes = window.axes_mm([t.center_vox for t in tumors])
    grids = [_Grid.of(t, window.spacing_mm) for t in tumors]
    step = np.array([g.step_mm for g in grids], np.float64)[:, None]
    x, y, z = axes
    between = Interpolation((x / step, y / step, z / step), "keys", window.device)
    units = [g.unit_mm for g in grids]
    boxes = [
        crop(_points(tumor, grid, case), index3(start + grid.half), index3(between.shape), grid.lowest)
        for tumor, grid, case, start in zip(tumors, grids, window.cases, between.starts, strict=True)
    ]
    points = torch.from_numpy(np.stack(boxes)).to(window.device, torch.float32)
    depth = between(points).mul_(window.parameter(units))
    lowest = window.parameter([g.lowest * u for g, u in zip(grids, units, strict=True)])
    return torch.where(_reachable(tumors, window), depth, torch.minimum(depth, lowest))


def _reachable(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Voxels within the extent, in the tumor's organ or, of those that grow out of it, in none; (B, X, Y, Z) bool."""
    x, y, z = (a * a for a in window.axes_mm([t.center_vox for t in tumors]))
    limit = np.array([extent_mm(t)[0] ** 2 for t in tumors])[:, None, None, None]
    near = x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :] <= limit
    ids = torch.tensor([organ_id(t.organ) for t in tumors], dtype=torch.uint8, device=window.device)
    organs = window.volume("organs", 0)
    free = torch.tensor([t.room == "outside" for t in tumors], device=window.device).view(-1, 1, 1, 1)
    return torch.from_numpy(near).to(window.device) & ((organs == ids.view(-1, 1, 1, 1)) | (free & (organs == 0)))


# ---- the grid ----


@dataclass(frozen=True)
class _Grid:
    """A cube of points around a tumor's centre, `half` on either side of it."""

    step_mm: float
    half: int
    low_mm: float  # depths are not followed farther out than this
    unit_mm: float  # of the whole numbers that depth is interpolated as: a power of two, exact to multiply by

    @classmethod
    def of(cls, tumor: TumorSpec, spacing_mm: float) -> _Grid:
        form = _form(tumor)
        step = max(spacing_mm, form.full_diameter_mm / _CELLS)
        half = math.ceil((form.reach_mm + tumor.edge_mm / 2) / step) + 2
        low = tumor.edge_mm / 2 + 3 * step
        unit = 2.0 ** math.ceil(math.log2(max(form.reach_mm, low) / VALUE_LIMIT))
        return cls(step, half, low, unit)

    @property
    def points(self) -> int:
        return 2 * self.half + 1

    @property
    def lowest(self) -> int:
        """The least depth in whole units."""
        return -math.floor(self.low_mm / self.unit_mm)


def _points(tumor: TumorSpec, grid: _Grid, case: Case) -> npt.NDArray[np.int16]:
    """Depth at the grid points, in whole units."""
    distance = distances_mm((grid.points,) * 3, (grid.half,) * 3, grid.step_mm)
    depth = _simulated_mm(tumor, grid, case, distance)
    np.minimum(depth, np.float32(_form(tumor).reach_mm) - distance, out=depth)
    units = np.rint(depth / np.float32(grid.unit_mm)).clip(grid.lowest, VALUE_LIMIT)
    return np.asarray(units, np.int16)


def _simulated_mm(tumor: TumorSpec, grid: _Grid, case: Case, distance: FloatGrid) -> FloatGrid:
    """Depth at the grid points when the lesion has its volume, or fills all that it can reach; `distance` is mm."""
    form = _form(tumor)
    if tumor.diameter_mm > form.full_diameter_mm:
        raise ValueError(f"tumor {tumor.instance}: {tumor.diameter_mm} mm is more than {form.full_diameter_mm} mm")
    speed = _speed(tumor, grid, case)
    speed[distance > form.reach_mm] = 0
    room = speed > 0
    if not room.any():  # render leaves such a tumor out
        return np.full(distance.shape, -grid.low_mm, np.float32)
    seed = index3(np.unravel_index(int(np.where(room, distance, NEVER).argmin()), room.shape))
    times = first_arrivals(seed, speed, grid.step_mm)
    reached = times < NEVER
    volume = math.pi / 6 * (tumor.diameter_mm / grid.step_mm) ** 3
    end = time_of_volume(times[reached], speed[reached] / np.float32(grid.step_mm), volume)
    # Past the borders that held the front, so that they do not soften the lesion's surface: they cut it at the voxels.
    times = run_on(times, reached, grid.step_mm, math.ceil(tumor.edge_mm / 2 / grid.step_mm) + 2)
    return signed_distance_mm(end - times, np.where(reached, speed, np.float32(1)), grid.step_mm, grid.low_mm)


# ---- where the front goes how fast ----


def _speed(tumor: TumorSpec, grid: _Grid, case: Case) -> FloatGrid:
    """Of the front at the grid points, over that in homogeneous parenchyma; 0 where it does not go."""
    form = _form(tumor)
    offsets = (np.arange(grid.points, dtype=np.float64) - grid.half) * grid.step_mm
    nearest = _nearest_voxels(case, tumor.center_vox, offsets)
    organs = _sampled(case.organs, nearest)
    inside = organs == organ_id(tumor.organ)
    vessel_mm = _sampled(case.vessel_distance_mm, nearest)
    slowed = _ramp(vessel_mm, max(form.vessel_speed, _LEAST_SPEED), max(_VESSEL_MM, grid.step_mm))
    if tumor.room == "outside":
        smooth = _sampled(case.ct, nearest) - _sampled(case.noise, nearest).astype(np.int16)
        outside = (organs == 0) & (_within(smooth, FAT_RANGE_HU) | _within(smooth, SURFACE_HU) & _beside(inside))
        slowed = np.where(inside, slowed, outside * np.float32(_FAT_SPEED))
    else:
        surface_mm = _sampled(case.surface_distance_mm, nearest)
        border = _ramp(surface_mm - np.float32(case.spacing_mm / 2), _BORDER_SPEED, form.border_mm)
        slowed = slowed * border * inside
    return np.asarray(slowed * np.sqrt(_proliferation(tumor, offsets)), np.float32)


def _proliferation(tumor: TumorSpec, offsets: FloatArray) -> FloatGrid:
    """Over its mean."""
    form = _form(tumor)
    lattice = FieldGrid((offsets[None],) * 3, [form.roughness_grain_mm], torch.device("cpu"))
    field: FloatGrid = lattice.field([tumor.key + _FIELD_KEY])[0].numpy()
    return np.asarray(np.maximum(1 + np.float32(form.roughness) * field, np.float32(_LEAST_RHO)), np.float32)


def _nearest_voxels(case: Case, center_vox: Vector, offsets_mm: FloatArray) -> list[npt.NDArray[np.int64]]:
    """Along each axis, the voxels nearest to the grid points; -1 outside the case."""
    indices = [np.rint(c + offsets_mm / case.spacing_mm).astype(np.int64) for c in center_vox]
    return [np.where((i >= 0) & (i < n), i, -1) for i, n in zip(indices, case.ct.shape, strict=True)]


def _sampled(volume: npt.NDArray[T], nearest: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[T]:
    """A volume of a case at the grid points; 0 outside the case."""
    held = [i >= 0 for i in nearest]
    values = np.zeros([len(i) for i in nearest], volume.dtype)
    values[np.ix_(*held)] = volume[np.ix_(*(i[h] for i, h in zip(nearest, held, strict=True)))]
    return values


def _ramp(distance_mm: npt.NDArray[T], least: float, width_mm: float) -> FloatGrid:
    """`least` at distance 0, 1 from `width_mm` on."""
    share = np.asarray(distance_mm, np.float32) / np.float32(max(width_mm, 1e-3))
    return np.float32(least) + np.float32(1 - least) * share.clip(0, 1)


def _within(values: npt.NDArray[np.int16], limits: tuple[int, int]) -> BoolGrid:
    return (values >= limits[0]) & (values <= limits[1])


def _beside(mask: BoolGrid) -> BoolGrid:
    """The mask and the points next to it along an axis."""
    out = mask.copy()
    for axis in range(3):
        to, of = np.moveaxis(out, axis, 0), np.moveaxis(mask, axis, 0)
        to[1:] |= of[:-1]
        to[:-1] |= of[1:]
    return out
