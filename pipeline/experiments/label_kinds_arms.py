"""The arms of a label-kinds experiment: the same samples seen as each kind of label, and mixtures. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.experiments.arms import ALL_TRAIN, HEALTHY_BANK, SYNTHETIC, Arm, Made, View, annotation_arms, mix
from pipeline.experiments.label_kinds_settings import LabelKinds, Mixture
from pipeline.train_config import LabelKind

TEST = "test"  # the dataset that is scored on
TITLES: dict[LabelKind, str] = {
    "mask": "every voxel of every tumor",
    "scribble": "strokes inside and along the border",
    "box": "a box about each tumor",
    "recist": "long and short axis of each tumor",
    "circle": "an ellipsoid of each tumor's axes and height",
    "point": "one voxel in each tumor",
    "tag": "whether the organ shows a tumor",
    "report": "what a report says: number, sizes, region",
}


def arms_of(wanted: LabelKinds, annotated: int) -> tuple[Arm, ...]:
    """All arms; `annotated` is how many annotated real cases there are, which --annotation counts then."""
    stored = Made(SYNTHETIC, HEALTHY_BANK, wanted.samples, ALL_TRAIN)
    kinds = [Arm(kind, TITLES[kind], (stored,), ("--labels", kind), labels=(kind,)) for kind in wanted.kinds]
    mixtures = [_mixture(mixture, stored, wanted.mask_share) for mixture in wanted.parsed_mixtures()]
    curve = annotation_arms(wanted, stored) if annotated else _fewer_masks(wanted, stored)
    return (*kinds, *mixtures, *curve)


def tested(wanted: LabelKinds, held_out: bool, seed: int) -> Made:
    """The dataset to score on: other samples, of other cases where some are held out. `seed` is that of training."""
    split, others = (TEST, "train") if held_out else ("train", TEST)
    flags = (f"--split-share.{split}", "1", "--split-share.val", "0", f"--split-share.{others}", "0")
    return Made(TEST, HEALTHY_BANK, wanted.test_samples, ("--seed", str(seed + 1), *flags))


def _mixture(mixture: Mixture, stored: Made, share: float) -> Arm:
    first, rest = _first(stored, mixture.samples), _rest(stored, mixture.samples)
    title = f"{first.samples} samples as {mixture.first}, {rest.samples} as {mixture.second}"
    labels = (mixture.first, mixture.second)
    name = f"{mixture.first}-{mixture.samples}+{mixture.second}"
    return Arm(name, title, (first, rest), ("--labels", *labels, *mix(share)), labels=labels)


def _fewer_masks(wanted: LabelKinds, stored: Made) -> Iterator[Arm]:
    for count in sorted(wanted.annotation):
        title = f"{count} sample{'s' if count > 1 else ''} as mask, no others"
        data = (_first(stored, count),)
        yield Arm(f"mask-{count}", title, data, ("--labels", "mask"), "masks", count, labels=("mask",))


def _first(stored: Made, count: int) -> View:
    """Samples come in no order of their contents, so the first ones are as good as any."""
    return View(f"{stored.name}-first-{count}", stored, f"index < {count}", count)


def _rest(stored: Made, count: int) -> View:
    return View(f"{stored.name}-from-{count}", stored, f"index >= {count}", stored.samples - count)
