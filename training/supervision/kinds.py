"""Which kind of label each dataset of a training is seen as, and what does not go with which kind."""

from __future__ import annotations

from pipeline.errors import InputError
from pipeline.train_config import LabelKind, TrainConfig

# What these say holds for the patch as it was made: a turned box is no box, a zoomed tumor has not the reported size,
# and a crop may lose what a tag tells of.
FIXED: frozenset[LabelKind] = frozenset(("box", "tag", "report"))
_RESAMPLING = ("rotate_share", "zoom_share", "elastic_share")


def kinds_of(config: TrainConfig, datasets: int) -> tuple[LabelKind, ...]:
    """The kind of each dataset; InputError where the settings do not go together."""
    given: tuple[LabelKind, ...] = config.labels or ("mask",)
    if len(given) not in (1, datasets):
        raise InputError(
            f"labels names {len(given)} kinds ({' '.join(given)}) for {datasets} datasets: give one for all, or one "
            "for each"
        )
    kinds = given * datasets if len(given) == 1 else given
    weak = sorted({*kinds} - {"mask"})
    if weak and config.endless > 0:
        raise InputError(
            f"labels {' '.join(weak)} with endless {config.endless:g}: samples that are made on the fly have masks "
            "only. Generate a dataset and leave endless out"
        )
    _check_geometry(config, sorted(FIXED & {*kinds}))
    return kinds


def _check_geometry(config: TrainConfig, fixed: list[LabelKind]) -> None:
    """InputError when patches are changed so that boxes, tags and reports no longer hold."""
    if not fixed:
        return
    asked = [f"augment.{name} {value:g}" for name in _RESAMPLING if (value := getattr(config.augment, name)) > 0]
    asked += [f"crop_shape {config.crop_shape}"] if config.crop_shape else []
    if asked:
        off = " ".join(f"--augment.{name.replace('_', '-')} 0" for name in _RESAMPLING)
        raise InputError(
            f"labels {' '.join(fixed)} with {', '.join(asked)}: what these labels say of a patch would no longer hold. "
            f"Set {off} and leave crop_shape out; flips and intensities may change"
        )
