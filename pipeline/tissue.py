"""What a healthy case looks like up close: the scanner's noise, and how bright each organ's parenchyma is where.

In: CT (HU), class ids and the maps of `pipeline.anatomy`, all (X, Y, Z) on one isotropic grid. Out: arrays that a tumor
is made of, in place of what it covers. Pure, no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.anatomy import in_wall, organ_box, tissue_mask
from pipeline.case import (
    Float16Array,
    Int8Array,
    Int16Array,
    OrganStats,
    UInt8Array,
    parenchyma_cell,
    parenchyma_shape,
)
from pipeline.grid import Index3, Slices3, index3, slices3
from pipeline.organs import HOLLOW, TUMOR_ORGANS, organ_id

NOISE_SCALE_MM = 4.0  # SD of the window for the local mean: 2.5 loses the coarser part of CT noise, shading is wider
NOISE_SDS = 2.5  # what deviates more is a structure; of Gaussian noise 1.2 % does
PLAIN_SDS = 1.4  # tissue whose noise has more times the SD of the plainest holds structure
PLAIN_VOXELS = 7  # edge of the smallest cube of noise that is repeated elsewhere
AIR_HU_BELOW = -900  # air around the body: nothing grows there
# Limits in smoothed HU, in the valleys between lung, what is part gas, fat, what is part fat, soft tissue, enhanced
# tissue, and bone or contrast agent: voxels of a blurred edge are compared with each other, not with either side.
HU_BINS = (-300, -150, -60, 0, 110, 250)
HU_SMOOTHING_MM = 1.5  # noise of SD 40 must not pass for another tissue
EDGE_MM = 3.0  # CT slices of 2 to 3 mm mix an organ with its neighbours this deep
VESSEL_EDGE_MM = 3.0  # the same around vessels, whose masks hold only what is brighter than noise

SHADING_MM = 8.0  # SD of the window that parenchyma is averaged over: wider than unsegmented vessels of the periphery
SHADING_HU = 20.0  # livers shade and streak by less than this around their mean; more is another structure
SHADING_PRIOR = 0.01  # share of tissue below which the organ's mean takes over: 2.5 SHADING_MM outside the surface

# A tissue code is a class id in the low 5 bits, 1 + the HU bin (0: not split) in the next 3, and a layer above them.
_ID_BITS, _BIN, _LAYER = 31, 32, 256
_BACKGROUND, _VESSEL = 30, 31  # no class ids; code 0 is air
_SURFACE, _NEAR_SURFACE, _AT_VESSEL, _AROUND_VESSEL = (k * _LAYER for k in (1, 2, 3, 4))

_SHIFTED = (slice(None, -1), slice(1, None))

_Float32Array = npt.NDArray[np.float32]
_UInt16Array = npt.NDArray[np.uint16]


def donor_noise(
    ct: Int16Array, organs: UInt8Array, vessels: UInt8Array, surface_mm: Float16Array, spacing_mm: float
) -> Int8Array:
    """HU that each voxel differs by from the mean of the same tissue around it; 0 in the air around the body.

    The mean is a Gaussian one of SD NOISE_SCALE_MM that looks at voxels of the same tissue only, so that no border of
    an organ or vessel passes for noise. Clipped to int8 and to NOISE_SDS of the noise in the same tissue, at the edges
    of a solid organ of the noise in its middle. Where what is left holds structure all the same (partial volume at
    borders, content of hollow organs, pyramids of an enhanced kidney), noise of a plain place is put instead: a tumor
    that keeps the noise of what it covers must not show what it covers.
    """
    codes = tissue_codes(ct, organs, vessels, surface_mm, spacing_mm)
    noise = np.zeros(ct.shape, np.int8)
    limits: dict[int, float] = {}  # of the middle of solid organs, whose codes come first
    sds: dict[int, float] = {0: 0.0}
    for code, box in enumerate(ndimage.find_objects(codes), 1):
        if not box:  # nothing has this code
            continue
        same = codes[box] == code
        difference = _difference(ct[box], same, max(NOISE_SCALE_MM / spacing_mm, 1.0))
        sds[code] = _sd(difference)
        limit = min(NOISE_SDS * sds[code], limits.get(code & _ID_BITS, 127.0))
        if code <= _ID_BITS:
            limits[code] = limit
        noise[box][same] = np.rint(difference.clip(-limit, limit)).astype(np.int8)
    return _plain(noise, codes, sds)


def _plain(noise: Int8Array, codes: _UInt16Array, sds: Mapping[int, float]) -> Int8Array:
    """Noise with that of the largest plain cube, mirrored over the volume, where a tissue's own shows structure.

    The cube lies in the middle of the solid organ that has the largest one. A case without any keeps its noise.
    """
    solid = [organ_id(o) for o in TUMOR_ORGANS if o not in HOLLOW]
    cubes = {code: _largest_cube(codes == code) for code in solid if code in sds}
    source = max(cubes, key=lambda code: cubes[code][1], default=0)
    if not source or cubes[source][1] < PLAIN_VOXELS:
        return noise
    corner, edge = cubes[source]
    cube = noise[slices3(corner, [c + edge for c in corner])]
    hollow = [organ_id(o) for o in HOLLOW]
    own = [code for code, sd in sds.items() if _is_plain(code, hollow) and sd <= PLAIN_SDS * sds[source]]
    x, y, z = (np.where(m < edge, m, 2 * edge - 1 - m) for m in (np.arange(n) % (2 * edge) for n in codes.shape))
    return np.where(_member(codes, own), noise, cube[np.ix_(x, y, z)])


def _is_plain(code: int, hollow: Sequence[int]) -> bool:
    """Whether a code is of no layer, and of no hollow organ."""
    return code < _LAYER and (code & _ID_BITS) not in hollow


def _member(codes: _UInt16Array, of: Sequence[int]) -> npt.NDArray[np.bool_]:
    table = np.zeros(int(codes.max()) + 1, bool)
    table[list(of)] = True
    return np.asarray(table[codes])


def _largest_cube(inside: npt.NDArray[np.bool_]) -> tuple[Index3, int]:
    """First voxel and edge (voxels) of the cube in the largest ball inside a mask."""
    box = ndimage.find_objects(inside.view(np.uint8))
    if not box:
        return (0, 0, 0), 0
    depth = edt.edt(inside[box[0]].view(np.uint8), black_border=True)
    deepest = np.unravel_index(int(depth.argmax()), depth.shape)
    half = int((float(depth.max()) - 1) / math.sqrt(3))
    middle = [int(d) + span.start for d, span in zip(deepest, box[0], strict=True)]
    return index3(m - half for m in middle), 2 * half + 1


def _difference(ct: Int16Array, same: npt.NDArray[np.bool_], sigma: float) -> _Float32Array:
    """HU minus the mean of the voxels around, in the voxels of one tissue, as a flat array."""
    weight = _smoothed(same.astype(np.float32), sigma, 2)
    total = _smoothed(np.where(same, ct, np.float32(0)), sigma, 2)
    return np.asarray(ct[same] - total[same] / weight[same], np.float32)


def _smoothed(values: _Float32Array, sigma: float, truncate: float = 4) -> _Float32Array:
    return np.asarray(ndimage.gaussian_filter(values, sigma, mode="constant", truncate=truncate), np.float32)


def _sd(noise: _Float32Array) -> float:
    """The SD of a Gaussian with the same median absolute value: outliers hardly move it."""
    return 1.4826 * float(np.median(np.abs(noise)))


def tissue_codes(
    ct: Int16Array, organs: UInt8Array, vessels: UInt8Array, surface_mm: Float16Array, spacing_mm: float
) -> _UInt16Array:
    """A number for each voxel, the same where the tissue is the same; 0 in the air around the body.

    A solid organ that takes tumors has its middle, two layers at its surface and two around its vessels; vessels have
    their outer voxels and the rest. All but the middle and the vessels with theirs is split by smoothed HU as well: the
    layers at surfaces, other organs, hollow organs (wall and content apart), background with two layers around organs.
    """
    smoothed = ndimage.gaussian_filter(ct.astype(np.float32), HU_SMOOTHING_MM / spacing_mm, truncate=2)
    codes = np.where(organs == 0, np.uint16(_BACKGROUND), organs.astype(np.uint16))
    codes += _layers(organs, vessels, surface_mm, spacing_mm)
    solid = np.isin(organs, [organ_id(o) for o in TUMOR_ORGANS if o not in HOLLOW])
    split = ~solid | ((codes >= _SURFACE) & (codes < _AT_VESSEL))
    codes[split] += np.uint16(_BIN)
    for limit in HU_BINS:
        codes[split & (smoothed >= limit)] += np.uint16(_BIN)
    codes[vessels > 0] = _VESSEL
    codes[_touching(vessels == 0)] = _VESSEL + _SURFACE
    codes[(organs == 0) & (smoothed < AIR_HU_BELOW)] = 0
    return codes


def _layers(organs: UInt8Array, vessels: UInt8Array, surface_mm: Float16Array, spacing_mm: float) -> _UInt16Array:
    """What to add to the codes near surfaces and vessels."""
    layers = np.zeros(organs.shape, np.uint16)
    first = _touching(organs > 0)
    layers[first] = _SURFACE
    layers[_touching((organs > 0) | first)] = _NEAR_SURFACE
    for organ in TUMOR_ORGANS:
        if box := organ_box(organs, organ):
            inside = organs[box] == organ_id(organ)
            if organ in HOLLOW:
                layers[box][inside & in_wall(surface_mm[box], spacing_mm)] = _SURFACE
            else:
                own = _solid_layers(vessels[box], surface_mm[box].astype(np.float32), spacing_mm)
                layers[box][inside] = own[inside]
    return layers


def _solid_layers(vessels: UInt8Array, depth_mm: _Float32Array, spacing_mm: float) -> _UInt16Array:
    layers = np.zeros(vessels.shape, np.uint16)
    for layer, voxels in ((_AROUND_VESSEL, max(1, round(VESSEL_EDGE_MM / spacing_mm))), (_AT_VESSEL, 1)):
        layers[ndimage.maximum_filter(vessels, 2 * voxels + 1) > 0] = layer
    layers[depth_mm <= EDGE_MM] = _NEAR_SURFACE
    layers[depth_mm <= 1.01 * spacing_mm] = _SURFACE
    return layers


def _touching(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Voxels outside that share a face with one inside."""
    grown = inside.copy()
    for axis in range(3):
        all_but_last, all_but_first = (tuple(s if a == axis else slice(None) for a in range(3)) for s in _SHIFTED)
        grown[all_but_last] |= inside[all_but_first]
        grown[all_but_first] |= inside[all_but_last]
    return grown & ~inside


def parenchyma(
    ct: Int16Array,
    organs: UInt8Array,
    vessels: UInt8Array,
    surface_mm: Float16Array,
    organ: str,
    stats: OrganStats,
    spacing_mm: float,
) -> Int16Array:
    """HU of an organ's tissue around each point of the grid of `parenchyma_shape`.

    A Gaussian mean of SD SHADING_MM over `tissue_mask`, within SHADING_HU of the organ's mean, which it falls back to
    where no tissue is near. Outliers are clipped out first, as bright vessels or fat in the mask would tint it.
    """
    cell = parenchyma_cell(spacing_mm)
    points = parenchyma_shape(ct.shape, spacing_mm)
    difference, share = np.zeros(points, np.float32), np.zeros(points, np.float32)
    if box := organ_box(organs, organ):
        tissue = tissue_mask(ct[box], organs[box], vessels[box], surface_mm[box], organ, spacing_mm)
        clipped = np.clip(ct[box] - np.float32(stats.mean_hu), -2 * stats.sd_hu, 2 * stats.sd_hu)
        _add_cells(difference, clipped * tissue, box, cell)
        _add_cells(share, tissue.astype(np.float32), box, cell)
    sigma = SHADING_MM / (cell * spacing_mm)
    local = _smoothed(difference, sigma) / (_smoothed(share, sigma) + SHADING_PRIOR * cell**3)
    local = local.clip(-SHADING_HU, SHADING_HU)
    return np.rint(stats.mean_hu + local).astype(np.int16)


def _add_cells(grid: _Float32Array, values: _Float32Array, box: Slices3, cell: int) -> None:
    """Sum the voxels of a box into the points of `grid` that they lie next to; point g lies at voxel g * cell."""
    low, high = [], []
    for axis, span in enumerate(box):
        points = (np.arange(span.start, span.stop) + cell // 2) // cell
        starts = np.flatnonzero(np.diff(points, prepend=points[0] - 1))
        values = np.add.reduceat(values, starts, axis=axis)
        low.append(int(points[0]))
        high.append(int(points[-1]) + 1)
    grid[slices3(low, high)] += values
