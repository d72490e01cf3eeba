"""What the two-sample classifier sees of a box: a few figures with a meaning, each in HU relative to local parenchyma.

In: a `Lesion` and a box in it. Out: a vector with the names of `FEATURES[kind]`; NaN where a figure does not exist.
Size, shape and place of the lesion are no features: they are reported by themselves.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.grid import Slices3
from training.realism.lesions import BoolArray, Float32Array, Lesion
from training.realism.regions import Kind
from training.realism.texture import lag_correlation, residual

PROFILE_EDGES_MM = np.arange(-6.0, 6.1, 2.0)  # depth bins of the edge profile, negative outside the lesion
LAGS_VOX = (1, 2, 3)
RIM_MM, CORE_MM = 2.0, 5.0  # the rim is less deep, the core deeper
GRADIENT_SMOOTH_MM = 1.0
MIN_VOXELS = 8  # for a mean; below it the figure is NaN

_BINS = [f"profile {low:+g} to {high:+g} mm (HU)" for low, high in itertools.pairwise(PROFILE_EDGES_MM)]
_COMMON = (
    "mean (HU)",
    "SD (HU)",
    "P10 (HU)",
    "P90 (HU)",
    *(f"autocorrelation at {lag} voxel{'s' if lag > 1 else ''}" for lag in LAGS_VOX),
    "noise ratio",
)
FEATURES: dict[Kind, tuple[str, ...]] = {
    "border": (*_COMMON, *_BINS, "edge step (HU/mm)", "edge gradient (HU/mm)", "core minus rim (HU)"),
    "inside": (*_COMMON, "structure SD (HU)", "skewness"),
}

Vector = npt.NDArray[np.float64]


class FeatureMaps:
    """The images that features of all boxes of one lesion are read from, computed once."""

    def __init__(self, lesion: Lesion) -> None:
        spacing = lesion.spacing_mm
        self.lesion = lesion
        self.relative = lesion.relative_hu
        self.residual = residual(lesion.hu, lesion.mask, spacing)
        self.smooth = self.relative - self.residual
        self.gradient = _gradient(lesion.hu, spacing)
        self.tissue_noise = float(residual(lesion.hu, lesion.parenchyma, spacing)[lesion.parenchyma].std())

    def vector(self, box: Slices3, kind: Kind) -> Vector:
        """The features of one box, in the order of `FEATURES[kind]`."""
        own = self._border(box) if kind == "border" else self._inside(box)
        return np.array([*self._common(box), *own], np.float64)

    def _common(self, box: Slices3) -> list[float]:
        """Values of the lesion's voxels in the box, and the grain of their residual."""
        mask, noise = self.lesion.mask[box], self.residual[box]
        values = self.relative[box][mask].astype(np.float64)
        if values.size < MIN_VOXELS:
            return [math.nan] * len(_COMMON)
        grain = [lag_correlation(noise, mask, lag) for lag in LAGS_VOX]
        ratio = float(noise[mask].std()) / self.tissue_noise if self.tissue_noise > 0 else math.nan
        low, high = np.percentile(values, (10, 90)).tolist()
        return [float(values.mean()), float(values.std()), low, high, *grain, ratio]

    def _border(self, box: Slices3) -> list[float]:
        lesion = self.lesion
        depth, values = lesion.depth_mm[box], self.relative[box]
        shown = lesion.deep[box]
        mean = partial(_mean, values, depth, shown)
        profile = [mean(low, high) for low, high in itertools.pairwise(PROFILE_EDGES_MM)]
        middle = len(profile) // 2
        step = (profile[middle] - profile[middle - 1]) / float(PROFILE_EDGES_MM[1] - PROFILE_EDGES_MM[0])
        edge = _mean(self.gradient[box], depth, shown, -1.0, 1.0)
        return [*profile, step, edge, mean(CORE_MM, math.inf) - mean(0.0, RIM_MM)]

    def _inside(self, box: Slices3) -> list[float]:
        values = self.relative[box][self.lesion.mask[box]].astype(np.float64)
        centered = values - values.mean()
        spread = float(values.std())
        skewness = float((centered**3).mean()) / spread**3 if spread > 0 else math.nan
        return [float(self.smooth[box][self.lesion.mask[box]].std()), skewness]


def edge_profile(lesion: Lesion, edges_mm: npt.NDArray[np.float64]) -> list[float | None]:
    """Mean HU relative to parenchyma in each depth bin of the lesion region; None for an empty one.

    Only where the lesion borders on its organ: at the organ's own surface the profile would be that of fat or air.
    """
    shown = lesion.deep
    bins = np.digitize(lesion.depth_mm[shown], edges_mm) - 1
    values = lesion.relative_hu[shown].astype(np.float64)
    inside = (bins >= 0) & (bins < len(edges_mm) - 1)
    count = np.bincount(bins[inside], minlength=len(edges_mm) - 1)
    total = np.bincount(bins[inside], weights=values[inside], minlength=len(edges_mm) - 1)
    return [t / n if n >= MIN_VOXELS else None for t, n in zip(total.tolist(), count.tolist(), strict=True)]


def _mean(values: Float32Array, depth: Float32Array, shown: BoolArray, low: float, high: float) -> float:
    """Mean where `shown` and the depth lies in [low, high); NaN of too few voxels."""
    chosen = values[shown & (depth >= low) & (depth < high)]
    return float(chosen.mean(dtype=np.float64)) if chosen.size >= MIN_VOXELS else math.nan


def _gradient(hu: Float32Array, spacing_mm: float) -> Float32Array:
    """Magnitude of the gradient in HU/mm, smoothed first."""
    sigma = GRADIENT_SMOOTH_MM / spacing_mm
    magnitude = ndimage.gaussian_gradient_magnitude(hu, sigma, mode="nearest", truncate=3.0) / spacing_mm
    return np.asarray(magnitude, np.float32)
