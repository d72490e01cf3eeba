"""Settings of augmentation that several test modules share."""

from __future__ import annotations

from pipeline.train_config import AugmentConfig

NO_CHANGE = AugmentConfig(
    flip=0,
    rotate_share=0,
    zoom_share=0,
    scale=0,
    shift_hu=0,
    gamma_share=0,
    noise_hu=0,
    blur_share=0,
    low_resolution_share=0,
)
