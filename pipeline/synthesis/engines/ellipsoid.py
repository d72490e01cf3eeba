"""Engine `ellipsoid`: an ellipsoid with lobes under an elastic deformation. Pure geometry, microseconds to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from pipeline.settings import Settings
from pipeline.synthesis.engines._form import EngineForm
from pipeline.synthesis.fields import VALUE_LIMIT, Axes, FieldGrid, Interpolation, root
from pipeline.synthesis.window import Window

if TYPE_CHECKING:
    from pipeline.presets.kinds import Ellipsoidal
    from pipeline.spec.records import TumorSpec

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

_COARSE = 5  # coarse points a radius: the depth is smooth between them
_COARSE_PAYS = 1.5  # voxels between coarse points from which the detour through them is cheaper
_TINY = 1e-6  # of the radius
_MOST_DISPLACED = 2.0  # SD along each axis; what is beyond, one value in twenty, is cut, so that the reach is known


class Lobe(Settings):
    """A zonal harmonic: the radius grows by `amplitude * P_degree(cos)` of the angle to `axis`."""

    axis: Vector  # unit vector in the frame of the ellipsoid
    degree: Literal[2, 3, 4]
    amplitude: float  # share of the radius


class EllipsoidForm(EngineForm):
    """Drawn parameters of the form. Lengths in mm along the case's voxel axes."""

    engine: Literal["ellipsoid"] = "ellipsoid"
    half_axes_mm: Vector
    rotation: Matrix  # rows: the ellipsoid's axes in case axes
    lobes: tuple[Lobe, ...] = ()
    deformation_mm: Annotated[float, Field(ge=0)] = 0.0  # SD of each displacement component
    deformation_grid_mm: Annotated[float, Field(gt=0)] = 1.0

    @property
    def swell(self) -> float:
        """No lobe makes the radius larger than this times the ellipsoid's."""
        return 1 + sum(abs(lobe.amplitude) for lobe in self.lobes)


Form = EllipsoidForm

_LOBES: tuple[Literal[2, 3, 4], ...] = (2, 3, 3, 4)
_LONGEST = 2.5  # times that a thin organ stretches the longest axis
_GRID = 0.8  # of the deformation, in radii: coarser than the displacement, so that the map does not fold


def draw_form(rng: np.random.Generator, look: Ellipsoidal, diameter_mm: float, off: frozenset[str]) -> EllipsoidForm:
    """Draw a form with the volume of a ball of `diameter_mm`; `off` names the parts of the shape that are left out."""
    from pipeline.spec.distributions import direction, draw, rotation, whole

    radius = diameter_mm / 2
    ratios = [draw(rng, look.axis_ratio) for _ in range(3)]
    turned = rotation(rng)
    sd = draw(rng, look.lobulation)
    normals = np.clip(rng.normal(size=len(_LOBES)), -2, 2)
    axes = [direction(rng) for _ in _LOBES]
    deformation = draw(rng, look.deformation) * radius
    if "axis_ratio" in off:
        ratios = [1.0, 1.0, 1.0]
    lobes = () if "lobulation" in off or sd == 0 else _lobes(sd, normals.tolist(), axes)
    volume = math.prod(ratios) * (1 + 3 * _variance(lobes))  # of (1 + lobes)^3, to second order
    scale = radius / volume ** (1 / 3)
    return EllipsoidForm(
        half_axes_mm=(whole(ratios[0] * scale), whole(ratios[1] * scale), whole(ratios[2] * scale)),
        rotation=turned,
        lobes=lobes,
        deformation_mm=0.0 if "deformation" in off else deformation,
        deformation_grid_mm=_GRID * radius,
    )


class Along(NamedTuple):
    """The direction of a thin organ around a point (first row of `frame`, a rotation), and half its thickness."""

    frame: Matrix
    thickness_mm: float


def laid_along(form: EllipsoidForm, along: Along) -> EllipsoidForm:
    """The form with its longest axis along a thin organ, the longer the thinner the organ (at most 2.5 times).

    Volume and lobes stay; so does a form that the organ is thick enough for.
    """
    longest, *others = sorted(form.half_axes_mm, reverse=True)
    excess = math.prod(form.half_axes_mm) ** (1 / 3) / along.thickness_mm
    if excess <= 1:
        return form
    stretch = min(excess**1.5, _LONGEST)
    scale = stretch ** (-1 / 3)
    x, y, z = (round(axis * scale, 6) for axis in (longest * stretch, *others))  # the same on every machine
    return form.model_copy(update={"half_axes_mm": (x, y, z), "rotation": along.frame})


def _lobes(sd: float, normals: Sequence[float], axes: Sequence[Vector]) -> tuple[Lobe, ...]:
    """Lobes whose sum has about the SD `sd` over the sphere; a zonal harmonic of degree l has mean square 1/(2l+1)."""
    share = sd / math.sqrt(len(_LOBES))
    return tuple(
        Lobe(axis=axis, degree=degree, amplitude=share * normal * math.sqrt(2 * degree + 1))
        for degree, normal, axis in zip(_LOBES, normals, axes, strict=True)
    )


def _variance(lobes: Sequence[Lobe]) -> float:
    """Mean square of the sum of lobes over the sphere; of one degree they correlate as P_degree of their angle."""
    total = 0.0
    for a in lobes:
        for b in lobes:
            if a.degree == b.degree:
                cosine = sum(p * q for p, q in zip(a.axis, b.axis, strict=True))
                total += a.amplitude * b.amplitude * _LEGENDRE[a.degree](cosine) / (2 * a.degree + 1)
    return total


_LEGENDRE: dict[int, Callable[[float], float]] = {
    2: lambda x: 1.5 * x * x - 0.5,
    3: lambda x: (2.5 * x * x - 1.5) * x,
    4: lambda x: ((35 * x * x - 30) * x * x + 3) / 8,
}


def extent_mm(tumor: TumorSpec) -> Vector:
    """How far from the centre, along each axis of the case, the tumor can be."""
    form = _form(tumor)
    turned = np.array(form.rotation) * np.array(form.half_axes_mm)[:, None]
    extent = np.sqrt((turned**2).sum(axis=0)) * form.swell
    x, y, z = (extent + _MOST_DISPLACED * form.deformation_mm + _edge_reach_mm(tumor, form)).tolist()
    return x, y, z


def reach_mm(tumor: TumorSpec) -> float:
    """How far from the centre, in any direction, the tumor can be."""
    form = _form(tumor)
    displaced = math.sqrt(3) * _MOST_DISPLACED * form.deformation_mm
    return max(form.half_axes_mm) * form.swell + displaced + _edge_reach_mm(tumor, form)


def _edge_reach_mm(tumor: TumorSpec, form: EllipsoidForm) -> float:
    """How far the outer half of the soft edge can lie beyond the surface, along any axis.

    Beside the tips of a long ellipsoid the depth, which is of first order, is less than the distance. With e the
    direction of q, the edge ends at |q| = r + edge / 2 |A^-1 e|, and |A^-1 e| |A e| is at most (k + 1 / k) / 2, k being
    the ratio of the longest to the shortest half axis (Kantorovich's inequality).
    """
    ratio = max(form.half_axes_mm) / min(form.half_axes_mm)
    return tumor.edge_mm / 2 * (ratio + 1 / ratio) / 2


def _form(tumor: TumorSpec) -> EllipsoidForm:
    if not isinstance(tumor.form, EllipsoidForm):
        raise TypeError(f"tumor {tumor.instance} is of engine {tumor.form.engine}")
    return tumor.form


def depth_mm(tumors: Sequence[TumorSpec], window: Window) -> torch.Tensor:
    """Depth below each tumor's surface in mm, negative outside, (B, X, Y, Z) float32.

    Of large tumors the depth is computed at coarse points, a fifth of the radius apart, and interpolated. The points
    are fixed to the tumor's centre, so the same voxel gets the same depth whatever the window. Large and small tumors
    must not be in one call (`coarse_step_mm` decides).
    """
    axes = window.axes_mm([t.center_vox for t in tumors])
    steps = [coarse_step_mm(t, window.spacing_mm) for t in tumors]
    if steps[0] is None:
        return _exact_depth(tumors, axes, window)
    step = np.array(steps, np.float64)[:, None]
    x, y, z = axes
    between = Interpolation((x / step, y / step, z / step), "keys", window.device)
    points = tuple((between.starts[:, a, None] + np.arange(n)) * step for a, n in enumerate(between.shape))
    depth = _exact_depth(tumors, (points[0], points[1], points[2]), window)
    # A power of two, so that the division and multiplication by it are exact.
    unit = window.parameter([2.0 ** math.ceil(math.log2(2 * _size_mm(t) / VALUE_LIMIT)) for t in tumors])
    return between(depth.div_(unit).clamp_(-VALUE_LIMIT, VALUE_LIMIT).round_()).mul_(unit)


def is_coarse(tumor: TumorSpec, spacing_mm: float) -> bool:
    """Whether the depth is computed on coarse points; coarse and fine tumors are not in one call of `depth_mm`."""
    return coarse_step_mm(tumor, spacing_mm) is not None


def coarse_step_mm(tumor: TumorSpec, spacing_mm: float) -> float | None:
    """Distance of the coarse points; None where the voxels themselves are few enough."""
    step = _size_mm(tumor) / _COARSE
    return step if step >= _COARSE_PAYS * spacing_mm else None


def _size_mm(tumor: TumorSpec) -> float:
    return tumor.diameter_mm / 2


def _exact_depth(tumors: Sequence[TumorSpec], axes: Axes, window: Window) -> torch.Tensor:
    """To first order in the distance from the surface.

    With q the point in units of the half axes, s = |q| and r the radius in q's direction (1 without lobes), the
    distance is (r - s) / |grad s| = (r - s) s / |A^T q|.
    """
    forms = [_form(t) for t in tumors]
    along = _coordinates(tumors, forms, axes, window)
    q = []
    g2 = torch.zeros_like(along[0])
    for j in range(3):
        rows = [window.parameter([f.rotation[j][i] for f in forms]) for i in range(3)]
        half_axis = window.parameter([f.half_axes_mm[j] for f in forms])
        qj = (along[0] * rows[0]).add_(along[1] * rows[1]).add_(along[2] * rows[2]).div_(half_axis)
        q.append(qj)
        g = qj / half_axis
        g2.add_(g.mul_(g))
    s = root((q[0] * q[0]).add_(q[1] * q[1]).add_(q[2] * q[2]))
    below = _radius(forms, q, s, window).sub_(s)
    least = window.parameter([_TINY / min(f.half_axes_mm) for f in forms])  # so that 0 / 0 is the shortest half axis
    return below.mul_(s.add_(_TINY)).div_(root(g2).add_(least))


def _coordinates(
    tumors: Sequence[TumorSpec], forms: Sequence[EllipsoidForm], axes: Axes, window: Window
) -> list[torch.Tensor]:
    """Where each point's tissue comes from: its coordinates plus the elastic displacement."""
    shape = [len(tumors), *(a.shape[1] for a in axes)]
    straight = []
    for axis, values in enumerate(axes):
        spread = [len(tumors), 1, 1, 1]
        spread[axis + 1] = values.shape[1]
        straight.append(torch.from_numpy(values.astype(np.float32)).to(window.device).view(spread))
    if not any(f.deformation_mm for f in forms):
        return [s.expand(shape) for s in straight]
    grid = FieldGrid(axes, [f.deformation_grid_mm for f in forms], window.device)
    amplitude = window.parameter([f.deformation_mm for f in forms])
    moved = grid.fields([(t.key, t.key + 1, t.key + 2) for t in tumors])
    moved.clamp_(-_MOST_DISPLACED, _MOST_DISPLACED)
    return [moved[:, axis].mul_(amplitude).add_(straight[axis]) for axis in range(3)]


def _radius(forms: Sequence[EllipsoidForm], q: list[torch.Tensor], s: torch.Tensor, window: Window) -> torch.Tensor:
    """1 plus the lobes in the direction of q."""
    radius = torch.ones_like(s)
    count = max(len(f.lobes) for f in forms)
    if not count:
        return radius
    nothing = Lobe(axis=(1.0, 0.0, 0.0), degree=2, amplitude=0.0)
    direction = [qj / (s + _TINY) for qj in q]
    for k in range(count):
        lobes = [f.lobes[k] if k < len(f.lobes) else nothing for f in forms]
        n = [window.parameter([lobe.axis[i] for lobe in lobes]) for i in range(3)]
        x = (direction[0] * n[0]).add_(direction[1] * n[1]).add_(direction[2] * n[2])
        for degree in sorted({lobe.degree for lobe in lobes}):
            amplitude = window.parameter([lobe.amplitude * (lobe.degree == degree) for lobe in lobes])
            radius.add_(_legendre(degree, x).mul_(amplitude))
    return radius


def _legendre(degree: int, x: torch.Tensor) -> torch.Tensor:
    x2 = x * x
    if degree == 2:
        return x2.mul_(1.5).sub_(0.5)
    if degree == 3:
        return x2.mul_(2.5).sub_(1.5).mul_(x)
    return (x2 * 35).sub_(30).mul_(x2).add_(3).mul_(0.125)
