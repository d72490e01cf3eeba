"""The arms of a label-free experiment: which datasets each needs, how those are made, how it is trained. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.arms import (
    ALL_TRAIN,
    ANNOTATED_BANK,
    HEALTHY_BANK,
    SYNTHETIC,
    Arm,
    Made,
    annotation_arms,
    mix,
)
from pipeline.experiments.settings import ArmName, LabelFree
from pipeline.steps import switched_off

# Published ablations leave out the elastic deformation, the soft edge or the tiny class (Hu et al. 2023).
SMALL_MM = 10.0  # diameter; the published curve's small tumors have a radius of up to 5 mm
_LARGEST_MM = 60.0  # where the settings name no sizes; about the 99th percentile of LiTS lesions


def arms_of(wanted: LabelFree, config: GenerateConfig, annotated: int) -> tuple[Arm, ...]:
    """All arms, `synthetic` first where it is one of them. `annotated` is how many annotated cases there are."""
    stored = Made(SYNTHETIC, HEALTHY_BANK, wanted.samples)
    named = [_named(name, wanted, config, stored, annotated) for name in wanted.chosen(annotated)]
    return (*named, *_diversity(wanted), *annotation_arms(wanted, stored))


def _named(name: ArmName, wanted: LabelFree, config: GenerateConfig, stored: Made, annotated: int) -> Arm:
    real = Made("real", ANNOTATED_BANK, wanted.samples)
    if name == "synthetic":
        return Arm(name, "synthetic tumors, stored", (stored,))
    if name == "on-the-fly":
        return Arm(name, "synthetic tumors, each sample seen once", (stored,), ("--endless", "1"))
    if name == "real":
        return Arm(name, "annotated real tumors alone", (real,), annotated=annotated)
    if name == "mixed":
        title = "annotated real and synthetic tumors"
        return Arm(name, title, (real, stored), mix(wanted.annotated_share), annotated=annotated)
    title, flags = _variant(name, wanted.organ, config)
    _check_differs(name, wanted.organ, config)
    return Arm(name, title, (Made(name, HEALTHY_BANK, wanted.samples, flags),))


def _variant(name: str, organ: str, config: GenerateConfig) -> tuple[str, tuple[str, ...]]:
    """Title, and the flags of `generate` that make another dataset of the same healthy cases."""
    left_out = config.without
    if name == "seed-paper":
        return "synthetic tumors as Hu et al. 2023 drew them", ("--presets", "seed-paper")
    if name == "no-shape":
        return "synthetic, smooth ellipsoids", ("--without", *_with(left_out, "lobulation", "deformation"))
    if name == "no-edge":
        return "synthetic, sharp edges", ("--without", *_with(left_out, "soft_edge"))
    low, high = config.tumors.of(organ).diameter_mm or (SMALL_MM, _LARGEST_MM)
    sizes = (max(low, SMALL_MM), max(high, SMALL_MM))
    flags = (f"--tumors.{organ}.diameter-mm", *(f"{size:g}" for size in sizes))
    return f"synthetic, sizes log-uniform from {SMALL_MM:g} mm", flags


def _check_differs(name: ArmName, organ: str, config: GenerateConfig) -> None:
    """InputError where the settings of `synthetic` are those of this arm already."""
    sizes = config.tumors.of(organ).diameter_mm
    same = {
        "seed-paper": config.presets == "seed-paper",
        "no-shape": {"lobulation", "deformation"} <= switched_off(config.without),
        "no-edge": "soft_edge" in switched_off(config.without),
        "no-small": sizes is not None and sizes[0] >= SMALL_MM,
    }
    if same[name]:
        raise InputError(
            f"the arm {name} is the same as synthetic with these settings of generation: name --arms without it, or "
            "change --generate-config"
        )


def _with(left_out: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*left_out, *more)))


def _diversity(wanted: LabelFree) -> Iterator[Arm]:
    for count in sorted(wanted.diversity):
        made = Made(f"diversity-{count}", HEALTHY_BANK, count, ALL_TRAIN)
        yield Arm(made.name, f"{count} unique synthetic samples", (made,), curve="diversity", amount=count)
