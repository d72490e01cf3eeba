"""Which lesions the report shows: real ones at random, each beside the synthetic ones nearest to it in size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.realism.definitions import SEED
from training.realism.examine import Examined
from training.realism.matching import nearest_in_size
from training.realism.pictures import row_picture

ROWS = 5
SYNTHETIC_PER_ROW = 3
POOL = 12  # the nearest in size among which a row's synthetic lesions are drawn, so that no eye chooses

Picture = tuple[str, bytes]  # caption, PNG


def side_by_side(real: Sequence[Examined], synthetic: Sequence[Examined]) -> list[Picture]:
    """Pictures, one a real lesion: without and with outlines.

    No synthetic lesion is shown twice while there are others.
    """
    rng = np.random.default_rng(np.random.SeedSequence((SEED, 4)))
    left = list(range(len(synthetic)))
    pictures = []
    for k in rng.permutation(len(real))[:ROWS]:
        left = left if len(left) >= SYNTHETIC_PER_ROW else list(range(len(synthetic)))
        near = nearest_in_size(real[k].shape.diameter_mm, [synthetic[i].shape.diameter_mm for i in left])[:POOL]
        drawn = [left[near[j]] for j in rng.permutation(len(near))[:SYNTHETIC_PER_ROW]]
        left = [i for i in left if i not in drawn]
        pictures += _row(real[k], [synthetic[i] for i in drawn])
    return pictures


def _row(real: Examined, synthetic: Sequence[Examined]) -> list[Picture]:
    named = [("real", real), *(("synthetic", lesion) for lesion in synthetic)]
    tiles = [
        (f"{side}, {lesion.shape.diameter_mm:.0f} mm, {lesion.contrast_hu:+.0f} HU", lesion.picture)
        for side, lesion in named
    ]
    names = ", ".join(lesion.name for _, lesion in named)
    return [(names, row_picture(tiles, False)), ("The same, lesions marked", row_picture(tiles, True))]
