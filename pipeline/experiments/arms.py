"""The arms of a label-free experiment: which datasets each needs, how those are made, how it is trained. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.settings import ArmName, LabelFree
from pipeline.steps import switched_off

# Published ablations leave out the elastic deformation, the soft edge or the tiny class (Hu et al. 2023).
SMALL_MM = 10.0  # diameter; the published curve's small tumors have a radius of up to 5 mm
_LARGEST_MM = 60.0  # where the settings name no sizes; about the 99th percentile of LiTS lesions

SYNTHETIC = "synthetic"
HEALTHY_BANK, ANNOTATED_BANK = "bank", "annotated"


@dataclass(frozen=True)
class Made:
    """A dataset to generate: from which bank, how many samples, and the flags beside the shared settings."""

    name: str
    bank: str
    samples: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """One way to train. `curve` says on which curve it is a point, `amount` where on its x axis."""

    name: str
    title: str  # what it is trained on, for readers
    data: tuple[Made, ...]
    flags: tuple[str, ...] = ()  # of the training
    curve: Literal["", "diversity", "annotation"] = ""
    amount: int = 0  # unique samples, or annotated cases
    annotated: int = 0  # cases whose tumors somebody annotated


def arms_of(wanted: LabelFree, config: GenerateConfig, annotated: int) -> tuple[Arm, ...]:
    """All arms, `synthetic` first where it is one of them. `annotated` is how many annotated cases there are."""
    named = [_named(name, wanted, config, annotated) for name in wanted.chosen(annotated)]
    return (*named, *_diversity(wanted), *_annotation(wanted))


def _named(name: ArmName, wanted: LabelFree, config: GenerateConfig, annotated: int) -> Arm:
    stored = Made(SYNTHETIC, HEALTHY_BANK, wanted.samples)
    real = Made("real", ANNOTATED_BANK, wanted.samples)
    if name == "synthetic":
        return Arm(name, "synthetic tumors, stored", (stored,))
    if name == "on-the-fly":
        return Arm(name, "synthetic tumors, each sample seen once", (stored,), ("--endless", "1"))
    if name == "real":
        return Arm(name, "annotated real tumors alone", (real,), annotated=annotated)
    if name == "mixed":
        title = "annotated real and synthetic tumors"
        return Arm(name, title, (real, stored), _mix(wanted.annotated_share), annotated=annotated)
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


def _mix(share: float) -> tuple[str, ...]:
    return ("--mix", f"{share:g}", f"{1 - share:g}")


def _diversity(wanted: LabelFree) -> Iterator[Arm]:
    """Every sample is of split train, so that the number is that of the samples trained on."""
    all_train = ("--split-share.train", "1", "--split-share.val", "0", "--split-share.test", "0")
    for count in sorted(wanted.diversity):
        made = Made(f"diversity-{count}", HEALTHY_BANK, count, all_train)
        yield Arm(made.name, f"{count} unique synthetic samples", (made,), curve="diversity", amount=count)


def _annotation(wanted: LabelFree) -> Iterator[Arm]:
    stored = Made(SYNTHETIC, HEALTHY_BANK, wanted.samples)
    for count in sorted(wanted.annotation):
        name, cases = f"annotation-{count}", f"{count} annotated case{'s' if count > 1 else ''}"
        real = Made(name, f"{ANNOTATED_BANK}-{count}", wanted.samples)
        yield Arm(name, cases, (real,), curve="annotation", amount=count, annotated=count)
        mix = _mix(wanted.annotated_share)
        both = f"{cases} and synthetic tumors"
        yield Arm(f"{name}+synthetic", both, (real, stored), mix, "annotation", count, annotated=count)
