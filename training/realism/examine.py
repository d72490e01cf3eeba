"""One lesion into all that the report needs of it, so that its arrays can go."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from training.realism.definitions import SEED, SOFT_EDGE_MM
from training.realism.distances import FloatArray, quantiles
from training.realism.features import FEATURES, FeatureMaps, edge_profile
from training.realism.lesions import Lesion
from training.realism.pictures import Tile
from training.realism.regions import KINDS, Kind, boxes
from training.realism.shape import Shape, measure_shape
from training.realism.texture import correlation_length_mm

PROFILE_EDGES_MM = np.arange(-10.0, 15.1, 1.0)


@dataclass(frozen=True)
class Examined:
    """The facts of one lesion, or of a ball of healthy organ taken for one."""

    name: str
    case_id: str
    shape: Shape
    mean_hu: float
    parenchyma_hu: float
    voxels: FloatArray  # quantiles of HU minus parenchyma mean in the lesion
    parenchyma: FloatArray  # the same in the parenchyma
    length_mm: float | None  # correlation length in the lesion
    parenchyma_length_mm: float | None
    profile: list[float | None]  # mean HU minus parenchyma by depth bin
    features: dict[Kind, npt.NDArray[np.float64]] = field(repr=False)  # (boxes, features) by kind
    picture: Tile = field(repr=False)

    @property
    def contrast_hu(self) -> float:
        return self.mean_hu - self.parenchyma_hu

    @property
    def length_ratio(self) -> float | None:
        """Correlation length in the lesion over that in its parenchyma."""
        inside, around = self.length_mm, self.parenchyma_length_mm
        return inside / around if inside is not None and around else None

    def to_json(self) -> dict[str, Any]:
        """The figures of one lesion as `realism.json` lists them."""
        return {
            "name": self.name,
            "case_id": self.case_id,
            "diameter_mm": self.shape.diameter_mm,
            "sphericity": self.shape.sphericity,
            "box_fill": self.shape.box_fill,
            "extent_ratio": self.shape.extent_ratio,
            "mean_hu": self.mean_hu,
            "parenchyma_hu": self.parenchyma_hu,
            "contrast_hu": self.contrast_hu,
            "correlation_length_mm": self.length_mm,
            "parenchyma_correlation_length_mm": self.parenchyma_length_mm,
            "boxes": {kind: len(vectors) for kind, vectors in self.features.items()},
        }


def examine(lesion: Lesion) -> Examined:
    """Measure one lesion. Its boxes are drawn from the seed and its name, whatever was measured before."""
    rng = np.random.default_rng(np.random.SeedSequence((SEED, zlib.crc32(lesion.name.encode()))))
    maps, relative = FeatureMaps(lesion), lesion.relative_hu
    length = partial(correlation_length_mm, lesion.hu, spacing_mm=lesion.spacing_mm)
    vectors = {kind: [maps.vector(box, kind) for box in boxes(lesion, kind, rng)] for kind in KINDS}
    return Examined(
        name=lesion.name,
        case_id=lesion.case_id,
        shape=measure_shape(lesion.mask, lesion.spacing_mm),
        mean_hu=float(lesion.hu[lesion.mask].mean(dtype=np.float64)),
        parenchyma_hu=float(lesion.hu[lesion.parenchyma].mean(dtype=np.float64)),
        voxels=quantiles(relative[lesion.mask]),
        parenchyma=quantiles(relative[lesion.parenchyma]),
        length_mm=length(lesion.mask & (lesion.depth_mm >= SOFT_EDGE_MM)),
        parenchyma_length_mm=length(lesion.parenchyma),
        profile=edge_profile(lesion, PROFILE_EDGES_MM),
        features={kind: np.reshape(found, (-1, len(FEATURES[kind]))) for kind, found in vectors.items()},
        picture=lesion.picture,
    )
