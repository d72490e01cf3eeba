"""What augmentation does to a sample, drawn before anything is done: settings, seed and position in, plain records out.

A draw depends on (seed, position of the sample in the global order) alone, whatever batch and rank the sample is in,
and takes the same numbers whether a change is on or off: switching one off leaves the others as they were. All of it is
on the host, so that a GPU is never waited for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from pipeline.organs import TUMOR_ORGANS, organ_id
from pipeline.train_config import AugmentConfig


class Purpose(IntEnum):
    """What numbers are drawn for; each purpose has its own stream of them."""

    CROP = 0
    AUGMENT = 1
    ORGANS = 2


class Movement(NamedTuple):
    """Where the voxels of a sample go, image and label alike."""

    flipped: tuple[int, ...] = ()  # axes, 0 to 2
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)  # about X, Y and Z
    magnification: float = 1.0
    displacement_vox: float = 0.0  # SD of a smooth random displacement
    displacement_seed: int = 0

    @property
    def resamples(self) -> bool:
        """Whether voxels come to lie between others."""
        return any(self.angles_deg) or self.magnification != 1 or self.displacement_vox > 0


class Appearance(NamedTuple):
    """What happens to the HU of a sample."""

    scale: float = 1.0  # contrast factor about the window's centre
    shift_hu: float = 0.0
    gamma: float = 1.0  # exponent of the grey values inside the window
    blur_vox: float = 0.0  # SD
    resolution: float = 1.0  # of the simulated scan, relative to the patch
    noise_sd_hu: float = 0.0
    noise_seed: int = 0
    organ_shifts_hu: Mapping[int, float] = {}  # by the organ's class id; its tumors shift along


def generator(seed: int, position: int, purpose: Purpose) -> np.random.Generator:
    """The host's generator of one sample; the key keeps it apart from other uses of a pair (seed, number)."""
    sequence = np.random.SeedSequence((seed, position), spawn_key=(purpose,))
    return np.random.Generator(np.random.PCG64(sequence))


def draw(config: AugmentConfig, seed: int, position: int) -> tuple[Movement, Appearance]:
    """All changes of one sample."""
    rng = generator(seed, position, Purpose.AUGMENT)
    return _movement(config, rng), _appearance(config, rng, _organ_shifts(config, seed, position))


def _movement(config: AugmentConfig, rng: np.random.Generator) -> Movement:
    flipped = [axis for axis, chance in enumerate(rng.random(3)) if chance < config.flip]
    rotates, zooms, bends = rng.random(3) < (config.rotate_share, config.zoom_share, config.elastic_share)
    x_deg, y_deg, z_deg = (float(angle) if rotates else 0.0 for angle in config.rotate_deg * rng.uniform(-1, 1, 3))
    magnification, seed = _log_uniform(rng, config.zoom), int(rng.integers(2**63))
    return Movement(
        tuple(flipped),
        (x_deg, y_deg, z_deg),
        magnification if zooms else 1.0,
        config.elastic_vox if bends else 0.0,
        seed,
    )


def _appearance(config: AugmentConfig, rng: np.random.Generator, organ_shifts: Mapping[int, float]) -> Appearance:
    scale, shift = rng.uniform(-1, 1, 2)
    shares = (config.gamma_share, config.blur_share, config.low_resolution_share)
    bends, blurs, coarsens = rng.random(3) < shares
    gamma, blur_vox = _log_uniform(rng, config.gamma), float(rng.uniform(*config.blur_vox))
    resolution, noise_sd_hu = float(rng.uniform(*config.low_resolution)), config.noise_hu * float(rng.random())
    return Appearance(
        1 + config.scale * float(scale),
        config.shift_hu * float(shift),
        gamma if bends else 1.0,
        blur_vox if blurs else 0.0,
        resolution if coarsens else 1.0,
        noise_sd_hu,
        int(rng.integers(2**63)),
        organ_shifts,
    )


def _organ_shifts(config: AugmentConfig, seed: int, position: int) -> Mapping[int, float]:
    """An offset for each organ that there is, in the sample or not, so that one does not depend on the others."""
    if config.organ_shift_hu == 0:
        return {}
    shifts = generator(seed, position, Purpose.ORGANS).uniform(-1, 1, len(TUMOR_ORGANS))
    return {organ_id(organ): config.organ_shift_hu * float(u) for organ, u in zip(TUMOR_ORGANS, shifts, strict=True)}


def _log_uniform(rng: np.random.Generator, between: tuple[float, float]) -> float:
    low, high = between
    return low * math.exp(float(rng.random()) * math.log(high / low))
