"""What experiments train on: datasets, views of them, arms, and the annotation curve that they share. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.experiments.settings import Common
from pipeline.train_config import LabelKind

SYNTHETIC = "synthetic"  # the dataset that most arms are trained on
HEALTHY_BANK, ANNOTATED_BANK = "bank", "annotated"
# Every sample is of split train, so that the number is that of the samples trained on.
ALL_TRAIN = ("--split-share.train", "1", "--split-share.val", "0", "--split-share.test", "0")


@dataclass(frozen=True)
class Made:
    """A dataset to generate: from which bank, how many samples, and the flags beside the shared settings."""

    name: str
    bank: str
    samples: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """A dataset's samples that meet `where`."""

    name: str
    of: Made
    where: str
    samples: int


Data = Made | View


@dataclass(frozen=True)
class Arm:
    """One way to train. `curve` says on which curve it is a point, `amount` where on its x axis."""

    name: str
    title: str  # what it is trained on, for readers
    data: tuple[Data, ...]
    flags: tuple[str, ...] = ()  # of the training
    curve: Literal["", "diversity", "annotation", "masks"] = ""
    amount: int = 0  # unique samples, annotated cases, or samples with masks
    annotated: int = 0  # cases whose tumors somebody annotated
    labels: tuple[LabelKind, ...] = ()  # as what each of `data` is seen; empty: masks

    def weak(self) -> Iterator[Data]:
        """The datasets of which something else than masks is seen."""
        return (data for data, kind in zip(self.data, self.labels, strict=False) if kind != "mask")


def mix(share: float) -> tuple[str, ...]:
    """Flags of a training on two datasets of which the first has this share."""
    return ("--mix", f"{share:g}", f"{1 - share:g}")


def annotation_arms(wanted: Common, stored: Made) -> Iterator[Arm]:
    """So many annotated cases alone, and mixed with the samples of `stored`."""
    for count in sorted(wanted.annotation):
        name, cases = f"annotation-{count}", f"{count} annotated case{'s' if count > 1 else ''}"
        real = Made(name, f"{ANNOTATED_BANK}-{count}", wanted.samples)
        yield Arm(name, cases, (real,), curve="annotation", amount=count, annotated=count)
        both, shares = f"{cases} and synthetic tumors", mix(wanted.annotated_share)
        yield Arm(f"{name}+synthetic", both, (real, stored), shares, "annotation", count, annotated=count)
